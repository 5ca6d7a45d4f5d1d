"""One TOML file for the CDK app, the functions and the local edition (docs/configuration.md has a paragraph per key).

`load(path)` gives a `Settings` or raises `SettingsError`, whose text is one line: file, line, key, what is wrong.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct, field

from isochrone.toml_errors import KeyPath, dotted, in_plain_words, line_of, path_of

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
Ratio = Annotated[float, Meta(ge=0, le=1)]
# Above any time, price or weight that makes sense; infinity makes none.
_LARGEST = 1e9
Positive = Annotated[float, Meta(gt=0, le=_LARGEST)]
Count = Annotated[int, Meta(ge=1)]
Money = Annotated[float, Meta(ge=0, le=_LARGEST)]
Seconds = Annotated[int, Meta(ge=0, le=10**9)]


class SettingsError(ValueError):
    """The configuration cannot be used; the message is one line for the operator."""


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    """A TOML table: every key is declared, an undeclared one is an error."""


class Service(_Table, frozen=True):
    name: Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,30}$")] = "isochrone"
    domain: str | None = None
    hosted_zone: str | None = None
    hosted_zone_id: Annotated[str, Meta(pattern="^Z[A-Z0-9]+$")] | None = None
    dns: Literal["latency", "geolocation", "geoproximity"] = "latency"


class State(_Table, frozen=True):
    kind: Literal["memory", "dynamodb"] = "memory"
    endpoint_url: str | None = None
    spool: str | None = None
    kms_key: Annotated[str, Meta(pattern=r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$")] | None = None


class Geo(_Table, frozen=True):
    database: str | None = None
    trusted_proxies: tuple[str, ...] = ()


class Region(_Table, frozen=True):
    name: Name
    serves: tuple[Annotated[str, Meta(pattern="^[A-Z]{2}$")], ...] = ()
    default: bool = False
    location: tuple[float, float] | None = None


class Price(_Table, frozen=True):
    """Dollars per million tokens."""

    input: Money = 0.0
    output: Money = 0.0


class OwnDeadlines(_Table, frozen=True):
    """Seconds; what is not given here is as `[deadlines]` says."""

    connect: Positive | None = None
    first_token: Positive | None = None
    stall: Positive | None = None
    total: Positive | None = None


class Backend(_Table, frozen=True):
    name: Name
    base_url: Annotated[str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?$")]
    models: Annotated[dict[str, str], Meta(min_length=1)]
    kind: Literal["pool", "api"] = "pool"
    region: str | None = None
    location: tuple[float, float] | None = None
    api_key_env: str | None = None
    api_key_secret: str | None = None
    engine: Literal["vllm", "llama.cpp", "openai"] = "openai"
    max_concurrency: Count | None = None
    prefill: bool = False
    assemble: bool = True
    weight: Positive = 1.0
    share: Annotated[float, Meta(gt=0, le=1)] | None = None
    price: Price = field(default_factory=Price)
    deadlines: OwnDeadlines = field(default_factory=OwnDeadlines)


class OwnAnswers(_Table, frozen=True):
    """What a key or a model has of its own; what is not given here is as `[answers]` says."""

    exact: bool | None = None
    semantic: bool | None = None
    coalesce: bool | None = None
    ttl: Count | None = None
    stale_while_revalidate: Seconds | None = None
    stale_if_error: Seconds | None = None


class Model(_Table, frozen=True):
    name: str
    fallback: tuple[str, ...] = ()
    context: Count | None = None
    revision: str = ""
    regions: tuple[str, ...] = ()
    primary: Literal["pool", "api"] = "pool"
    standby_above_ms: Positive | None = None
    hedge_after: Positive | None = None
    deadlines: OwnDeadlines = field(default_factory=OwnDeadlines)
    answers: OwnAnswers = field(default_factory=OwnAnswers)


class Deadlines(_Table, frozen=True):
    """Seconds."""

    connect: Positive = 2.0
    first_token: Positive = 10.0
    stall: Positive = 10.0
    total: Positive = 600.0

    def but(self, *own: OwnDeadlines) -> Deadlines:
        """These, but with what `own` says instead, the first that says it."""
        said = {
            name: value
            for one in reversed(own)
            for name, value in msgspec.structs.asdict(one).items()
            if value is not None
        }
        return msgspec.structs.replace(self, **said)


class Retry(_Table, frozen=True):
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    budget_ratio: Ratio = 0.2


class Routing(_Table, frozen=True):
    near: Literal["client", "edge"] = "client"
    probe_interval: Money = 5.0
    near_equal_ms: Money = 20.0
    price_ms: Money = 1.0
    affinity: bool = True
    hedge_ratio: Ratio = 0.05
    max_wait: Money = 10.0


class AnswerRule(_Table, frozen=True):
    """How long the answers to a kind of question are true."""

    name: Name
    ttl: Seconds | Literal["forever"]
    models: tuple[str, ...] = ()
    pattern: str | None = None


class Answers(_Table, frozen=True):
    exact: bool = True
    semantic: bool = False
    ttl: Count = 86_400
    volatile_ttl: Seconds = 300
    stale_while_revalidate: Seconds = 0
    stale_if_error: Seconds = 0
    memory_ttl: Count = 300
    memory_bytes: Count = 16_777_216
    sampled: bool = False
    also: tuple[Literal["tools", "logprobs", "choices", "length"], ...] = ()
    coalesce: bool = True
    curated: str | None = None
    warm: bool = False
    rule: tuple[AnswerRule, ...] = ()


class Semantic(_Table, frozen=True):
    """How similar questions are told from those that only look alike."""

    max_error: Annotated[float, Meta(gt=0, le=0.1)] = 0.02
    max_chars: Annotated[int, Meta(ge=8, le=2000)] = 200
    merge_window: Annotated[float, Meta(ge=0, le=300)] = 0.0
    shadow: Ratio = 0.02


class Light(_Table, frozen=True):
    """Work that an edge does itself, asked for by a model name or by what is asked."""

    task: Literal["keywords", "language", "tokens", "schema"]
    model: str | None = None
    pattern: str | None = None


class Warm(_Table, frozen=True):
    """How much may be spent on answers before they are asked for."""

    budget: Money = 1.0
    requests: Count = 100
    interval: Annotated[int, Meta(ge=60, le=86_400)] = 900
    second_worth: Money = 0.001


class Auth(_Table, frozen=True):
    required: bool = True


class Key(_Table, frozen=True):
    id: Name
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    tenant: Name
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrency: Count | None = None
    networks: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    private: bool = False
    answers: OwnAnswers = field(default_factory=OwnAnswers)


class Limits(_Table, frozen=True):
    body_bytes: Count = 10_485_760
    messages: Count = 2_048
    requests_per_5_minutes_per_address: Annotated[int, Meta(ge=10, le=2_000_000_000)] = 10_000


class Pool(_Table, frozen=True):
    """The GPU pools that the CDK app builds: one stack for each backend of kind "pool" that has a region."""

    create: bool = False
    model: str = "casperhansen/deepseek-r1-distill-qwen-7b-awq"
    instance_types: tuple[str, ...] = ("g4dn.xlarge", "g4dn.2xlarge")
    min_size: Annotated[int, Meta(ge=0)] = 0
    max_size: Count = 4
    on_demand_base: Annotated[int, Meta(ge=0)] = 0
    on_demand_percentage: Annotated[int, Meta(ge=0, le=100)] = 0
    max_model_len: Count = 8192


class Alarms(_Table, frozen=True):
    error_rate: Ratio = 0.10
    latency_p99: Positive = 1.5
    email: str | None = None


class Settings(_Table, frozen=True, kw_only=True):
    service: Service = field(default_factory=Service)
    state: State = field(default_factory=State)
    geo: Geo = field(default_factory=Geo)
    region: Annotated[tuple[Region, ...], Meta(min_length=1)]
    backend: Annotated[tuple[Backend, ...], Meta(min_length=1)]
    model: tuple[Model, ...] = ()
    deadlines: Deadlines = field(default_factory=Deadlines)
    retry: Retry = field(default_factory=Retry)
    routing: Routing = field(default_factory=Routing)
    answers: Answers = field(default_factory=Answers)
    semantic: Semantic = field(default_factory=Semantic)
    light: tuple[Light, ...] = ()
    warm: Warm = field(default_factory=Warm)
    auth: Auth = field(default_factory=Auth)
    key: tuple[Key, ...] = ()
    limits: Limits = field(default_factory=Limits)
    pool: Pool = field(default_factory=Pool)
    alarms: Alarms = field(default_factory=Alarms)


def load(path: str | Path) -> Settings:
    """Read and check one file. Raises SettingsError."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text (byte {error.start})") from None
    return _placed(parse(text, name=str(path)), path.parent)


