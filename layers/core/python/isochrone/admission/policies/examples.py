"""Examples that say what the rules shall say: requests with the answer that is expected, in a file of TOML or JSON."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct, field

from isochrone.admission.address import parse_address
from isochrone.admission.policies import Action, Decision
from isochrone.admission.policies.book import PolicyBook
from isochrone.admission.principal import ANONYMOUS, Kind, Principal
from isochrone.policy_contradictions import unknown_names
from isochrone.settings import Country, Policy, PolicyCondition, PolicyPrincipal, PolicyResource, Settings
from isochrone.toml_errors import dotted, in_plain_words, line_of, path_of


class ExampleError(ValueError):
    """The file cannot be used; the text is one line that names its line and key."""


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Request(_Table, frozen=True, kw_only=True):
    """Who asks for what, and from where. What is left out is not known of the request; `at` is now when left out, and
    `regions` are where it could be answered, everywhere when left out."""

    action: Action = "generate"
    tenant: str = "anonymous"
    kind: Kind = "key"
    key: str | None = None
    owner: str = ""
    subject: str | None = None
    tags: tuple[str, ...] = ()
    attributes: dict[str, str] = field(default_factory=dict)
    model: str | None = None
    regions: tuple[str, ...] | None = None
    ip: str = ""
    country: Country | None = None
    tokens: Annotated[int, Meta(ge=0)] | None = None
    at: Annotated[datetime, Meta(tz=True)] | None = None


class Example(_Table, frozen=True, kw_only=True):
    """`rule` (none: "") and `regions` are compared where they are given."""

    name: str
    request: Request
    expect: Literal["allow", "deny"]
    rule: str | None = None
    regions: tuple[str, ...] | None = None


class _File(_Table, frozen=True):
    example: Annotated[tuple[Example, ...], Meta(min_length=1)]


class Somewhere(NamedTuple):
    country: str | None


class Asking(NamedTuple):
    """The asker of an example."""

    principal: Principal
    address: str
    location: Somewhere | None


class Outcome(NamedTuple):
    """What the rules said to an example, and what of it was not expected ("" when all was)."""

    name: str
    decision: Decision
    unexpected: str


def read(text: str, name: str) -> tuple[Example, ...]:
    """The examples of a file; JSON where its name ends so, else TOML. Raises ExampleError."""
    try:
        data = msgspec.json.decode(text) if name.endswith(".json") else tomllib.loads(text)
    except (msgspec.DecodeError, tomllib.TOMLDecodeError) as error:
        raise ExampleError(f"{name}: {error}") from None
    try:
        return msgspec.convert(data, _File).example
    except msgspec.ValidationError as error:
        message, _, trail = str(error).partition(" - at `$")
        path = path_of(trail.rstrip("`"), message)
        raise ExampleError(
            f"{name}:{line_of(text, path)}: {dotted(path)}: {in_plain_words(message, path, _File)}"
        ) from None


def asking(request: Request) -> Asking:
    """Raises ExampleError for an address that is none."""
    address = parse_address(request.ip) if request.ip else None
    if request.ip and address is None:
        raise ExampleError(f"{request.ip!r} is no address")
    principal = Principal(
        request.key,
        request.tenant,
        kind=request.kind,
        subject=request.subject,
        owner=request.owner,
        tags=request.tags,
        attributes=request.attributes,
    )
    return Asking(principal, str(address or ""), Somewhere(request.country) if request.country else None)


def decided(book: PolicyBook, request: Request, *, now: float) -> Decision:
    """What the rules say to it; at `now` (epoch seconds) unless it says when. Raises ExampleError."""
    return book.decide(
        asking(request),
        request.action,
        model=request.model,
        regions=None if request.regions is None else frozenset(request.regions),
        tokens=request.tokens,
        now=request.at.timestamp() if request.at else now,
    )


def doubts(example: Example, policies: Sequence[Policy], settings: Settings) -> Iterator[str]:
    """What it names and there is not, which is most likely misspelt; such an example may say nothing."""
    if example.rule and example.rule not in (one.id for one in policies):
        yield f"rule: no rule is called {example.rule!r}"
    for path, why in unknown_names(_naming(example), settings):
        yield f"request.{path[-1]}: {why}"


def _naming(example: Example) -> Policy:
    """A rule about all that the example names: its names are looked up like those of a rule."""
    request = example.request
    principal = PolicyPrincipal(
        tenant=() if request.tenant == ANONYMOUS.tenant else (request.tenant,),
        key=_listed(request.key),
        owner=_listed(request.owner),
        subject=_listed(request.subject),
        tag=request.tags,
        kind=(request.kind,),
        attributes={name: (value,) for name, value in request.attributes.items()},
    )
    resource = PolicyResource(_listed(request.model), (*(request.regions or ()), *(example.regions or ())))
    condition = PolicyCondition(country=_listed(request.country))
    return Policy(example.name, "allow", principal=principal, resource=resource, condition=condition)


def _listed(name: str | None) -> tuple[str, ...]:
    return (name,) if name else ()


def tried(book: PolicyBook, example: Example, *, now: float) -> Outcome:
    """Raises ExampleError."""
    try:
        decision = decided(book, example.request, now=now)
    except ExampleError as error:
        raise ExampleError(f"{example.name}: request.ip: {error}") from None
    return Outcome(example.name, decision, "; ".join(_differences(example, decision)))


def _differences(example: Example, decision: Decision) -> list[str]:
    said = _as_told(decision)
    expected: Mapping[str, Any] = {
        "decision": example.expect,
        "rule": example.rule,
        "regions": None if example.regions is None else sorted(example.regions),
    }
    return [
        f"{what} is {said[what] or 'none'}, not {wanted or 'none'}"
        for what, wanted in expected.items()
        if wanted is not None and wanted != said[what]
    ]


def _as_told(decision: Decision) -> dict[str, Any]:
    return {
        "decision": "allow" if decision.allowed else "deny",
        "rule": decision.rule or "",
        "regions": sorted(decision.regions or ()),
    }
