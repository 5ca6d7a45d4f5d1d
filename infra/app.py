"""The whole app: one global stack and one stage per region."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import App, Environment, Stage, Tags, Validations
from cdk_nag import AwsSolutionsChecks

from infra.layers import Layers, find_layers
from infra.local_profile import LocalProfile
from infra.settings import Deployment, load
from infra.stacks.edge import EdgeStack
from infra.stacks.global_ import GlobalStack
from infra.stacks.pool import PoolStack


def from_context() -> App:
    """The app that the context of the CDK command line asks for: `config` (a file) and `profile` (aws or local).

    Raises SettingsError or LayerMissing, whose text is one line for the operator.
    """
    app = App()
    deployment = load(Path(app.node.try_get_context("config")), app.node.try_get_context("profile") or "aws")
    compose(app, deployment, find_layers(deployment.profile))
    return app


def compose(app: App, deployment: Deployment, layers: Layers) -> None:
    """Put every stack of `deployment` into `app`."""
    GlobalStack(Stage(app, "global", env=Environment(region=deployment.home)), "shared", deployment=deployment)
    for region in deployment.regions:
        stage = Stage(app, region, env=Environment(region=region))
        EdgeStack(stage, "edge", deployment=deployment, region=region, layers=layers)
        if deployment.pools(region):
            PoolStack(stage, "pool", deployment=deployment, region=region)
    Tags.of(app).add("isochrone:service", deployment.name)
    if deployment.local:
        LocalProfile.apply(app)
    else:
        Validations.of(app).add_plugins(AwsSolutionsChecks(app))
