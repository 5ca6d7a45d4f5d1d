"""API Gateway in front of the edge function: REST, because only REST streams (docs/decisions/0001)."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.acknowledge import acknowledge

STAGE = "live"
# TLS 1.3 with a key exchange that a quantum computer does not break, and 1.2 with forward secrecy for older clients. A
# handshake for a custom domain follows the policy of its API, so the domains have the same one.
SECURITY_POLICY = "SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09"
LOG_POLICY = "arn:<AWS::Partition>:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs"
# Space-separated on purpose: a metric filter reads numbers from it, and "-" where there is none does no harm.
ACCESS_LOG_FIELDS = {
    "request": "$context.requestId",
    "client": "$context.identity.sourceIp",
    "method": "$context.httpMethod",
    "path": "$context.path",
    "status": "$context.status",
    "first_content": "$context.integration.timeToFirstContent",
    "latency": "$context.responseLatency",
    "bytes": "$context.responseLength",
}


class StreamingApi(Construct):
    """One proxy for every path and method. `only_by_domain`: the execute-api address is switched off."""

    def __init__(
        self, scope: Construct, id: str, *, name: str, handler: lambda_.IFunction, only_by_domain: bool
    ) -> None:
        super().__init__(scope, id)
        self.access_log = logs.LogGroup(
            self, "AccessLog", retention=logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY
        )
        self.api = apigateway.RestApi(
            self,
            "Api",
            rest_api_name=name,
            endpoint_types=[apigateway.EndpointType.REGIONAL],
            disable_execute_api_endpoint=only_by_domain,
            cloud_watch_role=True,
            # It is the whole account's in this region: other APIs may have come to log through it.
            cloud_watch_role_removal_policy=RemovalPolicy.RETAIN,
            deploy_options=self._stage(),
        )
        self._secure()
        integration = apigateway.LambdaIntegration(
            handler,
            allow_test_invoke=False,
            response_transfer_mode=apigateway.ResponseTransferMode.STREAM,
            timeout=Duration.minutes(15),
        )
        methods = [
            self.api.root.add_method("ANY", integration),
            self.api.root.add_resource("{proxy+}").add_method("ANY", integration),
        ]
        self._explain(methods)

    def _stage(self) -> apigateway.StageOptions:
        return apigateway.StageOptions(
            stage_name=STAGE,
            logging_level=apigateway.MethodLoggingLevel.ERROR,
            access_log_destination=apigateway.LogGroupLogDestination(self.access_log),
            access_log_format=apigateway.AccessLogFormat.custom(" ".join(ACCESS_LOG_FIELDS.values())),
        )

    def _secure(self) -> None:
        """RestApi has no parameter for it yet; the resource below it has."""
        resource = self.api.node.default_child
        assert isinstance(resource, apigateway.CfnRestApi)
        resource.security_policy = SECURITY_POLICY
        resource.endpoint_access_mode = "STRICT"

    def _explain(self, methods: list[apigateway.Method]) -> None:
        acknowledge(
            self.api,
            APIG2="bodies are checked by the edge function, whose errors have the shape that OpenAI clients read",
            **{f"IAM4[Policy::{LOG_POLICY}]": "API Gateway asks for this very policy before it writes any log"},
        )
        for method in methods:
            acknowledge(
                method,
                APIG4="callers show an API key that the edge function checks, as OpenAI clients do",
                COG4="callers are programs with API keys, not people with a browser",
            )
