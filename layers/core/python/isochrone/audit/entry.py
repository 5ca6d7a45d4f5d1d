"""What an audit log holds of one request, of an answer that was flagged, and of one writer when it begins."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from isochrone.api.trail import Trail

# Numbers and short words that say how to generate. A caller chooses what stands in them, so each is cut to this length.
_WORD = 200
# A question is no more than this of its text: an entry must stay far below what one record of Firehose takes.
QUESTION_CHARS = 16_000


class Start(Struct, frozen=True, kw_only=True, tag_field="record", tag="start"):
    """The first entry of a writer's chain. `to` says where its entries go; only files keep their order."""

    time: int
    edge: str
    version: str
    to: str


class AuditEntry(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="record", tag="request"):
    """One request, at its end. What is not known is left out.

    `time` is when it came, in epoch milliseconds, `latency_ms` how long it took to its last byte. Tokens and `cost` ($)
    are sums over its attempts; `estimated` says that no engine counted the tokens. `outcome` is "complete", or how a
    reply ended otherwise: "broken" (told in band), "left" (the caller), "lost" (the edge died; nobody knows what of the
    reply went out, and what is here is what was known when it began). `question` only where audit.prompts is on.
    """

    time: int
    request_id: str
    edge: str
    method: str
    path: str
    address: str = ""
    country: str | None = None
    tenant: str | None = None
    key_id: str | None = None
    subject: str | None = None
    kind: str | None = None
    action: str | None = None
    model: str | None = None
    parameters: dict[str, str] = {}
    question: str | None = None
    decision: str
    rule: str | None = None
    reason: str = ""
    note: str = ""
    status: int
    backend: str | None = None
    cache: str | None = None
    attempts: int = 0
    outcome: str = ""
    first_token_ms: float | None = None
    latency_ms: float
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    cost: float | None = None


class Flag(Struct, frozen=True, kw_only=True, tag_field="record", tag="flag"):
    """A moderation flagged an answer when it had been told already. `time` is when it said so, in epoch milliseconds;
    `request_id` is that of the request for which the answer was made, whose own entry says the rest. `rule` is as in
    the entry of a request that is refused for the same: `moderation/CATEGORY,...`."""

    time: int
    request_id: str
    edge: str
    tenant: str
    model: str
    backend: str
    rule: str


def entry_of(trail: Trail, *, edge: str, outcome: str | None = None) -> AuditEntry:
    """The entry of a request as far as its trail goes."""
    return AuditEntry(
        time=round(trail.at * 1000),
        request_id=trail.request_id,
        edge=edge,
        method=trail.method[:_WORD],
        path=trail.path[:_WORD],
        address=trail.address,
        country=trail.country,
        tenant=trail.tenant,
        key_id=trail.key_id,
        subject=trail.subject,
        kind=trail.kind,
        action=trail.action,
        model=trail.model and trail.model[:_WORD],
        parameters=_texts(trail.parameters),
        question=trail.question and trail.question[:QUESTION_CHARS],
        decision=trail.verdict,
        rule=trail.rule,
        reason=trail.reason,
        note=trail.note[:_WORD],
        status=trail.status,
        backend=trail.backend,
        cache=trail.cache,
        attempts=trail.attempts,
        outcome=trail.outcome if outcome is None else outcome,
        first_token_ms=trail.first_token_ms,
        latency_ms=round(trail.latency_ms, 3),
        input_tokens=trail.input_tokens,
        output_tokens=trail.output_tokens,
        estimated=trail.estimated,
        cost=trail.cost or None,
    )


def _texts(parameters: dict[str, Any]) -> dict[str, str]:
    """All values as text, so that a table has one type for them: true, 0.7, json_object."""
    return {name: _text(value) for name, value in parameters.items() if value is not None}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)[:_WORD]
