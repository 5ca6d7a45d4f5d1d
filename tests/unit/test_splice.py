from __future__ import annotations

import json
from typing import Any

import pytest

from isochrone.api.sse import SseDecoder
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.splice import Continuation, Join, Splice
from isochrone.upstream.transcript import Transcript
from tests.upstream import chunk, event


def joined(told: dict[str, str], *pieces: bytes) -> list[Any]:
    """What the client gets of a second telling, as chunks."""
    return [json.loads(line[6:]) for line in passed_on(Splice(told), *pieces).splitlines() if line]


def passed_on(join: Join, *pieces: bytes) -> bytes:
    """What the client gets of these events, each come by itself."""
    transcript, decoder = Transcript(capture=True), SseDecoder()
    reads = [[(event, transcript.read(event.data))] for piece in pieces for event in decoder.feed(piece)]
    return b"".join(event.raw for read in reads for event, _ in join.join(read))


@pytest.mark.parametrize(
    "fields",
    [
        {"content": [{"type": "text", "text": "b"}]},
        {"tool_calls": [{"index": 0, "function": {"name": "f"}}]},
        {"tool_calls": [{"index": 0, "type": "custom", "custom": {"name": "f"}}]},
        {"tool_calls": ["f"]},
        {"reasoning": {"steps": ["a"]}},
    ],
)
def test_second_telling_that_is_no_text_is_another_answer(fields: dict[str, Any]) -> None:
    with pytest.raises(AttemptFailed) as caught:
        joined({"content": "a b"}, chunk({"content": "a "}), chunk(fields), chunk({"content": "b c"}))
    assert caught.value.cause is Cause.DIVERGED


def test_facts_beside_the_text_do_not_hinder_the_joining() -> None:
    rest = joined({"reasoning": "a b"}, chunk({"reasoning": "a ", "channel": "analysis"}), chunk({"reasoning": "b c"}))
    assert [said["choices"][0]["delta"] for said in rest] == [{"reasoning": " c"}]


def test_end_that_says_more_than_its_reason_is_joined() -> None:
    end = {"index": 0, "text": "b c", "finish_reason": "stop", "stop_reason": 128009, "usage": {"prompt_tokens": 1}}
    (rest,) = joined({"text": "a b"}, event({"choices": [{"index": 0, "text": "a "}]}), event({"choices": [end]}))
    assert rest["choices"] == [{**end, "text": " c"}]


def test_fields_beside_the_text_do_not_hinder_the_joining() -> None:
    rest = joined(
        {"content": "a b"}, chunk({"content": "a ", "token_id": 12}), chunk({"content": "b c", "token_id": 7})
    )
    assert [said["choices"][0]["delta"]["content"] for said in rest] == [" c"]


def test_role_is_not_told_twice() -> None:
    (rest,) = joined({"content": "a "}, chunk({"role": "assistant", "content": "a b"}))
    assert rest["choices"][0]["delta"] == {"content": "b"}


def test_words_and_thoughts_in_one_event_are_joined_in_any_order() -> None:
    (rest,) = joined({"reasoning": "so", "content": "a "}, chunk({"content": "a b", "reasoning": "so"}))
    assert rest["choices"][0]["delta"] == {"content": "b", "reasoning": ""}


def test_words_before_the_thoughts_that_the_client_has_are_another_answer() -> None:
    with pytest.raises(AttemptFailed, match="another answer"):
        joined({"reasoning": "so far", "content": "a"}, chunk({"content": "a b", "reasoning": "so"}))


def test_what_says_nothing_is_kept_back_until_the_client_has_caught_up() -> None:
    role, busy, usage = (
        chunk({"role": "assistant", "content": ""}),
        b": busy\n\n",
        event({"choices": [], "usage": {"n": 1}}),
    )
    splice = Splice({"content": "a "})
    assert passed_on(splice, role, busy, usage, b"data: [DONE]\n\n") == usage + b"data: [DONE]\n\n"
    assert passed_on(splice, chunk({"content": "a "}), busy, role) == busy + role


