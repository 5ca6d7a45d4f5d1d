"""What the edge stack promises to the code that runs in it and to who operates it."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.constructs.edge_function import TABLE_ACTIONS
from infra.layers import ROOT
from isochrone import wiring
from isochrone.answers.revocations import PARTITION
from isochrone.ledger.emf import Pulse
from isochrone.stores.dynamodb import directory
from isochrone.stores.tables import TABLES, Table
from tests.infra.conftest import BASE, Synthesis, Synthesise, function_of, granted_actions, only, resources

REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
GLOBAL = [table for table in TABLES if table.scope == "global"]
REGIONAL = [table for table in TABLES if table.scope == "regional"]


def _table(app: Synthesis, table: Table) -> dict[str, object]:
    stack = app.templates["iso-global"] if table.scope == "global" else app.edge()
    return next(t for t in resources(stack, "AWS::DynamoDB::GlobalTable") if t["TableName"] == f"iso-{table.name}")


def test_one_global_stack_one_edge_per_region_and_a_pool_stack_where_a_pool_is(app: Synthesis) -> None:
    assert set(app.templates) == {"iso-global", *(f"iso-edge-{region}" for region in REGIONS), "iso-pool-eu-west-1"}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_table_has_the_keys_and_expiry_that_the_stores_use(app: Synthesis, table: Table) -> None:
    built = _table(app, table)
    keys = [{"AttributeName": table.partition_key, "KeyType": "HASH"}]
    keys += [{"AttributeName": table.sort_key, "KeyType": "RANGE"}] if table.sort_key else []
    assert built["KeySchema"] == keys
    assert built["BillingMode"] == "PAY_PER_REQUEST"
    expiry = {"AttributeName": table.ttl, "Enabled": True} if table.ttl else None
    assert built.get("TimeToLiveSpecification") == expiry


@pytest.mark.parametrize("table", REGIONAL, ids=lambda table: table.name)
def test_regional_table_is_never_replicated(app: Synthesis, table: Table) -> None:
    replicas = _table(app, table)["Replicas"]
    assert [replica["Region"] for replica in replicas] == ["eu-west-1"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("table", GLOBAL, ids=lambda table: table.name)
def test_global_table_stands_in_every_region(app: Synthesis, table: Table) -> None:
    replicas = _table(app, table)["Replicas"]
    assert {replica["Region"] for replica in replicas} == set(REGIONS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("table", [table for table in TABLES if table.durable], ids=lambda table: table.name)
def test_durable_table_survives_a_mistake(app: Synthesis, table: Table) -> None:
    for replica in _table(app, table)["Replicas"]:  # type: ignore[attr-defined]
        assert replica["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert _resource(app, f"iso-{table.name}")["UpdateReplacePolicy"] == "Retain"


@pytest.mark.parametrize("name", ["iso-directory", "iso-ledger"])
def test_what_is_kept_does_not_block_the_next_try_after_a_first_deployment_that_failed(
    app: Synthesis, name: str
) -> None:
    kept = _resource(app, name)
    assert kept["DeletionPolicy"] == "RetainExceptOnCreate"
    assert not any(replica.get("DeletionProtectionEnabled") for replica in kept["Properties"]["Replicas"])


def _resource(app: Synthesis, name: str) -> dict[str, Any]:
    """The one table or secret of that name, with the policies around its properties."""
    found = [resource for stack in ("iso-global", "iso-edge-eu-west-1") for resource in _named(app, stack, name)]
    assert len(found) == 1, f"{len(found)} resources are called {name}"
    return found[0]


def _named(app: Synthesis, stack: str, name: str) -> list[dict[str, Any]]:
    all_of_them = app.templates[stack]["Resources"].values()
    return [r for r in all_of_them if name in (r["Properties"].get("TableName"), r["Properties"].get("Name"))]


# What API Gateway answers by itself -> status (None: its own), code, seconds to wait.
OWN_ANSWERS = {
    "DEFAULT_4XX": (None, "refused_by_api_gateway", None),
    "DEFAULT_5XX": (None, "api_gateway_failed", None),
    "REQUEST_TOO_LARGE": ("413", "body_too_large", None),
    "THROTTLED": ("429", "edge_throttled", "'1'"),
    "WAF_FILTERED": ("403", "refused_by_firewall", None),
}


@pytest.mark.parametrize("kind", OWN_ANSWERS)
def test_what_the_api_answers_by_itself_is_an_error_that_openai_clients_read(app: Synthesis, kind: str) -> None:
    own = {answer["ResponseType"]: answer for answer in resources(app.edge(), "AWS::ApiGateway::GatewayResponse")}
    assert set(own) == set(OWN_ANSWERS)
    status, code, wait = OWN_ANSWERS[kind]
    assert own[kind].get("StatusCode") == status
    assert own[kind].get("ResponseParameters", {}).get("gatewayresponse.header.retry-after") == wait
    written = own[kind]["ResponseTemplates"]["application/json"]
    error = json.loads(written.replace("$context.error.messageString", '"Forbidden"'))["error"]
    assert list(error) == ["message", "type", "code", "param"]
    assert (error["code"], error["param"]) == (code, None)
    assert error["message"]
    assert f"`{code}`" in (ROOT / "docs/aws.md").read_text()


def test_every_route_of_callers_streams_from_the_live_alias(app: Synthesis) -> None:
    methods = [m for m in resources(app.edge(), "AWS::ApiGateway::Method") if m["AuthorizationType"] == "NONE"]
    assert len(methods) == 2
    for method in methods:
        integration = method["Integration"]
        uri = json.dumps(integration["Uri"])
        assert method["HttpMethod"] == "ANY"
        assert integration["ResponseTransferMode"] == "STREAM"
        assert integration["TimeoutInMillis"] == 900_000
        assert "2021-11-15/functions" in uri
        assert "/response-streaming-invocations" in uri
        assert "EdgeLive" in uri, "SnapStart only works on a published version"


def test_log_role_of_the_whole_account_outlives_this_stack(app: Synthesis) -> None:
    (account,) = [r for r in app.edge()["Resources"].values() if r["Type"] == "AWS::ApiGateway::Account"]
    role = app.edge()["Resources"][account["Properties"]["CloudWatchRoleArn"]["Fn::GetAtt"][0]]
    assert (account["DeletionPolicy"], role["DeletionPolicy"]) == ("Retain", "Retain")


def test_api_is_regional_and_reached_by_its_domain_only(app: Synthesis) -> None:
    api = only(app.edge(), "AWS::ApiGateway::RestApi")
    assert api["EndpointConfiguration"] == {"Types": ["REGIONAL"]}
    assert api["DisableExecuteApiEndpoint"] is True


def test_api_and_its_domains_speak_tls_1_3_and_nothing_below_1_2(app: Synthesis) -> None:
    """The API's own policy is the one that counts, also for calls by a domain."""
    fronts = [only(app.edge(), "AWS::ApiGateway::RestApi"), *resources(app.edge(), "AWS::ApiGateway::DomainName")]
    assert len(fronts) == 3
    for front in fronts:
        assert front["SecurityPolicy"] == "SecurityPolicy_TLS13_1_2_PFS_PQ_2025_09"
        assert front["EndpointAccessMode"] == "STRICT"


