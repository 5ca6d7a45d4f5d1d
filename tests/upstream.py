"""A scripted upstream: an OpenAI-compatible backend that fails in the way that the request's model name says.

    async with Upstream() as backend:           # listens on a free port of 127.0.0.1
        ...                                     # ask backend.base_url for the model "cut", "stall", "ok"...
        backend.requests[0].body                # what it received, byte by byte

A script is a coroutine that writes one reply on an `Exchange`; `SCRIPTS` has them by name, and a test adds its own with
`backend.scripts["mine"] = ...`. Everything goes over a raw socket, so that HTTP itself can be broken. What a script
waits for is the client's leaving or the `gate` that the test opens, never a guess of how long something takes.
"""

from __future__ import annotations

import asyncio
import json
import re
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, Self

from msgspec import Struct, field

WORDS = ("An ", "isochrone ", "joins ", "places ", "equally ", "far 🌍 ", "in ", "time", ".")
TEXT = "".join(WORDS)
USAGE = {"prompt_tokens": 7, "completion_tokens": len(WORDS), "total_tokens": 7 + len(WORDS)}
REASONING = ("First ", "the ", "distance.")
FUNCTION = {"name": "rtt", "arguments": '{"to": "eu-west-1"}'}
TOOL_CALL = {"id": "call_1", "type": "function", "function": FUNCTION}
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
RETRY_AFTER = 7

Script = Callable[["Exchange"], Awaitable[None]]


