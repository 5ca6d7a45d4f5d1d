"""A local Runtime API for one execution environment, as strict as the real one: what it does not accept, it names.

submit() -> queue -> GET /invocation/next -> POST /invocation/{id}/response (chunks, trailers) -> Invocation
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from asyncio import StreamReader, StreamWriter
from typing import Any

from local.gateway import protocol, wire
from local.gateway.invocation import FunctionFailed, Invocation
from local.gateway.protocol import Violation

_PREFIX = "/2018-06-01/runtime/"
_ARN = "arn:aws:lambda:{region}:000000000000:function:isochrone-edge:live"
_TRACE = "Root=1-00000000-000000000000000000000000;Parent=0000000000000000;Sampled=0"
_LIMIT = 2**20
_MAX_RESPONSE = 200 * 2**20


class _TooLarge(Exception):
    """More bytes than Lambda streams in one response."""


class LocalRuntimeApi:
    """Start it, point AWS_LAMBDA_RUNTIME_API at `address`, submit events.

    `violations` lists every rule that the runtime broke. `init_error` and `restore_error` hold what it reported.
    `ready` is set when it asks for an event, `photographed` when it waits for the snapshot's restore, `timed_out` when
    an event was not answered in `timeout` seconds: then Lambda ends the process, and so must who started it.
    """

    def __init__(self, *, region: str = "us-east-1", timeout: float = 900.0, max_response: int = _MAX_RESPONSE) -> None:
        self.region = region
        self.max_response = max_response
        self.timeout = timeout
        self.violations: list[str] = []
        self.init_error: dict[str, Any] | None = None
        self.restore_error: dict[str, Any] | None = None
        self.ready = asyncio.Event()
        self.photographed = asyncio.Event()
        self.restored = asyncio.Event()
        self.timed_out = asyncio.Event()
        self.current: Invocation | None = None
        self.connections = 0
        self._waiting: asyncio.Queue[Invocation] = asyncio.Queue()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[StreamWriter] = set()
        self._clock: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_LIMIT)

    @property
    def address(self) -> str:
        """host:port, as in AWS_LAMBDA_RUNTIME_API."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        tasks = [*self._tasks, *([self._clock] if self._clock else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def submit(self, event: dict[str, Any]) -> Invocation:
        """Queue an event."""
        invocation = Invocation(event)
        self._waiting.put_nowait(invocation)
        return invocation

    def cut(self) -> None:
        """Drop every connection, as a platform that gives up on a response does."""
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            while head := await wire.read_head(reader):
                writer.write(await self._reply_to(head, reader))
                await writer.drain()
        except _TooLarge:
            await self.drop("Function.ResponseSizeTooLarge", f"more than {self.max_response} bytes")
            writer.write(wire.reply(413))
            await reader.read()  # the rest of the body is on its way, so nothing else can be said over this connection
        except (Violation, ValueError) as error:
            await self._blame(str(error))
        except (OSError, asyncio.IncompleteReadError):
            await self.drop("Runtime.ExitError", "the runtime closed the connection in the middle of a response")
        except asyncio.CancelledError:
            pass  # stop() ends us
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _reply_to(self, head: wire.Head, reader: StreamReader) -> bytes:
        if not head.path.startswith(_PREFIX):
            raise Violation(f"no such path: {head.path}")
        match head.method, head.path.removeprefix(_PREFIX).split("/"):
            case "GET", ["invocation", "next"]:
                return await self._next(reader)
            case "POST", ["invocation", id_, "response"]:
                return await self._response(id_, head, reader)
            case "POST", ["invocation", id_, "error"]:
                return await self._error(id_, await wire.read_body(reader, head))
            case "POST", ["init", "error"]:
                self.init_error = json.loads(await wire.read_body(reader, head))
                return wire.reply(202)
            case "GET", ["restore", "next"]:
                self.photographed.set()
                await self.restored.wait()
                return wire.reply(200)
            case "POST", ["restore", "error"]:
                self.restore_error = json.loads(await wire.read_body(reader, head))
                return wire.reply(202)
        raise Violation(f"no such call: {head.method} {head.path}")

    async def _next(self, reader: StreamReader) -> bytes:
        if self.current and not self.current.finished.is_set():
            raise Violation("asked for the next event before the last one was answered")
        self.ready.set()
        self.current = await self._take_while_connected(reader)
        self._clock = asyncio.create_task(self._time(self.current))
        headers = {
            "Lambda-Runtime-Aws-Request-Id": self.current.id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + self.timeout) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": _ARN.format(region=self.region),
            "Lambda-Runtime-Trace-Id": _TRACE,
            "Lambda-Runtime-Invocation-Id": _echo_of(self.current),
            "Content-Type": "application/json",
        }
        return wire.reply(200, headers, json.dumps(self.current.event).encode())

    async def _take_while_connected(self, reader: StreamReader) -> Invocation:
        """The next event, which stays in the queue when the runtime is gone before it comes."""
        taken = asyncio.create_task(self._waiting.get())
        gone = asyncio.create_task(reader.read(1))
        try:
            await asyncio.wait({taken, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not taken.done():
                raise ConnectionResetError("the runtime left")
            return taken.result()
        finally:
            taken.cancel()
            gone.cancel()
            await asyncio.wait({gone})

    async def _response(self, id_: str, head: wire.Head, reader: StreamReader) -> bytes:
        invocation = self._answering(id_)
        protocol.check_response_head(head.headers, echo=_echo_of(invocation))
        trailers: dict[str, str] = {}
        prelude_reader: protocol.PreludeReader | None = protocol.PreludeReader()
        size = 0
        async for chunk in wire.read_chunks(reader, trailers):
            data = chunk
            size += len(chunk)
            if size > self.max_response:
                raise _TooLarge
            if prelude_reader:
                found = prelude_reader.feed(chunk)
                if found is None:
                    continue
                prelude, data = found
                prelude_reader = None
                invocation.begin(prelude)
            if data:
                await invocation.put(data)
        if prelude_reader:
            raise Violation("the response ended before the prelude did")
        error = protocol.check_trailers(trailers, announced=head.headers.get("trailer", ""))
        if error:
            await invocation.fail(FunctionFailed(error["errorType"], error["errorMessage"]))
        else:
            await invocation.end()
        return wire.reply(202)

    async def _error(self, id_: str, body: bytes) -> bytes:
        error = json.loads(body)
        await self._answering(id_).fail(FunctionFailed(error["errorType"], error["errorMessage"]))
        return wire.reply(202)

    def _answering(self, id_: str) -> Invocation:
        if self.current is None or self.current.id != id_ or self.current.finished.is_set():
            raise Violation(f"{id_} is not the event that is being answered")
        return self.current

    async def _time(self, invocation: Invocation) -> None:
        try:
            await asyncio.wait_for(invocation.finished.wait(), self.timeout)
        except TimeoutError:
            self.timed_out.set()
            await invocation.fail(
                FunctionFailed("Sandbox.Timedout", f"Task timed out after {self.timeout:.2f} seconds")
            )

    async def _blame(self, violation: str) -> None:
        self.violations.append(violation)
        await self.drop("Runtime.InvalidResponse", violation)

    async def drop(self, kind: str, message: str) -> None:
        """Fail the event that is being answered, if there is one."""
        if self.current:
            await self.current.fail(FunctionFailed(kind, message))


def _echo_of(invocation: Invocation) -> str:
    return f"echo-{invocation.id}"
