"""The audit log on AWS: who may write it, how long it stays, and how it is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infra.constructs.audit import COLUMNS, QUERIES
from isochrone.audit.chain import Chain
from isochrone.audit.entry import AuditEntry, Flag
from tests.infra.conftest import BASE, Synthesis, Synthesise, Template, actions_of, only, resources

AUDITED = BASE + '\n[audit]\nto = "firehose"\ndays = 90\n'
KEY = "arn:aws:kms:us-east-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab"


@pytest.fixture
def edge(synthesise: Synthesise) -> Template:
    return synthesise(AUDITED).edge()


def _statements(template: Template, action: str) -> list[dict[str, Any]]:
    """Those that allow this action to a role."""
    return [
        statement
        for policy in resources(template, "AWS::IAM::Policy")
        for statement in policy["PolicyDocument"]["Statement"]
        if action in actions_of(statement)
    ]


def test_without_it_nothing_is_built_and_nothing_may_be_written(app: Synthesis) -> None:
    text = json.dumps(app.edge())
    assert "Firehose" not in text
    assert "firehose:" not in text
    assert "AWS::S3::Bucket" not in text


def test_bucket_is_private_encrypted_and_versioned_and_stays_with_the_account(edge: Template) -> None:
    bucket = only(edge, "AWS::S3::Bucket")
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    encryption = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]
    assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    (resource,) = [r for r in edge["Resources"].values() if r["Type"] == "AWS::S3::Bucket"]
    assert resource["DeletionPolicy"] == "RetainExceptOnCreate"
    assert "ObjectLockEnabled" not in bucket


def test_entries_are_deleted_after_their_days_and_what_was_replaced_a_week_later(edge: Template) -> None:
    (rule,) = only(edge, "AWS::S3::Bucket")["LifecycleConfiguration"]["Rules"]
    assert (rule["ExpirationInDays"], rule["NoncurrentVersionExpiration"]["NoncurrentDays"]) == (90, 7)


def test_default_is_thirty_days(synthesise: Synthesise) -> None:
    edge = synthesise(BASE + '\n[audit]\nto = "firehose"\n').edge()
    (rule,) = only(edge, "AWS::S3::Bucket")["LifecycleConfiguration"]["Rules"]
    assert rule["ExpirationInDays"] == 30


def test_object_lock_lets_nobody_change_an_entry_before_its_days_are_over(synthesise: Synthesise) -> None:
    bucket = only(synthesise(AUDITED + "object_lock = true\n").edge(), "AWS::S3::Bucket")
    assert bucket["ObjectLockEnabled"] is True
    retention = bucket["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
    assert retention == {"Days": 90, "Mode": "COMPLIANCE"}


def test_nobody_but_firehose_writes_or_deletes_and_nobody_without_tls(edge: Template) -> None:
    statements = only(edge, "AWS::S3::BucketPolicy")["PolicyDocument"]["Statement"]
    assert {statement["Effect"] for statement in statements} == {"Deny"}
    (writers,) = [s for s in statements if "s3:PutObject" in s["Action"]]
    assert {"s3:DeleteObject", "s3:DeleteObjectVersion"} < set(writers["Action"])
    allowed = writers["Condition"]["ArnNotEquals"]["aws:PrincipalArn"]["Fn::GetAtt"][0]
    assumed = edge["Resources"][allowed]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert [s["Principal"] for s in assumed] == [{"Service": "firehose.amazonaws.com"}]
    assert any(s["Condition"].get("Bool") == {"aws:SecureTransport": "false"} for s in statements)


def test_firehose_writes_below_two_prefixes_and_nothing_else(edge: Template) -> None:
    (put,) = _statements(edge, "s3:PutObject")
    assert set(actions_of(put)) == {"s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload"}
    ends = [resource["Fn::Join"][1][-1] for resource in put["Resource"]]
    assert sorted(ends) == ["/errors/*", "/requests/*"]
    (about,) = _statements(edge, "s3:ListBucket")
    assert "*" not in json.dumps(about["Resource"])


def test_an_edge_may_put_records_into_its_own_stream_and_no_more(edge: Template) -> None:
    (put,) = _statements(edge, "firehose:PutRecordBatch")
    assert actions_of(put) == ["firehose:PutRecordBatch"]
    assert put["Resource"]["Fn::Join"][1][-1] == ":deliverystream/iso-audit"
    assert only(edge, "AWS::KinesisFirehose::DeliveryStream")["DeliveryStreamName"] == "iso-audit"


def test_objects_are_packed_and_lie_where_the_table_looks_for_them(edge: Template) -> None:
    target = only(edge, "AWS::KinesisFirehose::DeliveryStream")["ExtendedS3DestinationConfiguration"]
    assert (target["CompressionFormat"], target["FileExtension"]) == ("GZIP", ".jsonl.gz")
    assert target["Prefix"] == "requests/day=!{timestamp:yyyy-MM-dd}/hour=!{timestamp:HH}/"
    table = only(edge, "AWS::Glue::Table")["TableInput"]
    template = json.dumps(table["Parameters"]["storage.location.template"])
    assert "/requests/day=${day}/hour=${hour}/" in template
    assert [key["Name"] for key in table["PartitionKeys"]] == ["day", "hour"]


def test_own_key_encrypts_the_bucket_and_only_through_s3(synthesise: Synthesise) -> None:
    keyed = AUDITED.replace('kind = "dynamodb"', f'kind = "dynamodb"\nkms_key = "{KEY}"')
    edge = synthesise(keyed).edge()
    encryption = only(edge, "AWS::S3::Bucket")["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]
    mine = KEY.replace("us-east-1", "eu-west-1")
    assert encryption["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": mine}
    uses = [s for s in _statements(edge, "kms:GenerateDataKey") if "s3." in json.dumps(s.get("Condition"))]
    assert [(use["Resource"], actions_of(use)) for use in uses] == [(mine, ["kms:Decrypt", "kms:GenerateDataKey"])]


def test_entries_that_do_not_reach_the_bucket_raise_an_alarm(edge: Template, app: Synthesis) -> None:
    (alarm,) = [a for a in resources(edge, "AWS::CloudWatch::Alarm") if a["AlarmName"] == "iso-eu-west-1-AuditWaits"]
    assert alarm["Dimensions"] == [{"Name": "DeliveryStreamName", "Value": "iso-audit"}]
    assert alarm["AlarmActions"]
    assert not [a for a in resources(app.edge(), "AWS::CloudWatch::Alarm") if "Audit" in a["AlarmName"]]


def test_table_has_a_column_for_every_field_of_an_entry() -> None:
    names = {field.name for kind in (AuditEntry, Flag) for field in msgspec.structs.fields(kind)}
    line = json.loads(Chain("w").link(AuditEntry(**_entry())))
    assert {*COLUMNS} == names | {*line} | {"record"}


def _entry() -> dict[str, Any]:
    texts = {"request_id": "r", "edge": "e", "method": "GET", "path": "/", "decision": "allowed"}
    return texts | {"time": 1, "status": 200, "latency_ms": 1.0}


def test_queries_are_ready_and_ask_for_columns_that_are_there(edge: Template) -> None:
    queries = list(resources(edge, "AWS::Athena::NamedQuery"))
    assert {query["Name"] for query in queries} == {f"iso-audit-{name}" for name in QUERIES}
    for query in queries:
        assert query["Database"] == "iso_audit"
        assert "FROM requests" in query["QueryString"]
        assert "day >=" in query["QueryString"]
    assert only(edge, "AWS::Athena::WorkGroup")["Name"] == "iso-audit"


def test_cfn_lint_finds_no_error(synthesise: Synthesise) -> None:
    template = next(path for path in synthesise(AUDITED + "object_lock = true\n").files() if "euwest1" in path.name)
    lint = [str(Path(sys.executable).with_name("cfn-lint")), "--format", "json", str(template)]
    done = subprocess.run(lint, capture_output=True, text=True, check=False)
    assert [(f["Rule"]["Id"], f["Message"]) for f in json.loads(done.stdout) if f["Rule"]["Id"] != "W3005"] == []


def test_emulator_gets_all_of_it_but_the_queries_it_does_not_know(synthesise: Synthesise) -> None:
    local = synthesise(AUDITED, profile="local").edge()
    assert only(local, "AWS::KinesisFirehose::DeliveryStream")
    assert list(resources(local, "AWS::Athena::NamedQuery")) == []
