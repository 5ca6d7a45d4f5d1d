"""Questions that differ only in how they are put: courtesies, articles, contractions, and words that say the same at
the beginning of a question. English and Chinese.

This is the strictest kind of similarity: every word that carries matter must be there, in the same order. What else
might differ is left to the guards of semantic answers, which must not object either.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from isochrone.answers.curated.book import Standard
from isochrone.answers.curated.question import normalised
from isochrone.answers.semantic.guards import objection

# The first that fits is taken off, again and again, from the beginning and from the end.
_OPENINGS = re.compile(
    r"(?:hello|hi|hey|good (?:morning|afternoon|evening)|excuse me|please|ok(?:ay)?|thanks|thank you)\b[\s,.!]*"
    r"|(?:can|could|would|will) you (?:please )?(?:tell|explain to|show) (?:me|us)\b[\s,:]*"
    r"|(?:please )?(?:tell|show) (?:me|us)\b[\s,:]*"
    r"|(?:i|we) (?:would like|want|need|'d like) to know\b[\s,:]*|(?:may|can|could) i ask\b[\s,:]*"
    r"|(?:你好|您好|请问一?下?|请教一下|请|麻烦问一下|麻烦|(?:我)?想(?:请)?(?:问|知道|了解)一?下?|(?:你)?(?:能|可以)告诉我)"
    r"[\s,:。!、]*"
)
_ENDINGS = re.compile(r"[\s,.!]*(?:\b(?:please|thanks|thank you)|呢|啊|呀|吧|哦|谢谢你?)[\s,.!?。]*$")
_HAN_GAPS = re.compile(r"(?<=[\u3400-\u9fff])\s+|\s+(?=[\u3400-\u9fff])|[,、](?=[\u3400-\u9fff])")
_SAME: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), same)
    for pattern, same in (
        (r"\b(what|where|who|when|how|that|it|there)'s\b", r"\1 is"),
        (r"\b(?:can't|cannot)\b", "can not"),
        (r"\b(could|do|does|did|is|are|was|were|has|have|would|should)n't\b", r"\1 not"),
        (r"\bi'm\b", "i am"),
        (r"\byou're\b", "you are"),
        (r"\b(?:an?|the|your)\b", ""),
        (r"^how (?:can i|could i|would i|to)\b", "how do i"),
        ("您", "你"),
        ("怎么样|怎样|怎么|咋", "如何"),
        ("啥", "什么"),
        ("何时|什么时间", "什么时候"),
        ("哪儿", "哪里"),
        ("你们?的", ""),
    )
)


def bare(question: str) -> str:
    """The question without what only says how it is put."""
    words = normalised(question)
    while (found := _OPENINGS.match(words)) and found.end() < len(words):
        words = words[found.end() :]
    while (found := _ENDINGS.search(words)) and found.start():
        words = words[: found.start()]
    words = _HAN_GAPS.sub("", words)
    for pattern, same in _SAME:
        words = pattern.sub(same, words)
    return normalised(words)


class Wordings:
    """Standard questions by what is left of them."""

    def __init__(self, standards: Iterable[Standard]) -> None:
        self._by_words: dict[str, list[Standard]] = defaultdict(list)
        for standard in standards:
            self._by_words[bare(standard.question)].append(standard)

    def standard_for(self, question: str, *, tenant: str, model: str, now: float) -> Standard | None:
        """Who answers a question that is put in another way; None also where several could."""
        found = [
            standard
            for standard in self._by_words.get(bare(question), ())
            if standard.applies(tenant, model, now) and objection(question, standard.question) is None
        ]
        nearest = min((standard.generality for standard in found), default=None)
        best = {standard.id: standard for standard in found if standard.generality == nearest}
        return best.popitem()[1] if len(best) == 1 else None