class Received(Struct, kw_only=True):
    """One request as it came. Header names are as they were sent; `connection` counts from 1."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    connection: int
    client_left: asyncio.Event

    @property
    def fields(self) -> dict[str, Any]:
        """The body as JSON."""
        fields: dict[str, Any] = json.loads(self.body)
        return fields

    def header(self, name: str) -> list[str]:
        """Every value of a header, whatever its case."""
        return [value for known, value in self.headers if known.lower() == name.lower()]


class Exchange(Struct, kw_only=True):
    """One request, and the means to answer it well or badly."""

    received: Received
    backend: Upstream
    writer: asyncio.StreamWriter
    keep_alive: bool = True
    chunked: bool = field(default=False)

    @property
    def wants_stream(self) -> bool:
        """True when the caller asked for a stream."""
        return bool(self.received.fields.get("stream"))

    @property
    def wants_usage(self) -> bool:
        """True when the caller asked for usage at the end of its stream."""
        return bool((self.received.fields.get("stream_options") or {}).get("include_usage"))

    async def write(self, data: bytes) -> None:
        """Raw bytes, sent now."""
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, /, **headers: str) -> None:
        """Status line and headers; `content_type` becomes `Content-Type`."""
        lines = [f"HTTP/1.1 {status} Scripted"]
        lines += [f"{name.replace('_', '-').title()}: {value}" for name, value in headers.items()]
        await self.write("\r\n".join([*lines, "", ""]).encode())

    async def json(self, body: Any, status: int = 200, /, **headers: str) -> None:
        """A whole reply."""
        data = json.dumps(body).encode()
        await self.head(status, content_type="application/json", content_length=str(len(data)), **headers)
        await self.write(data)

    async def begin_stream(self, *, chunked: bool = True) -> None:
        """Headers of an event stream; without `chunked`, closing the connection is its end."""
        self.chunked = chunked
        self.keep_alive = chunked
        framing = {"transfer_encoding": "chunked"} if chunked else {"connection": "close"}
        await self.head(content_type="text/event-stream", **framing)

    async def send(self, *pieces: bytes) -> None:
        """Pieces of the body, one after the other, each in its own chunk."""
        for piece in pieces:
            await self.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self.chunked else piece)

    async def end(self) -> None:
        """The legal end of a body."""
        if self.chunked:
            await self.write(b"0\r\n\r\n")

    async def stream(self, pieces: Iterable[bytes]) -> None:
        """A whole event stream, legally ended."""
        await self.begin_stream()
        await self.send(*pieces)
        await self.end()

    async def client_gone(self) -> None:
        """Wait until the client has closed its side."""
        await self.received.client_left.wait()

    def hang_up(self) -> None:
        """Close the connection after what was written (FIN)."""
        self.keep_alive = False

    def reset(self) -> None:
        """Close the connection at once (RST)."""
        self.keep_alive = False
        # Lingering for 0 seconds is what makes a close a reset.
        self.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Upstream:
    """One backend. `requests` are those to /v1, in order; `probed` are all others, which get `metrics` as answer, and
    `probes` is how many these are."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.probed: list[Received] = []
        self.metrics = b""
        self.scripts = dict(SCRIPTS)
        self.gate = asyncio.Event()
        self.port = 0
        self._connections = 0
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    @property
    def probes(self) -> int:
        """How often it was looked at."""
        return len(self.probed)

    @property
    def base_url(self) -> str:
        """What a configuration calls it."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def open_connections(self) -> int:
        """Connections that neither side has closed."""
        return len(self._open)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen: at the first time on a free port, afterwards on the same again."""
        loop = asyncio.get_running_loop()

        def connect() -> asyncio.StreamReaderProtocol:
            return asyncio.StreamReaderProtocol(_Reader(), self._serve)

        self._server = await loop.create_server(connect, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Die like a killed process: no new connection, and every open one is cut."""
        assert self._server is not None
        self._server.close()
        for task, writer in list(self._open.items()):
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert isinstance(reader, _Reader)
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        self._connections += 1
        try:
            await self._converse(reader, writer, self._connections)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            del self._open[task]
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _converse(self, reader: _Reader, writer: asyncio.StreamWriter, connection: int) -> None:
        while True:
            received = await _receive(reader, connection)
            exchange = Exchange(received=received, backend=self, writer=writer)
            if received.path.startswith("/v1/"):
                self.requests.append(received)
                await self.scripts[received.fields["model"]](exchange)
            else:
                self.probed.append(received)
                await exchange.head(content_type="text/plain", content_length=str(len(self.metrics)))
                await exchange.write(self.metrics)
            if not exchange.keep_alive:
                return


class _Reader(asyncio.StreamReader):
    """A reader that says when the other side has gone, without reading what may be the next request."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def feed_eof(self) -> None:
        self.ended.set()
        super().feed_eof()

    def set_exception(self, exc: Exception) -> None:
        self.ended.set()
        super().set_exception(exc)


async def _receive(reader: _Reader, connection: int) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.rstrip("\r\n").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    length = next((int(value) for name, value in headers if name.lower() == "content-length"), 0)
    method, path, _ = request_line.split(" ")
    return Received(
        method=method,
        path=path,
        headers=headers,
        body=await reader.readexactly(length),
        connection=connection,
        client_left=reader.ended,
    )


# -- what a sound backend says ---------------------------------------------------------------------------------------


def chunk(delta: dict[str, Any] | None = None, *, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    """One chunk of a chat completion as an event."""
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return event({**_HEAD, "object": "chat.completion.chunk", "choices": [choice], **more})


def event(body: Any) -> bytes:
    """Any JSON as an event, its text left as it is."""
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def words(texts: Sequence[str] = WORDS, name: str = "content") -> list[bytes]:
    """The role, then one chunk for each text."""
    return [chunk({"role": "assistant", "content": ""}), *(chunk({name: text}) for text in texts)]


def ending(exchange: Exchange, finish: str = "stop") -> list[bytes]:
    """What follows the words of a sound stream."""
    usage = [event({**_HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE})]
    return [chunk(finish=finish), *(usage if exchange.wants_usage else []), DONE]


def completion(message: dict[str, Any] | None = None, *, finish: str = "stop", usage: Any = USAGE) -> dict[str, Any]:
    """The body of a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT, **(message or {})}, "finish_reason": finish}
    return {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": usage}


_HEAD = {"id": "chatcmpl-scripted", "created": 1_800_000_000, "model": "scripted"}


async def ok(exchange: Exchange) -> None:
    """A sound answer on every route, in the form that was asked for."""
    if exchange.received.path.endswith("/embeddings"):
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        vector = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
        await exchange.json({"object": "list", "data": [vector], "model": "scripted", "usage": usage})
    elif exchange.received.path.endswith("/chat/completions"):
        await _say(exchange, words(), completion())
    else:
        choice = {"index": 0, "text": TEXT, "finish_reason": "stop"}
        await exchange.json({**_HEAD, "object": "text_completion", "choices": [choice], "usage": USAGE})


async def _say(exchange: Exchange, pieces: list[bytes], body: dict[str, Any], finish: str = "stop") -> None:
    if exchange.wants_stream:
        await exchange.stream([*pieces, *ending(exchange, finish)])
    else:
        await exchange.json(body)


async def without_usage(exchange: Exchange) -> None:
    """An engine that knows no usage."""
    if exchange.wants_stream:
        await exchange.stream([*words(), chunk(finish="stop"), DONE])
    else:
        await exchange.json(completion(usage=None))


async def reasoning(exchange: Exchange) -> None:
    """Thoughts before the words, as DeepSeek's R1 says them."""
    thoughts = words(REASONING, "reasoning_content")
    message = {"reasoning_content": "".join(REASONING)}
    await _say(exchange, [*thoughts, *words()[1:]], completion(message))


async def tools(exchange: Exchange) -> None:
    """A tool call, its arguments in two pieces."""
    function, arguments = {**FUNCTION, "arguments": ""}, FUNCTION["arguments"]
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [{**TOOL_CALL, "index": 0, "function": function}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": arguments[:6]}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": arguments[6:]}}]},
    ]
    body = completion({"content": None, "tool_calls": [TOOL_CALL]}, finish="tool_calls")
    await _say(exchange, [chunk(delta) for delta in deltas], body, "tool_calls")


