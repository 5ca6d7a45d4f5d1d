"""Deploy the CDK app to the local cloud (MiniStack) with the real CDK command line.

`deploy()` works in every region of the configuration. When the emulator already holds exactly this app it only reads
the outputs (well under a second); a template that was made before is not made again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from infra import bundled_node
from infra.settings import Deployment, load
from isochrone.settings import SettingsError, table_name
from isochrone.stores.tables import TABLES, Table

ROOT = Path(__file__).resolve().parents[2]
CDK = ROOT / "node_modules/aws-cdk/bin/cdk"
ACCOUNT = "000000000000"
KEPT_ASSEMBLIES = 5
DONE = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
QUIET = ("--no-notices", "--no-version-reporting", "--no-color", "--ci")

# All that the templates and their assets are made from.
SOURCES = (
    *("app.py", "cdk.json", "infra", "functions", "layers/core/python/isochrone", "layers/streaming"),
    "build/layers/machine/dependencies/.complete",
)

_SILENT = {"AWS_EC2_METADATA_DISABLED": "true", "CDK_DISABLE_CLI_TELEMETRY": "true"}
_DEPLOYED = re.compile(r"^✅ .*?\(([\w-]+)\)")

Progress = Callable[[str], None]


class DeployError(Exception):
    """The app could not be deployed; the message is one line and names the log."""


class Edge(NamedTuple):
    """What one region's stack gives: `url` is the API as the emulator serves it."""

    region: str
    api_id: str
    url: str
    function: str
    alias_arn: str


class DeployResult(NamedTuple):
    edges: dict[str, Edge]
    changed: bool
    seconds: float


class Cloud(NamedTuple):
    """The emulator at `endpoint`."""

    endpoint: str

    def client(self, service: str, region: str) -> Any:
        return boto3.client(
            service,
            region_name=region,
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 - the emulator takes anything
            config=Config(connect_timeout=2, read_timeout=20, retries={"max_attempts": 1}),
        )

    def outputs(self, region: str, stack: str) -> dict[str, str] | None:
        """Outputs of a stack that stands; None when it does not (or not whole)."""
        try:
            found = self.client("cloudformation", region).describe_stacks(StackName=stack)["Stacks"][0]
        except ClientError:
            return None
        if found["StackStatus"] not in DONE:
            return None
        return {output["OutputKey"]: output["OutputValue"] for output in found.get("Outputs", [])}


def deploy(config: Path, endpoint: str, folder: Path, on_progress: Progress) -> DeployResult:
    """Deploy the app that `config` describes to the emulator at `endpoint` (http://host:port).

    Blocks for some seconds. `folder` gets the log and the templates. `on_progress` gets one short line per step.
    Raises DeployError.
    """
    started = time.monotonic()
    cloud = Cloud(endpoint)
    try:
        deployment = load(config, "local")
        digest = digest_of(config)
        changed = _deployed_digest(cloud, deployment) != digest
        if changed:
            _deploy_all(cloud, deployment, digest, folder, on_progress)
        edges = {region: _edge(cloud, deployment, region) for region in deployment.regions}
    except SettingsError as error:
        raise DeployError(str(error)) from None
    except (BotoCoreError, ClientError) as error:
        raise DeployError(f"the local cloud at {endpoint} does not answer as it should: {error}") from None
    except OSError as error:
        raise DeployError(f"{error.filename or 'deploy'}: {error.strerror}") from None
    return DeployResult(edges, changed, time.monotonic() - started)


