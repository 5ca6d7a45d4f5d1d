"""The embedder of the package that is pinned, as this machine runs it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from isochrone.answers.semantic.embedder import find_embedder
from isochrone.answers.semantic.vectors import cosine

ENGLISH = ("How do I reset my password?", "What is the way to reset my password?", "Is it going to rain?")
CHINESE = ("怎么修改密码", "如何更改我的密码", "今天会下雨吗")


@pytest.mark.parametrize("texts", [ENGLISH, CHINESE], ids=["en", "zh"])
async def test_what_means_the_same_is_nearer_than_what_does_not(texts: tuple[str, str, str]) -> None:
    one, same, other = await find_embedder().embed(texts)
    near, far = cosine(one, same), cosine(one, other)
    assert near is not None
    assert far is not None
    assert near > far + 0.05


async def test_a_text_has_one_embedding_alone_and_among_others() -> None:
    found = find_embedder()
    alone = [(await found.embed([text]))[0] for text in ENGLISH]
    assert await found.embed(ENGLISH) == alone


async def test_nothing_to_embed_is_no_call() -> None:
    assert await find_embedder().embed([]) == []


async def test_the_loop_goes_on_while_a_text_is_embedded() -> None:
    embedding = asyncio.ensure_future(find_embedder().embed(["word " * 40]))
    turns = 0
    while not embedding.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10


async def test_a_crowd_does_not_queue_up_behind_one_core() -> None:
    found = find_embedder()
    waiting = [asyncio.ensure_future(found.embed([text])) for text in ENGLISH * 4]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(result, TimeoutError) for result in results] == [False] * 8 + [True] * 4
    assert await found.embed(ENGLISH) == [result[0] for result in results[:3] if not isinstance(result, BaseException)]


async def test_a_package_that_is_not_there_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    found = find_embedder("isochrone_no_such_package")
    assert await found.embed(["a", "b"]) == [b"", b""]
    assert await found.embed(["a"]) == [b""]
    assert [record.message for record in caplog.records] == [
        "semantic answers: the embedder cannot be loaded, so only equal words are known: "
        "the package isochrone_no_such_package is not installed (docs/semantic.md says how)"
    ]


@pytest.mark.parametrize("files", [(), ("_engine.so",), ("_engine.so", "e5-small-q4.bin")])
async def test_a_package_that_is_broken_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...]
) -> None:
    (tmp_path / "broken_e5").mkdir()
    for name in ("__init__.py", *files):
        (tmp_path / "broken_e5" / name).write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert await find_embedder("broken_e5").embed(["a"]) == [b""]
    assert len(caplog.records) == 1
