"""The GPU pool: cheap when idle, closed but for its balancer, and never cutting a stream by a timeout of its own."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from tests.infra.conftest import BASE, Synthesis, Synthesise, Template, only, resources, start_script


@pytest.fixture(scope="module")
def pool(app: Synthesis) -> Template:
    return app.templates["iso-pool-eu-west-1"]


def _launch(pool: Template) -> dict[str, Any]:
    data: dict[str, Any] = only(pool, "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    return data


def test_idle_pool_costs_no_instance(pool: Template) -> None:
    fleet = only(pool, "AWS::AutoScaling::AutoScalingGroup")
    assert fleet["MinSize"] == "0"
    assert "DesiredCapacity" not in fleet, "a deployment must not undo what scaling decided"


def test_spot_comes_first_and_from_several_types(pool: Template) -> None:
    policy = only(pool, "AWS::AutoScaling::AutoScalingGroup")["MixedInstancesPolicy"]
    distribution = policy["InstancesDistribution"]
    assert distribution["SpotAllocationStrategy"] == "price-capacity-optimized"
    assert distribution["OnDemandPercentageAboveBaseCapacity"] == 0
    types = [override["InstanceType"] for override in policy["LaunchTemplate"]["Overrides"]]
    assert types == ["g4dn.xlarge", "g4dn.2xlarge"]


def test_node_keeps_its_metadata_and_its_disk_to_itself(pool: Template) -> None:
    launch = _launch(pool)
    assert launch["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert all(mapping["Ebs"]["Encrypted"] for mapping in launch["BlockDeviceMappings"])


def test_image_is_looked_up_by_cloudformation_not_by_the_command_line(pool: Template) -> None:
    parameter = pool["Parameters"][_launch(pool)["ImageId"]["Ref"]]
    assert parameter["Type"] == "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>"
    assert "base-oss-nvidia-driver-gpu" in parameter["Default"]


def test_only_the_balancer_reaches_a_node(pool: Template) -> None:
    groups = {group["GroupDescription"]: group for group in resources(pool, "AWS::EC2::SecurityGroup")}
    assert "SecurityGroupIngress" not in groups["Only the load balancer comes in here"]
    rule = only(pool, "AWS::EC2::SecurityGroupIngress")
    assert (rule["FromPort"], rule["ToPort"]) == (8000, 8000)
    assert "BalancerGroup" in json.dumps(rule["SourceSecurityGroupId"])
    (way_in,) = groups["Edges come in here"]["SecurityGroupIngress"]
    assert (way_in["FromPort"], way_in["ToPort"]) == (443, 443)


def test_quiet_stream_outlives_neither_balancer_nor_node(pool: Template) -> None:
    attributes = only(pool, "AWS::ElasticLoadBalancingV2::LoadBalancer")["LoadBalancerAttributes"]
    idle = int(next(a["Value"] for a in attributes if a["Key"] == "idle_timeout.timeout_seconds"))
    keep_alive = int(start_script(pool).partition("VLLM_HTTP_TIMEOUT_KEEP_ALIVE=")[2].split()[0])
    assert 300 <= idle < keep_alive


def test_balancer_speaks_https_and_passes_only_what_the_engine_serves(pool: Template) -> None:
    listener = only(pool, "AWS::ElasticLoadBalancingV2::Listener")
    assert (listener["Protocol"], listener["Port"]) == ("HTTPS", 443)
    assert listener["SslPolicy"].startswith("ELBSecurityPolicy-TLS13-1-2-Res-")
    assert listener["DefaultActions"][0]["FixedResponseConfig"]["StatusCode"] == "404"
    rule = only(pool, "AWS::ElasticLoadBalancingV2::ListenerRule")
    assert rule["Conditions"][0]["PathPatternConfig"]["Values"] == ["/v1/*", "/health", "/metrics"]


def _hooks(pool: Template) -> dict[str, Any]:
    """Hooks that the group has from its first moment: a hook that is made after it misses its first nodes."""
    assert not list(resources(pool, "AWS::AutoScaling::LifecycleHook"))
    fleet = only(pool, "AWS::AutoScaling::AutoScalingGroup")
    return {hook["LifecycleHookName"]: hook for hook in fleet["LifecycleHookSpecificationList"]}


def test_first_nodes_of_a_fleet_already_wait_until_they_are_ready(pool: Template) -> None:
    launch = _hooks(pool)["launch"]
    assert launch["LifecycleTransition"] == "autoscaling:EC2_INSTANCE_LAUNCHING"
    assert launch["DefaultResult"] == "ABANDON"
    fleet = only(pool, "AWS::AutoScaling::AutoScalingGroup")
    assert fleet["HealthCheckGracePeriod"] >= launch["HeartbeatTimeout"], "else it is replaced while it still loads"


def test_node_that_goes_has_time_to_finish(pool: Template) -> None:
    terminate = _hooks(pool)["terminate"]
    assert terminate["LifecycleTransition"] == "autoscaling:EC2_INSTANCE_TERMINATING"
    assert terminate["DefaultResult"] == "CONTINUE"
    assert terminate["HeartbeatTimeout"] < 120, "a spot notice comes two minutes ahead"


def test_deployment_takes_no_node_that_runs(pool: Template) -> None:
    (fleet,) = [r for r in pool["Resources"].values() if r["Type"] == "AWS::AutoScaling::AutoScalingGroup"]
    assert set(fleet["UpdatePolicy"]) == {"AutoScalingScheduledAction"}


def test_node_gives_up_before_the_fleet_gives_it_up(pool: Template) -> None:
    script = start_script(pool)
    pull = re.search(r"timeout (\d+) docker pull", script)
    load = re.search(r"SECONDS \+ (\d+)", script)
    assert pull
    assert load
    assert script.index(pull[0]) < script.index("docker run") < script.index(load[0])
    boot = 120
    assert boot + int(pull[1]) + int(load[1]) <= _hooks(pool)["launch"]["HeartbeatTimeout"]


@pytest.mark.parametrize(
    "flag",
    [
        "--dtype half",
        "--quantization awq",
        "--attention-backend TRITON_ATTN",
        "--max-model-len 8192",
        "--max-num-seqs 32",
    ],
)
def test_engine_starts_with_what_a_t4_needs(pool: Template, flag: str) -> None:
    assert flag in start_script(pool)


def test_start_script_is_sound_and_names_the_fleet_secret_and_region(pool: Template) -> None:
    script = start_script(pool)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for word in ("--auto-scaling-group-name 'iso-pool-eu'", "--secret-id 'iso/pool-eu'", "--region 'eu-west-1'"):
        assert word in script


def test_pool_gets_a_name_in_our_zone_and_a_certificate_for_it(pool: Template) -> None:
    assert only(pool, "AWS::Route53::RecordSet")["Name"] == "pool.eu-west-1.example.com."
    assert only(pool, "AWS::CertificateManager::Certificate")["DomainName"] == "pool.eu-west-1.example.com"


def test_pools_of_others_are_not_built(synthesise: Synthesise) -> None:
    built = synthesise(BASE.replace("create = true", "create = false"))
    assert not [name for name in built.templates if "-pool-" in name]
