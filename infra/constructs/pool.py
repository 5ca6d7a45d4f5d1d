"""One GPU pool: an HTTPS load balancer in front of spot instances that each run vLLM with a 4-bit model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

from aws_cdk import Aws, CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elbv2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as targets
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.secrets import secret_reading
from infra.settings import Deployment
from isochrone.settings import Backend

IMAGE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-amazon-linux-2023/latest/ami-id"
VLLM_VERSION = "v0.33.0"
VLLM_PORT = 8000
DISK_GB = 100
# A stream may be silent this long. The node keeps its side open for longer, else a reused connection gives a 502.
IDLE = Duration.seconds(400)
NODE_KEEP_ALIVE = 620
# A spot instance is gone two minutes after the notice.
DRAIN = Duration.seconds(100)
TERMINATE_HOOK = Duration.seconds(110)
# A node that is not healthy by then is given back: two minutes to boot, then the image (some 10 GB), then the weights
# (6 GB) and the compile step.
LAUNCH_HOOK = Duration.minutes(20)
PULL_SECONDS = 420
LOAD_SECONDS = 600
# How often a node looks for new keys, and for how long it takes the one before: edges that were cut off catch up in it.
REFRESH_SECONDS = 60
GRACE_SECONDS = 86_400
PATHS = ("/v1/*", "/health", "/metrics")
# What vLLM generates at once on one T4 where the configuration does not say.
_MAX_NUM_SEQS = 32


class Pool(Construct):
    """The nodes of `backend` and the one HTTPS address in front of them."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        deployment: Deployment,
        backend: Backend,
        vpc: ec2.IVpc,
        zone: route53.IHostedZone | None,
    ) -> None:
        super().__init__(scope, id)
        self._deployment, self._backend, self._vpc = deployment, backend, vpc
        self._name = f"{deployment.name}-{backend.name}"
        self._host = urlsplit(backend.base_url).hostname or ""
        self._log_group = logs.LogGroup(
            self,
            "Logs",
            log_group_name=f"/{deployment.name}/{backend.name}",
            retention=logs.RetentionDays.ONE_MONTH,
            removal_policy=RemovalPolicy.DESTROY,
        )
        balancer_group, self._node_group = self._security_groups()
        self._fleet = self._auto_scaling_group(self._launch_template())
        balancer = self._load_balancer(balancer_group, zone if self._is_in(zone) else None)
        CfnOutput(self, "Address", value=balancer.load_balancer_dns_name, description=f"{self._host} must lead here")

    def _is_in(self, zone: route53.IHostedZone | None) -> bool:
        return zone is not None and self._host.endswith(f".{zone.zone_name}")

    def _security_groups(self) -> tuple[ec2.SecurityGroup, ec2.SecurityGroup]:
        balancer = ec2.SecurityGroup(
            self, "BalancerGroup", vpc=self._vpc, allow_all_outbound=False, description="Edges come in here"
        )
        balancer.add_ingress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(443), "Edges, which have no fixed addresses")
        acknowledge(
            balancer,
            EC23="edge functions have no fixed addresses; every path that costs GPU time asks for the key",
        )
        nodes = ec2.SecurityGroup(self, "NodeGroup", vpc=self._vpc, description="Only the load balancer comes in here")
        nodes.add_ingress_rule(balancer, ec2.Port.tcp(VLLM_PORT), "Load balancer to vLLM")
        balancer.add_egress_rule(nodes, ec2.Port.tcp(VLLM_PORT), "Load balancer to vLLM")
        return balancer, nodes

    def _launch_template(self) -> ec2.LaunchTemplate:
        return ec2.LaunchTemplate(
            self,
            "Template",
            machine_image=ec2.MachineImage.from_ssm_parameter(IMAGE, os=ec2.OperatingSystemType.LINUX),
            instance_type=ec2.InstanceType(self._deployment.settings.pool.instance_types[0]),
            role=self._role(),
            security_group=self._node_group,
            associate_public_ip_address=True,
            require_imdsv2=True,
            http_put_response_hop_limit=1,
            detailed_monitoring=True,
            block_devices=[
                ec2.BlockDevice(
                    device_name="/dev/xvda",
                    volume=ec2.BlockDeviceVolume.ebs(
                        DISK_GB, encrypted=True, volume_type=ec2.EbsDeviceVolumeType.GP3, delete_on_termination=True
                    ),
                )
            ],
            user_data=ec2.UserData.custom(self._start_script()),
        )

    def _start_script(self) -> str:
        pool = self._deployment.settings.pool
        here = Path(__file__).parent
        template = Template((here / "pool_node.sh").read_text(encoding="utf-8"))
        return template.substitute(
            region=Stack.of(self).region,
            fleet=self._name,
            home=self._deployment.home,
            secret=self._backend.api_key_secret,
            guard=(here / "pool_guard.py").read_text(encoding="utf-8").rstrip(),
            grace_seconds=GRACE_SECONDS,
            refresh_seconds=REFRESH_SECONDS,
            log_group=self._log_group.log_group_name,
            version=VLLM_VERSION,
            port=VLLM_PORT,
            keep_alive=NODE_KEEP_ALIVE,
            model=pool.model,
            quantization=_quantization(pool.model),
            max_model_len=pool.max_model_len,
            max_num_seqs=self._backend.max_concurrency or _MAX_NUM_SEQS,
            pull_seconds=PULL_SECONDS,
            load_seconds=LOAD_SECONDS,
        )

    def _role(self) -> iam.Role:
        assert self._backend.api_key_secret is not None
        role = iam.Role(self, "NodeRole", assumed_by=iam.ServicePrincipal("ec2.amazonaws.com"))
        self._log_group.grant_write(role)
        for region in dict.fromkeys((Stack.of(self).region, self._deployment.home)):
            for statement in secret_reading(self, self._deployment, [self._backend.api_key_secret], region=region):
                role.add_to_policy(statement)
        fleet_arn = Stack.of(self).format_arn(
            service="autoscaling", resource="autoScalingGroup:*:autoScalingGroupName", resource_name=self._name
        )
        role.add_to_policy(iam.PolicyStatement(actions=["autoscaling:CompleteLifecycleAction"], resources=[fleet_arn]))
        acknowledge(
            role,
            **{
                f"IAM5[Resource::{fleet_arn.replace(Aws.ACCOUNT_ID, '<AWS::AccountId>')}]": (
                    "the id in the middle of the ARN is not known before the group, whose launch needs this role"
                )
            },
        )
        return role

    def _auto_scaling_group(self, template: ec2.LaunchTemplate) -> autoscaling.AutoScalingGroup:
        pool = self._deployment.settings.pool
        fleet = autoscaling.AutoScalingGroup(
            self,
            "Fleet",
            auto_scaling_group_name=self._name,
            vpc=self._vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC),
            min_capacity=pool.min_size,
            max_capacity=pool.max_size,
            capacity_rebalance=True,
            mixed_instances_policy=autoscaling.MixedInstancesPolicy(
                launch_template=template,
                launch_template_overrides=[
                    autoscaling.LaunchTemplateOverrides(instance_type=ec2.InstanceType(name))
                    for name in pool.instance_types
                ],
                instances_distribution=autoscaling.InstancesDistribution(
                    on_demand_base_capacity=pool.on_demand_base,
                    on_demand_percentage_above_base_capacity=pool.on_demand_percentage,
                    spot_allocation_strategy=autoscaling.SpotAllocationStrategy.PRICE_CAPACITY_OPTIMIZED,
                ),
            ),
            health_checks=autoscaling.HealthChecks.with_additional_checks(
                additional_types=[autoscaling.AdditionalHealthCheckType.ELB], grace_period=LAUNCH_HOOK
            ),
            group_metrics=[autoscaling.GroupMetrics.all()],
        )
        group = fleet.node.default_child
        assert isinstance(group, autoscaling.CfnAutoScalingGroup)
        group.lifecycle_hook_specification_list = list(_hooks())
        acknowledge(
            fleet,
            AS3="spot nodes come and go by design; the alarms watch what clients feel",
            EC26="the rule cannot read a launch template; the one here encrypts its disk",
        )
        return fleet

    def _load_balancer(
        self, security_group: ec2.ISecurityGroup, zone: route53.IHostedZone | None
    ) -> elbv2.ApplicationLoadBalancer:
        balancer = elbv2.ApplicationLoadBalancer(
            self,
            "Balancer",
            vpc=self._vpc,
            internet_facing=True,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PUBLIC),
            security_group=security_group,
            idle_timeout=IDLE,
            drop_invalid_header_fields=True,
        )
        acknowledge(balancer, ELB2="edges keep one ledger entry per attempt; an access log would say the same again")
        self._listen(balancer, zone)
        if zone is not None:
            route53.ARecord(
                self,
                "Record",
                zone=zone,
                record_name=f"{self._host}.",
                target=route53.RecordTarget.from_alias(targets.LoadBalancerTarget(balancer)),
            )
        return balancer

    def _listen(self, balancer: elbv2.ApplicationLoadBalancer, zone: route53.IHostedZone | None) -> None:
        """Only the engine's own paths pass; anything else is answered here."""
        listener = balancer.add_listener(
            "Https",
            port=443,
            open=False,
            certificates=[self._certificate(zone)],
            ssl_policy=elbv2.SslPolicy.TLS13_12_RES_PQ,
            default_action=elbv2.ListenerAction.fixed_response(404, content_type="text/plain", message_body="not here"),
        )
        listener.add_action(
            "Engine",
            priority=1,
            conditions=[elbv2.ListenerCondition.path_patterns(list(PATHS))],
            action=elbv2.ListenerAction.forward([self._target_group()]),
        )

    def _certificate(self, zone: route53.IHostedZone | None) -> acm.Certificate:
        """Validated by DNS: by itself in our own zone, else the deployment waits for the operator's record."""
        return acm.Certificate(
            self, "Certificate", domain_name=self._host, validation=acm.CertificateValidation.from_dns(zone)
        )

    def _target_group(self) -> elbv2.ApplicationTargetGroup:
        return elbv2.ApplicationTargetGroup(
            self,
            "Nodes",
            vpc=self._vpc,
            port=VLLM_PORT,
            protocol=elbv2.ApplicationProtocol.HTTP,
            targets=[self._fleet],
            load_balancing_algorithm_type=elbv2.TargetGroupLoadBalancingAlgorithmType.LEAST_OUTSTANDING_REQUESTS,
            deregistration_delay=DRAIN,
            health_check=elbv2.HealthCheck(
                path="/health",
                interval=Duration.seconds(10),
                timeout=Duration.seconds(5),
                healthy_threshold_count=2,
                unhealthy_threshold_count=3,
            ),
        )


def _hooks() -> Iterator[autoscaling.CfnAutoScalingGroup.LifecycleHookSpecificationProperty]:
    """A node takes traffic once it says that it is ready, and may finish its streams before it goes.

    They are part of the group: as resources of their own they would come after its first nodes.
    """
    for name, transition, default, timeout in (
        ("launch", "LAUNCHING", "ABANDON", LAUNCH_HOOK),
        ("terminate", "TERMINATING", "CONTINUE", TERMINATE_HOOK),
    ):
        yield autoscaling.CfnAutoScalingGroup.LifecycleHookSpecificationProperty(
            lifecycle_hook_name=name,
            lifecycle_transition=f"autoscaling:EC2_INSTANCE_{transition}",
            default_result=default,
            heartbeat_timeout=timeout.to_seconds(),
        )


def _quantization(model: str) -> str:
    """What the name of a 4-bit model says about itself; vLLM finds out where it says nothing."""
    for method in ("awq", "gptq"):
        if method in model.lower():
            return f"--quantization {method}"
    return ""
