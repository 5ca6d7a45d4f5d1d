"""The alarms of an edge and of what there is once, and where they go."""

from __future__ import annotations

from aws_cdk import Aws, Duration
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.constructs.audit import stream_name
from infra.constructs.streaming_api import ACCESS_LOG_FIELDS, StreamingApi
from infra.settings import Deployment

# Within five minutes. A scanner or two is daily life; this is an attack, or a rule that hits callers.
BLOCKED = 1000


class _Alarms(Construct):
    """Alarms whose names begin with `prefix`, and the topic that they tell, if there is an address for it."""

    def __init__(self, scope: Construct, id: str, *, prefix: str, email: str | None) -> None:
        super().__init__(scope, id)
        self._prefix = prefix
        self._topic = self._mail_topic(email) if email else None

    def _mail_topic(self, email: str) -> sns.Topic:
        topic = sns.Topic(self, "Topic", enforce_ssl=True)
        # A policy of one's own replaces the default one, by which alarms may publish.
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
            )
        )
        topic.add_subscription(subscriptions.EmailSubscription(email))
        return topic

    def _alarm(
        self,
        name: str,
        metric: cloudwatch.IMetric,
        threshold: float,
        description: str,
        *,
        comparison: cloudwatch.ComparisonOperator = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
        periods: int = 1,
    ) -> None:
        alarm = cloudwatch.Alarm(
            self,
            name,
            alarm_name=f"{self._prefix}-{name}",
            alarm_description=description,
            metric=metric,
            threshold=threshold,
            comparison_operator=comparison,
            evaluation_periods=periods,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        if self._topic:
            alarm.add_alarm_action(actions.SnsAction(self._topic))


class Alarms(_Alarms):
    """Errors, slow first bytes, throttles, much that is blocked, what stands in the directory and cannot be obeyed and,
    where there are pools, no healthy one."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        deployment: Deployment,
        region: str,
        api: StreamingApi,
        function: lambda_.IFunction,
        web_acl: str,
    ) -> None:
        limits = deployment.settings.alarms
        super().__init__(scope, id, prefix=f"{deployment.name}-{region}", email=limits.email)
        # The edge function writes its own metrics (embedded in its log) to this namespace, by region.
        self._namespace = f"Isochrone/{deployment.name}"
        self._errors(api.api, limits.error_rate)
        self._slow(api.access_log, limits.latency_p99)
        self._throttles(function)
        self._blocked(web_acl, region)
        self._directory_refused(region)
        if any(backend.kind == "pool" for backend in deployment.settings.backend):
            self._no_healthy_pool(region)
        if deployment.settings.audit.to == "firehose":
            self._audit_waits(stream_name(deployment))

    def _audit_waits(self, stream: str) -> None:
        metric = cloudwatch.Metric(
            namespace="AWS/Firehose",
            metric_name="DeliveryToS3.DataFreshness",
            dimensions_map={"DeliveryStreamName": stream},
            period=Duration.minutes(5),
            statistic="Maximum",
        )
        self._alarm(
            "AuditWaits", metric, 1800, "Entries of the audit log have been waiting for their bucket for 30 min"
        )

    def _errors(self, api: apigateway.RestApi, rate: float) -> None:
        # The average of 5XXError is the share of requests that failed.
        metric = api.metric_server_error(period=Duration.minutes(2), statistic="Average")
        self._alarm("ErrorRate", metric, rate, f"More than {rate:.0%} of the requests failed (5xx) over 2 minutes")

    def _slow(self, access_log: logs.ILogGroup, seconds: float) -> None:
        # API Gateway's own Latency runs until a stream has ended: it would measure the length of the answers.
        metric = logs.MetricFilter(
            self,
            "FirstContent",
            log_group=access_log,
            filter_pattern=logs.FilterPattern.literal(f"[{', '.join(_numeric_first_content())}]"),
            metric_namespace=self._namespace,
            metric_name="FirstContent",
            metric_value="$first_content",
            unit=cloudwatch.Unit.MILLISECONDS,
        ).metric(period=Duration.minutes(5), statistic="p99")
        self._alarm("SlowP99", metric, seconds * 1000, f"p99 to the first byte is above {seconds} s over 5 minutes")

    def _throttles(self, function: lambda_.IFunction) -> None:
        metric = function.metric_throttles(period=Duration.minutes(1), statistic="Sum")
        self._alarm("Throttles", metric, 0, "Lambda turned requests away: the account's concurrency is used up")

    def _blocked(self, web_acl: str, region: str) -> None:
        metric = cloudwatch.Metric(
            namespace="AWS/WAFV2",
            metric_name="BlockedRequests",
            dimensions_map={"WebACL": web_acl, "Region": region, "Rule": "ALL"},
            period=Duration.minutes(5),
            statistic="Sum",
        )
        self._alarm(
            "Blocked", metric, BLOCKED, f"The web ACL blocked more than {BLOCKED} requests in 5 minutes: see which rule"
        )

    def _directory_refused(self, region: str) -> None:
        metric = cloudwatch.Metric(
            namespace=self._namespace,
            metric_name="DirectoryRefused",
            dimensions_map={"Region": region},
            period=Duration.minutes(5),
            statistic="Maximum",
        )
        self._alarm(
            "DirectoryRefused",
            metric,
            0,
            "Policies or revocations in the directory cannot be obeyed, so those of before go on: the log says which",
        )

    def _no_healthy_pool(self, region: str) -> None:
        metric = cloudwatch.Metric(
            namespace=self._namespace,
            metric_name="HealthyPools",
            dimensions_map={"Region": region},
            period=Duration.minutes(1),
            statistic="Maximum",
        )
        self._alarm(
            "NoHealthyPool",
            metric,
            1,
            "No GPU pool is healthy as this edge sees them: every request goes to an API",
            comparison=cloudwatch.ComparisonOperator.LESS_THAN_THRESHOLD,
            periods=2,
        )


class RotationAlarm(_Alarms):
    """A pool's key could not be made anew: nobody is shut out, and the old key stays in use."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment, function: lambda_.IFunction) -> None:
        super().__init__(scope, id, prefix=deployment.name, email=deployment.settings.alarms.email)
        metric = function.metric_errors(period=Duration.hours(1), statistic="Sum")
        self._alarm("RotationFailed", metric, 0, "The key of a pool was not made anew; the rotator's log says why")


def _numeric_first_content() -> list[str]:
    """The fields of the access log, with the condition that there was a first byte at all."""
    return [f"{field}>=0" if field == "first_content" else field for field in ACCESS_LOG_FIELDS]
