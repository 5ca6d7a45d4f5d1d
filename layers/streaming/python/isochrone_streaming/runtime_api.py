"""The calls of Lambda's Runtime API (version 2018-06-01), over one connection that is kept between invocations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from isochrone_streaming.faults import Fault
from isochrone_streaming.wire import Connection, HttpReply, WireError

_PREFIX = "/2018-06-01/runtime"
_AGENT = {"user-agent": "isochrone-streaming"}
_STREAMING = {
    **_AGENT,
    "content-type": "application/vnd.awslambda.http-integration-response",
    "lambda-runtime-function-response-mode": "streaming",
    "trailer": "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body",
}
_ERROR = {**_AGENT, "content-type": "application/vnd.aws.lambda.error+json"}


class RuntimeApiError(Exception):
    """The Runtime API cannot be reached or refused a call: this environment is of no more use."""


class Invocation(NamedTuple):
    """One event. `deadline` is when Lambda ends us, in epoch seconds."""

    id: str
    event: bytes
    deadline: float
    trace_id: str | None
    echo: Mapping[str, str]  # headers to send back with the response, word for word

    @classmethod
    def of(cls, reply: HttpReply) -> Invocation:
        headers = reply.headers
        return cls(
            id=headers["lambda-runtime-aws-request-id"],
            event=reply.body,
            deadline=int(headers["lambda-runtime-deadline-ms"]) / 1000,
            trace_id=headers.get("lambda-runtime-trace-id"),
            echo={name: headers[name] for name in ("lambda-runtime-invocation-id",) if name in headers},
        )


class RuntimeApi:
    """`address` is AWS_LAMBDA_RUNTIME_API: host:port."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host or address, int(port) if host else 80
        self._connection: Connection | None = None

    async def next(self) -> Invocation:
        """Wait, without a limit, for the next event. Raises RuntimeApiError."""
        reply = await self._call("GET", "/invocation/next")
        try:
            return Invocation.of(reply)
        except (KeyError, ValueError) as error:
            raise RuntimeApiError(f"/invocation/next: header missing or malformed: {error}") from None

    async def begin_response(self, invocation: Invocation, first: bytes) -> Connection:
        """Start the streamed response with `first`; the caller goes on with the connection. Raises WireError."""
        connection = await self._connected()
        await connection.begin_chunked(*_response_to(invocation), first)
        return connection

    async def respond(self, invocation: Invocation, whole: bytes) -> HttpReply:
        """The streamed response of which everything is known already. Raises WireError."""
        return await (await self._connected()).post_chunked(*_response_to(invocation), whole)

    async def invocation_error(self, invocation: Invocation, fault: Fault) -> None:
        """This event has no answer in the response format."""
        await self._report(f"/invocation/{invocation.id}/error", fault, invocation.echo)

    async def init_error(self, fault: Fault) -> None:
        await self._report("/init/error", fault)

    async def restore_next(self) -> None:
        """Returns when the snapshot was taken and restored, maybe days later and on another machine."""
        await self._call("GET", "/restore/next")
        self.disconnect()  # the socket is a leftover of the machine where the snapshot was taken

    async def restore_error(self, fault: Fault) -> None:
        await self._report("/restore/error", fault)

    def disconnect(self) -> None:
        """The next call opens a new connection."""
        if self._connection:
            self._connection.close()
        self._connection = None

    async def _report(self, path: str, fault: Fault, echo: Mapping[str, str] | None = None) -> None:
        headers = {**_ERROR, "lambda-runtime-function-error-type": fault.type, **(echo or {})}
        await self._call("POST", path, headers, fault.document())

    async def _call(self, method: str, path: str, headers: Mapping[str, str] = _AGENT, body: bytes = b"") -> HttpReply:
        try:
            reply = await (await self._connected()).request(method, _PREFIX + path, headers, body)
        except WireError as error:
            raise RuntimeApiError(f"{method} {path}: {error}") from None
        if reply.status >= 300:
            raise RuntimeApiError(f"{method} {path}: status {reply.status}")
        return reply

    async def _connected(self) -> Connection:
        if self._connection is None or not self._connection.usable:
            self.disconnect()
            self._connection = await Connection.open(self._host, self._port)
        return self._connection


def _response_to(invocation: Invocation) -> tuple[str, dict[str, str]]:
    return f"{_PREFIX}/invocation/{invocation.id}/response", {**_STREAMING, **invocation.echo}
