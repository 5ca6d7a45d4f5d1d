"""Secrets by name: the keys with which backends are asked."""

from __future__ import annotations

from msgspec import Struct

from isochrone.stores.dynamodb.client import DynamoClient, Service

SECRETS_MANAGER = Service("Secrets Manager", "secretsmanager", "secretsmanager", "application/x-amz-json-1.1")


class _Secret(Struct):
    SecretString: str = ""


async def read_secret(client: DynamoClient, name: str) -> str:
    """The text of a secret; `client` is one of SECRETS_MANAGER. Raises StoreUnavailable."""
    secret = await client.call("GetSecretValue", {"SecretId": name}, _Secret)
    return secret.SecretString.strip()