def test_answer_that_ends_before_what_the_client_has_is_refused() -> None:
    with pytest.raises(AttemptFailed, match="gave a shorter answer"):
        joined({"content": "a b"}, chunk({"content": "a"}), chunk(finish="stop"))
    with pytest.raises(AttemptFailed, match="gave more than a text"):
        joined({"content": "a b"}, chunk({"tool_calls": [{"function": {"name": "f"}}]}))


# -- calls of functions ------------------------------------------------------------------------------------------------

TOLD_CALLS = {"tool_calls.0.name": "f", "tool_calls.0.arguments": "{}", "tool_calls.1.name": "g"}


def call(index: int, name: str | None = None, arguments: str | None = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "function": {key: value for key, value in function.items() if value is not None}, **more}


def calls(*entries: dict[str, Any]) -> bytes:
    return chunk({"tool_calls": list(entries)})


def test_calls_that_come_at_once_are_joined_where_the_client_left_off() -> None:
    first, second = call(0, "f", "{}", id="b0", type="function"), call(1, "g", "{}", id="b1", type="function")
    third = call(2, "h", "", id="b2", type="function")
    (rest,) = joined(TOLD_CALLS, calls(first, second, third))
    assert rest["choices"][0]["delta"]["tool_calls"] == [call(1, arguments="{}"), third]


def test_engine_that_repeats_its_id_does_not_rename_a_call_that_the_client_knows() -> None:
    pieces = [call(0, "f", "", id="b0"), call(0, arguments="{", id="b0"), call(0, arguments="}", id="b0")]
    rest = joined({"tool_calls.0.name": "f"}, *map(calls, pieces))
    assert [said["choices"][0]["delta"]["tool_calls"] for said in rest] == [
        [call(0, arguments="{")], [call(0, arguments="}")]
    ]  # fmt: skip


def test_name_that_only_begins_alike_is_another_call() -> None:
    with pytest.raises(AttemptFailed, match="another answer"):
        joined({"tool_calls.0.name": "get"}, calls(call(0, "get_all")))


def test_name_that_comes_after_its_call_is_passed_on() -> None:
    rest = joined({"tool_calls.0.arguments": "{"}, calls(call(0, "f", "{}")))
    assert rest[0]["choices"][0]["delta"]["tool_calls"] == [call(0, "f", "}")]


def test_older_call_is_joined_as_well() -> None:
    told = {"function_call.name": "f", "function_call.arguments": "{"}
    (rest,) = joined(told, chunk({"function_call": {"name": "f", "arguments": "{}"}}))
    assert rest["choices"][0]["delta"]["function_call"] == {"arguments": "}"}


def test_words_that_follow_a_call_pass_through_as_they_came() -> None:
    after = chunk({"content": "done"})
    assert passed_on(Splice({"function_call.name": "f"}), chunk({"function_call": {"name": "f"}}), after) == after


# -- a backend that was given the text ---------------------------------------------------------------------------------

LONG = "An isochrone joins places equally far away"
ROLE = chunk({"role": "assistant", "content": ""})
AWAY = [chunk({"content": " in"}), chunk({"content": " time."}), chunk(finish="stop"), b"data: [DONE]\n\n"]


def continued(*pieces: bytes, told: str = LONG, tokens: int = 7) -> bytes:
    return passed_on(Continuation({"content": told}, tokens=tokens), *pieces)


def test_rest_is_passed_on_as_it_came_without_a_second_role() -> None:
    assert continued(ROLE, *AWAY) == b"".join(AWAY)
    assert continued(b": busy\n\n", *AWAY) == b"".join(AWAY)


def test_role_beside_the_first_words_of_a_rest_is_left_out() -> None:
    first, *others = continued(chunk({"role": "assistant", "content": " in"}), *AWAY[1:]).split(b"\n\n")
    assert json.loads(first[6:])["choices"][0]["delta"] == {"content": " in"}
    assert b"\n\n".join(others) == b"".join(AWAY[1:])


@pytest.mark.parametrize("size", [1, 5, 32, 1000])
def test_server_that_begins_with_what_it_was_given_is_cut_to_the_rest(size: int) -> None:
    whole = LONG + " in time."
    join = Continuation({"content": LONG}, tokens=7)
    pieces = [chunk({"content": whole[at : at + size]}) for at in range(0, len(whole), size)]
    told = passed_on(join, ROLE, *pieces, chunk(finish="stop"))
    said = [json.loads(line[6:])["choices"][0]["delta"] for line in told.splitlines() if line]
    assert "".join(delta.get("content", "") for delta in said) == " in time."
    assert join.retold


