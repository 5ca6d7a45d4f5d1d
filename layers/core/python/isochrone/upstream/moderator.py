"""Asks a backend's `/moderations` (OpenAI's API), whose word on texts the front door goes by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import aiohttp
import msgspec
from msgspec import Struct

from isochrone.admission.content.moderation import NotJudged, NoVerdict, Verdict
from isochrone.settings import Backend

_MOST_BYTES = 1024 * 1024
# It finds fault with what it was sent: too long, too many, of the wrong kind.
_NOT_ITS_FAULT = frozenset({400, 413, 422})


class _Result(Struct):
    flagged: bool
    categories: dict[str, bool | None] = {}


class _Results(Struct):
    results: list[_Result]


class Moderator:
    """One moderation model at one backend. `headers` gives those with the backend's own key."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        backend: Backend,
        model: str,
        *,
        headers: Callable[[], Mapping[str, str]],
    ) -> None:
        self._session = session
        self._url = f"{backend.base_url.rstrip('/')}/moderations"
        self._model = model
        self._headers = headers

    async def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each text. Raises NoVerdict, whose words hold nothing of the texts or of the answer."""
        body = msgspec.json.encode({"model": self._model, "input": list(texts)})
        try:
            async with self._session.post(
                self._url, data=body, headers=self._headers(), allow_redirects=False
            ) as response:
                if response.status != 200:
                    kind = NotJudged if response.status in _NOT_ITS_FAULT else NoVerdict
                    raise kind(f"it answered {response.status}")
                results = msgspec.json.decode(await _read(response), type=_Results).results
        except (aiohttp.ClientError, OSError) as error:
            raise NoVerdict(f"it could not be asked ({type(error).__name__})") from None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise NoVerdict("its answer cannot be read") from None
        return [_verdict_of(result) for result in results]


async def _read(response: aiohttp.ClientResponse) -> bytes:
    answer = bytearray()
    async for chunk in response.content.iter_any():
        answer += chunk
        if len(answer) > _MOST_BYTES:
            raise NoVerdict(f"its answer has more than {_MOST_BYTES} bytes")
    return bytes(answer)


def _verdict_of(result: _Result) -> Verdict:
    if not result.flagged:
        return Verdict()
    return Verdict(tuple(name for name, holds in result.categories.items() if holds) or ("flagged",))
