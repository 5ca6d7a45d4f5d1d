from __future__ import annotations

import asyncio
import time

import pytest

from isochrone.api.sse import DONE_EVENT, KEEP_ALIVE
from isochrone.upstream import relay as relaying
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.relay import relay
from isochrone.upstream.splice import Splice
from isochrone.upstream.stream import StreamAnswer
from isochrone.upstream.transcript import Transcript
from tests.upstream import chunk, event

ROLE = chunk({"role": "assistant", "content": ""})
ONE, TWO = chunk({"content": "one "}), chunk({"content": "two"})
STOP = chunk(finish="stop")
USAGE = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
COMMENT = b": keep-alive\n\n"
ERROR = event({"error": {"message": "out of memory"}})


class Backend:
    """Gives the pieces of a script one by one; None is silence until the caller's patience ends."""

    def __init__(self, *script: bytes | AttemptFailed | None, stall: float = 0.01, ends_in: float = 60.0) -> None:
        self.script = list(script)
        self.closed = 0
        self.answer = StreamAnswer(
            self.read,
            Transcript(capture=True),
            stall=stall,
            ends_at=time.monotonic() + ends_in,
            close=self.close,
        )

    async def read(self, until: float) -> bytes:
        piece = self.script.pop(0) if self.script else b""
        if piece is None:
            await asyncio.sleep(max(0.0, until - time.monotonic()))
            raise AttemptFailed(Cause.SILENT, "was silent for too long")
        if isinstance(piece, AttemptFailed):
            raise piece
        return piece

    def close(self) -> None:
        self.closed += 1

    async def open(self) -> StreamAnswer:
        await self.answer.open(time.monotonic() + 60)
        return self.answer

    async def relayed(self, *, include_usage: bool = False) -> list[bytes]:
        answer = await self.open()
        return [data async for data in relay(answer, include_usage=include_usage)]


async def failure_of(backend: Backend) -> tuple[AttemptFailed, list[bytes]]:
    """How a stream failed, and what the client had got by then."""
    got: list[bytes] = []
    answer = await backend.open()
    with pytest.raises(AttemptFailed) as caught:
        async for data in relay(answer, include_usage=False):
            got.append(data)
    return caught.value, got


async def test_stream_passes_through_byte_by_byte() -> None:
    backend = Backend(ROLE, ONE, TWO, STOP, DONE_EVENT)
    assert b"".join(await backend.relayed()) == ROLE + ONE + TWO + STOP + DONE_EVENT


async def test_stream_is_open_at_its_first_token_and_not_before() -> None:
    backend = Backend(COMMENT, ROLE, ONE, TWO)
    answer = await backend.open()
    assert b"".join(event.raw for event, _ in answer.first) == COMMENT + ROLE + ONE
    assert backend.script == [TWO]


async def test_usage_that_only_we_asked_for_stays_here() -> None:
    script = (ONE, STOP, USAGE, DONE_EVENT)
    assert b"".join(await Backend(*script).relayed(include_usage=False)) == ONE + STOP + DONE_EVENT
    assert b"".join(await Backend(*script).relayed(include_usage=True)) == ONE + STOP + USAGE + DONE_EVENT


async def test_missing_done_is_added_after_a_finish_reason() -> None:
    assert b"".join(await Backend(ONE, STOP).relayed()) == ONE + STOP + DONE_EVENT


async def test_finished_answer_waits_only_a_moment_for_its_afterword(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isochrone.upstream.stream._AFTERWORD_SECONDS", 0.01)
    assert b"".join(await Backend(ONE, STOP, None, stall=3600).relayed()) == ONE + STOP + DONE_EVENT


async def test_done_without_a_finish_reason_is_an_end() -> None:
    assert b"".join(await Backend(ONE, DONE_EVENT).relayed()) == ONE + DONE_EVENT


async def test_chunks_that_complete_no_event_are_no_reason_for_a_heartbeat() -> None:
    pieces = [bytes([byte]) for byte in ONE + TWO + STOP + DONE_EVENT]
    assert b"".join(await Backend(*pieces).relayed()) == ONE + TWO + STOP + DONE_EVENT


async def test_end_of_the_body_is_no_reason_for_a_heartbeat() -> None:
    assert KEEP_ALIVE not in await Backend(ONE, STOP).relayed()


async def test_silence_within_patience_becomes_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "HEARTBEAT_SECONDS", 0.001)
    got = await Backend(ONE, None, None, TWO, STOP, DONE_EVENT, stall=60).relayed()
    assert got == [ONE, KEEP_ALIVE, KEEP_ALIVE, TWO, STOP, DONE_EVENT]


