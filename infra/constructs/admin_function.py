"""The admin function and its routes: keys are made and taken back by IAM identities, never by callers with a key."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_apigateway as apigateway
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.function_parts import LayerVersions
from infra.constructs.own_function import OwnFunction
from infra.constructs.rights import partitions_use
from infra.settings import Deployment
from isochrone.stores.tables import DIRECTORY

# Policies, curated answers and what tenants lay down are not its business.
PARTITIONS = ("key",)
ACTIONS = ("PutItem", "Query")
MEMORY_MB = 256
TIMEOUT = Duration.seconds(29)


class AdminFunction(OwnFunction):
    """The function; `serve` opens its routes."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, layers: LayerVersions) -> None:
        super().__init__(
            scope,
            id,
            "admin",
            "makes keys and takes them back, for IAM identities",
            deployment=deployment,
            layers=layers,
            may=partitions_use(scope, deployment, DIRECTORY.name, PARTITIONS, ACTIONS),
            memory_mb=MEMORY_MB,
            timeout=TIMEOUT,
        )

    def serve(self, api: apigateway.RestApi) -> None:
        """Open /admin/... of the API to identities of this account that may `execute-api:Invoke` it, and to nobody
        else: no policy of the API lets in another account."""
        method = (
            api.root.add_resource("admin")
            .add_resource("{proxy+}")
            .add_method(
                "ANY",
                apigateway.LambdaIntegration(self.function, allow_test_invoke=False),
                authorization_type=apigateway.AuthorizationType.IAM,
            )
        )
        acknowledge(method, COG4="operators come with IAM identities, not as people with a browser")
