"""Everything that the local emulator (MiniStack) does otherwise than AWS, in this one place."""

from __future__ import annotations

import json
import platform

import jsii
from aws_cdk import IAspect, Stack
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_athena as athena
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_wafv2 as wafv2
from constructs import IConstruct

# It has no handler for these types.
UNSUPPORTED = (wafv2.CfnWebACLAssociation, route53.CfnHealthCheck, athena.CfnNamedQuery)
# Its API Gateway knows no STREAM transfer mode; a buffered integration may last this long.
BUFFERED_TIMEOUT_MS = 29_000
ARCHITECTURE = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"


@jsii.implements(IAspect)
class LocalProfile:
    """Adapts each resource as the tree is walked: the same app, minus what cannot work on this machine."""

    def visit(self, node: IConstruct) -> None:
        if isinstance(node, UNSUPPORTED):
            assert node.node.scope is not None
            node.node.scope.node.try_remove_child(node.node.id)
        elif isinstance(node, route53.CfnRecordSet):
            node.health_check_id = None
        elif isinstance(node, route53.CfnRecordSetGroup):
            node.add_property_deletion_override("RecordSets.0.HealthCheckId")
        elif isinstance(node, apigateway.CfnMethod):
            _buffer(node)
        elif isinstance(node, lambda_.CfnFunction):
            _run_here(node)
        elif isinstance(node, lambda_.CfnLayerVersion):
            node.compatible_architectures = [ARCHITECTURE]


def _buffer(method: apigateway.CfnMethod) -> None:
    integration = Stack.of(method).resolve(method.integration)
    text = json.dumps(integration["uri"])
    text = text.replace("2021-11-15", "2015-03-31").replace("response-streaming-invocations", "invocations")
    method.add_property_override("Integration.Uri", json.loads(text))
    method.add_property_override("Integration.TimeoutInMillis", BUFFERED_TIMEOUT_MS)
    method.add_property_deletion_override("Integration.ResponseTransferMode")


def _run_here(function: lambda_.CfnFunction) -> None:
    """The emulator runs a function in a folder of this machine, by its own Python, which knows no exec wrapper."""
    function.architectures = [ARCHITECTURE]
    function.add_property_override("Environment.Variables.ISOCHRONE_CONFIG", "isochrone.toml")
    function.add_property_deletion_override("Environment.Variables.AWS_LAMBDA_EXEC_WRAPPER")
