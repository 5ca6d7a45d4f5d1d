"""With `state.kms_key` every copy of every table is encrypted with the operator's key, and nobody else may use it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.settings import load
from isochrone.settings import SettingsError
from isochrone.stores.tables import TABLES
from tests.infra.conftest import BASE, Synthesis, Synthesise, Template, function_of, resources

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
KEY = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234567890abcdef1234567890abcdef"
ENCRYPTED = BASE.replace('kind = "dynamodb"', f'kind = "dynamodb"\nkms_key = "{KEY}"')
USES = ["Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext"]
USES += ["ReEncryptFrom", "ReEncryptTo"]


@pytest.fixture(scope="session")
def encrypted(synthesise: Synthesise) -> Synthesis:
    return synthesise(ENCRYPTED)


def key_in(region: str) -> str:
    return KEY.replace("us-east-1", region)


def key_statements(template: Template, name: str) -> list[dict[str, Any]]:
    """What the role of that function may do with keys."""
    role = function_of(template, name)["Role"]["Fn::GetAtt"][0]
    policies = [policy for policy in resources(template, "AWS::IAM::Policy") if {"Ref": role} in policy["Roles"]]
    statements = [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]
    return [statement for statement in statements if "kms:" in json.dumps(statement["Action"])]


def test_every_copy_of_every_table_is_encrypted_with_the_key_of_its_region(encrypted: Synthesis) -> None:
    seen = set()
    for template in encrypted.templates.values():
        for table in resources(template, "AWS::DynamoDB::GlobalTable"):
            assert table["SSESpecification"] == {"SSEEnabled": True, "SSEType": "KMS"}
            for replica in table["Replicas"]:
                assert replica["SSESpecification"] == {"KMSMasterKeyId": key_in(replica["Region"])}
                seen.add((table["TableName"], replica["Region"]))
    assert seen == {(f"iso-{table.name}", region) for table in TABLES for region in REGIONS}


def test_keys_of_backends_are_encrypted_with_it_too_in_every_region(encrypted: Synthesis) -> None:
    secrets = list(resources(encrypted.templates["iso-global"], "AWS::SecretsManager::Secret"))
    assert len(secrets) == 2
    for secret in secrets:
        assert secret["KmsKeyId"] == KEY
        copies = {copy["Region"]: copy["KmsKeyId"] for copy in secret["ReplicaRegions"]}
        assert copies == {region: key_in(region) for region in REGIONS[1:]}


def test_pool_node_may_use_the_key_to_read_its_secret_and_for_nothing_else(encrypted: Synthesis) -> None:
    (pool,) = [template for name, template in encrypted.templates.items() if "-pool-" in name]
    policies = [policy["PolicyDocument"] for policy in resources(pool, "AWS::IAM::Policy")]
    statements = [s for policy in policies for s in policy["Statement"] if "kms:" in json.dumps(s["Action"])]
    assert statements == [reading("eu-west-1"), reading("us-east-1")], "that of the region where it is rotated, too"


def reading(region: str) -> dict[str, Any]:
    """The right to decrypt what Secrets Manager has in that region."""
    return {
        "Effect": "Allow",
        "Action": "kms:Decrypt",
        "Resource": key_in(region),
        "Condition": {"StringEquals": {"kms:ViaService": through("secretsmanager", region)}},
    }


def through(service: str, region: str) -> dict[str, Any]:
    return {"Fn::Join": ["", [f"{service}.{region}.", {"Ref": "AWS::URLSuffix"}]]}


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize(("name", "elsewhere"), [("edge", {"us-east-1"}), ("prober", set())])
def test_function_may_use_the_key_only_through_dynamodb_and_only_where_it_has_a_table(
    encrypted: Synthesis, name: str, elsewhere: set[str], region: str
) -> None:
    """The edge takes slots in us-east-1, from every region."""
    statements = [s for s in key_statements(encrypted.edge(region), name) if s != reading(region)]
    assert {statement["Resource"] for statement in statements} == {key_in(where) for where in {region, *elsewhere}}
    for statement in statements:
        where = statement["Resource"].split(":")[3]
        assert statement["Condition"] == {"StringEquals": {"kms:ViaService": through("dynamodb", where)}}
        assert statement["Action"] == [f"kms:{use}" for use in USES]


def test_only_who_reads_secrets_may_decrypt_them(encrypted: Synthesis) -> None:
    readers = [reading("eu-west-1") in key_statements(encrypted.edge(), name) for name in ("edge", "prober")]
    assert readers == [True, False]


def test_without_a_key_dynamodbs_own_encrypts_and_nobody_may_use_another(app: Synthesis) -> None:
    text = "".join(path.read_text() for path in app.files())
    assert "kms:" not in text
    assert "SSESpecification" not in text


def test_emulator_has_no_such_key(synthesise: Synthesise) -> None:
    assert KEY.partition("/")[2] not in "".join(path.read_text() for path in synthesise(ENCRYPTED, "local").files())


def configured(tmp_path: Path, key: str, *, regions: int = 3) -> Path:
    """The configuration with this key and so many of its regions, the first ones."""
    head, *tables = BASE.replace('kind = "dynamodb"', f'kind = "dynamodb"\nkms_key = "{key}"').split("[[region]]")
    last, backends = tables[-1].split("[[backend]]", 1)
    chosen = [*tables[:-1], last][:regions]
    text = "[[region]]".join([head.replace("create = true", "create = false"), *chosen]) + "\n[[backend]]" + backends
    config = tmp_path / "mine.toml"
    config.write_text(text)
    return config


SINGLE = KEY.replace("mrk-1234567890abcdef1234567890abcdef", "12345678-1234-1234-1234-123456789012")


def test_key_of_one_region_for_tables_in_three_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(configured(tmp_path, SINGLE))
    complaint = "state.kms_key: is in us-east-1 only, and there are tables in eu-west-1, ap-southeast-1: name a multi"
    assert complaint in str(caught.value)


def test_key_of_the_only_region_may_be_of_that_region_alone(tmp_path: Path) -> None:
    assert load(configured(tmp_path, SINGLE, regions=1)).kms_key == SINGLE


@pytest.mark.parametrize("key", ["alias/mine", KEY.replace(":key/", ":alias/"), KEY.replace("kms", "s3")])
def test_what_is_not_the_arn_of_a_key_is_told(tmp_path: Path, key: str) -> None:
    with pytest.raises(SettingsError, match=r"mine\.toml:\d+: state\.kms_key: "):
        load(configured(tmp_path, key))


def test_who_may_use_a_table_may_use_the_key_that_encrypts_it_there_and_nobody_else_may(encrypted: Synthesis) -> None:
    for name, template in encrypted.templates.items():
        for policy in resources(template, "AWS::IAM::Policy"):
            statements = policy["PolicyDocument"]["Statement"]
            keyed = {s["Resource"] for s in statements if "dynamodb." in json.dumps(s.get("Condition"))}
            used = "".join(json.dumps(s["Resource"]) for s in statements if "dynamodb:" in json.dumps(s["Action"]))
            tables = {key_in(region) for region in REGIONS if f":dynamodb:{region}:" in used}
            assert keyed == tables, (name, policy["Roles"])