def test_without_a_domain_the_api_answers_on_its_own_address(synthesise: Synthesise) -> None:
    edge = synthesise(_without_domain(BASE)).edge()
    assert only(edge, "AWS::ApiGateway::RestApi")["DisableExecuteApiEndpoint"] is False
    assert not list(resources(edge, "AWS::Route53::RecordSet"))
    assert not list(resources(edge, "AWS::CertificateManager::Certificate"))


def test_function_is_an_arm_python_with_the_streaming_wrapper_and_a_snapshot(app: Synthesis) -> None:
    function = function_of(app.edge(), "edge")
    assert (function["Architectures"], function["Runtime"], function["Timeout"]) == (["arm64"], "python3.13", 900)
    assert function["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    assert function["Handler"] == "handler.handler"
    assert "VpcConfig" not in function
    assert function["Environment"]["Variables"] == {
        "ISOCHRONE_CONFIG": "/var/task/isochrone.toml",
        "ISOCHRONE_GEO_DATABASE": "/opt/geoip",
        "AWS_LAMBDA_EXEC_WRAPPER": "/opt/isochrone-streaming",
    }
    assert len(function["Layers"]) == 4


def _assets(app: Synthesis) -> list[Path]:
    return [path for path in app.folder.iterdir() if path.name.startswith("asset.") and path.is_dir()]


def test_asset_of_each_function_is_its_handler_and_the_configuration(app: Synthesis) -> None:
    codes = [asset for asset in _assets(app) if (asset / "handler.py").exists()]
    handlers = {
        (ROOT / "functions" / name / "handler.py").read_text() for name in ("admin", "edge", "prober", "rotator")
    }
    assert {(code / "handler.py").read_text() for code in codes} == handlers
    assert {(code / "isochrone.toml").read_text() for code in codes} == {BASE}


def test_layer_assets_unpack_where_the_function_looks(app: Synthesis) -> None:
    found = {str(path.relative_to(asset)) for asset in _assets(app) for path in asset.rglob("*")}
    assert {"python/isochrone/settings.py", "isochrone-streaming", "python/wheel.py", "geoip/city.mmdb"} <= found
    assert not [name for name in found if "__pycache__" in name or "egg-info" in name]


def test_streaming_wrapper_can_be_executed(app: Synthesis) -> None:
    (wrapper,) = [asset / "isochrone-streaming" for asset in _assets(app) if (asset / "isochrone-streaming").exists()]
    assert wrapper.stat().st_mode & 0o111 == 0o111


def test_function_may_touch_the_tables_that_its_code_opens_and_only_as_declared(app: Synthesis) -> None:
    sources = inspect.getsource(wiring) + inspect.getsource(directory)
    opened = set(re.findall(r'table_name\(settings, "([a-z]+)"\)', sources))
    assert opened == set(TABLE_ACTIONS)
    assert granted_actions(app.edge(), "edge") == TABLE_ACTIONS


TWO_HOMES = BASE.replace('engine = "vllm"', "max_concurrency = 32")
"""That of the pool, and the default region for the official API, which stands in none, and for limits of a day."""


@pytest.mark.parametrize(
    ("config", "homes"),
    [
        (BASE, {"us-east-1"}),
        (BASE.replace("max_concurrency = 8", ""), {"us-east-1"}),
        (TWO_HOMES, {"us-east-1", "eu-west-1"}),
        (BASE.replace('engine = "vllm"', "requests_per_day = 500"), {"us-east-1", "eu-west-1"}),
        (BASE.replace('kind = "dynamodb"', 'kind = "memory"'), set()),
    ],
    ids=["one-home", "no-slots", "two-homes", "daily-cap", "no-tables"],
)
@pytest.mark.parametrize("edge", REGIONS)
def test_edge_reaches_into_another_region_only_for_slots_caps_and_limits_that_are_counted_there(
    synthesise: Synthesise, config: str, homes: set[str], edge: str
) -> None:
    stack = synthesise(config).edge(edge)
    own = {"fleet": TABLE_ACTIONS["fleet"]}
    for region in REGIONS:
        granted = own if region in homes else {}
        assert granted_actions(stack, "edge", region=region) == (TABLE_ACTIONS if region == edge else granted)


def test_prober_takes_no_slots_and_reaches_into_no_other_region(synthesise: Synthesise) -> None:
    stack = synthesise(TWO_HOMES).edge("ap-southeast-1")
    granted = [granted_actions(stack, "prober", region=region) for region in REGIONS]
    assert granted == [{}, {}, {"fleet": TABLE_ACTIONS["fleet"]}]


@pytest.mark.parametrize("name", ["edge", "prober"])
def test_no_function_may_look_through_a_table_or_delete_what_is_no_answer(app: Synthesis, name: str) -> None:
    """Nothing that they do needs it."""
    granted = granted_actions(app.edge(), name)
    assert {action for actions in granted.values() for action in actions} <= {
        "DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem",
    }  # fmt: skip
    assert {table for table, actions in granted.items() if "DeleteItem" in actions} <= {"answers"}


def test_edge_may_write_into_the_directory_only_what_tenants_take_back(app: Synthesis) -> None:
    """Keys, policies and curated answers are the operator's, whatever runs in the function."""
    role = function_of(app.edge(), "edge")["Role"]
    policies = [p for p in resources(app.edge(), "AWS::IAM::Policy") if role["Fn::GetAtt"][0] in str(p["Roles"])]
    statements = [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]
    (writing,) = [s for s in statements if "iso-directory" in json.dumps(s["Resource"]) and "Condition" in s]
    assert writing["Action"] == ["dynamodb:DeleteItem", "dynamodb:PutItem"]
    assert writing["Condition"] == {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [PARTITION]}}


