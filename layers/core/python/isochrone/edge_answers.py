"""The routes below /v1/answers: what is known of one answer, and taking answers back, each tenant its own.

Nothing here tells whether another tenant has an answer: an id says whose it is, and nobody looks for one that is not
the caller's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from math import isfinite
from typing import Any

import msgspec

from isochrone.answers.completion import Answer
from isochrone.answers.fingerprint import is_of
from isochrone.answers.library import Library
from isochrone.answers.revocations import Revocations, TooManyRevocations
from isochrone.answers.rulebook import LONGEST_PATTERN, Rule
from isochrone.api.errors import ApiError, BadRequest, NotFound, Saturated
from isochrone.api.exchange import Reply, Request
from isochrone.errand import Caller
from isochrone.replies import JSON
from isochrone.routes import Route
from isochrone.stores.protocols import StoreUnavailable

ROUTE = "/v1/answers"
PATHS = (ROUTE, ROUTE + "/{id}")
_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_LONGEST_MODEL = 256
_RETRY_SECONDS = 10.0


class AnswerRoutes:
    """`now` gives epoch seconds."""

    def __init__(
        self,
        library: Library,
        revocations: Revocations,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._library = library
        self._revocations = revocations
        self._now = now

    def methods(self, path: str) -> dict[str, Route] | None:
        """What can be done at `path`, by method; None for a path that is not one of these."""
        if path == ROUTE:
            return {"DELETE": Route(self.revoke_like, "revoke")}
        if path.startswith(ROUTE + "/"):
            return {"GET": Route(self.show, "read"), "DELETE": Route(self.revoke_one, "revoke")}
        return None

    async def show(self, request: Request, caller: Caller) -> Reply:
        """What is known of the caller's answer, and where it was found; 404 for any other id."""
        tenant, mark = caller.principal.tenant, _id_in(request)
        await self._revocations.refresh()
        found = await self._library.find(mark, now=self._now()) if is_of(tenant, mark) else None
        if found is None or not self._revocations.allows(tenant, mark, found.answer):
            raise NotFound(f"No answer {mark!r} of yours is known here.", code="answer_not_found", param="id")
        return _json(describe(mark, *found))

    async def revoke_one(self, request: Request, caller: Caller) -> Reply:
        """Take back one answer; it is also deleted here, where it is the caller's."""
        tenant, mark = caller.principal.tenant, _id_in(request)
        rule = await self._revoke(tenant, answer=mark)
        if is_of(tenant, mark):
            await self._library.forget(mark)
        return _json(_described(rule))

    async def revoke_like(self, request: Request, caller: Caller) -> Reply:
        """Take back all answers to questions like `?pattern=`, of all models or of `?model=`."""
        tenant = caller.principal.tenant
        if unknown := sorted(request.query.keys() - {"pattern", "model"}):
            named = ", ".join(repr(name[:_LONGEST_MODEL]) for name in unknown)
            raise BadRequest(f"{named}: only 'pattern' and 'model' say what to take back.", param=unknown[0])
        pattern, model = request.query.get("pattern"), request.query.get("model")
        if not pattern or len(pattern) > LONGEST_PATTERN:
            what = f"'pattern' must be a glob of 1 to {LONGEST_PATTERN} characters; * takes back everything"
            raise BadRequest(f"{what}. One answer is taken back with DELETE {ROUTE}/{{id}}.", param="pattern")
        if model is not None and not 0 < len(model) <= _LONGEST_MODEL:
            raise BadRequest("'model' must be the name of a model.", param="model")
        return _json(_described(await self._revoke(tenant, pattern=pattern, model=model)))

    async def _revoke(self, tenant: str, **what: str | None) -> Rule:
        try:
            return await self._revocations.revoke(tenant, **what)
        except StoreUnavailable:
            raise ApiError(
                "Taken back at this edge only: other edges cannot be told now. Send it again.",
                code="revocation_not_shared",
                retry_after=_RETRY_SECONDS,
            ) from None
        except TooManyRevocations:
            raise Saturated(
                "There are too many revocations of yours; take back what many have in common with a pattern, "
                "such as ?pattern=*",
                code="too_many_revocations",
                retry_after=_RETRY_SECONDS,
            ) from None


def _id_in(request: Request) -> str:
    mark = request.path.removeprefix(ROUTE + "/")
    if not _WELL_FORMED_ID.fullmatch(mark):
        raise BadRequest("An answer's id is what the header x-isochrone-answer says.", param="id")
    return mark


def describe(mark: str, answer: Answer, tier: str) -> dict[str, Any]:
    """An answer without what it says; `fresh_until` is None for one that is true for ever."""
    return {
        "id": mark,
        "object": "answer",
        "model": answer.model,
        "question": answer.question,
        "backend": answer.backend,
        "created": answer.created,
        "fresh_until": answer.fresh_until if isfinite(answer.fresh_until) else None,
        "tier": tier,
    }


def _described(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.answer,
        "object": "answer.revocation",
        "pattern": rule.pattern,
        "model": rule.model,
        "revoked_at": rule.revoked_at,
    }


def _json(data: Any) -> Reply:
    return Reply(status=200, headers=dict(JSON), body=msgspec.json.encode(data))
