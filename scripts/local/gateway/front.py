"""API Gateway's side: HTTP in, REST-proxy events to the function, its stream out as it comes.

Like the real one it holds requests to 10 MB, answers 502 when the function breaks the protocol before the body, cuts
the connection when it fails in the body, and does not tell the function when the client leaves.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import uuid
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from local.gateway.invocation import FunctionFailed, Invocation
from local.gateway.runtime_api import LocalRuntimeApi

_MAX_REQUEST = 10 * 2**20
_STAGE = "live"

log = logging.getLogger(__name__)


def application(api: LocalRuntimeApi) -> web.Application:
    """An aiohttp application that sends every request to the function behind `api`."""
    front = Front(api)
    app = web.Application(client_max_size=_MAX_REQUEST)
    app.router.add_route("*", "/{path:.*}", front.handle)
    app.on_shutdown.append(front.forget)
    return app


class Front:
    def __init__(self, api: LocalRuntimeApi) -> None:
        self._api = api
        self._abandoned: set[asyncio.Task[None]] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request, one event, one streamed reply."""
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return web.json_response({"message": "Request Too Long"}, status=413)
        invocation = self._api.submit(event_of(request, body))
        try:
            prelude = await invocation.prelude()
        except FunctionFailed as failure:
            log.error("502 %s", failure)
            return web.json_response({"message": "Internal server error"}, status=502)
        response = web.StreamResponse(status=prelude.status, headers=prelude.headers)
        await response.prepare(request)
        return await self._relay(request, response, invocation)

    async def _relay(
        self, request: web.Request, response: web.StreamResponse, invocation: Invocation
    ) -> web.StreamResponse:
        body = invocation.body()
        try:
            async for chunk in body:
                await response.write(chunk)
            await response.write_eof()
        except FunctionFailed as failure:
            log.error("cut: %s", failure)
            if request.transport:
                request.transport.abort()
        except ConnectionError:
            self._let_it_finish(body)
        return response

    def _let_it_finish(self, body: Any) -> None:
        task = asyncio.create_task(_drain(body))
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    async def forget(self, _: web.Application) -> None:
        for task in list(self._abandoned):
            task.cancel()
        await asyncio.gather(*self._abandoned, return_exceptions=True)


async def _drain(body: Any) -> None:
    """Nobody reads any more, but the function does not know and goes on, as on AWS."""
    try:
        async for _ in body:
            pass
    except FunctionFailed as failure:
        log.error("after the client had left: %s", failure)


def event_of(request: web.Request, body: bytes) -> dict[str, Any]:
    """The REST API's proxy event (payload 1.0) for a request."""
    headers, query = _lists(request.headers.items()), _lists(request.query.items())
    return {
        "resource": "/{proxy+}",
        "path": request.raw_path.partition("?")[0],
        "httpMethod": request.method,
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": {"proxy": request.path.lstrip("/")},
        "stageVariables": None,
        "requestContext": {
            "resourcePath": "/{proxy+}",
            "httpMethod": request.method,
            "path": f"/{_STAGE}{request.path}",
            "protocol": "HTTP/1.1",
            "stage": _STAGE,
            "requestId": str(uuid.uuid4()),
            "identity": {"sourceIp": request.remote, "userAgent": request.headers.get("user-agent")},
        },
        **_body_fields(body),
    }


def _lists(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for name, value in pairs:
        lists.setdefault(name, []).append(value)
    return lists


def _body_fields(body: bytes) -> dict[str, Any]:
    if not body:
        return {"body": None, "isBase64Encoded": False}
    try:
        return {"body": body.decode(), "isBase64Encoded": False}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