async def goes_on(exchange: Exchange) -> None:
    """Takes a prefill: what it is given of the text as a last message of the assistant is not said again."""
    last = exchange.received.fields["messages"][-1]
    given = last["content"] if last["role"] == "assistant" else ""
    assert TEXT.startswith(given)
    rest = re.findall(r"\S+\s*", TEXT[len(given) :])
    known = len(WORDS) - len(rest)
    usage = {**USAGE, "prompt_tokens": 7 + known, "completion_tokens": len(rest)}
    end = [chunk(finish="stop"), event({**_HEAD, "choices": [], "usage": usage}), DONE]
    await exchange.stream([*words(rest), *end])


async def refuses_to_go_on(exchange: Exchange) -> None:
    """Takes no prefill, whatever its configuration says."""
    if exchange.received.fields["messages"][-1]["role"] == "assistant":
        await refusal(400, "invalid_request_error", "the last message must be of the user")(exchange)
    else:
        await ok(exchange)


async def filtered(exchange: Exchange) -> None:
    """Stopped by a content filter."""
    await _say(exchange, words(WORDS[:2]), completion({"content": WORDS[0]}, finish="content_filter"), "content_filter")


async def blank_lines(exchange: Exchange) -> None:
    """DeepSeek under load: blank lines, or comments in a stream, until the answer is there."""
    if exchange.wants_stream:
        await exchange.stream([KEEP_ALIVE, KEEP_ALIVE, *words(), *ending(exchange)])
        return
    exchange.chunked = True
    await exchange.head(content_type="application/json", transfer_encoding="chunked")
    await exchange.send(b"\n", b"\n\n", json.dumps(completion()).encode())
    await exchange.end()


async def without_done(exchange: Exchange) -> None:
    """finish_reason, and then nothing more."""
    await exchange.stream([*words(), chunk(finish="stop")])


async def only_done(exchange: Exchange) -> None:
    """[DONE], but no finish_reason before it."""
    await exchange.stream([*words(), DONE])


# -- awkward framing of a sound answer -------------------------------------------------------------------------------


def reframed(change: Callable[[bytes], Sequence[bytes]]) -> Script:
    """A sound stream whose bytes are changed and cut by `change`."""

    async def script(exchange: Exchange) -> None:
        await exchange.stream(change(b"".join([*words(), *ending(exchange)])))

    return script


def _between_bytes_of_the_emoji(whole: bytes) -> Sequence[bytes]:
    middle = whole.index("🌍".encode()) + 2
    return [whole[:middle], whole[middle:]]


def _single_bytes(whole: bytes) -> Sequence[bytes]:
    return [whole[at : at + 1] for at in range(len(whole))]


async def one_event_of_a_mebibyte(exchange: Exchange) -> None:
    """A single word of 2^20 letters."""
    await exchange.stream([chunk({"content": "x" * 2**20}), *ending(exchange)])


# -- failures before the first token ---------------------------------------------------------------------------------


def refusal(status: int, code: str, message: str = "scripted", **headers: str) -> Script:
    """An error reply in OpenAI's shape."""
    error = {"message": message, "type": "scripted_error", "param": None, "code": code}

    async def script(exchange: Exchange) -> None:
        await exchange.json({"error": error}, status, **headers)

    return script