def digest_of(config: Path, root: Path = ROOT) -> str:
    """Changes when, and only when, anything that the deployment is made from changes."""
    digest = hashlib.sha256(config.read_bytes())
    for file in _files(root / source for source in SOURCES):
        digest.update(str(file.relative_to(root)).encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _files(sources: Iterable[Path]) -> Iterator[Path]:
    for source in sources:
        if source.is_file():
            yield source
        elif source.is_dir():
            inside = (file for file in source.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
            yield from sorted(inside)


def _stacks(deployment: Deployment) -> dict[str, str]:
    """Name of every stack -> its region."""
    edges = {f"{deployment.name}-edge-{region}": region for region in deployment.regions}
    return {f"{deployment.name}-global": deployment.home, **edges}


def _digest_parameter(deployment: Deployment) -> str:
    """Where the emulator itself remembers what it holds: the two are kept, or lost, together."""
    return f"/{deployment.name}/local/digest"


def _deployed_digest(cloud: Cloud, deployment: Deployment) -> str | None:
    """The digest that the emulator remembers, if all the stacks still stand there."""
    try:
        parameter = cloud.client("ssm", deployment.home).get_parameter(Name=_digest_parameter(deployment))
    except ClientError:
        return None
    if any(cloud.outputs(region, stack) is None for stack, region in _stacks(deployment).items()):
        return None
    return str(parameter["Parameter"]["Value"])


def _deploy_all(cloud: Cloud, deployment: Deployment, digest: str, folder: Path, on_progress: Progress) -> None:
    log = folder / "log" / "deploy.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    assembly = folder / "cdk.out" / digest[:16]
    if not assembly.exists():
        on_progress("synthesising the templates")
        _synthesise(deployment, assembly, log)
    regions = [region for region in deployment.regions if cloud.outputs(region, "CDKToolkit") is None]
    if regions:
        on_progress(f"preparing {len(regions)} regions for the CDK")
        for region in regions:
            _drop_bucket(cloud.client("s3", region), f"cdk-hnb659fds-assets-{ACCOUNT}-{region}")
        _cdk(cloud, log, "bootstrap", "--app", str(assembly), *(f"aws://{ACCOUNT}/{region}" for region in regions))
    on_progress(f"deploying {len(_stacks(deployment))} stacks")
    options = ("--require-approval", "never", "--concurrency", "4")
    _cdk(cloud, log, "deploy", "**", "--app", str(assembly), *options, on_line=_stack_progress(on_progress))
    _finish_tables(cloud, deployment)
    cloud.client("ssm", deployment.home).put_parameter(
        Name=_digest_parameter(deployment), Value=digest, Type="String", Overwrite=True
    )


def _drop_bucket(s3: Any, bucket: str) -> None:
    """Remove a bucket that outlived its stack: an emulator that was killed keeps its files but not its state."""
    with suppress(ClientError):  # the usual case: there is none
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for found in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                s3.delete_object(Bucket=bucket, Key=found["Key"], VersionId=found["VersionId"])
        s3.delete_bucket(Bucket=bucket)


def _synthesise(deployment: Deployment, assembly: Path, log: Path) -> None:
    """Make the cloud assembly in the folder `assembly`, which is there only when it is whole."""
    partial = assembly.with_name(f"{assembly.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    context = ("--context", f"config={deployment.config.resolve()}", "--context", "profile=local")
    _cdk(None, log, "synth", "--quiet", "--lookups=false", "--output", str(partial), *context)
    partial.rename(assembly)
    _forget_old(assembly.parent)


def _forget_old(folder: Path) -> None:
    newest_first = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in newest_first[KEPT_ASSEMBLIES:]:
        shutil.rmtree(old, ignore_errors=True)


def _stack_progress(on_progress: Progress) -> Progress:
    def on_line(line: str) -> None:
        if stack := _DEPLOYED.search(line):
            on_progress(f"deployed {stack.group(1)}")

    return on_line


def _cdk(cloud: Cloud | None, log: Path, *arguments: str, on_line: Progress = lambda line: None) -> None:
    """Run the CDK command line, its output to `log`. Raises DeployError with the line that says why it failed."""
    node = bundled_node()
    if node is None or not CDK.exists():
        raise DeployError("the CDK command line is not installed: run `make install`")
    command = [str(node), str(CDK), *arguments, *QUIET]
    lines: list[str] = []
    with (
        log.open("a", encoding="utf-8") as file,
        subprocess.Popen(
            command, cwd=ROOT, env=_environment(cloud), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            lines.append(line.strip())
            on_line(lines[-1])
    if process.returncode != 0:
        raise DeployError(f"cdk {arguments[0]} failed: {_reason(lines)} (log: {log})")


def _environment(cloud: Cloud | None) -> dict[str, str]:
    """Ours, without anything that could lead to a real account."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_"))}
    node = bundled_node()
    path = os.pathsep.join(filter(None, (str(node.parent) if node else "", kept.get("PATH", ""))))
    return {**kept, "PATH": path, **_SILENT, **_credentials(cloud)}


def _credentials(cloud: Cloud | None) -> Mapping[str, str]:
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    if cloud is None:
        return nowhere
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
    return {**nowhere, **keys, "AWS_ENDPOINT_URL": cloud.endpoint}


def _reason(lines: list[str]) -> str:
    """The one line of the CDK's output that an operator needs."""
    said = [line for line in lines if line]
    for sign in ("isochrone: ", "❌", "failed: ", "Error", "error"):
        for line in said:
            if sign in line:
                return line.removeprefix("isochrone: ")
    return said[-1] if said else "it said nothing"


def _finish_tables(cloud: Cloud, deployment: Deployment) -> None:
    """What the emulator's CloudFormation leaves out of a table: TTL, vector index, and replicas in other regions."""
    for table in TABLES:
        name = table_name(deployment.settings, table.name)
        others = [region for region in deployment.regions if region != deployment.home]
        if table.scope == "global":
            _replicate(cloud.client("dynamodb", deployment.home), name, others)
        for region in deployment.regions:
            _expire(cloud.client("dynamodb", region), name, table)
            _index_vectors(cloud.client("dynamodb", region), name, table)


def _replicate(dynamodb: Any, name: str, regions: list[str]) -> None:
    replicas = dynamodb.describe_table(TableName=name)["Table"].get("Replicas", [])
    present = {replica["RegionName"] for replica in replicas}
    updates = [{"Create": {"RegionName": region}} for region in regions if region not in present]
    if updates:
        dynamodb.update_table(TableName=name, ReplicaUpdates=updates)


def _expire(dynamodb: Any, name: str, table: Table) -> None:
    if table.ttl is None:
        return
    found = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    if found["TimeToLiveStatus"] == "DISABLED":
        dynamodb.update_time_to_live(
            TableName=name, TimeToLiveSpecification={"Enabled": True, "AttributeName": table.ttl}
        )


def _index_vectors(dynamodb: Any, name: str, table: Table) -> None:
    """An index that is added takes some seconds to be filled; until then no similar question is found."""
    present = dynamodb.describe_table(TableName=name)["Table"].get("VectorIndexes", [])
    if table.vectors is None or present:
        return
    keys = [key for key in (table.partition_key, table.sort_key, table.vectors.partition) if key]
    dynamodb.update_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
        VectorIndexUpdates=[{"Create": index} for index in table.vector_indexes],
    )


def _edge(cloud: Cloud, deployment: Deployment, region: str) -> Edge:
    stack = f"{deployment.name}-edge-{region}"
    outputs = cloud.outputs(region, stack)
    if outputs is None:
        raise DeployError(f"stack {stack} does not stand in {region} after its deployment")
    api_id = outputs["ApiId"]
    # The emulator serves every API below its own address.
    url = f"{cloud.endpoint}/_aws/execute-api/{api_id}/live"
    return Edge(region, api_id, url, outputs["FunctionName"], outputs["FunctionAlias"])