@pytest.mark.parametrize("stack", ["iso-edge-eu-west-1", "iso-pool-eu-west-1"])
def test_every_log_group_forgets_in_time(app: Synthesis, stack: str) -> None:
    groups = list(resources(app.templates[stack], "AWS::Logs::LogGroup"))
    assert groups
    assert all(group["RetentionInDays"] == 30 for group in groups)


@pytest.mark.parametrize(
    ("name", "threshold", "period"),
    [
        ("ErrorRate", 0.1, 120),
        ("SlowP99", 1500, 300),
        ("Throttles", 0, 60),
        ("NoHealthyPool", 1, 60),
        ("Blocked", 1000, 300),
        ("DirectoryRefused", 0, 300),
    ],
)
def test_alarm_watches_and_tells(app: Synthesis, name: str, threshold: float, period: int) -> None:
    alarms = {alarm["AlarmName"]: alarm for alarm in resources(app.edge(), "AWS::CloudWatch::Alarm")}
    alarm = alarms[f"iso-eu-west-1-{name}"]
    assert (alarm["Threshold"], alarm["Period"]) == (threshold, period)
    assert alarm["TreatMissingData"] == "notBreaching"
    assert len(alarm["AlarmActions"]) == 1


def test_every_topic_that_an_alarm_tells_lets_cloudwatch_of_this_account_speak(app: Synthesis) -> None:
    edge = app.edge()
    told = {action["Ref"] for alarm in resources(edge, "AWS::CloudWatch::Alarm") for action in alarm["AlarmActions"]}
    assert told
    allowed = {
        statement["Resource"]["Ref"]
        for policy in resources(edge, "AWS::SNS::TopicPolicy")
        for statement in policy["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
        and (statement["Principal"], statement["Action"]) == ({"Service": "cloudwatch.amazonaws.com"}, "sns:Publish")
        and statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    }
    assert allowed == told


def test_own_metrics_of_two_deployments_in_one_account_stay_apart(app: Synthesis) -> None:
    assert only(app.edge(), "AWS::Logs::MetricFilter")["MetricTransformations"][0]["MetricNamespace"] == "Isochrone/iso"
    own = [
        alarm for alarm in resources(app.edge(), "AWS::CloudWatch::Alarm") if not alarm["Namespace"].startswith("AWS/")
    ]
    assert {alarm["MetricName"]: alarm["Namespace"] for alarm in own} == dict.fromkeys(
        ("FirstContent", "HealthyPools", "DirectoryRefused"), "Isochrone/iso"
    )


@pytest.mark.parametrize("name", ["HealthyPools", "DirectoryRefused"])
def test_alarm_watches_the_very_metric_that_the_edge_writes(app: Synthesis, name: str) -> None:
    lines: list[str] = []
    Pulse("iso", lines.append).beat({name: 1.0}, {"Region": "eu-west-1"}, now=0.0)
    written = json.loads(lines[0])["_aws"]["CloudWatchMetrics"][0]
    (alarm,) = [a for a in resources(app.edge(), "AWS::CloudWatch::Alarm") if a["MetricName"] == name]
    assert (alarm["Namespace"], [[d["Name"] for d in alarm["Dimensions"]]]) == (
        written["Namespace"],
        written["Dimensions"],
    )


def test_alarm_on_what_is_blocked_watches_the_very_web_acl(app: Synthesis) -> None:
    (alarm,) = [a for a in resources(app.edge(), "AWS::CloudWatch::Alarm") if a["MetricName"] == "BlockedRequests"]
    dimensions = {d["Name"]: d["Value"] for d in alarm["Dimensions"]}
    metric = only(app.edge(), "AWS::WAFv2::WebACL")["VisibilityConfig"]["MetricName"]
    assert (alarm["Namespace"], dimensions) == (
        "AWS/WAFV2",
        {"WebACL": metric, "Region": "eu-west-1", "Rule": "ALL"},
    )


def test_slow_alarm_measures_the_first_byte_not_the_length_of_a_stream(app: Synthesis) -> None:
    metric = only(app.edge(), "AWS::Logs::MetricFilter")
    access_log = only(app.edge(), "AWS::ApiGateway::Stage")["AccessLogSetting"]["Format"].split()
    fields = [field.strip() for field in metric["FilterPattern"].strip("[]").split(",")]
    assert access_log[fields.index("first_content>=0")] == "$context.integration.timeToFirstContent"
    assert len(access_log) == len(fields)
    assert metric["MetricTransformations"][0]["MetricValue"] == "$first_content"


def test_without_an_email_alarms_stand_but_tell_nobody(synthesise: Synthesise) -> None:
    edge = synthesise(_without_domain(BASE).replace('email = "ops@example.com"', "")).edge()
    assert not list(resources(edge, "AWS::SNS::Topic"))
    assert all("AlarmActions" not in alarm for alarm in resources(edge, "AWS::CloudWatch::Alarm"))


def test_keys_of_backends_are_made_once_and_copied_to_every_region(app: Synthesis) -> None:
    secrets = list(resources(app.templates["iso-global"], "AWS::SecretsManager::Secret"))
    assert [secret["Name"] for secret in secrets] == ["iso/pool-eu", "iso/official"]
    for secret in secrets:
        assert {replica["Region"] for replica in secret["ReplicaRegions"]} == {"eu-west-1", "ap-southeast-1"}


def test_key_that_an_operator_put_in_outlives_its_backend_and_one_that_was_made_here_does_not(app: Synthesis) -> None:
    assert _resource(app, "iso/official")["DeletionPolicy"] == "RetainExceptOnCreate"
    assert _resource(app, "iso/pool-eu")["DeletionPolicy"] == "Delete"


def test_key_of_a_pool_that_stood_before_is_the_operators_too(synthesise: Synthesise) -> None:
    there = synthesise(BASE.replace("create = true", "create = false"))
    assert _resource(there, "iso/pool-eu")["DeletionPolicy"] == "RetainExceptOnCreate"


KEY = BASE[BASE.index("[[key]]") : BASE.index("[[region]]")]


@pytest.mark.parametrize(
    ("old", "new", "warning"),
    [
        ('api_key_secret = "iso/official"', 'api_key_env = "KEY"', "official: nothing sets KEY in the function"),
        ('kind = "dynamodb"', 'kind = "memory"', "every execution environment keeps answers and health for itself"),
        (KEY, "", "until `isochrone keys create` makes one every request will be refused with 401"),
        ("llm.example.org", "llm.example.com", "llm.example.com can have no certificate: the deployment would wait"),
        ("pool.eu-west-1.example.org", "pool.example", "pool.example can have no certificate: the deployment would"),
    ],
)
def test_what_is_most_likely_not_meant_is_warned_about(
    synthesise: Synthesise, old: str, new: str, warning: str
) -> None:
    meant = BASE.replace("example.com", "example.org")
    assert old in meant
    assert _told(synthesise(meant.replace(old, new))).count(warning) == 1


def test_configuration_that_is_meant_draws_no_warning(synthesise: Synthesise) -> None:
    assert "aws:cdk:warning" not in _told(synthesise(BASE.replace("example.com", "acme.dev")))


def _told(app: Synthesis) -> str:
    """What the app tells the command line of its stacks, warnings among it."""
    return "\n".join(path.read_text() for path in app.folder.rglob("*.metadata.json"))


def _without_domain(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith(("domain", "hosted_zone")))
