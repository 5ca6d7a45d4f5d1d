"""AWS WAF as its developer guide describes it, enough of it to judge a request by a web ACL of a template.

The managed rules are written down from "Baseline rule groups" of the guide
(docs.aws.amazon.com/waf/latest/developerguide/aws-managed-rule-groups-baseline.html): name, label, what is looked at,
the default action (Block for all of them), and examples of what is found. AWS keeps the exact patterns to itself; ours
find more than the examples, so what passes here is more likely to pass there, and no proof of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

# "Body inspection size limit" of API Gateway's stages, where the web ACL names no other; the rest is not looked at.
BODY_LIMIT = 16 * 1024


class Request(NamedTuple):
    """A request as the web ACL sees it. `rate`: requests of its address within the window."""

    method: str = "POST"
    path: str = "/v1/chat/completions"
    query: str = ""
    headers: tuple[tuple[str, str], ...] = (("host", "llm.example.com"), ("user-agent", "OpenAI/Python 2.8.1"))
    cookie: str = ""
    body: str = ""
    country: str = "DE"
    rate: int = 1

    def header(self, name: str) -> str:
        return dict(self.headers).get(name, "")


class ManagedRule(NamedTuple):
    """One rule of a managed group, whose action is Block. `finds` says whether it matches."""

    name: str
    label: str
    finds: Callable[[Request], bool]


def _path(request: Request) -> str:
    return unquote(request.path).lower()


def _query(request: Request) -> str:
    return unquote(request.query).lower()


def _headers(request: Request) -> str:
    return "\n".join(f"{name}: {value}" for name, value in request.headers).lower()


def _cookie(request: Request) -> str:
    return request.cookie.lower()


def _body(request: Request) -> str:
    return request.body.encode()[:BODY_LIMIT].decode(errors="ignore").lower()


XSS = re.compile(
    r"<script|<iframe|<svg|<img|<body|javascript:|\bon(error|load|click|mouseover)\s*=|document\.cookie|alert\("
)
LFI = re.compile(r"\.\./|\.\.\\|/etc/(passwd|shadow|hosts)|/proc/self|c:\\+windows")
RFI = re.compile(r"(https?|ftps?|file)://\d{1,3}(\.\d{1,3}){3}")
SSRF = re.compile(r"169\.254\.169\.254|latest/meta-data|instance-data")
JAVA = re.compile(r"java\.lang\.runtime|getruntime\(\)|class\.module\.classloader|processbuilder")
LOG4J = re.compile(r"\$\{jndi:|\$\{[^}]*:-j\}")
REACT = re.compile(r"__proto__|constructor:constructor")
EXTENSION = re.compile(r"\.(log|ini|conf|bak|cfg|sql|dat|key|pem)($|[&?/])")
EXPLOITABLE = re.compile(r"web-inf|/\.git|/\.env|/\.aws|/wp-config")
BOTS = re.compile(r"nessus|nmap|nikto|sqlmap|zgrab")


Part = tuple[str, str, Callable[[Request], str]]
"""How the names of rules and labels call a part of a request, and that part."""


def _rules(parts: Sequence[Part], name: str, pattern: re.Pattern[str]) -> Iterator[ManagedRule]:
    """One rule for each part that is searched for the pattern."""
    for suffix, label, part in parts:
        yield ManagedRule(f"{name}_{suffix}", f"{name}_{label}", _searching(part, pattern))


def _searching(part: Callable[[Request], str], pattern: re.Pattern[str]) -> Callable[[Request], bool]:
    return lambda request: bool(pattern.search(part(request)))


COOKIE = ("COOKIE", "Cookie", _cookie)
BODY = ("BODY", "Body", _body)
PATH = ("URIPATH", "URIPath", _path)
ARGUMENTS = ("QUERYARGUMENTS", "QueryArguments", _query)
STRING = ("QUERYSTRING", "QueryString", _query)
HEADER = ("HEADER", "Header", _headers)

MANAGED: dict[str, tuple[str, int, tuple[ManagedRule, ...]]] = {
    "AWSManagedRulesCommonRuleSet": (
        "core-rule-set",
        700,
        (
            ManagedRule("NoUserAgent_HEADER", "NoUserAgent_Header", lambda r: not r.header("user-agent")),
            ManagedRule(
                "UserAgent_BadBots_HEADER",
                "BadBots_Header",
                lambda r: bool(BOTS.search(r.header("user-agent").lower())),
            ),
            ManagedRule("SizeRestrictions_QUERYSTRING", "SizeRestrictions_QueryString", lambda r: len(r.query) > 2048),
            ManagedRule(
                "SizeRestrictions_Cookie_HEADER", "SizeRestrictions_Cookie_Header", lambda r: len(r.cookie) > 10_240
            ),
            ManagedRule("SizeRestrictions_BODY", "SizeRestrictions_Body", lambda r: len(r.body.encode()) > 8192),
            ManagedRule("SizeRestrictions_URIPATH", "SizeRestrictions_URIPath", lambda r: len(r.path) > 1024),
            *_rules((BODY, COOKIE, PATH, ARGUMENTS), "EC2MetaDataSSRF", SSRF),
            *_rules((ARGUMENTS, PATH, BODY), "GenericLFI", LFI),
            *_rules((PATH, ARGUMENTS), "RestrictedExtensions", EXTENSION),
            *_rules((ARGUMENTS, BODY, PATH), "GenericRFI", RFI),
            *_rules((COOKIE, ARGUMENTS, BODY, PATH), "CrossSiteScripting", XSS),
        ),
    ),
    "AWSManagedRulesKnownBadInputsRuleSet": (
        "known-bad-inputs",
        200,
        (
            *_rules((HEADER, BODY, PATH, STRING), "JavaDeserializationRCE", JAVA),
            ManagedRule("Host_localhost_HEADER", "Host_Localhost_Header", lambda r: "localhost" in r.header("host")),
            ManagedRule("PROPFIND_METHOD", "Propfind_Method", lambda r: r.method == "PROPFIND"),
            *_rules((PATH,), "ExploitablePaths", EXPLOITABLE),
            *_rules((HEADER, STRING, BODY, PATH), "Log4JRCE", LOG4J),
            *_rules((BODY,), "ReactJSRCE", REACT),
        ),
    ),
    "AWSManagedRulesAmazonIpReputationList": ("amazon-ip-list", 25, ()),
}


def looks_into_the_body(rule: ManagedRule) -> bool:
    """By the convention of AWS's names."""
    return rule.name.endswith("_BODY")