async def test_silence_beyond_patience_is_a_stall() -> None:
    failure, got = await failure_of(Backend(ONE, None))
    assert (failure.cause, failure.detail) == (Cause.SILENT, "stalled in the middle of its stream")
    assert got == [ONE]


@pytest.mark.parametrize("noise", [COMMENT, b"\n\n", ROLE, chunk({})], ids=["comment", "blank", "role", "empty delta"])
async def test_noise_does_not_extend_patience(noise: bytes) -> None:
    backend = Backend(ONE, stall=0.02)

    async def noisy(until: float) -> bytes:
        if time.monotonic() >= until:
            raise AttemptFailed(Cause.SILENT, "was silent for too long")
        await asyncio.sleep(0.001)
        return noise

    answer = await backend.open()
    backend.answer._read_chunk = noisy
    with pytest.raises(AttemptFailed, match="stalled"):
        async for _ in relay(answer, include_usage=False):
            pass


async def test_client_that_is_slow_to_read_is_no_silence_of_the_backend() -> None:
    backend = Backend(ONE, TWO, STOP, DONE_EVENT, stall=0.05)
    answer = await backend.open()

    async def at_once_but_not_at_hand(until: float) -> bytes:
        if time.monotonic() >= until:
            raise AttemptFailed(Cause.SILENT, "was silent for too long")
        await asyncio.sleep(0)
        return await backend.read(until)

    backend.answer._read_chunk = at_once_but_not_at_hand
    got = []
    async for data in relay(answer, include_usage=False):
        got.append(data)
        await asyncio.sleep(0.06)
    assert b"".join(got) == ONE + TWO + STOP + DONE_EVENT


async def test_time_of_the_whole_request_ends_a_stream_that_goes_on() -> None:
    failure, _ = await failure_of(Backend(ONE, None, stall=3600, ends_in=0.02))
    assert failure.cause is Cause.OUT_OF_TIME
    assert not failure.against_health


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        ((ONE, TWO), "without a finish_reason"),
        ((ONE, TWO[:-9]), "inside an event"),
        ((ONE, ERROR), "an error in its stream"),
        ((ONE, b"data: {\n\n"), "no completion chunk"),
        ((ONE, AttemptFailed(Cause.CUT, "cut its reply short")), "cut its reply short"),
    ],
    ids=["no finish_reason", "inside an event", "error event", "senseless event", "connection"],
)
async def test_broken_stream_is_a_failure_after_what_was_said_before(
    script: tuple[bytes | AttemptFailed, ...], detail: str
) -> None:
    failure, got = await failure_of(Backend(*script))
    assert detail in failure.detail
    assert b"".join(got).startswith(ONE)
    assert b"[DONE]" not in b"".join(got)


async def test_events_before_an_error_in_the_same_chunk_are_passed_on_first() -> None:
    failure, got = await failure_of(Backend(ONE, TWO + ERROR))
    assert failure.cause is Cause.BROKEN
    assert b"".join(got) == ONE + TWO


async def test_events_behind_an_error_are_not_passed_on() -> None:
    _, got = await failure_of(Backend(ONE, TWO + ERROR + ONE + STOP))
    assert b"".join(got) == ONE + TWO


async def test_patience_for_what_follows_the_last_word_is_not_that_for_the_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isochrone.upstream.stream._AFTERWORD_SECONDS", 3600)
    failure, _ = await failure_of(Backend(ONE, None, stall=0.01, ends_in=1.0))
    assert failure.cause is Cause.SILENT