async def busy_until_a_date(exchange: Exchange) -> None:
    """429 whose Retry-After is a date."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=RETRY_AFTER), usegmt=True)
    await refusal(429, "rate_limit_exceeded", retry_after=date)(exchange)


async def failing_once(exchange: Exchange) -> None:
    """500 to the first request, sound afterwards."""
    if len(exchange.backend.requests) == 1:
        await refusal(500, "server_error")(exchange)
    else:
        await ok(exchange)


async def reset_before_headers(exchange: Exchange) -> None:
    """RST instead of a reply."""
    exchange.reset()


async def hung_up_before_headers(exchange: Exchange) -> None:
    """FIN instead of a reply."""
    exchange.hang_up()


async def silent(exchange: Exchange) -> None:
    """No byte, ever."""
    await exchange.client_gone()
    exchange.hang_up()


async def silent_after_headers(exchange: Exchange) -> None:
    """Headers of a stream, and no event, ever."""
    await exchange.begin_stream()
    await silent(exchange)


async def gated(exchange: Exchange) -> None:
    """A sound answer, as soon as the test opens the gate."""
    await exchange.backend.gate.wait()
    await ok(exchange)


async def only_comments(exchange: Exchange) -> None:
    """Keep-alive comments for as long as somebody listens."""
    await exchange.begin_stream()
    while not exchange.received.client_left.is_set():
        await exchange.send(KEEP_ALIVE)
        await asyncio.sleep(0.02)
    exchange.hang_up()


async def empty_body(exchange: Exchange) -> None:
    """200 and nothing: an overloaded DeepSeek."""
    kind = "text/event-stream" if exchange.wants_stream else "application/json"
    await exchange.head(content_type=kind, content_length="0")


async def blank_body(exchange: Exchange) -> None:
    """200 and blank lines only, legally ended."""
    exchange.chunked = True
    kind = "text/event-stream" if exchange.wants_stream else "application/json"
    await exchange.head(content_type=kind, transfer_encoding="chunked")
    await exchange.send(b"\n", b"\n\n")
    await exchange.end()


async def error_as_first_event(exchange: Exchange) -> None:
    """An error event where the first token should be; the connection stays open."""
    await exchange.begin_stream()
    await exchange.send(KEEP_ALIVE + event({"error": {"message": "out of memory", "code": 500}}))
    await silent(exchange)


async def json_instead_of_a_stream(exchange: Exchange) -> None:
    """An error as a JSON body with 200, to a request for a stream too."""
    await exchange.json({"error": {"message": "out of memory", "code": 500}})


async def html(exchange: Exchange) -> None:
    """A proxy's welcome page."""
    await exchange.head(content_type="text/html", content_length="14")
    await exchange.write(b"<h1>hello</h1>")


async def redirected(exchange: Exchange) -> None:
    """A redirect to where nobody should be sent."""
    await exchange.head(307, location="http://127.0.0.1:9/latest/meta-data", content_length="0")


# -- failures after the first token ----------------------------------------------------------------------------------


async def begun(exchange: Exchange, *, chunked: bool = True) -> None:
    """The first words, and then the wait for the test's word that the client has read them.

    Without that, a fault could overtake them: then nobody has seen a token, and it is no fault in mid-stream.
    """
    await exchange.begin_stream(chunked=chunked)
    await exchange.send(*words()[:4])
    await exchange.backend.gate.wait()


async def cut(exchange: Exchange) -> None:
    """Chunked, closed without the last chunk."""
    await begun(exchange)
    exchange.hang_up()


async def cut_by_reset(exchange: Exchange) -> None:
    """Chunked, reset."""
    await begun(exchange)
    exchange.reset()


async def ended_early(exchange: Exchange) -> None:
    """Legally ended, but in the middle of the answer."""
    await begun(exchange)
    await exchange.end()


async def closed_early(exchange: Exchange) -> None:
    """Ended by closing, in the middle of the answer: HTTP sees no fault at all."""
    await begun(exchange, chunked=False)


async def closed_inside_an_event(exchange: Exchange) -> None:
    """Ended by closing, in the middle of an event."""
    await begun(exchange, chunked=False)
    await exchange.send(words()[5][:-20])


async def closed_inside_a_character(exchange: Exchange) -> None:
    """Ended by closing, between the bytes of an emoji."""
    await begun(exchange, chunked=False)
    far = next(word for word in words() if "🌍".encode() in word)
    await exchange.send(far[: far.index("🌍".encode()) + 2])


async def aborted(exchange: Exchange) -> None:
    """Broken off by the engine itself, which says so where its reason should be, and ends legally."""
    await begun(exchange)
    await exchange.send(chunk({"content": "?"}, finish="abort"), DONE)
    await exchange.end()


async def stalled(exchange: Exchange) -> None:
    """A few words, and then silence."""
    await begun(exchange)
    await silent(exchange)


async def commenting_after_words(exchange: Exchange) -> None:
    """A few words, and then keep-alive comments only."""
    await begun(exchange)
    while not exchange.received.client_left.is_set():
        await exchange.send(KEEP_ALIVE)
        await asyncio.sleep(0.02)
    exchange.hang_up()


