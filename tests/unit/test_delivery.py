"""A stream that dies is gone on with by another attempt, or ends in one error event: never in a lie."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from isochrone.api.controls import Recovery
from isochrone.api.errors import NothingAlive
from isochrone.api.sse import DONE_EVENT, KEEP_ALIVE
from isochrone.upstream import delivery as delivering
from isochrone.upstream.delivery import RESTARTED, Delivery
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.pursuit import Won
from isochrone.upstream.telling import Telling
from isochrone.upstream.transcript import Transcript
from tests.tellings import ASK, STOP, USER, Script, Tellers, events_of, text_of, usage, usages_of
from tests.upstream import FUNCTION, REASONING, TEXT, TOOL_CALL, WORDS, chunk, words

WHOLE = [*words(), STOP, DONE_EVENT]
CUT = words()[:4]
BEGUN = "".join(WORDS[:3])
REST = [*words(WORDS[3:]), STOP, DONE_EVENT]


class Scene(Tellers):
    """What the client gets of backends that each tell a script."""

    def __init__(self, *scripts: Script, recovery: Recovery = Recovery.SPLICE, **more: Any) -> None:
        super().__init__(*scripts, **more)
        self.recovery = recovery
        self.completed: list[tuple[str, dict[str, str]]] = []
        self.transcripts: list[Transcript] = []
        self.broken = 0

    async def delivery(self, *, include_usage: bool = False) -> Delivery:
        return Delivery(
            await self.open(0),
            self.again,
            recovery=self.recovery,
            include_usage=include_usage,
            on_complete=self.complete,
            on_broken=self.count_broken,
        )

    def complete(self, won: Won, transcript: Transcript) -> None:
        won.visit.succeeded(transcript.usage)
        self.completed.append((won.visit.step.backend.facts.name, transcript.texts()))
        self.transcripts.append(transcript)

    def count_broken(self) -> None:
        self.broken += 1

    async def told(self, *, include_usage: bool = False) -> bytes:
        delivery = await self.delivery(include_usage=include_usage)
        told = b"".join([data async for data in delivery])
        await delivery.aclose()
        return told


async def test_sound_stream_passes_through_byte_by_byte() -> None:
    scene = Scene(WHOLE)
    assert await scene.told() == b"".join(WHOLE)
    assert scene.completed == [("pool-0", {"content": TEXT})]
    assert await scene.outcomes() == ["ok"]


async def test_dead_stream_is_gone_on_with_so_that_the_client_sees_one_answer() -> None:
    scene = Scene(CUT, WHOLE)
    told = await scene.told()
    assert text_of(told) == TEXT
    assert events_of(told)[-1] == "[DONE]"
    assert told.count(DONE_EVENT) == 1
    assert (scene.completed, scene.broken) == ([("pool-1", {"content": TEXT})], 0)
    assert await scene.outcomes() == ["cut", "ok"]


@pytest.mark.parametrize("length", range(1, 12))
async def test_join_is_seamless_however_the_second_backend_cuts_its_tokens(length: int) -> None:
    pieces = [TEXT[at : at + length] for at in range(0, len(TEXT), length)]
    told = await Scene(CUT, [*words(pieces), STOP, DONE_EVENT]).told()
    assert text_of(told) == TEXT


async def test_thoughts_are_joined_as_well_as_words() -> None:
    thoughts = words(REASONING, "reasoning_content")
    whole = [*thoughts, *words()[1:], STOP, DONE_EVENT]
    for at in (2, 3, 4, 5):
        told = await Scene(whole[:at], whole).told()
        assert (text_of(told, "reasoning_content"), text_of(told)) == ("".join(REASONING), TEXT)


async def test_third_backend_goes_on_where_the_second_died_too() -> None:
    scene = Scene(CUT, words()[:6], WHOLE)
    told = await scene.told()
    assert text_of(told) == TEXT
    assert await scene.outcomes() == ["cut", "cut", "ok"]


async def test_second_backend_that_dies_earlier_than_the_first_changes_nothing() -> None:
    assert text_of(await Scene(CUT, words()[:2], WHOLE).told()) == TEXT


async def test_usage_is_that_of_the_attempt_that_answered() -> None:
    told = await Scene(CUT, [*words(), STOP, usage(1, 2), DONE_EVENT]).told(include_usage=True)
    assert usages_of(told) == [{"prompt_tokens": 1, "completion_tokens": 2}]


@pytest.mark.parametrize(
    "second",
    [
        [*words(["An ", "isochrone ", "is a ", "line."]), STOP, DONE_EVENT],
        [*words(WORDS[:2]), STOP, DONE_EVENT],
        [*words(REASONING, "reasoning_content"), *words()[1:], STOP, DONE_EVENT],
    ],
    ids=["another answer", "shorter answer", "thoughts after words"],
)
async def test_answer_that_says_something_else_is_never_sewn_on(second: Script) -> None:
    scene = Scene(CUT, second)
    told = await scene.told()
    assert text_of(told) == "".join(WORDS[:3])
    assert events_of(told)[-1]["error"]["code"] == "stream_incomplete"
    assert DONE_EVENT not in told
    assert await scene.outcomes() == ["cut", "diverged"]
    assert (scene.completed, scene.broken) == ([], 1)


async def test_next_attempt_knows_of_all_failures_before_it() -> None:
    """Also of those before the first token: a backend that was silent then is not to be asked now."""
    scene = Scene(CUT, WHOLE)
    before = AttemptFailed(Cause.SILENT, "was silent for too long")
    telling = Telling((await scene.open(0))._replace(failures=(before,)), scene.again)
    await telling.fail(cut := AttemptFailed(Cause.CUT, "was cut"))
    await telling.go_on(may_continue=False)
    assert scene.failures == [before, cut]


async def test_failures_on_the_way_to_the_next_attempt_are_known_to_the_one_after_it() -> None:
    scene = Scene(CUT, CUT, WHOLE)
    dead = AttemptFailed(Cause.BROKEN, "answered 503")
    telling = Telling(await scene.open(0), scene.again)
    await telling.fail(first := AttemptFailed(Cause.CUT, "was cut"))

    async def after_another(made: int, failures: Any, ask_for: Any) -> Won:
        return (await scene.open(1))._replace(failures=(*failures, dead))

    telling._again = after_another
    await telling.go_on(may_continue=False)
    await telling.fail(second := AttemptFailed(Cause.CUT, "was cut"))
    assert telling.failures == [first, dead, second]


async def test_done_alone_is_no_end_once_the_engine_has_given_a_reason() -> None:
    first, second = Scene(WHOLE), Scene([*CUT, DONE_EVENT])
    assert events_of(await second.told())[-1] == "[DONE]"
    await first.told()
    first.scripts[0] = [*CUT, DONE_EVENT]
    assert "error" in events_of(await first.told())[-1]


async def test_stream_that_nobody_can_go_on_with_ends_in_one_error_event() -> None:
    scene = Scene(CUT)
    told = await scene.told()
    errors = [one for one in events_of(told) if isinstance(one, dict) and "error" in one]
    assert len(errors) == 1
    assert errors == events_of(told)[-1:]
    assert errors[0]["error"]["message"] == (
        "The answer is not complete: pool-0 ended its stream without a finish_reason. none is left"
    )
    assert DONE_EVENT not in told
    assert scene.broken == 1


async def test_verdict_on_the_next_attempt_is_told_once() -> None:
    scene = Scene(CUT)

    async def nobody(made: int, failures: Any, ask_for: Any) -> Won:
        raise NothingAlive(f"Nobody could answer: {failures[0].backend} {failures[0].detail}; pool-1 answered 503.")

    scene.again = nobody  # type: ignore[method-assign]
    assert events_of(await scene.told())[-1]["error"]["message"] == (
        "The answer is not complete. Nobody could answer: pool-0 ended its stream without a finish_reason; "
        "pool-1 answered 503."
    )


async def test_caller_may_ask_for_the_error_at_once() -> None:
    scene = Scene(CUT, WHOLE, recovery=Recovery.ERROR)
    assert "error" in events_of(await scene.told())[-1]
    assert await scene.outcomes() == ["cut"]


async def test_caller_may_ask_to_begin_anew_behind_a_mark() -> None:
    told = await Scene(CUT, WHOLE, recovery=Recovery.RESTART).told()
    before, after = told.split(RESTARTED)
    assert text_of(before) == "".join(WORDS[:3])
    assert after == b"".join(WHOLE)


def call(call_id: str, *parts: str) -> list[bytes]:
    """A call of a function, its arguments in so many parts."""
    first = {**TOOL_CALL, "index": 0, "id": call_id, "function": {**FUNCTION, "arguments": parts[0]}}
    rest = [{"index": 0, "function": {"arguments": part}} for part in parts[1:]]
    return [chunk({"tool_calls": [one]}) for one in (first, *rest)]


END_OF_CALL = [chunk(finish="tool_calls"), DONE_EVENT]


@pytest.mark.parametrize(
    "parts", [(FUNCTION["arguments"],), ("", '{"to": "eu-', 'west-1"}'), ('{"', 'to": "eu-west-1"', "}")]
)
async def test_call_of_a_function_is_gone_on_with_under_the_id_that_the_client_knows(parts: tuple[str, ...]) -> None:
    told = await Scene(call("call_a", "", '{"to": '), [*call("call_b", *parts), *END_OF_CALL]).told()
    calls = [one["choices"][0]["delta"].get("tool_calls", []) for one in events_of(told)[:-1]]
    functions = [part["function"] for entries in calls for part in entries]
    assert "".join(function.get("arguments", "") for function in functions) == FUNCTION["arguments"]
    assert [function["name"] for function in functions if "name" in function] == ["rtt"]
    assert [part["id"] for entries in calls for part in entries if "id" in part] == ["call_a"]


@pytest.mark.parametrize(
    "second",
    [
        call("call_b", '{"to": "us-east-1"}'),
        [chunk({"tool_calls": [{"index": 0, "function": {"name": "rtt_of", "arguments": '{"to": "eu"}'}}]})],
        words(),
        [chunk({"tool_calls": [{"index": 1, "function": FUNCTION}]})],
    ],
    ids=["other arguments", "other function", "words", "other place"],
)
async def test_another_call_is_never_sewn_on(second: list[bytes]) -> None:
    scene = Scene(call("call_a", "", '{"to": "eu'), [*second, *END_OF_CALL])
    assert "error" in events_of(await scene.told())[-1]
    assert await scene.outcomes() == ["cut", "diverged"]


async def test_answer_in_sounds_is_not_joined() -> None:
    sound = chunk({"audio": {"data": "AAAA"}})
    scene = Scene([sound], [sound, STOP, DONE_EVENT])
    assert "error" in events_of(await scene.told())[-1]
    assert await scene.outcomes() == ["cut"]


async def test_answer_with_tool_calls_may_still_begin_anew_behind_a_mark() -> None:
    begun, whole = call("call_a", ""), [*call("call_b", "", "{}"), *END_OF_CALL]
    told = await Scene(begun, whole, recovery=Recovery.RESTART).told()
    assert told == b"".join(begun) + RESTARTED + b"".join(whole)


async def test_answer_that_disagreed_leaves_what_the_client_has_as_it_was() -> None:
    """It may have said more than the client has before anybody looked at it, all in one piece."""
    other = [b"".join(words(["An ", "isochrone ", "is a line ", "of equal ", "travel time"])), STOP, DONE_EVENT]
    scene = Scene(CUT, other, WHOLE)
    assert text_of(await scene.told()) == TEXT
    assert await scene.outcomes() == ["cut", "diverged", "ok"]


# -- where a backend can go on from the text ---------------------------------------------------------------------------


async def test_backend_that_takes_a_prefill_is_asked_for_the_rest_only() -> None:
    scene = Scene(CUT, REST, prefill=[1])
    told = await scene.told()
    assert told == b"".join([*CUT, *REST[1:]])
    assert scene.asked[1].fields["messages"] == [USER, {"role": "assistant", "content": BEGUN}]
    assert await scene.outcomes() == ["cut", "ok"]


async def test_answer_told_by_two_is_kept_as_one() -> None:
    scene = Scene(CUT, REST, prefill=[1])
    await scene.told()
    assert scene.completed == [("pool-1", {"content": TEXT})]
    assert scene.transcripts[0].storable


async def test_field_that_nobody_knows_in_the_first_part_keeps_the_whole_from_the_store() -> None:
    scene = Scene([*CUT, chunk({"content": WORDS[3]}, citations=["u"])], REST[:1] + REST[2:], prefill=[1])
    assert text_of(await scene.told()) == TEXT
    assert not scene.transcripts[0].storable


async def test_answer_that_another_model_began_is_not_kept_as_the_models_own() -> None:
    scene = Scene(CUT, REST, prefill=[1], ask=ASK._replace(model="n"))
    assert text_of(await scene.told()) == TEXT
    assert not scene.transcripts[0].storable


async def test_usage_of_an_answer_told_by_two_has_its_prompt_once_and_all_of_its_words() -> None:
    scene = Scene(CUT, [*REST[:-1], usage(13, 6), DONE_EVENT], prefill=[1])
    told = await scene.told(include_usage=True)
    whole = {"prompt_tokens": 10, "completion_tokens": 9, "total_tokens": 19, "estimated": True}
    assert usages_of(told) == [whole]
    assert scene.transcripts[0].usage == whole


async def test_tokens_that_the_engine_counted_on_the_way_are_not_estimated() -> None:
    counted = {"prompt_tokens": 10, "completion_tokens": 5}
    cut = [*CUT[:-1], chunk({"content": WORDS[2]}, usage=counted)]
    scene = Scene(cut, [*REST[:-1], usage(15, 6), DONE_EVENT], prefill=[1])
    told = await scene.told(include_usage=True)
    assert usages_of(told)[-1].items() >= {"prompt_tokens": 10, "completion_tokens": 11}.items()
    first, _ = await scene.entries()
    assert (first["input_tokens"], first["output_tokens"], first["usage_estimated"]) == (10, 5, False)


async def test_ledger_has_what_each_attempt_really_generated() -> None:
    scene = Scene(CUT, [*REST[:-1], usage(13, 6), DONE_EVENT], prefill=[1])
    await scene.told(include_usage=True)
    first, second = await scene.entries()
    assert (first["output_tokens"], first["usage_estimated"]) == (3, True)
    assert first["input_tokens"] > 0
    assert (second["input_tokens"], second["output_tokens"], second["usage_estimated"]) == (13, 6, False)


async def test_rest_that_dies_is_gone_on_with_from_where_it_died() -> None:
    scene = Scene(CUT, words(WORDS[3:5]), [*words(WORDS[5:]), STOP, usage(20, 4), DONE_EVENT], prefill=[1, 2])
    told = await scene.told(include_usage=True)
    assert text_of(told) == TEXT
    assert scene.asked[2].fields["messages"][-1]["content"] == "".join(WORDS[:5])
    assert usages_of(told)[0]["completion_tokens"] == len(WORDS)
    assert scene.completed == [("pool-2", {"content": TEXT})]


async def test_rest_that_dies_is_retold_where_nobody_else_takes_a_prefill() -> None:
    scene = Scene(CUT, words(WORDS[3:5]), WHOLE, prefill=[1])
    assert text_of(await scene.told()) == TEXT
    assert scene.asked[2] is ASK


async def test_server_that_begins_with_what_it_was_given_and_dies_over_it_adds_nothing() -> None:
    begun = words()[:8]
    scene = Scene(begun, words()[:4], [*words(WORDS[7:]), STOP, DONE_EVENT], prefill=[1, 2])
    assert text_of(await scene.told()) == TEXT
    assert scene.asked[2].fields["messages"][-1]["content"] == "".join(WORDS[:7])


async def test_server_that_begins_with_what_it_was_given_has_told_the_whole() -> None:
    scene = Scene(words()[:8], [*words(), STOP, usage(20, 9), DONE_EVENT], prefill=[1])
    told = await scene.told(include_usage=True)
    assert text_of(told) == TEXT
    assert usages_of(told) == [{"prompt_tokens": 20, "completion_tokens": 9}]
    assert scene.completed == [("pool-1", {"content": TEXT})]


async def test_backend_that_takes_no_prefill_is_asked_for_the_whole() -> None:
    scene = Scene(CUT, WHOLE, prefill=[0])
    assert text_of(await scene.told()) == TEXT
    assert scene.asked == [ASK, ASK]


async def test_prefill_that_was_refused_is_spliced_and_never_shown() -> None:
    scene = Scene(CUT, WHOLE, prefill=[1])

    async def without_prefill(made: int, failures: Any, ask_for: Any) -> Won:
        assert ask_for(scene.steps[made]).continues
        return await scene.open(made, ASK)

    scene.again = without_prefill  # type: ignore[method-assign]
    assert text_of(await scene.told()) == TEXT


async def test_thoughts_are_not_gone_on_with_but_retold() -> None:
    thoughts = words(REASONING, "reasoning_content")
    scene = Scene(thoughts[:3], [*thoughts, *words()[1:], STOP, DONE_EVENT], prefill=[1])
    assert text_of(await scene.told()) == TEXT
    assert scene.asked[1] is ASK


async def test_caller_who_wants_a_restart_gets_one_where_a_prefill_is_taken_too() -> None:
    scene = Scene(CUT, WHOLE, prefill=[1], recovery=Recovery.RESTART)
    assert (await scene.told()).endswith(RESTARTED + b"".join(WHOLE))
    assert scene.asked[1] is ASK


# -- usage that no engine said -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [[STOP, DONE_EVENT], [STOP + DONE_EVENT], [STOP]], ids=["apart", "together", "no done"])
async def test_caller_who_asked_for_usage_gets_an_estimate_that_says_so(end: list[bytes]) -> None:
    scene = Scene([*words(), *end])
    told = await scene.told(include_usage=True)
    last, done = events_of(told)[-2:]
    assert done == "[DONE]"
    assert last["choices"] == []
    assert (last["id"], last["object"]) == ("chatcmpl-scripted", "chat.completion.chunk")
    assert last["usage"].items() >= {"completion_tokens": scene.transcripts[0].tokens, "estimated": True}.items()
    assert (await scene.entries())[0]["usage_estimated"]


async def test_caller_who_did_not_ask_for_usage_gets_none() -> None:
    scene = Scene([*words(), STOP, DONE_EVENT])
    assert usages_of(await scene.told()) == []
    assert (await scene.entries())[0]["usage_estimated"]


async def test_estimate_for_an_answer_told_by_two_counts_both() -> None:
    told = await Scene(CUT, REST, prefill=[1]).told(include_usage=True)
    assert usages_of(told)[0]["completion_tokens"] == len(WORDS) + 1


async def test_estimate_counts_each_event_of_both_as_a_token() -> None:
    letters = [*"abcdefghijklmnop"]
    told = await Scene(words(letters[:9]), [*words(letters[9:]), STOP, DONE_EVENT], prefill=[1]).told(
        include_usage=True
    )
    assert usages_of(told)[0]["completion_tokens"] == len(letters) + 1


# -- while nobody tells it ---------------------------------------------------------------------------------------------


async def test_client_is_kept_awake_while_another_backend_is_sought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "HEARTBEAT_SECONDS", 0.001)
    scene = Scene(CUT, WHOLE)
    scene.pause = 0.02
    told = await scene.told()
    assert told.startswith(b"".join(CUT) + KEEP_ALIVE)
    assert text_of(told) == TEXT


@pytest.mark.parametrize("pause", [60.0, 0.0], ids=["not found yet", "just found"])
async def test_client_that_leaves_while_another_backend_is_sought_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, pause: float
) -> None:
    monkeypatch.setattr(delivering, "HEARTBEAT_SECONDS", 0.0)
    scene = Scene(CUT, WHOLE)
    scene.pause = pause
    tasks = asyncio.all_tasks()
    delivery = await scene.delivery()
    async for data in delivery:
        if data == KEEP_ALIVE:
            break
    await asyncio.sleep(0.01)
    await delivery.aclose()
    assert asyncio.all_tasks() == tasks
    assert (scene.in_flight, scene.closed) == ([0, 0], len(scene.asked))


async def test_failure_to_find_another_is_looked_at_also_when_the_client_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivering, "HEARTBEAT_SECONDS", 0.0)
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    delivery = await Scene(CUT).delivery()
    async for data in delivery:
        if data == KEEP_ALIVE:
            break
    await asyncio.sleep(0.01)
    await delivery.aclose()
    gc.collect()
    assert unseen == []


async def test_client_that_leaves_lets_go_of_the_backend_at_once() -> None:
    scene = Scene(WHOLE)
    delivery = await scene.delivery()
    async for _ in delivery:
        break
    await delivery.aclose()
    assert (scene.closed, scene.in_flight) == (1, [0])
    assert await scene.outcomes() == ["cancelled"]


async def test_backend_is_let_go_of_though_nothing_was_read() -> None:
    scene = Scene(WHOLE)
    await (await scene.delivery()).aclose()
    assert (scene.closed, scene.in_flight) == (1, [0])


async def test_every_attempt_gives_its_place_and_its_connection_back() -> None:
    scene = Scene(CUT, words()[:6], WHOLE)
    await scene.told()
    assert scene.closed == 3
    assert scene.in_flight == [0, 0, 0]


async def test_whole_answer_counts_though_the_client_left_before_its_last_byte() -> None:
    scene = Scene([b"".join(words()) + chunk(finish="stop"), DONE_EVENT])
    delivery = await scene.delivery()
    async for _ in delivery:
        break
    await delivery.aclose()
    assert await scene.outcomes() == ["ok"]
    assert len(scene.completed) == 1


async def test_answer_that_is_whole_is_settled_once() -> None:
    scene = Scene(WHOLE)
    await scene.told()
    assert len(scene.completed) == 1
