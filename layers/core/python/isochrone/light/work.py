"""Which requests an edge does by itself, and their answers: asked for as `edge/TASK`, or by a `[[light]]` rule."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple, Protocol, cast

import msgspec

from isochrone.answers.completion import Answer
from isochrone.answers.composed import Estimate, compose
from isochrone.answers.inquiry import asked_last
from isochrone.api.errors import BadRequest, NotInstalled
from isochrone.api.requests import CHAT, COMPLETION, Ask
from isochrone.light.packages import missing
from isochrone.patterns import Pattern, compile_pattern
from isochrone.settings import Light

TASKS = ("keywords", "language", "schema", "tokens")
BACKEND = "edge"
_OWN = "edge/"
_INSTALL = "pip install --no-deps -r requirements-light.txt"
# A rule's pattern is not looked for in longer turns: it would be tried at every place of them.
_MAX_RULE_CHARS = 4_000


log = logging.getLogger("isochrone.light")


class Job(NamedTuple):
    """One task and the text that it is about."""

    task: str
    text: str


class _Task(Protocol):
    """A module of this package. `run` takes the text and the request's fields, and gives data for JSON."""

    NEEDS: tuple[str, ...]
    MAX_CHARS: int
    run: Callable[[str, Mapping[str, Any]], Any]


class LightWork:
    """The light work of one configuration; `served` are the models that backends have."""

    def __init__(self, rules: Iterable[Light], *, served: Collection[str], estimate: Estimate) -> None:
        own = [_Rule(task, _OWN + task, None) for task in TASKS]
        every = [*own, *map(_Rule.of, rules)]
        self._rules = [rule for rule in every if rule.model not in served or rule.pattern]
        self._estimate = estimate
        self._for_any_model = any(rule.model is None or rule.model in served for rule in self._rules)
        self._task_of = {rule.model: rule.task for rule in self._rules if rule.model and rule.model not in served}

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Those that there are beside the models of backends, and whose libraries are installed."""
        return tuple(model for model, task in self._task_of.items() if not missing(_module(task).NEEDS))

    def job_of(self, ask: Ask) -> Job | None:
        """What to do for a request, or None when it is for a backend. Raises BadRequest for a request by name that
        light work cannot answer."""
        by_name = ask.model in self._task_of
        if not by_name and not self._for_any_model:
            return None
        text = asked_last(ask)
        if text is not None and ask.choices == 1:
            for rule in self._rules:
                found = rule.text_in(ask.model, text)
                if found is not None:
                    return Job(rule.task, found)
        if by_name:
            raise _cannot(ask, text)
        return None

    async def answer(self, job: Job, ask: Ask, *, now: float) -> Answer:
        """The answer, as JSON in the place of words; `now` is epoch seconds. Raises BadRequest, also for a text that
        makes a library give up, and NotInstalled where the libraries for it are missing."""
        task = _module(job.task)
        if len(job.text) > task.MAX_CHARS:
            raise BadRequest(f"{_OWN}{job.task} takes at most {task.MAX_CHARS:,} characters.", param=_place_of(ask))
        if lacking := missing(task.NEEDS):
            raise NotInstalled(f"{_OWN}{job.task} needs {', '.join(lacking)}: {_INSTALL}")
        try:
            data = await asyncio.to_thread(_run, task, job.text, ask.fields)
        except _Panic as error:
            log.warning("light work: %s: %s", job.task, error)
            raise BadRequest(f"{_OWN}{job.task} cannot read this text.", param=_place_of(ask)) from None
        told = msgspec.json.encode(data).decode()
        return compose(ask, told, backend=BACKEND, created=now, usage=self._estimate(ask.fields, told))


class _Rule(NamedTuple):
    task: str
    model: str | None
    pattern: Pattern | None

    @classmethod
    def of(cls, rule: Light) -> _Rule:
        return cls(rule.task, rule.model, compile_pattern(rule.pattern) if rule.pattern else None)

    def text_in(self, model: str, text: str) -> str | None:
        """What the rule is about: what its group `text` found, else the whole turn. None where it does not fit."""
        if self.model not in (None, model):
            return None
        if self.pattern is None:
            return text
        found = self.pattern.search(text) if len(text) <= _MAX_RULE_CHARS else None
        if found is None:
            return None
        return found.group("text") if "text" in self.pattern.groupindex else text


def _module(task: str) -> _Task:
    return cast(_Task, import_module(f"isochrone.light.{task}"))


class _Panic(Exception):
    """A library in Rust gave up on a text."""


def _run(task: _Task, text: str, fields: Mapping[str, Any]) -> Any:
    try:
        return task.run(text, fields)
    except Exception:
        raise
    except BaseException as error:  # so pyo3 raises a panic; as it is, it would end more than this request
        raise _Panic(f"{error!r:.200}") from error


def _cannot(ask: Ask, text: str | None) -> BadRequest:
    if ask.operation not in (CHAT, COMPLETION):
        return BadRequest(f"{ask.model!r} answers chats and completions only.", param="model")
    if ask.choices != 1:
        return BadRequest(f"{ask.model!r} gives one answer to one prompt.", param="n")
    if text is None:
        return BadRequest(f"{ask.model!r} takes its text from the last message, a user turn.", param=_place_of(ask))
    return BadRequest(f"{ask.model!r} has no rule for such a text.", param=_place_of(ask))


def _place_of(ask: Ask) -> str:
    return "prompt" if ask.operation is COMPLETION else "messages"
