"""The admin function and its routes: keys are made and taken back by IAM identities, never by callers with a key."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.function_parts import LayerVersions, handler_code, own_log_group, own_role, table_arn
from infra.settings import Deployment
from isochrone.settings import table_name
from isochrone.stores.tables import DIRECTORY

# What operators lay down; tenants' own and the curated answers are not its business.
PARTITIONS = ("key", "policy")
ACTIONS = ("PutItem", "Query")
MEMORY_MB = 256
TIMEOUT = Duration.seconds(29)


class AdminFunction(Construct):
    """Function, its own role and its log group. `serve` opens its routes."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, layers: LayerVersions) -> None:
        super().__init__(scope, id)
        name = f"{deployment.name}-admin"
        log_group = own_log_group(self, name)
        role = own_role(self, log_group=log_group, deployment=deployment, table_actions={})
        role.add_to_policy(
            iam.PolicyStatement(
                actions=[f"dynamodb:{action}" for action in ACTIONS],
                resources=[table_arn(self, table_name(deployment.settings, DIRECTORY.name))],
                conditions={"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": list(PARTITIONS)}},
            )
        )
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=name,
            description="Isochrone: makes keys and takes them back, for IAM identities",
            runtime=lambda_.Runtime.PYTHON_3_13,
            architecture=lambda_.Architecture.ARM_64,
            handler="handler.handler",
            code=handler_code("admin", deployment),
            layers=[layers.by_name["core"], layers.by_name["dependencies"]],
            memory_size=MEMORY_MB,
            timeout=TIMEOUT,
            role=role,
            log_group=log_group,
            environment={"ISOCHRONE_CONFIG": "/var/task/isochrone.toml"},
        )
        acknowledge(self.function, L1="the wheels of its layer are built for this version")

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