async def empty_after_words(exchange: Exchange) -> None:
    """A few words, and then chunks that say nothing."""
    await begun(exchange)
    while not exchange.received.client_left.is_set():
        await exchange.send(chunk({"role": "assistant", "content": ""}))
        await asyncio.sleep(0.02)
    exchange.hang_up()


async def old_error_after_words(exchange: Exchange) -> None:
    """A few words, and then an error in the shape that vLLM once had."""
    await begun(exchange)
    await exchange.send(event({"object": "error", "message": "out of memory", "code": 500}))
    await silent(exchange)


async def error_after_words(exchange: Exchange) -> None:
    """A few words, and then an error event; the connection stays open."""
    await begun(exchange)
    await exchange.send(event({"error": {"message": "out of memory", "code": 500}}))
    await silent(exchange)


async def senseless_after_words(exchange: Exchange) -> None:
    """A few words, and then an event that is no JSON."""
    await begun(exchange)
    await exchange.send(b'data: {"choices": [\n\n', *words()[5:], *ending(exchange))
    await exchange.end()


async def endless(exchange: Exchange) -> None:
    """Words for as long as somebody listens."""
    await exchange.begin_stream()
    while not exchange.received.client_left.is_set():
        await exchange.send(*words()[1:2])
        await asyncio.sleep(0.01)
    exchange.hang_up()


SCRIPTS: dict[str, Script] = {
    "ok": ok,
    "without-usage": without_usage,
    "reasoning": reasoning,
    "tools": tools,
    "goes-on": goes_on,
    "refuses-to-go-on": refuses_to_go_on,
    "filtered": filtered,
    "blank-lines": blank_lines,
    "without-done": without_done,
    "only-done": only_done,
    "crlf": reframed(lambda whole: [whole.replace(b"\n", b"\r\n")]),
    "cr": reframed(lambda whole: [whole.replace(b"\n", b"\r")]),
    "byte-order-mark": reframed(lambda whole: [b"\xef\xbb\xbf" + whole]),
    "split-emoji": reframed(_between_bytes_of_the_emoji),
    "single-bytes": reframed(_single_bytes),
    "one-chunk": reframed(lambda whole: [whole]),
    "mebibyte": one_event_of_a_mebibyte,
    "busy": refusal(429, "rate_limit_exceeded", retry_after=str(RETRY_AFTER)),
    "busy-until-a-date": busy_until_a_date,
    "busy-forever": refusal(429, "rate_limit_exceeded", retry_after="inf"),
    "failing-once": failing_once,
    "dead": refusal(503, "server_error"),
    "unauthorized": refusal(401, "invalid_api_key"),
    "unpaid": refusal(402, "insufficient_balance"),
    "not-loaded": refusal(404, "model_not_found"),
    "context-length": refusal(400, "context_length_exceeded", "This model's maximum context length is 8192 tokens."),
    "reset": reset_before_headers,
    "hung-up": hung_up_before_headers,
    "silent": silent,
    "silent-after-headers": silent_after_headers,
    "gated": gated,
    "only-comments": only_comments,
    "empty-body": empty_body,
    "blank-body": blank_body,
    "error-first": error_as_first_event,
    "json-error": json_instead_of_a_stream,
    "html": html,
    "redirected": redirected,
    "cut": cut,
    "cut-by-reset": cut_by_reset,
    "ended-early": ended_early,
    "closed-early": closed_early,
    "closed-inside-an-event": closed_inside_an_event,
    "closed-inside-a-character": closed_inside_a_character,
    "aborted": aborted,
    "stalled": stalled,
    "commenting-after-words": commenting_after_words,
    "empty-after-words": empty_after_words,
    "error-after-words": error_after_words,
    "old-error-after-words": old_error_after_words,
    "senseless-after-words": senseless_after_words,
    "endless": endless,
}

BEFORE_THE_FIRST_TOKEN = (
    "busy", "busy-until-a-date", "busy-forever", "dead", "unauthorized", "unpaid", "not-loaded", "reset", "hung-up",
    "silent", "silent-after-headers", "only-comments", "empty-body", "blank-body", "error-first", "json-error", "html",
    "redirected",
)  # fmt: skip
"""Faults that another backend can make good without the client noticing."""

AFTER_THE_FIRST_TOKEN = (
    "cut", "cut-by-reset", "ended-early", "closed-early", "closed-inside-an-event", "closed-inside-a-character",
    "aborted", "stalled", "commenting-after-words", "empty-after-words", "error-after-words", "old-error-after-words",
    "senseless-after-words",
)  # fmt: skip
"""Faults of streams of which the client has seen a part."""
