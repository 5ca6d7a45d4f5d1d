"""How a question is read without a model: its normal form, its words, and a cheap vector to find neighbours with.

English is cut into words, Chinese into characters, save for the little phrases of `vocabulary` ("how do I", "能不能"),
which say how something is asked and not what is asked about. Words match by an equal or a nearly equal beginning
(pregnant, pregnancy), so no stemmer is needed.

The cheap vector counts words and pieces of words, hashed into 256 places with a sign (feature hashing, Weinberger et
al. 2009), with the square root for pieces that repeat and unit length. It is the same in every process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from unicodedata import normalize
from zlib import crc32

from isochrone.answers.semantic.vocabulary import IRREGULAR, LITTLE_CHINESE, LITTLE_ENGLISH

DIMENSIONS = 256
MAX_CHARACTERS = 600
_MAX_WORDS = 120

_SPACES = re.compile(r"\s+")
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "`": "'", "´": "'", "“": '"', "”": '"'})
_CONTRACTIONS = (
    (re.compile(r"\bcan't\b|\bcant\b|\bcannot\b"), "can not"),
    (re.compile(r"\bwon't\b"), "will not"),
    (re.compile(r"\b(do|does|did|is|are|was|were|has|have|had|would|should|could|must|need)n'?t\b"), r"\1 not"),
    (re.compile(r"\b(what|who|where|when|how|why|it|that|there|here)(?:'s|s)\b(?<!its)"), r"\1 is"),
    (re.compile(r"'(?:m|re|ve|ll|d|s)\b"), ""),
)
_STATES = re.compile(r"\bU\.?S\.?(?:A\b\.?)?(?![\w.])")
_TOKEN = re.compile(r"\d+(?:[.,:/]\d+)*|[a-z]+(?:[+#]+)?|[\u3400-\u9fff]+|[^\W\d_a-z\u3400-\u9fff]+|[$€£¥%°℃]")
_HAN = re.compile(r"[\u3400-\u9fff]")
_LONGEST_LITTLE = max(map(len, LITTLE_CHINESE))
_SHORT_BEGINNING, _LONG_BEGINNING, _END = 3, 4, 3


def normalised(text: str) -> str:
    """The text without what never changes an answer: width, case, runs of spaces, punctuation at the end."""
    return _SPACES.sub(" ", normalize("NFKC", text).translate(_APOSTROPHES).casefold()).strip().rstrip(" .?!。,;…~、")


@dataclass(frozen=True, slots=True)
class Reading:
    """A question as it was read: every token in order, those that carry the matter, and those that only ask."""

    text: str
    tokens: tuple[str, ...]
    content: tuple[str, ...]
    little: tuple[str, ...]
    chinese: bool


@lru_cache(maxsize=2048)
def read(text: str) -> Reading:
    """Read at most the first 600 characters."""
    plain = normalised(text[:MAX_CHARACTERS])
    spoken = normalised(_STATES.sub("usa", text[:MAX_CHARACTERS]))
    for pattern, full in _CONTRACTIONS:
        spoken = pattern.sub(full, spoken)
    tokens = tuple(_tokens(spoken))[:_MAX_WORDS]
    content = tuple(token for token in tokens if not is_little(token))
    return Reading(plain, tokens, content, tuple(filter(is_little, tokens)), bool(_HAN.search(plain)))


def is_little(token: str) -> bool:
    """Whether a token only says how something is asked."""
    return token in LITTLE_ENGLISH or token in LITTLE_CHINESE


def _tokens(text: str) -> list[str]:
    found: list[str] = []
    for token in _TOKEN.findall(text):
        if _HAN.match(token):
            found += _cut_chinese(token)
        else:
            found.append(IRREGULAR.get(token, token))
    return found


def _cut_chinese(run: str) -> list[str]:
    """Little phrases whole, the longest first; everything else character by character."""
    cut, at = [], 0
    while at < len(run):
        length = next((n for n in range(_LONGEST_LITTLE, 1, -1) if run[at : at + n] in LITTLE_CHINESE), 1)
        cut.append(run[at : at + length])
        at += length
    return cut


def alike(one: str, other: str) -> bool:
    """Whether two words are forms of one: equal, or with the same long beginning and short different ends."""
    if one == other:
        return True
    same = _beginning(one, other)
    short, long = sorted((one, other), key=len)
    rest = len(long) - same
    ending = same >= _SHORT_BEGINNING and long in (f"{short}s", f"{short}ing")
    return one.isalpha() and (ending or (same >= _LONG_BEGINNING and rest <= _END))


def _beginning(one: str, other: str) -> int:
    """How many characters both begin with."""
    same = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        same += 1
    return same


def unmatched(words: tuple[str, ...], others: tuple[str, ...]) -> list[str]:
    """The words that have no form among the others; each of the others is used up once."""
    left = list(others)
    missing = []
    for word in words:
        match = next((other for other in left if alike(word, other)), None)
        if match is None:
            missing.append(word)
        else:
            left.remove(match)
    return missing


def sketch(text: str) -> list[float]:
    """256 numbers of unit length (all 0 for an empty text); questions with words in common point the same way."""
    counts: dict[int, float] = {}
    for piece, weight in _pieces(read(text)):
        counts[piece] = counts.get(piece, 0.0) + weight
    vector = [0.0] * DIMENSIONS
    for piece, count in counts.items():
        vector[piece % DIMENSIONS] += sqrt(count) if piece & 0x8000_0000 else -sqrt(count)
    length = sqrt(sum(number * number for number in vector))
    return [number / length for number in vector] if length else vector


_LITTLE_WEIGHT, _WORD_WEIGHT, _PART_WEIGHT = 0.05, 1.0, 0.25


def _pieces(reading: Reading) -> list[tuple[int, float]]:
    pieces = []
    for token in reading.tokens:
        if is_little(token):
            pieces.append((_hash(token), _LITTLE_WEIGHT))
            continue
        pieces.append((_hash(token), _WORD_WEIGHT))
        framed = f"<{token}>"
        if len(token) > 2:
            pieces += [(_hash(framed[at : at + 3]), _PART_WEIGHT) for at in range(len(framed) - 2)]
    if reading.chinese:
        pairs = zip(reading.content, reading.content[1:], strict=False)
        pieces += [(_hash(one + other), _WORD_WEIGHT) for one, other in pairs]
    return pieces


def _hash(piece: str) -> int:
    return crc32(piece.encode("utf-8", "surrogatepass"))
