"""The app really deployed to the local cloud with the CDK command line, looked at from outside with boto3."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from isochrone.stores.tables import TABLES, Table
from local.deploy import ACCOUNT, Cloud, DeployError, DeployResult, deploy, digest_of

pytestmark = pytest.mark.cloud

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
NAME = "iso-deploy"  # other tests have tables in the same emulator

CONFIG = """
[service]
name = "iso-deploy"

[state]
kind = "dynamodb"
endpoint_url = "ENDPOINT"

[auth]
required = false

[[region]]
name = "us-east-1"
default = true

[[region]]
name = "eu-west-1"

[[region]]
name = "ap-southeast-1"

[[backend]]
name = "pool-eu"
region = "eu-west-1"
base_url = "http://127.0.0.1:9/v1"
api_key_secret = "iso-deploy/pool-eu"
models = { "smollm2-135m" = "smollm2-135m" }
"""


@pytest.fixture(scope="session")
def config(ministack: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deploy") / "isochrone.toml"
    path.write_text(CONFIG.replace("ENDPOINT", ministack))
    return path


@pytest.fixture(scope="session")
def deployed(ministack: str, config: Path) -> DeployResult:
    return deploy(config, ministack, config.parent, lambda line: None)


def _client(ministack: str, service: str, region: str) -> Any:
    return Cloud(ministack).client(service, region)


def test_first_deployment_reports_an_edge_for_every_region(deployed: DeployResult) -> None:
    assert deployed.changed
    assert tuple(deployed.edges) == REGIONS
    assert {edge.function for edge in deployed.edges.values()} == {f"{NAME}-edge"}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_table_stands_in_the_region_as_the_stores_expect_it(
    deployed: DeployResult, ministack: str, region: str, table: Table
) -> None:
    dynamodb = _client(ministack, "dynamodb", region)
    built = dynamodb.describe_table(TableName=f"{NAME}-{table.name}")["Table"]
    keys = {key["KeyType"]: key["AttributeName"] for key in built["KeySchema"]}
    assert keys == {"HASH": table.partition_key, **({"RANGE": table.sort_key} if table.sort_key else {})}
    expiry = dynamodb.describe_time_to_live(TableName=f"{NAME}-{table.name}")["TimeToLiveDescription"]
    assert expiry.get("AttributeName") == table.ttl
    assert len(built.get("Replicas", [])) == (2 if table.scope == "global" else 0)


def test_what_one_region_writes_to_the_directory_all_regions_read(deployed: DeployResult, ministack: str) -> None:
    item = {"pk": {"S": "key#1"}, "sk": {"S": "-"}}
    _client(ministack, "dynamodb", "us-east-1").put_item(TableName=f"{NAME}-directory", Item=item)
    for region in REGIONS:
        found = _client(ministack, "dynamodb", region).get_item(TableName=f"{NAME}-directory", Key=item)
        assert found["Item"] == item


@pytest.mark.parametrize("region", REGIONS)
def test_function_has_its_configuration_and_its_layers(deployed: DeployResult, ministack: str, region: str) -> None:
    lambda_ = _client(ministack, "lambda", region)
    function = lambda_.get_function_configuration(FunctionName=f"{NAME}-edge", Qualifier="live")
    assert function["Environment"]["Variables"] == {"ISOCHRONE_CONFIG": "isochrone.toml"}
    assert len(function["Layers"]) == 3
    assert function["Version"] != "$LATEST"


@pytest.mark.parametrize("region", REGIONS)
def test_deployed_edge_answers_through_the_api(deployed: DeployResult, region: str) -> None:
    with urllib.request.urlopen(f"{deployed.edges[region].url}/v1/models", timeout=30) as reply:
        assert reply.headers["x-isochrone-edge"] == region
        models = [model["id"] for model in json.load(reply)["data"]]
        assert [model for model in models if not model.startswith("edge/")] == ["smollm2-135m"]


@pytest.mark.parametrize("region", REGIONS)
def test_prober_is_called_each_minute(deployed: DeployResult, ministack: str, region: str) -> None:
    events = _client(ministack, "events", region)
    (rule,) = events.list_rules(NamePrefix=f"{NAME}-prober")["Rules"]
    assert (rule["ScheduleExpression"], rule["State"]) == ("rate(1 minute)", "ENABLED")
    (target,) = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    assert target["Arn"].endswith(f"{region}:{ACCOUNT}:function:{NAME}-prober")


def test_what_the_deployed_prober_sees_stands_in_the_table_of_its_region(
    deployed: DeployResult, ministack: str
) -> None:
    lambda_ = _client(ministack, "lambda", "eu-west-1")
    seen: dict[str, str] = {}
    while not seen:  # nothing is seen while the schedule's own round has the duty
        seen = json.load(lambda_.invoke(FunctionName=f"{NAME}-prober", Payload=b"{}")["Payload"])
    assert seen == {"pool-eu": "cannot be reached: Connection refused"}
    key = {"pk": {"S": "health"}, "sk": {"S": "document"}}
    found = _client(ministack, "dynamodb", "eu-west-1").get_item(TableName=f"{NAME}-fleet", Key=key)
    note = json.loads(found["Item"]["document"]["S"])["backends"]["pool-eu"]["probe"]["note"]
    assert (note["reached"], note["reason"]) == (False, "cannot be reached: Connection refused")


def test_keys_of_backends_stand_in_the_home_region(deployed: DeployResult, ministack: str) -> None:
    secret = _client(ministack, "secretsmanager", "us-east-1").get_secret_value(SecretId=f"{NAME}/pool-eu")
    assert len(secret["SecretString"]) == 48


def test_log_and_templates_are_in_the_folder_that_was_named_and_nowhere_else(
    deployed: DeployResult, config: Path
) -> None:
    assert f"{NAME}-edge-eu-west-1" in (config.parent / "log/deploy.log").read_text()
    (assembly,) = (config.parent / "cdk.out").iterdir()
    assert (assembly / "manifest.json").exists()


def test_unchanged_app_is_not_deployed_again(deployed: DeployResult, ministack: str, config: Path) -> None:
    said: list[str] = []
    again = deploy(config, ministack, config.parent, said.append)
    assert (again.changed, again.edges, said) == (False, deployed.edges, [])


def test_every_source_changes_the_digest(config: Path, tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    source = tmp_path / "infra/app.py"
    digests = set()
    for text in ("one", "two"):
        source.write_text(text)
        digests.add(digest_of(config, tmp_path))
    source.rename(tmp_path / "infra/renamed.py")
    digests.add(digest_of(config, tmp_path))
    assert len(digests) == 3


def test_bytecode_does_not_change_the_digest(config: Path, tmp_path: Path) -> None:
    (tmp_path / "infra/__pycache__").mkdir(parents=True)
    before = digest_of(config, tmp_path)
    (tmp_path / "infra/__pycache__/app.pyc").write_bytes(b"x")
    assert digest_of(config, tmp_path) == before


def test_cloud_that_is_not_there_is_one_line(config: Path, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"^the local cloud at http://127\.0\.0\.1:9 does not answer") as caught:
        deploy(config, "http://127.0.0.1:9", tmp_path, lambda line: None)
    assert "\n" not in str(caught.value)


def test_wrong_configuration_is_the_line_that_the_settings_give(tmp_path: Path) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text("[service]\nname = 3\n")
    with pytest.raises(DeployError, match=r"wrong\.toml:2: service\.name: expected str"):
        deploy(config, "http://127.0.0.1:9", tmp_path, lambda line: None)


def test_step_that_fails_names_the_reason_and_the_log(
    ministack: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(config.read_text() + "# not deployed yet\n")
    cdk = tmp_path / "cdk.js"
    cdk.write_text(
        "console.log('much'); console.log('❌  iso-edge failed: no room'); console.log('more'); process.exit(1)"
    )
    monkeypatch.setattr("local.deploy.CDK", cdk)
    with pytest.raises(DeployError, match=r"^cdk synth failed: ❌  iso-edge failed: no room \(log: .*deploy\.log\)$"):
        deploy(other, ministack, tmp_path, lambda line: None)


def test_command_line_that_is_not_installed_says_what_to_run(
    ministack: str, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.toml"
    other.write_text(config.read_text() + "# not deployed yet either\n")
    monkeypatch.setattr("local.deploy.CDK", tmp_path / "nothing")
    with pytest.raises(DeployError, match="is not installed: run `make install`"):
        deploy(other, ministack, tmp_path, lambda line: None)


def test_stack_that_is_gone_is_deployed_again(deployed: DeployResult, ministack: str, config: Path) -> None:
    cloudformation = _client(ministack, "cloudformation", "eu-west-1")
    cloudformation.delete_stack(StackName=f"{NAME}-edge-eu-west-1")
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName=f"{NAME}-edge-eu-west-1", WaiterConfig={"Delay": 1}
    )
    said: list[str] = []
    again = deploy(config, ministack, config.parent, said.append)
    assert again.changed
    assert f"deployed {NAME}-edge-eu-west-1" in said
    with urllib.request.urlopen(f"{again.edges['eu-west-1'].url}/healthz", timeout=30) as reply:
        assert reply.status == 200
