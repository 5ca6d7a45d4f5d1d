"""The statements of the web ACL, which never judge a prompt: no rule that blocks looks into a body.

A prompt about SQL, scripts or paths looks like an attack with them. AWS's managed rules that look into bodies would
block it, and AWS may add such rules at any time. So the managed groups only *count*: each of their rules leaves a label
on a request, and a rule of our own blocks by the labels of those that look at the path, the query, the headers, cookies
or the method. A rule that AWS adds tomorrow blocks nothing until it is named here.

Each known rule is set to count by itself, too: one that blocks ends the evaluation of its group, and whoever put an
attack into the body would so hide the one in the query.

Names and labels are those of the AWS WAF developer guide, "Baseline rule groups" and "IP reputation rule groups".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

LARGEST_BODY = 10_485_760  # API Gateway's own limit


class Group(NamedTuple):
    """A managed rule group: its label namespace, its rules by whether they block here (with their label) or count."""

    name: str
    namespace: str
    blocking: dict[str, str]
    counting: tuple[str, ...]

    @property
    def labels(self) -> list[str]:
        """The labels of the rules that block."""
        return [f"awswaf:managed:aws:{self.namespace}:{label}" for label in self.blocking.values()]


CORE = Group(
    "AWSManagedRulesCommonRuleSet",
    "core-rule-set",
    {
        "UserAgent_BadBots_HEADER": "BadBots_Header",
        "SizeRestrictions_QUERYSTRING": "SizeRestrictions_QueryString",
        "SizeRestrictions_Cookie_HEADER": "SizeRestrictions_Cookie_Header",
        "SizeRestrictions_URIPATH": "SizeRestrictions_URIPath",
        "EC2MetaDataSSRF_COOKIE": "EC2MetaDataSSRF_Cookie",
        "EC2MetaDataSSRF_URIPATH": "EC2MetaDataSSRF_URIPath",
        "EC2MetaDataSSRF_QUERYARGUMENTS": "EC2MetaDataSSRF_QueryArguments",
        "GenericLFI_QUERYARGUMENTS": "GenericLFI_QueryArguments",
        "GenericLFI_URIPATH": "GenericLFI_URIPath",
        "RestrictedExtensions_URIPATH": "RestrictedExtensions_URIPath",
        "RestrictedExtensions_QUERYARGUMENTS": "RestrictedExtensions_QueryArguments",
        "GenericRFI_QUERYARGUMENTS": "GenericRFI_QueryArguments",
        "GenericRFI_URIPATH": "GenericRFI_URIPath",
        "CrossSiteScripting_COOKIE": "CrossSiteScripting_Cookie",
        "CrossSiteScripting_QUERYARGUMENTS": "CrossSiteScripting_QueryArguments",
        "CrossSiteScripting_URIPATH": "CrossSiteScripting_URIPath",
    },
    (
        # Callers are programs, of which some say no name.
        "NoUserAgent_HEADER",
        "SizeRestrictions_BODY",
        "EC2MetaDataSSRF_BODY",
        "GenericLFI_BODY",
        "GenericRFI_BODY",
        "CrossSiteScripting_BODY",
    ),
)
KNOWN_BAD_INPUTS = Group(
    "AWSManagedRulesKnownBadInputsRuleSet",
    "known-bad-inputs",
    {
        "JavaDeserializationRCE_HEADER": "JavaDeserializationRCE_Header",
        "JavaDeserializationRCE_URIPATH": "JavaDeserializationRCE_URIPath",
        "JavaDeserializationRCE_QUERYSTRING": "JavaDeserializationRCE_QueryString",
        "Host_localhost_HEADER": "Host_Localhost_Header",
        "PROPFIND_METHOD": "Propfind_Method",
        "ExploitablePaths_URIPATH": "ExploitablePaths_URIPath",
        "Log4JRCE_HEADER": "Log4JRCE_Header",
        "Log4JRCE_QUERYSTRING": "Log4JRCE_QueryString",
        "Log4JRCE_URIPATH": "Log4JRCE_URIPath",
    },
    ("JavaDeserializationRCE_BODY", "Log4JRCE_BODY", "ReactJSRCE_BODY"),
)
GROUPS = (CORE, KNOWN_BAD_INPUTS)
REPUTATION = "AWSManagedRulesAmazonIpReputationList"

Statement = dict[str, Any]
"""A statement of AWS::WAFv2::WebACL."""


def rate_above(limit: int, *, window_seconds: int) -> Statement:
    """Addresses that sent more than `limit` requests within the window."""
    return {
        "RateBasedStatement": {"AggregateKeyType": "IP", "Limit": limit, "EvaluationWindowSec": window_seconds},
    }


def from_countries(codes: Sequence[str]) -> Statement:
    """Addresses in these countries (ISO 3166), as AWS's own GeoIP has them."""
    return {"GeoMatchStatement": {"CountryCodes": list(codes)}}


def announces_more_than(size: int) -> Statement:
    """Requests whose Content-Length is above `size` bytes. A web ACL cannot measure a body that is longer than the part
    it looks at; one without the header is for API Gateway (10 MB) and the edge to refuse."""
    return {
        "RegexMatchStatement": {
            "RegexString": number_above(size),
            "FieldToMatch": {"SingleHeader": {"Name": "content-length"}},
            "TextTransformations": [{"Priority": 0, "Type": "NONE"}],
        }
    }


def number_above(limit: int) -> str:
    """A regular expression for the decimal numbers above `limit`, leading zeros or not."""
    digits = str(limit)
    longer = rf"[1-9]\d{{{len(digits)},}}"
    larger = [
        rf"{digits[:i]}[{int(digit) + 1}-9]\d{{{len(digits) - i - 1}}}"
        for i, digit in enumerate(digits)
        if digit != "9"
    ]
    return rf"^0*({'|'.join([longer, *larger])})$"


def managed(name: str, *, counting: Sequence[str] = ()) -> Statement:
    """AWS's group of that name, with these of its rules only counted."""
    overrides = [{"Name": rule, "ActionToUse": {"Count": {}}} for rule in counting]
    return {
        "ManagedRuleGroupStatement": {
            "VendorName": "AWS",
            "Name": name,
            **({"RuleActionOverrides": overrides} if overrides else {}),
        }
    }


def counted(group: Group) -> Statement:
    """The group with each of its rules only leaving its label."""
    return managed(group.name, counting=(*group.blocking, *group.counting))


def labelled_as_attack() -> Statement:
    """Requests on which a rule that looks elsewhere than into the body left its label."""
    labels = [label for group in GROUPS for label in group.labels]
    return {
        "OrStatement": {"Statements": [{"LabelMatchStatement": {"Scope": "LABEL", "Key": label}} for label in labels]}
    }
