"""The request that lets a backend go on from a text that was told already, instead of telling it anew.

engine       how it takes the beginning of its own answer
vllm         a last message of the assistant, `continue_final_message` and no `add_generation_prompt`
llama.cpp    a last message of the assistant
openai       a last message of the assistant with `prefix` (DeepSeek's chat prefix completion, at its address /beta)

On the older route the beginning is simply the end of the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isochrone.api.requests import CHAT, COMPLETION, Ask

# These shape an answer from its first token on, or count its tokens: right for a whole answer, wrong for its rest.
_WHOLE_ONLY = (
    "best_of", "echo", "grammar", "guided_choice", "guided_grammar", "guided_json", "guided_regex", "json_schema",
    "logprobs", "structured_outputs", "suffix", "top_logprobs",
)  # fmt: skip
# A caller who says these goes on from a text of his own.
_CALLERS_OWN = ("add_generation_prompt", "continue_final_message")
_LIMITS = ("max_tokens", "max_completion_tokens")


def continued(ask: Ask, told: Mapping[str, str], engine: str, *, tokens: int) -> Ask | None:
    """The request for the rest of an answer of which `told` was told, in about so many `tokens`, by field.

    None where only the whole can be asked for: thoughts or calls were told, several answers are wanted, or a form.
    """
    field = "content" if ask.operation is CHAT else "text"
    if set(told) != {field} or not told[field] or not _may_be_continued(ask):
        return None
    known = {name: ask.fields.get(name) for name in _LIMITS}
    limits = {name: max(1, limit - tokens) for name, limit in known.items() if isinstance(limit, int)}
    beginning = _chat(ask.fields, told[field], engine) if ask.operation is CHAT else _prompt(ask.fields, told[field])
    return ask._replace(stream=True, fields={**ask.fields, **limits, **beginning, "stream": True}, continues=True)


def _may_be_continued(ask: Ask) -> bool:
    fields = ask.fields
    if ask.choices != 1 or any(map(fields.get, _WHOLE_ONLY)) or any(name in fields for name in _CALLERS_OWN):
        return False
    if ask.operation is COMPLETION:
        return isinstance(fields["prompt"], str)
    form = (fields.get("response_format") or {}).get("type", "text")
    choice = fields.get("tool_choice") or fields.get("function_call") or "auto"
    return form == "text" and choice in ("auto", "none") and fields["messages"][-1]["role"] != "assistant"


def _chat(fields: Mapping[str, Any], told: str, engine: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": told}
    if engine == "openai":
        message["prefix"] = True
    said = {"messages": [*fields["messages"], message]}
    if engine == "vllm":
        return {**said, "add_generation_prompt": False, "continue_final_message": True}
    return said


def _prompt(fields: Mapping[str, Any], told: str) -> dict[str, Any]:
    return {"prompt": fields["prompt"] + told}