async def test_done_while_a_choice_is_open_is_cut_and_the_client_sees_no_done() -> None:
    other = chunk({"content": "other"}, index=1)
    for script in ((ONE + other, STOP, DONE_EVENT), (ONE + other, STOP + DONE_EVENT)):
        failure, got = await failure_of(Backend(*script))
        assert failure.cause is Cause.CUT
        assert b"".join(got) == ONE + other + STOP


async def test_what_comes_after_the_end_of_an_answer_does_not_spoil_it() -> None:
    for script in ((ONE, STOP, ERROR), (ONE, STOP + ERROR)):
        assert b"".join(await Backend(*script).relayed()) == ONE + STOP + DONE_EVENT


@pytest.mark.parametrize("before", [b"", COMMENT, ROLE], ids=["nothing", "comment", "role"])
async def test_error_before_the_first_token_fails_at_once(before: bytes) -> None:
    backend = Backend(before + ERROR, None)
    with pytest.raises(AttemptFailed, match="an error in its stream"):
        await backend.open()
    assert backend.script == [None]


async def test_error_beside_the_first_token_still_leaves_the_choice_of_another_backend() -> None:
    with pytest.raises(AttemptFailed, match="an error in its stream"):
        await Backend(ONE + ERROR).open()


@pytest.mark.parametrize("script", [(), (COMMENT,), (ROLE,), (DONE_EVENT,), (ROLE, DONE_EVENT)])
async def test_stream_that_ends_without_a_token_fails_before_it_is_shown(script: tuple[bytes, ...]) -> None:
    with pytest.raises(AttemptFailed, match="without a token"):
        await Backend(*script).open()


async def test_event_without_an_end_is_refused_before_memory_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isochrone.api.sse.MAX_EVENT_BYTES", 1000)
    failure, _ = await failure_of(Backend(ONE, b"data: " + b"x" * 600, b"x" * 600))
    assert (failure.cause, "more than" in failure.detail) == (Cause.BROKEN, True)


async def test_release_reads_the_end_of_a_finished_stream_and_closes_once() -> None:
    backend = Backend(ONE, STOP, DONE_EVENT, b"")
    await backend.relayed()
    await backend.answer.release()
    await backend.answer.release()
    assert (backend.closed, backend.script) == (1, [])


async def test_release_that_is_called_off_closes_nevertheless() -> None:
    backend = Backend(ONE + STOP + b"data: [DONE]\n\n", None)
    await backend.open()
    releasing = asyncio.create_task(backend.answer.release())
    await asyncio.sleep(0)
    releasing.cancel()
    await asyncio.wait([releasing])
    assert (releasing.cancelled(), backend.closed) == (True, 1)


async def test_release_of_an_unfinished_stream_reads_nothing_more() -> None:
    backend = Backend(ONE, TWO)
    await backend.open()
    await backend.answer.release()
    assert (backend.closed, backend.script) == (1, [TWO])


async def test_client_is_kept_awake_while_a_new_attempt_retells_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "HEARTBEAT_SECONDS", 0.0)
    answer = await Backend(ONE, TWO, STOP).open()
    known = Splice({"content": "one "})
    got = [data async for data in relay(answer, include_usage=False, join=known)]
    assert got[0] == KEEP_ALIVE
    assert b"".join(got).replace(KEEP_ALIVE, b"") == TWO + STOP + DONE_EVENT


async def test_what_follows_done_in_the_same_chunk_is_neither_passed_on_nor_held_against_the_answer() -> None:
    backend = Backend(ONE, STOP + DONE_EVENT + TWO)
    assert b"".join(await backend.relayed()) == ONE + STOP + DONE_EVENT
    assert backend.answer.transcript.complete


async def test_cause_of_an_error_in_the_middle_of_a_stream_is_told_by_its_words() -> None:
    error = event({"error": {"code": "data_inspection_failed", "message": "Output data may be inappropriate."}})
    failure, got = await failure_of(Backend(ONE, error))
    assert (failure.cause, got) == (Cause.FILTERED, [ONE])
    assert b"data_inspection_failed" in failure.body
