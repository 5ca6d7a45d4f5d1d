"""Where the audit log of a region is kept: a bucket that only Firehose writes to, and a table to query it by.

edge -- PutRecordBatch --> Firehose -- gzip, every 5 min --> bucket: requests/day=2026-11-23/hour=09/...gz
                                                                '--> Athena: one table, queries that are ready
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from aws_cdk import ArnFormat, Aws, CfnElement, CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_athena as athena
from aws_cdk import aws_glue as glue
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kinesisfirehose as firehose
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.acknowledge import acknowledge
from infra.constructs.encryption import key_in
from infra.constructs.own_function import LOG_RETENTION
from infra.constructs.tables import KEPT
from infra.settings import Deployment, audit_bucket

REQUESTS, ERRORS = "requests", "errors"
# What an object gathers before it is written: whichever comes first.
BUFFER = firehose.CfnDeliveryStream.BufferingHintsProperty(interval_in_seconds=300, size_in_m_bs=16)
# What was deleted or replaced by hand can be had back for so long.
REMAINS = Duration.days(7)
FIRST_DAY = "2026-01-01"

COLUMNS = {
    "writer": "string", "seq": "bigint", "prev": "string", "hash": "string", "record": "string",
    "time": "bigint", "request_id": "string", "edge": "string", "method": "string", "path": "string",
    "address": "string", "country": "string", "tenant": "string", "key_id": "string", "subject": "string",
    "kind": "string", "action": "string", "model": "string", "parameters": "map<string,string>", "question": "string",
    "decision": "string", "rule": "string", "reason": "string", "note": "string", "status": "int", "backend": "string",
    "cache": "string", "attempts": "int", "outcome": "string", "first_token_ms": "double", "latency_ms": "double",
    "input_tokens": "bigint", "output_tokens": "bigint", "estimated": "boolean", "cost": "double",
}  # fmt: skip
_RECENT = "day >= date_format(current_date - interval '1' day, '%Y-%m-%d')"
# The same entry may be delivered twice: DISTINCT over what names it.
QUERIES = {
    "denied": (
        "Who was refused since yesterday, and why",
        "SELECT DISTINCT from_unixtime(time / 1000.0) AS at, decision, status, reason, rule, tenant, key_id, address, "
        "country, method, path, model, request_id FROM {table} "
        "WHERE record = 'request' AND decision <> 'allowed' AND {recent} ORDER BY at DESC LIMIT 1000",
    ),
    "use": (
        "What each tenant asked for since yesterday",
        "SELECT tenant, model, count(DISTINCT request_id) AS requests, sum(input_tokens) AS input_tokens, "
        "sum(output_tokens) AS output_tokens, sum(cost) AS dollars FROM "
        "(SELECT DISTINCT writer, seq, tenant, model, request_id, input_tokens, output_tokens, cost FROM {table} "
        "WHERE record = 'request' AND {recent}) GROUP BY tenant, model ORDER BY dollars DESC",
    ),
    "caller": (
        "All that one address asked since yesterday: put the address in",
        "SELECT DISTINCT from_unixtime(time / 1000.0) AS at, decision, status, tenant, key_id, method, path, model, "
        "backend, latency_ms, request_id FROM {table} "
        "WHERE record = 'request' AND address = '192.0.2.1' AND {recent} ORDER BY at DESC LIMIT 1000",
    ),
}


class AuditTrail(Construct):
    """Bucket, delivery stream, table and queries of one region. The bucket stays when the stack goes."""

    def __init__(self, scope: Construct, id: str, *, deployment: Deployment) -> None:
        super().__init__(scope, id)
        self._deployment = deployment
        key = key_in(self, deployment, Stack.of(self).region)
        self.bucket = self._bucket(key)
        self._role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("firehose.amazonaws.com"))
        self._only_firehose_writes()
        stream = self._stream(key)
        stream.node.add_dependency(self._allow_delivery(key))
        self._table()
        CfnOutput(self, "Bucket", value=self.bucket.bucket_name)

    def _bucket(self, key: kms.IKey | None) -> s3.Bucket:
        """Private, encrypted, versioned; entries go when their days are over."""
        days = Duration.days(self._deployment.settings.audit.days)
        locked = self._deployment.settings.audit.object_lock
        bucket = s3.Bucket(
            self,
            "Log",
            bucket_name=audit_bucket(self._deployment.name, Aws.ACCOUNT_ID, Stack.of(self).region),
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            encryption=s3.BucketEncryption.KMS if key else s3.BucketEncryption.S3_MANAGED,
            encryption_key=key,
            bucket_key_enabled=True if key else None,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            object_lock_enabled=locked or None,
            object_lock_default_retention=s3.ObjectLockRetention.compliance(days) if locked else None,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="days",
                    expiration=days,
                    noncurrent_version_expiration=REMAINS,
                    abort_incomplete_multipart_upload_after=Duration.days(1),
                )
            ],
            removal_policy=RemovalPolicy.DESTROY if self._deployment.local else KEPT,
        )
        acknowledge(bucket, S1="it holds a log; who reads it shows in CloudTrail's data events, where they are on")
        return bucket

    def _only_firehose_writes(self) -> None:
        """Nobody else, however much they may otherwise, unless they change this policy first."""
        actions = ["s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"]
        self.bucket.add_to_resource_policy(
            iam.PolicyStatement(
                effect=iam.Effect.DENY,
                principals=[iam.AnyPrincipal()],
                actions=actions,
                resources=[self.bucket.arn_for_objects("*")],
                conditions={"ArnNotEquals": {"aws:PrincipalArn": self._role.role_arn}},
            )
        )

    def _allow_delivery(self, key: kms.IKey | None) -> iam.Policy:
        """What the guide of Firehose asks for an S3 destination, below two prefixes, and to log why it failed."""
        policy = iam.Policy(self, "Delivery", roles=[self._role])
        about = ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"]
        objects = [self.bucket.arn_for_objects(f"{prefix}/*") for prefix in (REQUESTS, ERRORS)]
        policy.add_statements(
            iam.PolicyStatement(actions=about, resources=[self.bucket.bucket_arn]),
            iam.PolicyStatement(actions=["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"], resources=objects),
            iam.PolicyStatement(actions=["logs:PutLogEvents"], resources=[self._log_stream_arn()]),
            *self._use_of(key),
        )
        why = "objects have names that Firehose makes, below two prefixes of one bucket"
        log = Stack.of(self).get_logical_id(cast(CfnElement, self.bucket.node.default_child))
        acknowledge(policy, **{f"IAM5[Resource::<{log}.Arn>/{prefix}/*]": why for prefix in (REQUESTS, ERRORS)})
        return policy

    def _use_of(self, key: kms.IKey | None) -> Iterator[iam.PolicyStatement]:
        if key:
            via = f"s3.{Stack.of(self).region}.{Stack.of(self).url_suffix}"
            yield iam.PolicyStatement(
                actions=["kms:Decrypt", "kms:GenerateDataKey"],
                resources=[key.key_arn],
                conditions={"StringEquals": {"kms:ViaService": via}},
            )

    def _stream(self, key: kms.IKey | None) -> firehose.CfnDeliveryStream:
        self._errors = logs.LogGroup(
            self,
            "Errors",
            log_group_name=f"/aws/kinesisfirehose/{stream_name(self._deployment)}",
            retention=LOG_RETENTION,
            removal_policy=RemovalPolicy.DESTROY,
        )
        self._errors_stream = logs.LogStream(self, "ErrorStream", log_group=self._errors, log_stream_name="delivery")
        encryption = firehose.CfnDeliveryStream.EncryptionConfigurationProperty
        use_key = firehose.CfnDeliveryStream.KMSEncryptionConfigProperty
        return firehose.CfnDeliveryStream(
            self,
            "Stream",
            delivery_stream_name=stream_name(self._deployment),
            delivery_stream_type="DirectPut",
            delivery_stream_encryption_configuration_input=(
                firehose.CfnDeliveryStream.DeliveryStreamEncryptionConfigurationInputProperty(key_type="AWS_OWNED_CMK")
            ),
            extended_s3_destination_configuration=firehose.CfnDeliveryStream.ExtendedS3DestinationConfigurationProperty(
                bucket_arn=self.bucket.bucket_arn,
                role_arn=self._role.role_arn,
                prefix=f"{REQUESTS}/day=!{{timestamp:yyyy-MM-dd}}/hour=!{{timestamp:HH}}/",
                error_output_prefix=f"{ERRORS}/!{{firehose:error-output-type}}/day=!{{timestamp:yyyy-MM-dd}}/",
                file_extension=".jsonl.gz",
                compression_format="GZIP",
                buffering_hints=BUFFER,
                encryption_configuration=encryption(kms_encryption_config=use_key(awskms_key_arn=key.key_arn))
                if key
                else None,
                cloud_watch_logging_options=firehose.CfnDeliveryStream.CloudWatchLoggingOptionsProperty(
                    enabled=True,
                    log_group_name=self._errors.log_group_name,
                    log_stream_name=self._errors_stream.log_stream_name,
                ),
            ),
        )

    def _log_stream_arn(self) -> str:
        return Stack.of(self).format_arn(
            service="logs",
            resource="log-group",
            resource_name=f"{self._errors.log_group_name}:log-stream:{self._errors_stream.log_stream_name}",
            arn_format=ArnFormat.COLON_RESOURCE_NAME,
        )

    def _table(self) -> None:
        """Athena finds the objects of a day by their names: no crawler, no partitions to add."""
        name = f"{self._deployment.name.replace('-', '_')}_audit"
        place = f"s3://{self.bucket.bucket_name}/{REQUESTS}/"
        database = glue.CfnDatabase(
            self,
            "Database",
            catalog_id=Aws.ACCOUNT_ID,
            database_input=glue.CfnDatabase.DatabaseInputProperty(name=name, description="Isochrone: the audit log"),
        )
        table = glue.CfnTable(
            self,
            "Table",
            catalog_id=Aws.ACCOUNT_ID,
            database_name=name,
            table_input=glue.CfnTable.TableInputProperty(
                name="requests",
                description="One entry per request, allowed or denied",
                table_type="EXTERNAL_TABLE",
                parameters=_projection(place),
                partition_keys=[_column("day", "string"), _column("hour", "string")],
                storage_descriptor=glue.CfnTable.StorageDescriptorProperty(
                    location=place,
                    columns=[_column(column, type_) for column, type_ in COLUMNS.items()],
                    input_format="org.apache.hadoop.mapred.TextInputFormat",
                    output_format="org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
                    serde_info=glue.CfnTable.SerdeInfoProperty(
                        serialization_library="org.openx.data.jsonserde.JsonSerDe"
                    ),
                ),
            ),
        )
        table.add_resource_dependency(database)
        self._queries(name)

    def _queries(self, database: str) -> None:
        group = athena.CfnWorkGroup(
            self,
            "WorkGroup",
            name=f"{self._deployment.name}-audit",
            description="Isochrone: questions to the audit log",
            recursive_delete_option=True,
            work_group_configuration=athena.CfnWorkGroup.WorkGroupConfigurationProperty(
                enforce_work_group_configuration=True,
                publish_cloud_watch_metrics_enabled=False,
                managed_query_results_configuration=athena.CfnWorkGroup.ManagedQueryResultsConfigurationProperty(
                    enabled=True
                ),
            ),
        )
        for name, (about, text) in QUERIES.items():
            query = athena.CfnNamedQuery(
                self,
                f"Query-{name}",
                name=f"{self._deployment.name}-audit-{name}",
                description=about,
                database=database,
                work_group=group.name,
                query_string=text.format(table="requests", recent=_RECENT),
            )
            query.add_resource_dependency(group)


def stream_name(deployment: Deployment) -> str:
    """The delivery stream's name in every region, as `isochrone.audit.opening` has it."""
    return f"{deployment.name}-audit"


def audit_writing(scope: Construct, deployment: Deployment) -> Iterator[iam.PolicyStatement]:
    """To hand entries to the stream of the region of `scope`; nothing where none is kept there."""
    if deployment.settings.audit.to == "firehose":
        arn = Stack.of(scope).format_arn(
            service="firehose", resource="deliverystream", resource_name=stream_name(deployment)
        )
        yield iam.PolicyStatement(actions=["firehose:PutRecordBatch"], resources=[arn])


def _projection(place: str) -> dict[str, str]:
    return {
        "projection.enabled": "true",
        "projection.day.type": "date",
        "projection.day.format": "yyyy-MM-dd",
        "projection.day.range": f"{FIRST_DAY},NOW",
        "projection.hour.type": "integer",
        "projection.hour.range": "0,23",
        "projection.hour.digits": "2",
        "storage.location.template": f"{place}day=${{day}}/hour=${{hour}}/",
    }


def _column(name: str, type_: str) -> glue.CfnTable.ColumnProperty:
    return glue.CfnTable.ColumnProperty(name=name, type=type_)
