from __future__ import annotations

from typing import Any

import pytest

from isochrone.ledger.usage import cost_of, estimate, estimate_prompt, estimate_tokens, is_estimated, usage_in, usage_of
from isochrone.settings import Price


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, (None, None)),
        ({}, (None, None)),
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4)),
        ({"prompt_tokens": 3}, (3, 0)),
        ({"prompt_tokens": None, "completion_tokens": "4"}, (None, None)),
        ({"prompt_tokens": True, "completion_tokens": 1.5}, (None, None)),
        ({"prompt_tokens": -1, "completion_tokens": 10**400}, (None, None)),
        ({"prompt_tokens": 2**53, "completion_tokens": 2**53 - 1}, (None, 2**53 - 1)),
        ("three", (None, None)),
        ([3, 4], (None, None)),
    ],
)
def test_usage_is_what_the_engine_says_in_whole_tokens_or_unknown(
    usage: Any, tokens: tuple[int | None, int | None]
) -> None:
    assert usage_of(usage) == tokens


def test_cost_is_price_per_million_tokens_and_nothing_for_unknown_ones() -> None:
    price = Price(input=0.28, output=0.42)
    assert cost_of(price, 1_000_000, 500_000) == pytest.approx(0.49)
    assert cost_of(price, None, None) == 0.0


# The counts are those of DeepSeek V4's tokenizer.
EN = (
    "A circuit breaker watches the calls to one server. After three failures in a row it opens, and for some seconds "
    "nobody asks that server; then a single call may try it again. If that call succeeds the circuit closes, otherwise "
    "it stays open for twice as long (up to 12 s). Why only one? Because 200 clients who come back at once would knock "
    "over a machine that has just been restarted."
)
ZH = (
    "断路器会监视对某台服务器的调用。连续失败三次之后它就会打开，在几秒钟之内没有人再去请求这台服务器；"
    "然后只允许一个请求去试探。如果成功，电路就重新闭合；如果失败，等待的时间会加倍。"
    "这样做的原因很简单：刚刚重启的机器承受不住两百个客户端同时回来。"
)
CODE = (
    "def moving_average(values: list[float], width: int) -> list[float]:\n"
    "    if width < 1:\n"
    '        raise ValueError(f"width must be at least 1, not {width}")\n'
    "    sums = accumulate(values, initial=0.0)\n"
    "    return [(b - a) / width for a, b in zip(sums, islice(sums, width, None))]\n"
)


@pytest.mark.parametrize(("text", "tokens"), [(EN, 85), (ZH, 68), (CODE, 83)], ids=["English", "Chinese", "code"])
def test_estimate_of_a_text_is_near_what_a_tokenizer_counts(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == pytest.approx(tokens, rel=0.2)


def test_nothing_is_no_token_and_anything_is_one_at_the_least() -> None:
    assert (estimate_tokens(""), estimate_tokens(" "), estimate_tokens("é")) == (0, 1, 1)


def test_long_text_is_judged_by_pieces_from_all_over_it() -> None:
    line = "The quick brown fox jumps over the lazy dog.\n"
    assert estimate_tokens(line * 10_000) == pytest.approx(10_000 * estimate_tokens(line), rel=0.1)
    chinese = "法国的首都是巴黎，它位于塞纳河畔。\n"
    both = estimate_tokens(line * 1_000) + estimate_tokens(chinese * 1_000)
    assert estimate_tokens(line * 1_000 + chinese * 1_000) == pytest.approx(both, rel=0.1)


def test_prompt_of_a_chat_counts_messages_parts_calls_and_tools() -> None:
    bare = estimate_prompt({"messages": [{"role": "user", "content": "Hello, world!"}]})
    parts: list[dict[str, Any]] = [{"type": "text", "text": "Hello, world!"}, {"type": "image_url", "image_url": {}}]
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    calls = [{"id": "1", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}]
    assert bare == 4 + 7
    assert estimate_prompt({"messages": [{"role": "user", "content": parts}]}) == bare
    assert estimate_prompt({"messages": [{"role": "user", "content": "Hello, world!"}], "tools": tools}) > bare + 10
    with_call = [
        {"role": "user", "content": "Hello, world!"},
        {"role": "assistant", "content": None, "tool_calls": calls},
    ]
    assert estimate_prompt({"messages": with_call}) > bare + 10


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"prompt": "Hello, world!"}, 4),
        ({"prompt": ["Hello, world!", "Hello, world!"]}, 8),
        ({"prompt": [1, 2, 3]}, 3),
        ({"prompt": [[1, 2, 3], [4]]}, 4),
        ({"input": "Hello, world!"}, 4),
        ({}, 0),
    ],
)
def test_prompt_given_as_tokens_is_counted_and_not_guessed(fields: dict[str, Any], tokens: int) -> None:
    assert estimate_prompt(fields) == tokens


def test_estimated_usage_says_that_it_is_one() -> None:
    usage = estimate({"prompt": [1, 2, 3]}, "The capital of France is Paris.")
    assert usage == {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10, "estimated": True}
    assert is_estimated(usage)
    assert usage_of(usage) == (3, 7)


@pytest.mark.parametrize("usage", [None, {}, "x", {"prompt_tokens": 1}, {"estimated": "yes"}])
def test_what_an_engine_sent_is_no_estimate(usage: Any) -> None:
    assert not is_estimated(usage)


BODY = {"choices": [{"message": {"role": "assistant", "content": "The capital of France is Paris."}}]}


def test_usage_of_a_whole_reply_is_what_its_engine_says() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    assert usage_in(BODY | {"usage": usage}, {"prompt": [1, 2, 3]}) == usage


@pytest.mark.parametrize("usage", [None, {}, "x", {"prompt_tokens": "3", "completion_tokens": None}])
def test_usage_of_a_whole_reply_is_estimated_where_its_engine_says_nothing(usage: Any) -> None:
    found = usage_in(BODY | {"usage": usage}, {"prompt": [1, 2, 3]})
    assert usage_of(found) == (3, 7)
    assert is_estimated(found)


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"choices": [{"text": EN}, {"text": EN}]}, 168),
        ({"choices": [{"message": {"content": None, "reasoning_content": EN}}]}, 85),
        ({"choices": [{"message": {"content": None, "tool_calls": [{"function": {"arguments": EN}}]}}]}, 95),
        ({"choices": [{"message": None, "index": 7}, {"message": "x"}, "x"]}, 0),
        ({"choices": "x"}, 0),
        ({"data": [{"embedding": [0.1, 0.2]}]}, 0),
    ],
)
def test_all_that_a_whole_reply_told_is_counted(body: dict[str, Any], tokens: int) -> None:
    assert usage_in(body, {})["completion_tokens"] == pytest.approx(tokens, rel=0.1)


def test_events_whose_text_was_not_kept_are_a_token_each() -> None:
    assert estimate({"prompt": [1]}, "", events=12)["completion_tokens"] == 12
    assert estimate({"prompt": [1]}, "The capital of France is Paris.", events=2)["completion_tokens"] == 7