def test_rest_that_begins_like_the_whole_is_passed_on_once_it_differs() -> None:
    join = Continuation({"content": LONG}, tokens=7)
    pieces = [chunk({"content": "An iso"}), chunk({"content": "bar is another thing."}), chunk(finish="stop")]
    assert passed_on(join, *pieces) == b"".join(pieces)
    assert not join.retold


def test_retelling_up_to_the_last_letter_adds_nothing_by_itself() -> None:
    join = Continuation({"content": LONG}, tokens=7)
    assert passed_on(join, chunk({"content": LONG})) == b""
    assert (join.retold, join.is_pending) == (True, False)
    assert passed_on(join, *AWAY) == b"".join(AWAY)


def test_rest_that_ends_in_words_of_the_whole_is_passed_on() -> None:
    end = chunk({"content": "An iso"}, finish="stop")
    join = Continuation({"content": LONG}, tokens=7)
    assert join.is_pending
    assert passed_on(join, end) == end
    assert (join.retold, join.is_pending) == (False, False)


def test_rest_that_ends_while_it_still_could_be_the_whole_is_passed_on() -> None:
    pieces = [chunk({"content": "An"}), chunk(finish="stop"), b"data: [DONE]\n\n"]
    assert continued(*pieces) == b"".join(pieces)


@pytest.mark.parametrize("told", ["An isochrone ", "ha " * 12, "ha " * 12 + "h", "0" * 40, "One, two, three. " * 2])
def test_text_that_is_short_or_repeats_itself_may_be_said_twice(told: str) -> None:
    pieces = [chunk({"content": told}), chunk({"content": "and on"}), chunk(finish="stop")]
    assert continued(*pieces, told=told) == b"".join(pieces)


@pytest.mark.parametrize("told", ["An isochrone is ", "ha ha ha ha, she said"])
def test_text_of_sixteen_letters_is_not_said_twice_by_intent(told: str) -> None:
    (rest, _) = continued(chunk({"content": told}), chunk({"content": "rest"}), chunk(finish="stop"), told=told).split(
        b"\n\n", 1
    )
    assert json.loads(rest[6:])["choices"][0]["delta"] == {"content": "rest"}


def test_rest_may_be_a_call_of_a_function() -> None:
    pieces = [calls(call(0, "f", "{}", id="b0")), chunk(finish="tool_calls")]
    assert continued(*pieces) == b"".join(pieces)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_rest_that_begins_with_thoughts_is_no_rest(field: str) -> None:
    with pytest.raises(AttemptFailed) as caught:
        continued(ROLE, chunk({field: " in"}))
    assert caught.value.cause is Cause.DIVERGED


@pytest.mark.parametrize("beside_a_choice", [False, True])
def test_usage_of_a_rest_becomes_that_of_the_whole(beside_a_choice: bool) -> None:
    counts = {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23, "prompt_cache_hit_tokens": 4}
    end = chunk(finish="stop", usage=counts) if beside_a_choice else event({"choices": [], "usage": counts})
    last = json.loads(continued(*AWAY[:2], end).split(b"\n\n")[-2][6:])
    assert last["usage"] == {
        "prompt_tokens": 13,
        "completion_tokens": 10,
        "total_tokens": 23,
        "prompt_cache_hit_tokens": 4,
        "estimated": True,
    }


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens": 3}, {"prompt_tokens": "7", "completion_tokens": 3}])
def test_senseless_usage_of_a_rest_is_left_as_it_is(usage: Any) -> None:
    end = event({"choices": [], "usage": usage})
    assert json.loads(continued(*AWAY[:2], end).split(b"\n\n")[-2][6:])["usage"] == usage


def test_words_about_usage_are_only_words() -> None:
    pieces = [chunk({"content": 'see "usage"'}), chunk({"content": 'in "usage": {}'})]
    said = [json.loads(line[6:]) for line in continued(*pieces).splitlines() if line]
    assert [one["choices"][0]["delta"]["content"] for one in said] == ['see "usage"', 'in "usage": {}']
