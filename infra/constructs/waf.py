"""A web ACL that stops one address from taking the whole edge."""

from __future__ import annotations

from aws_cdk import aws_wafv2 as wafv2
from constructs import Construct

WINDOW_SECONDS = 300


class RateRule(Construct):
    """Blocks an address above `limit` requests in WINDOW_SECONDS on the API stage `stage_arn`."""

    def __init__(self, scope: Construct, id: str, *, name: str, stage_arn: str, limit: int) -> None:
        super().__init__(scope, id)
        acl = wafv2.CfnWebACL(
            self,
            "Acl",
            name=name,
            scope="REGIONAL",
            default_action=wafv2.CfnWebACL.DefaultActionProperty(allow={}),
            visibility_config=_visible(name),
            rules=[
                wafv2.CfnWebACL.RuleProperty(
                    name="rate-per-address",
                    priority=0,
                    action=wafv2.CfnWebACL.RuleActionProperty(block={}),
                    visibility_config=_visible(f"{name}-rate-per-address"),
                    statement=wafv2.CfnWebACL.StatementProperty(
                        rate_based_statement=wafv2.CfnWebACL.RateBasedStatementProperty(
                            aggregate_key_type="IP",
                            limit=limit,
                            evaluation_window_sec=WINDOW_SECONDS,
                        )
                    ),
                )
            ],
        )
        wafv2.CfnWebACLAssociation(self, "OnStage", resource_arn=stage_arn, web_acl_arn=acl.attr_arn)


def _visible(metric: str) -> wafv2.CfnWebACL.VisibilityConfigProperty:
    return wafv2.CfnWebACL.VisibilityConfigProperty(
        cloud_watch_metrics_enabled=True, metric_name=metric, sampled_requests_enabled=True
    )