def _placed(settings: Settings, folder: Path) -> Settings:
    """With the path of the file that stands beside the configuration as it is from here."""
    if not settings.answers.curated:
        return settings
    answers = msgspec.structs.replace(settings.answers, curated=str(folder / settings.answers.curated))
    return msgspec.structs.replace(settings, answers=answers)


def parse(text: str, name: str = "isochrone.toml") -> Settings:
    """Check the text of a configuration; `name` is what errors call it. Raises SettingsError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at line ")
        line = place.partition(",")[0] or "1"
        raise SettingsError(f"{name}:{line}: no TOML: {message}") from None
    try:
        settings = msgspec.convert(document, Settings)
    except msgspec.ValidationError as error:
        message, _, trail = str(error).partition(" - at `$")
        path = path_of(trail.rstrip("`"), message)
        raise error_at(text, name, path, in_plain_words(message, path, Settings)) from None
    for path, message in _contradictions(settings):
        raise error_at(text, name, path, message)
    return settings


def error_at(text: str, name: str, path: KeyPath, message: str) -> SettingsError:
    """The one line that says which key of the file `name` (whose text is `text`) is wrong, and how."""
    return SettingsError(f"{name}:{line_of(text, path)}: {dotted(path)}: {message}")


Found = Iterator[tuple[KeyPath, str]]


def _contradictions(settings: Settings) -> Found:
    """What a schema cannot say: names that refer to nothing, rules that can never match."""
    yield from _doubles(settings)
    yield from _wrong_service(settings)
    yield from _wrong_backends(settings)
    yield from _wrong_models(settings)
    yield from _wrong_residency(settings)
    yield from _wrong_networks(settings)
    yield from _wrong_answers(settings)
    yield from _wrong_light(settings)


def _doubles(settings: Settings) -> Found:
    for table, word, names in (
        ("region", "name", [region.name for region in settings.region]),
        ("backend", "name", [backend.name for backend in settings.backend]),
        ("key", "id", [key.id for key in settings.key]),
        ("model", "name", [model.name for model in settings.model]),
    ):
        yield from (((table, i, word), f"{name!r} stands twice") for i, name in enumerate(names) if name in names[:i])


def _wrong_service(settings: Settings) -> Found:
    defaults = [i for i, region in enumerate(settings.region) if region.default]
    yield from ((("region", i, "default"), "exactly one region may be the default") for i in defaults[1:])
    if settings.service.dns == "geolocation":
        if not defaults:
            yield ("service", "dns"), "geolocation needs exactly one [[region]] with default = true"
        yield from _unknown_places(settings)
    if settings.service.domain and not settings.service.hosted_zone:
        yield ("service", "domain"), "needs hosted_zone, the zone in Route 53 that holds its records"


def _wrong_backends(settings: Settings) -> Found:
    regions = [region.name for region in settings.region]
    for i, backend in enumerate(settings.backend):
        if not _has_usable_port(backend.base_url):
            yield ("backend", i, "base_url"), "its port is no number from 1 to 65535"
        if backend.api_key_env and backend.api_key_secret:
            yield ("backend", i, "api_key_secret"), "give api_key_env or api_key_secret, not both"
        if settings.pool.create and backend.kind == "pool" and backend.region not in regions:
            yield ("backend", i, "region"), f"pool.create needs one of the regions {', '.join(regions)}"


def _has_usable_port(base_url: str) -> bool:
    try:
        return urlsplit(base_url).port != 0
    except ValueError:
        return False


def _wrong_models(settings: Settings) -> Found:
    served = {model for backend in settings.backend for model in backend.models}
    for i, model in enumerate(settings.model):
        for word, names in (("name", (model.name,)), ("fallback", model.fallback)):
            yield from ((("model", i, word), f"no backend serves {name!r}") for name in names if name not in served)
        if model.name in model.fallback:
            yield ("model", i, "fallback"), f"{model.name!r} is no fallback of itself"
        kinds = {backend.kind for backend in settings.backend if model.name in backend.models}
        if kinds and model.primary == "api" and "api" not in kinds:
            yield ("model", i, "primary"), f"no backend of kind 'api' serves {model.name!r}"
        if model.standby_above_ms and len(kinds) == 1:
            yield ("model", i, "standby_above_ms"), f"only backends of one kind serve {model.name!r}: none can stand by"


def _wrong_residency(settings: Settings) -> Found:
    """A region where nothing stands is most likely misspelt, and would shut everybody out."""
    everywhere = {backend.region for backend in settings.backend if backend.region}
    for i, key in enumerate(settings.key):
        yield from _unknown_regions(("key", i, "regions"), key.regions, everywhere, "")
    for i, model in enumerate(settings.model):
        near = {backend.region for backend in settings.backend if backend.region and model.name in backend.models}
        yield from _unknown_regions(("model", i, "regions"), model.regions, near, f" that serves {model.name!r}")


def _unknown_regions(path: KeyPath, names: tuple[str, ...], known: set[str], which: str) -> Found:
    for name in names:
        if name not in known:
            yield path, f"no backend{which} stands in {name!r}; there are {', '.join(sorted(known)) or 'none'}"


def _wrong_networks(settings: Settings) -> Found:
    # Imported here: only a configuration that was just read needs it.
    from ipaddress import ip_network  # noqa: PLC0415

    listed: list[tuple[KeyPath, tuple[str, ...]]] = [(("geo", "trusted_proxies"), settings.geo.trusted_proxies)]
    listed += [(("key", i, "networks"), key.networks) for i, key in enumerate(settings.key)]
    for path, networks in listed:
        for network in networks:
            try:
                ip_network(network)
            except ValueError as error:
                yield path, str(error)


def _wrong_answers(settings: Settings) -> Found:
    answers, served = settings.answers, {model for backend in settings.backend for model in backend.models}
    for i, rule in enumerate(answers.rule):
        at = ("answers", "rule", i)
        if not rule.models and rule.pattern is None:
            yield (*at, "name"), "give models or pattern, or else it is the same as answers.ttl"
        yield from (((*at, "models"), f"no backend serves {name!r}") for name in rule.models if name not in served)
        yield from _wrong_pattern((*at, "pattern"), rule.pattern)
    if not answers.exact:
        yield from (
            (("answers", name), "needs answers.exact") for name in ("semantic", "warm") if getattr(answers, name)
        )
    own = [("model", i, one.answers) for i, one in enumerate(settings.model)]
    own += [("key", i, one.answers) for i, one in enumerate(settings.key)]
    for table, i, said in own:
        if said.semantic and (answers.exact if said.exact is None else said.exact) is False:
            yield (table, i, "answers", "semantic"), "needs exact answers, which are off here"
    for i, key in enumerate(settings.key):
        if key.private and any(value for value in msgspec.structs.asdict(key.answers).values()):
            yield ("key", i, "private"), "nothing of a private key is kept, so its `answers` would have no effect"


def _wrong_light(settings: Settings) -> Found:
    served = {model for backend in settings.backend for model in backend.models}
    for i, light in enumerate(settings.light):
        if light.model is None and light.pattern is None:
            yield ("light", i, "task"), "give model or pattern, or both; it is always there as edge/" + light.task
        if light.model in served and light.pattern is None:
            yield ("light", i, "model"), f"backends serve {light.model!r}: without a pattern none would be asked"
        if light.model and light.model.startswith("edge/"):
            yield ("light", i, "model"), f"{light.model!r} is a task's own name, which no rule changes"
        yield from _wrong_pattern(("light", i, "pattern"), light.pattern)


def _wrong_pattern(path: KeyPath, pattern: str | None) -> Found:
    # Imported here: only a configuration that was just read needs it.
    from isochrone.patterns import PatternError, compile_pattern  # noqa: PLC0415

    if pattern is None:
        return
    try:
        compile_pattern(pattern)
    except PatternError as error:
        yield path, f"no regular expression that RE2 knows: {error}"


_CONTINENTS = frozenset(("AF", "AN", "AS", "EU", "NA", "OC", "SA"))
_COUNTRIES = Path(__file__).with_name("routing") / "data" / "countries.json"


def _unknown_places(settings: Settings) -> Found:
    """What `serves` names and no client can come from. Reads a file, so only for who asks for geolocation."""
    named = [(i, code) for i, region in enumerate(settings.region) for code in region.serves]
    known = _CONTINENTS.union(msgspec.json.decode(_COUNTRIES.read_bytes())) if named else _CONTINENTS
    for i, code in named:
        if code not in known:
            yield (
                ("region", i, "serves"),
                f"{code!r} is no continent and no country; codes are those of ISO 3166, such as GB",
            )


def table_name(settings: Settings, table: str) -> str:
    """`isochrone-answers` and the like: what the CDK app creates and the stores open."""
    return f"{settings.service.name}-{table}"


def semantic_somewhere(settings: Settings) -> bool:
    """Is there a key or a model for which answers to similar questions may be known?"""
    own = [*(model.answers for model in settings.model), *(key.answers for key in settings.key)]
    return settings.answers.semantic or any(answers.semantic for answers in own)


def main_region(settings: Settings) -> str:
    """The region of what there is only once: the default one, else the first."""
    return next((region.name for region in settings.region if region.default), settings.region[0].name)


def home_of(backend: Backend, settings: Settings) -> str:
    """The region whose tables hold what the edges of all regions must agree on about a backend: its own where an edge
    stands there, else the main one."""
    has_edge = any(region.name == backend.region for region in settings.region)
    return backend.region if backend.region and has_edge else main_region(settings)


def document_of(settings: Settings) -> dict[str, Any]:
    """The settings as plain data, for printing."""
    data: dict[str, Any] = msgspec.to_builtins(settings)
    return data
