"""The whole app: one global stack and one stage per region."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import App, Aspects, Environment, Stage, Tags, Validations
from cdk_nag import AwsSolutionsChecks

from infra.layers import Layers, find_layers
from infra.local_profile import LocalProfile
from infra.settings import Deployment, load
from infra.stacks.edge import EdgeStack
from infra.stacks.global_ import GlobalStack
from infra.stacks.pool import PoolStack


def from_context() -> App:
    """The app that the context of the CDK command line asks for: `config` (a file) and `profile` (aws or local).

    Raises SettingsError, LayerMissing or LayersTooLarge, whose text is one line for the operator.
    """
    app = App()
    deployment = load(
        Path(app.node.try_get_context("config") or "isochrone.toml"), app.node.try_get_context("profile") or "aws"
    )
    layers = find_layers(deployment.profile, semantic=deployment.semantic, extras=deployment.extras)
    compose(app, deployment, layers)
    return app


def compose(app: App, deployment: Deployment, layers: Layers) -> None:
    """Put every stack of `deployment` into `app`."""
    shared = _stage(app, "global", deployment.home, deployment)
    GlobalStack(shared, "shared", deployment=deployment, layers=layers)
    for region in deployment.regions:
        stage = _stage(app, region, region, deployment)
        EdgeStack(stage, "edge", deployment=deployment, region=region, layers=layers)
        if deployment.pools(region):
            PoolStack(stage, "pool", deployment=deployment, region=region)
    if not deployment.local:
        Validations.of(app).add_plugins(AwsSolutionsChecks(app))


def _stage(app: App, id: str, region: str, deployment: Deployment) -> Stage:
    """A stage with what applies to all its resources: tags and aspects of the app end at a stage's border."""
    stage = Stage(app, id, env=Environment(region=region))
    Tags.of(stage).add("isochrone:service", deployment.name)
    if deployment.local:
        Aspects.of(stage).add(LocalProfile())
    return stage
