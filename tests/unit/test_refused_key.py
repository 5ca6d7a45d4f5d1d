"""A backend that does not take our key is asked again at once where there is another key, within the same attempt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from isochrone.api.errors import ApiError
from isochrone.routing.plan import Step
from isochrone.upstream.failure import AttemptFailed, Cause
from isochrone.upstream.pursuit import Means
from tests.unit.test_pursuit import ANSWER, Scene


class Keys:
    """What `Means` asks for keys: `others` is tried where the first one is refused."""

    def __init__(self, others: Mapping[str, str] | None) -> None:
        self.others = others
        self.refused: list[Mapping[str, str]] = []

    async def __call__(self, _step: Step, refused: Mapping[str, str]) -> Mapping[str, str] | None:
        self.refused.append(refused)
        return self.others


def refusal(status: int = 401, cause: Cause = Cause.CREDENTIALS) -> AttemptFailed:
    return AttemptFailed(cause, f"answered {status}", status=status)


def scene_with(monkeypatch: pytest.MonkeyPatch, keys: Keys, *outcomes: Any) -> Scene:
    def means(**fields: Any) -> Means:
        return Means(**fields, headers_after_refusal=keys)

    monkeypatch.setattr("tests.unit.test_pursuit.Means", means)
    return Scene(monkeypatch, *outcomes, backends=1)


@pytest.mark.parametrize("status", [401, 403])
async def test_refused_key_is_replaced_within_the_same_attempt(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    keys = Keys({"Authorization": "new"})
    scene = scene_with(monkeypatch, keys, refusal(status), ANSWER)
    won = await scene.pursue()
    assert (won.answer, won.made) == (ANSWER, 1)
    assert [options["headers"]["Authorization"] for options in scene.options] == ["pool-0", "new"]
    assert keys.refused == [{"Authorization": "pool-0"}]
    won.visit.succeeded(None)
    (entry,) = await scene.book.recent("t", limit=9)
    assert entry["detail"] == f"asked twice: answered {status}"


async def test_second_refusal_in_one_attempt_is_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys({"Authorization": "new"})
    scene = scene_with(monkeypatch, keys, refusal(), refusal())
    with pytest.raises(ApiError):
        await scene.pursue(attempts=1)
    assert len(keys.refused) == 1


async def test_without_another_key_nothing_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scene_with(monkeypatch, Keys(None), refusal())
    with pytest.raises(ApiError):
        await scene.pursue(attempts=1)
    assert scene.asked == ["pool-0"]


@pytest.mark.parametrize(
    ("status", "cause"),
    [(402, Cause.CREDENTIALS), (429, Cause.CREDENTIALS), (403, Cause.FILTERED), (500, Cause.BROKEN)],
    ids=["empty account", "quota", "content filter", "failure"],
)
async def test_what_is_no_refusal_of_the_key_asks_for_no_other(
    monkeypatch: pytest.MonkeyPatch, status: int, cause: Cause
) -> None:
    keys = Keys({"Authorization": "new"})
    scene = scene_with(monkeypatch, keys, refusal(status, cause))
    with pytest.raises(ApiError):
        await scene.pursue(attempts=1)
    assert keys.refused == []
