"""What is taken out of a request is put back into its own answer, however that comes, and into no other."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.answers.fingerprint import fingerprint
from isochrone.api.errors import BadRequest
from isochrone.api.exchange import Reply
from isochrone.api.requests import CHAT, COMPLETION, EMBEDDING, Ask, Operation
from isochrone.api.sse import SseDecoder
from isochrone.api.texts import texts_of
from isochrone.pii.detectors import finder
from isochrone.pii.redactor import Redactor, restored
from isochrone.pii.restoring import RestoredStream, Restoring, restore_events
from isochrone.pii.vault import LONGEST, Vault

REDACTOR = Redactor(finder(["email", "phone", "id_card", "bank_card", "secret"]))
MAIL, OTHER, PHONE = "jane@example.com", "tom@example.org", "13812345678"
PEM = '-----BEGIN PRIVATE KEY-----\nMII"a\\b\n-----END PRIVATE KEY-----'


def asked(operation: Operation = CHAT, /, **fields: Any) -> Ask:
    return Ask(operation, "m", False, False, {"model": "m", **fields})


def chat(*contents: Any, **fields: Any) -> Ask:
    return asked(messages=[{"role": "user", "content": content} for content in contents], **fields)


def redacted(ask: Ask) -> tuple[Ask, Vault]:
    taken_out, vault = REDACTOR.redact(ask, "upstream")
    assert vault is not None
    return taken_out, vault


def vault_of(*things: str) -> Vault:
    """[EMAIL_1], [EMAIL_2]..."""
    vault = Vault()
    for thing in things:
        vault.take(thing, "EMAIL")
    return vault


# -- requests ----------------------------------------------------------------------------------------------------------


def test_the_same_thing_has_one_placeholder_in_all_turns_and_they_count_in_order() -> None:
    ask, vault = redacted(chat(f"{MAIL} and {OTHER}", f"call {PHONE}, not {MAIL}"))
    assert texts_of(ask) == ["[EMAIL_1] and [EMAIL_2]", "call [PHONE_1], not [EMAIL_1]"]
    assert vault.restore("[PHONE_1] [EMAIL_2] [EMAIL_1]") == f"{PHONE} {OTHER} {MAIL}"


def test_everything_that_somebody_wrote_is_read_and_nothing_else_is_changed() -> None:
    picture = {"type": "image_url", "image_url": {"url": f"https://example.com/{MAIL}.jpg"}}
    tool = {"type": "function", "function": {"name": "f", "description": f"mails {MAIL}"}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"to": MAIL})}}
    turns = [
        {"role": "system", "content": f"You write for {MAIL}."},
        {"role": "user", "content": [{"type": "text", "text": f"To {MAIL}"}, picture]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    fields = {"messages": turns, "tools": [tool], "user": MAIL, "stop": [MAIL], "temperature": 0, "seed": 13812345678}
    ask, _ = redacted(asked(**fields))
    expected = json.loads(json.dumps({"model": "m", **fields}).replace(MAIL, "[EMAIL_1]"))
    expected["messages"][1]["content"][1] = picture
    assert ask.fields == expected
    assert ask.fields["messages"][1]["content"][1] == picture


@pytest.mark.parametrize(
    ("operation", "fields", "expected"),
    [
        (COMPLETION, {"prompt": f"a {MAIL}"}, "a [EMAIL_1]"),
        (COMPLETION, {"prompt": [f"a {MAIL}", "b"]}, ["a [EMAIL_1]", "b"]),
        (EMBEDDING, {"input": [f"a {MAIL}"]}, ["a [EMAIL_1]"]),
    ],
)
def test_prompts_and_inputs_are_read_too(operation: Operation, fields: dict[str, Any], expected: Any) -> None:
    ask, _ = redacted(asked(operation, **fields))
    assert ask.fields[next(iter(fields))] == expected


def test_a_request_without_any_is_left_as_it_is() -> None:
    ask = chat("What is an isochrone?")
    assert REDACTOR.redact(ask, "upstream") == (ask, None)


@pytest.mark.parametrize("mode", ["off", "log"])
def test_only_one_mode_changes_what_a_backend_gets(mode: Any) -> None:
    ask = chat(MAIL)
    assert REDACTOR.redact(ask, mode) == (ask, None)


def test_requests_that_differ_in_such_data_alone_become_one_and_each_gets_its_own_back() -> None:
    first, mine = redacted(chat(f"Reply to {MAIL} and call {PHONE}"))
    second, theirs = redacted(chat(f"Reply to {OTHER} and call 13912345678"))
    assert fingerprint("t", first) == fingerprint("t", second)
    body = b'{"choices":[{"message":{"content":"Dear [EMAIL_1]"}}]}'
    assert b"Dear jane@example.com" in mine.restore_body(body)
    assert b"Dear tom@example.org" in theirs.restore_body(body)


def test_the_order_of_fields_does_not_change_which_placeholder_a_thing_has() -> None:
    one = asked(user=OTHER, messages=[{"role": "user", "content": MAIL}])
    other = asked(messages=[{"content": MAIL, "role": "user"}], user=OTHER)
    assert redacted(one)[0].fields == redacted(other)[0].fields


def test_a_placeholder_that_the_caller_wrote_stays_his_and_names_nothing_else() -> None:
    ask, vault = redacted(chat(f"What does [EMAIL_1] mean? And [email 2]? Mail {MAIL}."))
    assert texts_of(ask) == ["What does [EMAIL_1] mean? And [email 2]? Mail [EMAIL_3]."]
    assert vault.restore("[EMAIL_1] [EMAIL_2] [EMAIL_3]") == f"[EMAIL_1] [EMAIL_2] {MAIL}"


def test_who_writes_a_placeholder_reads_nobodys_data() -> None:
    ask, vault = REDACTOR.redact(chat("Say [EMAIL_1]"), "upstream")
    assert vault is None
    assert texts_of(ask) == ["Say [EMAIL_1]"]


def test_more_than_can_be_taken_out_is_refused() -> None:
    with pytest.raises(BadRequest) as refused:
        REDACTOR.redact(chat(f"{PHONE} " * 10_001), "upstream")
    assert refused.value.code == "too_much_personal_data"


def test_neither_a_vault_nor_its_repr_tells_what_is_in_it() -> None:
    vault = vault_of(MAIL)
    assert MAIL not in f"{vault} {vault!r}"


# -- what is kept and logged -------------------------------------------------------------------------------------------


def test_in_log_mode_a_request_with_such_data_is_not_kept_or_shared() -> None:
    assert REDACTOR.must_not_keep(chat(f"Mail {MAIL}"), "log")
    assert not REDACTOR.must_not_keep(chat("Mail whom?"), "log")
    assert not REDACTOR.must_not_keep(chat(f"Mail {MAIL}"), "off")


@pytest.mark.parametrize(("mode", "may"), [("off", True), ("log", False), ("upstream", False)])
def test_an_answer_in_which_a_model_wrote_such_data_is_not_kept(mode: Any, may: bool) -> None:
    assert REDACTOR.may_keep({"choices": [{"message": {"content": f"Ask {MAIL}"}}]}, mode) is may
    assert REDACTOR.may_keep({"choices": [{"message": {"content": "Ask [EMAIL_1]"}}]}, mode)
    assert REDACTOR.may_keep({"object": "list", "data": []}, mode)


def test_a_log_line_has_kinds_in_place_of_data() -> None:
    assert REDACTOR.clean(f"{MAIL} failed, call {PHONE}") == "[EMAIL] failed, call [PHONE]"
    assert REDACTOR.clean(f"{PHONE} " * 10_001) == "[REDACTED]"


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        *("[EMAIL_1]", "[email_1]", "[Email 1]", "[EMAIL-1]", "[EMAIL1]", "[ EMAIL_1 ]", "【EMAIL_1】", "［EMAIL_1］"),
        *(r"\[EMAIL\_1\]", r"[EMAIL\_1]"),
    ],
)
def test_a_placeholder_that_the_model_wrote_otherwise_is_still_the_same(written: str) -> None:
    assert vault_of(MAIL).restore(f"to {written}.") == f"to {MAIL}."


@pytest.mark.parametrize("written", ["EMAIL_1", "[EMAIL_2]", "[MAIL_1]", "[EMAIL_]", "[1]", "[EMAIL_1", "[x](EMAIL_1)"])
def test_what_is_no_placeholder_of_this_request_stays(written: str) -> None:
    assert vault_of(MAIL).restore(written) == written


def test_a_body_gets_its_things_back_in_every_text_and_as_json_where_that_is_json() -> None:
    vault = Vault()
    vault.take(PEM, "SECRET")
    arguments = '{"key":"[SECRET_1]"}'
    message = {
        "content": "it is [SECRET_1]",
        "reasoning_content": "[SECRET_1]?",
        "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": arguments}}],
    }
    body = msgspec.json.encode({"id": "x", "choices": [{"index": 0, "message": message}], "usage": {"total_tokens": 3}})
    restored_body = json.loads(vault.restore_body(body))
    message = restored_body["choices"][0]["message"]
    assert message["content"] == f"it is {PEM}"
    assert message["reasoning_content"] == f"{PEM}?"
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"key": PEM}
    assert restored_body["usage"] == {"total_tokens": 3}


def test_an_answer_that_was_asked_for_as_json_stays_json() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIabc\n-----END PRIVATE KEY-----"
    _, vault = redacted(chat(f"Pack {key}", response_format={"type": "json_object"}))
    body = msgspec.json.encode({"choices": [{"message": {"content": '{"key": "[SECRET_1]"}'}}]})
    content = json.loads(vault.restore_body(body))["choices"][0]["message"]["content"]
    assert json.loads(content) == {"key": key}


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"choices":', b'{"data":[1]}', b'{"choices":null}', b'{"choices":[1,null]}']
)
def test_a_body_of_another_shape_passes_as_it_came(body: bytes) -> None:
    assert vault_of(MAIL).restore_body(body) == body


# -- streams -----------------------------------------------------------------------------------------------------------


def event(delta: dict[str, Any], *, index: int = 0, finish: str | None = None) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return b"data: " + msgspec.json.encode({"id": "c", "model": "m", "choices": [choice]}) + b"\n\n"


def said(stream: bytes) -> dict[tuple[Any, ...], str]:
    """What a client hears, text by text."""
    texts: dict[tuple[Any, ...], str] = {}
    for one in SseDecoder().feed(stream):
        chunk = {} if one.data in (None, b"[DONE]") else json.loads(one.data or b"{}")
        for choice in chunk.get("choices", ()):
            for place, text in _texts(choice):
                texts[place] = texts.get(place, "") + text
    return texts


def _texts(choice: dict[str, Any]) -> Iterable[tuple[tuple[Any, ...], str]]:
    index, delta = choice["index"], choice.get("delta", {})
    yield from (((index, name), text) for name, text in delta.items() if isinstance(text, str) and name != "role")
    if choice.get("text"):
        yield (index, "text"), choice["text"]
    for call in delta.get("tool_calls") or ():
        yield (index, "arguments", call["index"]), call["function"].get("arguments", "")


TEXTS = st.lists(
    st.sampled_from(
        ["[EMAIL_1]", "【email 2】", r"\[EMAIL\_1\]", "[EMAIL_3]", "[", "[E", "\\", "a [1] b", "张", "\n", "x_1]"]
    ),
    max_size=8,
).map("".join)


@given(text=TEXTS, cuts=st.lists(st.integers(0, 80), max_size=12), ends=st.booleans())
def test_however_a_text_is_cut_the_client_reads_what_the_whole_text_says(
    text: str, cuts: list[int], ends: bool
) -> None:
    vault, places = vault_of(MAIL, OTHER), sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    events = [event({"content": text[a:b]}) for a, b in pairwise(places)]
    stream = b"".join(events) + (event({}, finish="stop") if ends else b"") + b"data: [DONE]\n\n"
    heard = restore_events(stream, vault)
    assert said(heard).get((0, "content"), "") == vault.restore(text)
    assert heard.endswith(b"data: [DONE]\n\n")


def test_an_event_without_such_a_thing_passes_as_it_came() -> None:
    raw = b'data: {"choices":[{"delta":{"content":"plain \\n text"}}],  "odd":1}\n\n'
    comment = b": keep-alive\n\n"
    assert restore_events(raw + comment + raw, vault_of(MAIL)) == raw + comment + raw


def test_no_more_is_held_back_than_may_be_the_beginning_of_one() -> None:
    restoring = Restoring(vault_of(MAIL))
    for text, heard in (("see [1", "see [1"), ("[x", "[x"), ("a [", "a "), ("EMAIL_", ""), ("1] b", f"{MAIL} b")):
        assert said(restoring.feed(SseDecoder().feed(event({"content": text})))).get((0, "content"), "") == heard
    held = "[ EMAIL \\_ 123456 \\"
    assert vault_of(MAIL).held_back("x" * 50 + held) == len(held) <= LONGEST
    assert vault_of(MAIL).held_back("[PHO") == 0


def test_each_choice_and_each_text_of_it_is_held_back_by_itself() -> None:
    vault = vault_of(MAIL, OTHER)
    call = {"index": 1, "function": {"arguments": '{"to":"[EMA'}}
    rest = {"index": 1, "function": {"arguments": 'IL_2]"}'}}
    stream = b"".join(
        [
            event({"content": "[EMAIL"}, index=0),
            event({"content": "[EMAIL_2"}, index=1),
            event({"reasoning_content": "hm [EMAIL_1] ["}, index=2),
            event({"tool_calls": [call]}, index=3),
            event({"content": "_1]"}, index=0),
            event({"content": "]"}, index=1),
            event({"content": "so"}, index=2),
            event({"tool_calls": [rest]}, index=3),
        ]
    )
    assert said(restore_events(stream, vault)) == {
        (0, "content"): MAIL,
        (1, "content"): OTHER,
        (2, "reasoning_content"): f"hm {MAIL} [",
        (2, "content"): "so",
        (3, "arguments", 1): f'{{"to":"{OTHER}"}}',
    }


def test_what_a_call_is_given_stays_json() -> None:
    vault = Vault()
    vault.take(PEM, "SECRET")
    pieces = ['{"key": "[SEC', "RET_1]", '"}']
    stream = b"".join(event({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in pieces)
    assert json.loads(said(restore_events(stream, vault))[0, "arguments", 0]) == {"key": PEM}


def test_a_completion_is_restored_too() -> None:
    def text(piece: str, finish: str | None = None) -> bytes:
        choice = {"index": 0, "text": piece, "finish_reason": finish}
        return b"data: " + msgspec.json.encode({"choices": [choice]}) + b"\n\n"

    stream = text("to [EMAIL") + text("_1] and [") + text("", "stop")
    assert said(restore_events(stream, vault_of(MAIL))) == {(0, "text"): f"to {MAIL} and ["}


def test_what_is_held_back_comes_before_an_error_the_end_and_a_new_beginning() -> None:
    for last in (
        b'data: {"error":{"message":"cut"}}\n\n',
        b"data: [DONE]\n\n",
        b'data: {"choices":[],"isochrone":{}}\n\n',
    ):
        heard = restore_events(event({"content": "see [EMAIL"}) + last, vault_of(MAIL))
        assert said(heard) == {(0, "content"): "see [EMAIL"}
        assert heard.endswith(last)


def test_an_event_that_is_no_chunk_passes_as_it_came() -> None:
    for odd in (b'data: {"choices":[{"delta":"["}]}\n\n', b"data: [[[\n\n", b'data: {"choices":["[",{}]}\n\n'):
        assert restore_events(odd, vault_of(MAIL)) == odd


class Source:
    def __init__(self, *chunks: bytes) -> None:
        self.closed = False
        self._stream = self._chunks(chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream

    async def _chunks(self, chunks: tuple[bytes, ...]) -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.anyio
async def test_a_stream_is_restored_as_it_comes_and_closing_it_closes_its_source() -> None:
    source = Source(event({"content": "to [EMA"}), b": keep-alive\n\n", event({"content": "IL_1]"})[:20])
    stream = RestoredStream(source, vault_of(MAIL))
    heard = [chunk async for chunk in stream]
    assert said(heard[0]) == {(0, "content"): "to "}
    assert heard[1] == b": keep-alive\n\n"
    assert said(heard[2]) == {(0, "content"): "[EMA"}
    await stream.aclose()
    assert source.closed


@pytest.mark.anyio
async def test_closing_an_unread_stream_closes_its_source() -> None:
    source = Source()
    await RestoredStream(source, vault_of(MAIL)).aclose()
    assert source.closed


@pytest.mark.anyio
async def test_every_form_of_reply_is_restored() -> None:
    vault, told = vault_of(MAIL), event({"content": "[EMAIL_1]"})
    body = restored(Reply(status=200, headers={}, body=b'{"choices":[{"text":"[EMAIL_1]"}]}'), vault)
    assert json.loads(body.body)["choices"][0]["text"] == MAIL
    replayed = restored(
        Reply(status=200, headers={"content-type": "text/event-stream; charset=utf-8"}, body=told), vault
    )
    assert said(replayed.body) == {(0, "content"): MAIL}
    streamed = restored(Reply(status=200, headers={}, stream=Source(told)), vault)
    assert streamed.stream is not None
    assert said(b"".join([chunk async for chunk in streamed.stream])) == {(0, "content"): MAIL}
    untouched = Reply(status=200, headers={}, body=b"[EMAIL_1]")
    assert restored(untouched, None).body == b"[EMAIL_1]"
