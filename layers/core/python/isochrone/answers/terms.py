"""What the operator allows for the answer to one request: may it be known already, may it be kept, and for how long.

    [answers]  <  [[model]] answers  <  [[key]] answers          the nearer one wins, setting by setting
    [[answers.rule]]  >  a question about now  >  ttl            how long it is true

Nothing of a key marked private is kept, shared or looked up.
"""

from __future__ import annotations

import re
from functools import lru_cache
from math import inf
from typing import Any, NamedTuple

from msgspec import structs

from isochrone.patterns import Pattern, compile_pattern
from isochrone.settings import AnswerRule, Answers, OwnAnswers, Settings

# Questions whose answer changes by the day. A word too many costs a generation, one too few an old answer.
_WORDS = (
    *("today", "tonight", "tomorrow", "yesterday", "nowadays", "right now", "at the moment", "latest", "newest"),
    *("breaking", "news", "weather", "forecast", "what time", "stock price", "share price", "exchange rate"),
)
_SPANS = {"week": ("week", "weekend"), "month": ("month",), "year": ("year",), "quarter": ("quarter",)}
# By what all of them have in common, which is looked for first.
_NOW = {
    **{words: (words,) for words in _WORDS},
    **{word: (word, word + "ly") for word in ("current", "recent")},
    **{
        span: tuple(f"{which} {name}" for which in ("this", "next", "last") for name in names)
        for span, names in _SPANS.items()
    },
}
_NOW_IN_CHINESE = re.compile(
    "今天|今日|今晚|明天|昨天|现在|目前|当前|最新|最近|本周|这周|下周|上周|本月|这个月|今年|新闻|天气|几点|股价|汇率"
)
_PAIRS_AT_ONCE = 4096
# Of each end of a longer text, where questions stand: a pattern is tried at every place, and other requests wait.
_READ_CHARS = 2_000


class Terms(NamedTuple):
    """`ttl` is seconds, `inf` for ever and 0 for never. An answer past it may still serve for `revalidate` seconds
    while a new one is generated, and for `on_error` seconds when none can be had."""

    exact: bool = False
    semantic: bool = False
    coalesce: bool = False
    ttl: float = 0.0
    revalidate: float = 0.0
    on_error: float = 0.0

    @property
    def grace(self) -> float:
        """Seconds for which an answer past its `ttl` is worth keeping."""
        return max(self.revalidate, self.on_error)


NOTHING = Terms()
_NOT_GIVEN = OwnAnswers()


class TermsBook:
    """The terms of a configuration."""

    def __init__(self, settings: Settings) -> None:
        self._answers = settings.answers
        self._of_model = {model.name: model.answers for model in settings.model}
        self._rules = [_Rule.of(rule) for rule in settings.answers.rule]
        self._usual = lru_cache(maxsize=_PAIRS_AT_ONCE)(self._usual_terms)

    def terms(self, model: str, text: str | None, *, own: OwnAnswers = _NOT_GIVEN, private: bool = False) -> Terms:
        """Those of one request for `model` by a key with `own` settings; `text` is its last user turn, if any."""
        if private:
            return NOTHING
        usual = self._usual(model, own)
        ttl = self._ttl(model, text, usual.ttl)
        return usual if ttl == usual.ttl else usual._replace(ttl=ttl)

    def _usual_terms(self, model: str, own: OwnAnswers) -> Terms:
        said = _merged(self._answers, self._of_model.get(model, _NOT_GIVEN), own)
        return Terms(
            exact=said["exact"],
            semantic=said["semantic"] and said["exact"],
            coalesce=said["coalesce"],
            ttl=float(said["ttl"]),
            revalidate=float(said["stale_while_revalidate"]),
            on_error=float(said["stale_if_error"]),
        )

    def _ttl(self, model: str, text: str | None, usual: float) -> float:
        text = _ends_of(text) if text else text
        for rule in self._rules:
            if rule.applies(model, text):
                return rule.ttl
        if text and usual > self._answers.volatile_ttl and _is_about_now(text):
            return float(self._answers.volatile_ttl)
        return usual


class _Rule(NamedTuple):
    models: frozenset[str]
    pattern: Pattern | None
    ttl: float

    @classmethod
    def of(cls, rule: AnswerRule) -> _Rule:
        pattern = None if rule.pattern is None else compile_pattern(rule.pattern)
        return cls(frozenset(rule.models), pattern, inf if rule.ttl == "forever" else float(rule.ttl))

    def applies(self, model: str, text: str | None) -> bool:
        if self.models and model not in self.models:
            return False
        return self.pattern is None or (text is not None and self.pattern.search(text) is not None)


def _is_about_now(text: str) -> bool:
    """Every request is asked this. To look for words one by one takes a tenth of what one pattern for all takes."""
    text = text.casefold()
    if any(common in text and any(_has_apart(words, text) for words in all_of) for common, all_of in _NOW.items()):
        return True
    return not text.isascii() and _NOW_IN_CHINESE.search(text) is not None


def _has_apart(words: str, text: str) -> bool:
    """Not as a part of other words. A pattern that begins with what it looks for is quick."""
    return words in text and re.search(rf"{words}(?<!\w{words})(?!\w)", text) is not None


def _ends_of(text: str) -> str:
    return text if len(text) <= 2 * _READ_CHARS else f"{text[:_READ_CHARS]}\n{text[-_READ_CHARS:]}"


def _merged(answers: Answers, *nearer: OwnAnswers) -> dict[str, Any]:
    said = structs.asdict(answers)
    for own in nearer:
        said |= {name: value for name, value in structs.asdict(own).items() if value is not None}
    return said
