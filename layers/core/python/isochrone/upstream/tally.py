"""Tokens of an answer that was told by more than one attempt, or by an engine that does not count them."""

from __future__ import annotations

from typing import Any

from isochrone.api.requests import Ask
from isochrone.ledger.usage import estimate, usage_of
from isochrone.upstream.transcript import Transcript


def usage_heard(transcript: Transcript, ask: Ask) -> dict[str, Any]:
    """What one attempt used: what its engine said, else an estimate that says it is one."""
    if transcript.usage:
        return transcript.usage
    return estimate(ask.fields, "".join(transcript.texts().values()), events=transcript.tokens)


def tokens_heard(transcript: Transcript) -> int:
    """How many tokens an attempt has told: as its engine said on the way, else one for each event that brought some."""
    _, completion = usage_of(transcript.usage)
    return completion or transcript.tokens


def usage_of_whole(usage: dict[str, Any], *, told_before: int) -> dict[str, Any]:
    """The usage of a whole answer, from that of an attempt that went on after so many tokens.

    They were a part of its prompt, and are a part of the answer. Marked as an estimate, since no engine counted them.
    """
    prompt, completion = usage_of(usage)
    if prompt is None or completion is None:
        return usage
    moved = min(prompt, told_before)
    counts = {"prompt_tokens": prompt - moved, "completion_tokens": completion + moved}
    return {**usage, **counts, "total_tokens": prompt + completion, "estimated": True}
