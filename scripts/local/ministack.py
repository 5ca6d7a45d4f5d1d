"""MiniStack, the AWS emulator: how it is started here, and what a process needs to talk to it and to nothing else."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from local.layout import Layout

HEALTH = "/_ministack/health"
COMMAND = (sys.executable, "-m", "ministack")


def environment(layout: Layout) -> dict[str, str]:
    """MiniStack's own settings: loopback only, functions as plain processes, state kept from run to run."""
    folder = layout.folder / "ministack"
    return {
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(layout.cloud_port),
        "LAMBDA_EXECUTOR": "local",
        "PERSIST_STATE": "1",
        "STATE_DIR": str(folder / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder / "s3"),
        "TMPDIR": str(scratch(layout)),
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "LOG_LEVEL": "WARNING",
    }


def scratch(layout: Layout) -> Path:
    """Where it unpacks functions; it does not clean up after itself."""
    return layout.folder / "ministack" / "tmp"


def client_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with the caller's AWS account and proxies taken out: nothing here may reach a real account."""
    kept = {key: value for key, value in environ.items() if not key.startswith(("AWS_", "CDK_"))}
    return kept | {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
