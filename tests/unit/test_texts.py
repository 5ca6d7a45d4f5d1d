"""The texts of a request: what is one, and in which order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from isochrone.api.requests import CHAT, Ask
from isochrone.api.texts import texts_in, texts_of, with_texts


def asked(**fields: Any) -> Ask:
    return Ask(CHAT, "m", False, False, {"model": "m", **fields})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(fields=st.dictionaries(st.sampled_from(["messages", "tools", "user", "x", "id", "type"]), JSON))
def test_texts_are_changed_in_the_order_in_which_they_are_read(fields: dict[str, Any]) -> None:
    ask, read = asked(**fields), list[str]()

    def number(text: str) -> str:
        read.append(text)
        return f"{len(read)}"

    changed = with_texts(ask, number)
    assert read == texts_of(ask)
    assert texts_of(changed) == [str(at) for at in range(1, len(read) + 1)]


@given(fields=st.dictionaries(st.sampled_from(["messages", "tools", "user", "x"]), JSON))
def test_a_request_whose_texts_stay_stays_as_it_was_in_its_own_order(fields: dict[str, Any]) -> None:
    ask = asked(**fields)
    assert with_texts(ask, lambda text: text) == ask
    assert list(with_texts(ask, lambda text: text).fields) == list(ask.fields)


def test_no_name_hides_a_text_but_in_the_parts_of_a_message_that_are_data() -> None:
    schema = {"type": "object", "properties": {"file": {"description": "a"}, "id": {"enum": ["b"]}}}
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    ask = asked(
        messages=[{"role": "user", "content": [{"type": "text", "text": "c"}, part], "name": "d"}],
        tools=[{"type": "function", "function": {"name": "e", "parameters": schema}}],
        metadata={"model": "f", "audio": "g"},
    )
    texts = texts_of(ask)
    assert {"a", "b", "c", "d", "e", "f", "g"} <= set(texts)
    assert not any(text.startswith("data:") for text in texts)
    assert "m" not in texts


def test_tokens_are_no_texts() -> None:
    assert texts_in([1, 2.5, None, True, "a", [3, "b"]]) == ["a", "b"]
