"""Light work: who asks for it, what it answers, and what it refuses. The libraries are the real ones."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from isochrone.answers.completion import replay_body, replay_stream
from isochrone.api.errors import BadRequest, NotInstalled
from isochrone.api.requests import CHAT, COMPLETION, EMBEDDING, Ask, Operation, parse
from isochrone.api.shape import Guard
from isochrone.ledger.usage import estimate
from isochrone.light import work
from isochrone.light.work import Job, LightWork
from isochrone.settings import Light, Limits

NOW = 1_800_000_000.0


def ask(
    text: Any = "How do I reset my password?", model: str = "edge/language", operation: Operation = CHAT, **more: Any
) -> Ask:
    named = {CHAT: {"messages": [{"role": "user", "content": text}]}, COMPLETION: {"prompt": text}}
    fields = {"model": model, **named.get(operation, {"input": text}), **more}
    return parse(operation, msgspec.json.encode(fields), None, Guard(Limits()))


def working(*rules: Light, served: tuple[str, ...] = ("m",)) -> LightWork:
    return LightWork(rules, served=served, estimate=estimate)


async def told(text: str, task: str, **more: Any) -> Any:
    asked = ask(text, f"edge/{task}", **more)
    light = working()
    job = light.job_of(asked)
    assert job
    answer = await light.answer(job, asked, now=NOW)
    return json.loads(answer.body["choices"][0]["message"]["content"])


# -- who asks --------------------------------------------------------------------------------------------------------


def test_every_task_is_a_model_of_its_own() -> None:
    light = working()
    assert light.models == ("edge/keywords", "edge/language", "edge/schema", "edge/tokens")
    assert light.job_of(ask("Hi", "edge/tokens")) == Job("tokens", "Hi")
    assert light.job_of(ask("Hi", "edge/tokens", operation=COMPLETION)) == Job("tokens", "Hi")
    assert light.job_of(ask("Hi", "m")) is None


def test_rule_gives_a_task_another_name() -> None:
    light = working(Light(task="keywords", model="extract"))
    assert "extract" in light.models
    assert light.job_of(ask("Hi", "extract")) == Job("keywords", "Hi")


def test_rule_takes_what_its_pattern_finds_out_of_other_requests() -> None:
    light = working(Light(task="keywords", pattern=r"^keywords:\s*(?P<text>.*)"), Light(task="tokens", pattern="count"))
    assert light.job_of(ask("KEYWORDS: the moon", "m")) == Job("keywords", "the moon")
    assert light.job_of(ask("please count this", "m")) == Job("tokens", "please count this")
    assert light.job_of(ask("the moon", "m")) is None
    assert "m" not in light.models


def test_rule_with_name_and_pattern_needs_both() -> None:
    light = working(Light(task="language", model="m", pattern="^lang:"))
    assert light.job_of(ask("lang: salut", "m")) == Job("language", "lang: salut")
    assert light.job_of(ask("salut", "m")) is None
    assert light.job_of(ask("lang: salut", "other")) is None


def test_model_of_a_backend_is_never_taken_from_it_by_its_name_alone() -> None:
    light = working(Light(task="language", model="m"), served=("m", "edge/tokens"))
    assert light.job_of(ask("Hi", "m")) is None
    assert light.job_of(ask("Hi", "edge/tokens")) is None
    assert "edge/tokens" not in light.models


@pytest.mark.parametrize(
    "asked",
    [
        ask("count", "m", n=2),
        ask("x" * 4_000 + "count", "m"),
        ask([{"type": "image_url", "image_url": {"url": "https://example.com/u.png"}}], "m"),
        ask("count", "m", operation=EMBEDDING),
    ],
)
def test_request_that_a_pattern_cannot_take_goes_to_a_backend(asked: Ask) -> None:
    assert working(Light(task="tokens", pattern="count")).job_of(asked) is None


@pytest.mark.parametrize(
    ("asked", "param", "message"),
    [
        (ask("Hi", n=2), "n", "gives one answer"),
        (ask("Hi", operation=EMBEDDING), "model", "answers chats and completions only"),
        (ask(["Hi"], operation=COMPLETION), "prompt", "takes its text from"),
        (ask(messages=[{"role": "assistant", "content": "Hi"}]), "messages", "takes its text from"),
        (ask("other", "named"), "messages", "has no rule for such a text"),
    ],
)
def test_request_by_name_that_cannot_be_answered_says_why(asked: Ask, param: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message) as caught:
        working(Light(task="tokens", model="named", pattern="^count")).job_of(asked)
    assert caught.value.param == param


# -- what is answered --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", [CHAT, COMPLETION])
async def test_answer_has_the_shape_of_a_backends_and_replays_as_body_and_as_stream(operation: Operation) -> None:
    asked, light = ask("Bonjour tout le monde", operation=operation), working()
    answer = await light.answer(Job("language", "Bonjour tout le monde"), asked, now=NOW)
    assert (answer.backend, answer.operation, answer.created) == ("edge", operation.name, NOW)
    body = json.loads(replay_body(answer, request_id="r", now=NOW))
    assert body["usage"]["total_tokens"] > 0
    assert body["model"] == "edge/language"
    assert b'\\"fr\\"' in replay_stream(answer, request_id="r", now=NOW, include_usage=True)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where can I reset my password in the app?", "en"),
        ("如何重置我的密码？", "zh"),
        ("Comment réinitialiser\nmon mot de passe ?", "fr"),
        ("パスワードをリセットするにはどうすればいいですか", "ja"),
        ("一群人站在街上", "zh"),
        ("Как мне сбросить пароль?", "ru"),
        ("", "und"),
        (" \n\t", "und"),
    ],
)
async def test_language_is_told_with_its_code(text: str, language: str) -> None:
    found = await told(text, "language")
    assert found["language"] == language
    assert 0 <= found["confidence"] <= 1
    assert len(found["candidates"]) == (3 if text.strip() else 0)


@pytest.mark.parametrize(
    ("text", "expected", "language"),
    [
        ("How do I reset my password on the mobile banking app?", {"mobile banking app", "password"}, "en"),
        ("Le chat noir dort sur le canapé rouge pendant que la pluie tombe.", {"chat noir", "canapé"}, "fr"),
        ("人工智能正在改变医疗行业。医生使用机器学习模型来诊断疾病。", {"人工智能", "医生", "模型"}, "zh"),
        ("Python 的 asyncio 怎么用?", {"Python", "asyncio"}, "zh"),
        ("", set(), "en"),
    ],
)
async def test_keywords_are_what_the_text_is_about(text: str, expected: set[str], language: str) -> None:
    found = await told(text, "keywords")
    assert expected <= set(found["keywords"])
    assert len(found["keywords"]) <= 10
    assert found["language"] == language


async def test_keywords_come_the_most_telling_first() -> None:
    text = "银行的密码。我的银行密码忘记了,银行怎么重置密码?银行卡也不能用。"
    assert (await told(text, "keywords"))["keywords"][0] in ("银行", "密码")


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("Hello, world!", 4), ("等时线是一个边缘路由器", 6), ("<｜User｜>", 1)],
)
async def test_tokens_are_those_of_the_tokenizer_and_control_tokens_are_one_each(text: str, tokens: int) -> None:
    found = await told(text, "tokens")
    assert found == {"tokens": tokens, "characters": len(text), "tokenizer": "deepseek-v4"}


@pytest.mark.parametrize("task", ["tokens", "keywords", "language"])
@pytest.mark.parametrize("text", ["\0", "a" * 20_000, "的" * 20_000, "😀" * 10_000, ". " * 10_000, "\n" * 20_000])
async def test_awkward_texts_are_answered_too(task: str, text: str) -> None:
    assert isinstance(await told(text, task), dict)


# -- what is refused ---------------------------------------------------------------------------------------------------


async def test_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(BadRequest, match="edge/keywords takes at most 20,000 characters"):
        await told("x" * 20_001, "keywords")


async def test_task_whose_library_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "missing", lambda packages: list(packages)[:1])
    with pytest.raises(
        NotInstalled, match=r"edge/tokens needs tokenizers: pip install --no-deps -r requirements-light\.txt"
    ):
        await told("x", "tokens")


def test_model_whose_library_is_missing_is_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "missing", lambda packages: [name for name in packages if name == "tokenizers"])
    assert working(Light(task="tokens", model="count")).models == ("edge/keywords", "edge/language", "edge/schema")


async def test_text_that_makes_a_library_give_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        """As pyo3 raises it."""

    def run(text: str, fields: Any) -> Any:
        raise Panic("called unwrap() on None")

    monkeypatch.setattr("isochrone.light.language.run", run)
    with pytest.raises(BadRequest, match=r"edge/language cannot read this text\."):
        await told("x", "language")
