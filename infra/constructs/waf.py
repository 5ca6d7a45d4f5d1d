"""The web ACL in front of an edge: what it blocks, and in which words. What it looks at: `waf_rules`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from aws_cdk import aws_wafv2 as wafv2
from constructs import Construct

from infra.constructs import waf_rules
from infra.constructs.waf_rules import Statement
from infra.settings import Deployment

WINDOW_SECONDS = 300
WINDOW_IN_WORDS = "5 minutes"
# What samples and logs of the web ACL would tell about callers beyond what a rule needs.
SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization", "x-amz-security-token", "x-api-key")
PROTECTED = (
    {"Field": {"FieldType": "SINGLE_HEADER", "FieldKeys": [*SECRET_HEADERS]}, "Action": "SUBSTITUTION"},
    {"Field": {"FieldType": "QUERY_STRING"}, "Action": "SUBSTITUTION"},
    {"Field": {"FieldType": "BODY"}, "Action": "SUBSTITUTION"},
)


class Refusal(NamedTuple):
    """What a caller is told whom a rule blocks, in the shape of docs/http.md."""

    status: int
    type: str
    code: str
    message: str
    wait: int | None = None

    @property
    def body(self) -> str:
        error = {"message": self.message, "type": self.type, "code": self.code, "param": None}
        return json.dumps({"error": error}, separators=(",", ":"))


class Rule(NamedTuple):
    """Blocks what the statement matches with `refusal`. Without one it is a managed group, which `only_counts` or does
    as its own rules say."""

    name: str
    statement: Statement
    refusal: Refusal | None = None
    only_counts: bool = False

    @property
    def verdict(self) -> dict[str, Any]:
        """What happens to a request that it matches."""
        if self.refusal is None:
            return {"OverrideAction": {"Count" if self.only_counts else "None": {}}}
        said = {"ResponseCode": self.refusal.status, "CustomResponseBodyKey": self.name}
        if self.refusal.wait:
            said["ResponseHeaders"] = [{"Name": "retry-after", "Value": str(self.refusal.wait)}]
        return {"Action": {"Block": {"CustomResponse": said}}}


class WebAcl(Construct):
    """The rules that `[waf]` and `[limits]` ask for, on the API stage `stage_arn`. `name` is its metrics' dimension."""

    def __init__(self, scope: Construct, id: str, *, name: str, stage_arn: str, deployment: Deployment) -> None:
        super().__init__(scope, id)
        self.name = name
        chosen = list(rules(deployment))
        acl = wafv2.CfnWebACL(
            self,
            "Acl",
            name=name,
            scope="REGIONAL",
            default_action=wafv2.CfnWebACL.DefaultActionProperty(allow={}),
            visibility_config=wafv2.CfnWebACL.VisibilityConfigProperty(
                cloud_watch_metrics_enabled=True, metric_name=name, sampled_requests_enabled=True
            ),
        )
        acl.add_property_override("DataProtectionConfig.DataProtections", list(PROTECTED))
        for rule in chosen:
            if rule.refusal:
                body = {"Content": rule.refusal.body, "ContentType": "APPLICATION_JSON"}
                acl.add_property_override(f"CustomResponseBodies.{rule.name}", body)
        acl.add_property_override("Rules", [self._written(rule, priority) for priority, rule in enumerate(chosen)])
        wafv2.CfnWebACLAssociation(self, "OnStage", resource_arn=stage_arn, web_acl_arn=acl.attr_arn)

    def _written(self, rule: Rule, priority: int) -> dict[str, Any]:
        return {
            "Name": rule.name,
            "Priority": priority,
            "Statement": rule.statement,
            **rule.verdict,
            "VisibilityConfig": {
                "CloudWatchMetricsEnabled": True,
                "MetricName": f"{self.name}-{rule.name}",
                "SampledRequestsEnabled": True,
            },
        }


def rules(deployment: Deployment) -> Iterator[Rule]:
    """In their order: those that cost least first."""
    waf, limits = deployment.settings.waf, deployment.settings.limits
    limit = limits.requests_per_5_minutes_per_address
    yield Rule(
        "rate-per-address",
        waf_rules.rate_above(limit, window_seconds=WINDOW_SECONDS),
        Refusal(
            429,
            "rate_limit_error",
            "address_over_limit",
            f"This address sent more than {limit} requests in {WINDOW_IN_WORDS}. Wait, then send fewer.",
            wait=60,
        ),
    )
    if waf.block_countries:
        yield Rule("country", waf_rules.from_countries(waf.block_countries), _forbidden("from your country"))
    if limits.body_bytes < waf_rules.LARGEST_BODY:
        yield Rule("body-size", waf_rules.announces_more_than(limits.body_bytes), _too_large(limits.body_bytes))
    if waf.reputation:
        yield Rule("reputation", waf_rules.managed(waf_rules.REPUTATION))
    if waf.managed:
        for group in waf_rules.GROUPS:
            yield Rule(group.namespace, waf_rules.counted(group), only_counts=True)
        yield Rule(
            "attack-outside-the-body", waf_rules.labelled_as_attack(), _forbidden("with this path, query or headers")
        )


def _forbidden(why: str) -> Refusal:
    return Refusal(403, "permission_error", "refused_by_firewall", f"Requests {why} are not accepted here.")


def _too_large(size: int) -> Refusal:
    return Refusal(413, "invalid_request_error", "body_too_large", f"The body is larger than {size} bytes.")
