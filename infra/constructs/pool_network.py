"""The network of a region's pools: public subnets only, so that no NAT gateway has to be paid for."""

from __future__ import annotations

from aws_cdk import Fn, RemovalPolicy
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from constructs import Construct

# Three zones find spot capacity more often than two; this region gives an account only two.
ZONES = 3
ZONES_OF = {"us-west-1": 2}


class PoolNetwork(Construct):
    """A VPC over the zones that the account has in `region`, named by CloudFormation at deploy time."""

    def __init__(self, scope: Construct, id: str, *, region: str) -> None:
        super().__init__(scope, id)
        zones = Fn.get_azs(region)
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr("10.42.0.0/16"),
            availability_zones=[Fn.select(i, zones) for i in range(ZONES_OF.get(region, ZONES))],
            nat_gateways=0,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=20, map_public_ip_on_launch=False
                )
            ],
            # Emptying the default group takes a custom resource with its own function; nothing here uses the group.
            restrict_default_security_group=False,
        )
        log_group = logs.LogGroup(
            self, "FlowLogs", retention=logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY
        )
        self.vpc.add_flow_log(
            "Rejected",
            destination=ec2.FlowLogDestination.to_cloud_watch_logs(log_group),
            traffic_type=ec2.FlowLogTrafficType.REJECT,
        )