class WebAcl:
    """A web ACL of a template. `more` are rules that AWS adds to a managed group, by its name, before those it has."""

    def __init__(self, properties: dict[str, Any], more: dict[str, tuple[ManagedRule, ...]] | None = None) -> None:
        self.rules = sorted(properties["Rules"], key=lambda rule: rule["Priority"])
        self._more = more or {}

    @property
    def capacity(self) -> int:
        """In web ACL capacity units."""
        return sum(_capacity(rule["Statement"]) for rule in self.rules)

    def refuses(self, request: Request) -> str | None:
        """The name of the rule that blocks the request; None when it may pass."""
        labels: set[str] = set()
        for rule in self.rules:
            if self._blocks(rule, request, labels):
                name: str = rule["Name"]
                return name
        return None

    def _blocks(self, rule: dict[str, Any], request: Request, labels: set[str]) -> bool:
        group = rule["Statement"].get("ManagedRuleGroupStatement")
        if group is None:
            return _matches(rule["Statement"], request, labels) and "Block" in rule["Action"]
        return self._group_blocks(group, request, labels) and "None" in rule["OverrideAction"]

    def _group_blocks(self, group: dict[str, Any], request: Request, labels: set[str]) -> bool:
        """The rules of a group in their order; the first that blocks ends it, and those after it leave no label."""
        namespace, _, rules = MANAGED[group["Name"]]
        counting = {o["Name"] for o in group.get("RuleActionOverrides", ()) if "Count" in o["ActionToUse"]}
        for rule in (*self._more.get(group["Name"], ()), *rules):
            if rule.finds(request):
                labels.add(f"awswaf:managed:aws:{namespace}:{rule.label}")
                if rule.name not in counting:
                    return True
        return False


def _matches(statement: dict[str, Any], request: Request, labels: set[str]) -> bool:
    ((kind, said),) = statement.items()
    match kind:
        case "RateBasedStatement":
            return bool(request.rate > said["Limit"])
        case "GeoMatchStatement":
            return request.country in said["CountryCodes"]
        case "RegexMatchStatement":
            value = request.header(said["FieldToMatch"]["SingleHeader"]["Name"])
            return bool(re.search(said["RegexString"], value))
        case "LabelMatchStatement":
            return said["Key"] in labels
        case "OrStatement":
            return any(_matches(one, request, labels) for one in said["Statements"])
    raise NotImplementedError(kind)


def _capacity(statement: dict[str, Any]) -> int:
    """As "Web ACL capacity units" of the guide has it; a text transformation is counted even where it is NONE."""
    ((kind, said),) = statement.items()
    match kind:
        case "ManagedRuleGroupStatement":
            return MANAGED[said["Name"]][1]
        case "RateBasedStatement":
            return 2
        case "RegexMatchStatement":
            return 3 + 10 * len(said["TextTransformations"])
        case "OrStatement":
            return sum(map(_capacity, said["Statements"]))
    return 1
