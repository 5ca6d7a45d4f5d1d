"""What every function here is made of: layers, and its code with the configuration."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

import jsii
from aws_cdk import AssetHashType, BundlingOptions, DockerImage, ILocalBundling
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.layers import LEFTOVERS, ROOT, Layers
from infra.settings import Deployment

# The layers that every function has: the program and its wheels.
PROGRAM = ("core", "dependencies")


class LayerVersions(Construct):
    """The layers of one stack, which its functions share, by name; `only` those of these names."""

    def __init__(self, scope: Construct, id: str, *, layers: Layers, only: Collection[str] = Layers._fields) -> None:
        super().__init__(scope, id)
        self.by_name = {
            name: lambda_.LayerVersion(
                self,
                name.capitalize(),
                code=lambda_.Code.from_asset(str(folder), exclude=list(LEFTOVERS)),
                compatible_runtimes=[lambda_.Runtime.PYTHON_3_13],
                compatible_architectures=[lambda_.Architecture.ARM_64],
                description=f"Isochrone: {name}",
            )
            for name, folder in layers._asdict().items()
            if folder is not None and name in only
        }


def handler_code(name: str, deployment: Deployment) -> lambda_.Code:
    """functions/<name> and the configuration, in one asset whose hash is that of its content."""
    folder = ROOT / "functions" / name
    return lambda_.Code.from_asset(
        str(folder),
        asset_hash_type=AssetHashType.OUTPUT,
        bundling=BundlingOptions(
            image=DockerImage.from_registry("scratch"), local=_HandlerAndConfiguration(folder, deployment)
        ),
    )


@jsii.implements(ILocalBundling)
class _HandlerAndConfiguration:
    """Puts both into the asset without a container, and the curated answers that the configuration names."""

    def __init__(self, folder: Path, deployment: Deployment) -> None:
        self._folder = folder
        self._config = deployment.config
        self._standards = deployment.standards

    def try_bundle(self, output_dir: str, *_args: object, **_options: object) -> bool:
        output = Path(output_dir)
        for source in sorted(self._folder.glob("*.py")):
            shutil.copyfile(source, output / source.name)
        shutil.copyfile(self._config, output / "isochrone.toml")
        if self._standards:
            (output / self._standards).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._config.parent / self._standards, output / self._standards)
        return True
