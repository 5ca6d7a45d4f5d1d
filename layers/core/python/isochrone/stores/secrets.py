"""The keys with which backends are asked, read where they lie: Secrets Manager, or SSM's parameter store."""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Struct, field

from isochrone.settings import Backend
from isochrone.stores.dynamodb.client import DynamoClient, Service, Timeouts, connect

SECRETS_MANAGER = Service("Secrets Manager", "secretsmanager", "secretsmanager", "application/x-amz-json-1.1")
PARAMETER_STORE = Service("SSM", "ssm", "AmazonSSM", "application/x-amz-json-1.1")

# A request that was refused waits for a key for less time than this; reading goes on without it.
_TIMEOUTS = Timeouts(connect=2.0, total=10.0)


class _Secret(Struct):
    SecretString: str = ""


class _Value(Struct):
    Value: str = ""


class _Parameter(Struct):
    Parameter: _Value = field(default_factory=_Value)


async def read_secret(client: DynamoClient, name: str) -> str:
    """The text of a secret; `client` is one of SECRETS_MANAGER. Raises StoreUnavailable."""
    secret = await client.call("GetSecretValue", {"SecretId": name}, _Secret)
    return secret.SecretString.strip()


async def read_parameter(client: DynamoClient, name: str) -> str:
    """The text of a parameter, decrypted; `client` is one of PARAMETER_STORE. Raises StoreUnavailable."""
    found = await client.call("GetParameter", {"Name": name, "WithDecryption": True}, _Parameter)
    return found.Parameter.Value.strip()


class SecretReader:
    """Reads the keys of backends in one region, over a client for each service that holds one."""

    def __init__(self, region: str, *, endpoint_url: str | None, environ: Mapping[str, str] = os.environ) -> None:
        self._region = region
        self._endpoint_url = endpoint_url
        self._environ = environ
        self._clients: dict[Service, DynamoClient] = {}

    async def read(self, backend: Backend) -> str:
        """The key of a backend that has `api_key_secret` or `api_key_parameter`. Raises StoreUnavailable."""
        if backend.api_key_parameter:
            return await read_parameter(self._client(PARAMETER_STORE), backend.api_key_parameter)
        return await read_secret(self._client(SECRETS_MANAGER), backend.api_key_secret or "")

    async def aclose(self) -> None:
        """Close every connection."""
        for client in self._clients.values():
            await client.aclose()

    def _client(self, service: Service) -> DynamoClient:
        if service not in self._clients:
            self._clients[service] = connect(
                self._region,
                service=service,
                endpoint_url=self._endpoint_url,
                environ=self._environ,
                timeouts=_TIMEOUTS,
            )
        return self._clients[service]
