"""The embeddings that this process met lately, so that a text is embedded once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence

from isochrone.answers.semantic.embedder import Embedder
from isochrone.answers.semantic.thrift import Thrift, cost_ms
from isochrone.answers.semantic.vectors import cosine
from isochrone.answers.semantic.words import normalised
from isochrone.stores.entries import Neighbour

# So many neighbours are embedded in one look-up, where nobody has done it before; each costs as much as the question.
_EMBEDDED_AT_ONCE = 1
_HELD = 2_048
_PATIENCE_SECONDS = 1.0


class Embeddings:
    """By text; some two megabytes. `count` is told `semantic_embedded` for each that was made."""

    def __init__(self, embedder: Embedder, *, count: Callable[[str], object], thrift: Thrift | None = None) -> None:
        self._embedder = embedder
        self._count = count
        self._thrift = thrift or Thrift()
        self._held: OrderedDict[str, bytes] = OrderedDict()

    def get(self, text: str) -> bytes:
        """That of the text, empty if it was not made lately."""
        return self._held.get(text, b"")

    async def cosines(self, asked: str, neighbours: Sequence[Neighbour], *, hope: float) -> dict[str, float | None]:
        """By fingerprint, of as many neighbours as may be embedded at once; None where there is no model.

        Those that say the same words are enough, and need none. There are none where the best of them, which at the
        best is right with the probability `hope`, is not worth the time. Raises TimeoutError.
        """
        words = normalised(asked)
        worded_alike = [one.fingerprint for one in neighbours if normalised(one.question) == words]
        if worded_alike or not neighbours or not self._thrift.allows(hope):
            self._thrift.spent(0.0)
            return dict.fromkeys(worded_alike, 1.0)
        for neighbour in neighbours:
            if neighbour.embedding:
                self._hold(neighbour.question, neighbour.embedding)
        unknown = [one.question for one in neighbours if one.question not in self._held]
        await self._embed(asked, *unknown[:_EMBEDDED_AT_ONCE])
        mine = self.get(asked)
        return {
            one.fingerprint: cosine(mine, self.get(one.question)) for one in neighbours if one.question in self._held
        }

    async def _embed(self, *texts: str) -> None:
        texts = tuple(text for text in dict.fromkeys(texts) if text not in self._held)
        self._thrift.spent(sum(map(cost_ms, texts)))
        if not texts:
            return
        async with asyncio.timeout(_PATIENCE_SECONDS):
            embeddings = await self._embedder.embed(texts)
        for text, embedding in zip(texts, embeddings, strict=True):
            self._count("semantic_embedded")
            self._hold(text, embedding)

    def _hold(self, text: str, embedding: bytes) -> None:
        self._held[text] = embedding
        self._held.move_to_end(text)
        while len(self._held) > _HELD:
            self._held.popitem(last=False)
