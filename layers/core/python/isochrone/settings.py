"""One TOML file for the CDK app, the functions and the local edition (docs/configuration.md has a paragraph per key).

`load(path)` gives a `Settings` or raises `SettingsError`, whose text is one line: file, line, key, what is wrong.
"""

from __future__ import annotations

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from isochrone.contradictions import contradictions
from isochrone.toml_errors import KeyPath, dotted, in_plain_words, line_of, path_of

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
Ratio = Annotated[float, Meta(ge=0, le=1)]
# Above any time, price or weight that makes sense; infinity makes none.
_LARGEST = 1e9
Positive = Annotated[float, Meta(gt=0, le=_LARGEST)]
Count = Annotated[int, Meta(ge=1, le=10**12)]
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
    api_key_parameter: Annotated[str, Meta(pattern=r"^/?[A-Za-z0-9._/-]{1,1010}$")] | None = None
    engine: Literal["vllm", "llama.cpp", "openai"] = "openai"
    max_concurrency: Count | None = None
    requests_per_day: Count | None = None
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


class OwnLimits(_Table, frozen=True):
    """How much one key, tenant or model may use; what is not given is not limited."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrency: Count | None = None
    requests_per_day: Count | None = None
    dollars_per_month: Positive | None = None


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
    limits: OwnLimits = field(default_factory=OwnLimits)


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
    keys: bool = True
    key_max_age: Seconds = 3600
    policies: bool = False


PiiMode = Literal["off", "log", "upstream"]
Priority = Annotated[int, Meta(ge=1, le=10)]
Country = Annotated[str, Meta(pattern="^[A-Z]{2}$")]


class Key(_Table, frozen=True):
    id: Name
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    tenant: Name
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrency: Count | None = None
    requests_per_day: Count | None = None
    dollars_per_month: Positive | None = None
    networks: tuple[str, ...] = ()
    denied_networks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    owner: Annotated[str, Meta(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")] = ""
    tags: tuple[Name, ...] = ()
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    priority: Priority = 10
    private: bool = False
    pii: PiiMode | None = None
    answers: OwnAnswers = field(default_factory=OwnAnswers)

    @property
    def limits(self) -> OwnLimits:
        """The five that stand in the key itself."""
        return limits_of(self)


class Tenant(_Table, frozen=True):
    """What all keys of a tenant have together; `weight` is its share where there is not enough for all."""

    name: Name
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrency: Count | None = None
    requests_per_day: Count | None = None
    dollars_per_month: Positive | None = None
    weight: Positive = 1.0

    @property
    def limits(self) -> OwnLimits:
        """The five that stand in the tenant itself."""
        return limits_of(self)


def limits_of(one: Key | Tenant) -> OwnLimits:
    """The limits that stand in a table beside other keys."""
    return OwnLimits(*(getattr(one, name) for name in OwnLimits.__struct_fields__))


class Issuer(_Table, frozen=True):
    """Who signs tokens that are taken in place of keys, and what their claims mean here."""

    name: Name
    url: Annotated[str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?$")]
    audience: Annotated[str, Meta(min_length=1)]
    algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"], ...
    ] = ("RS256",)
    jwks_url: Annotated[str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?$")] | None = None
    audience_claim: str = "aud"
    tenant: Name | None = None
    tenant_claim: str | None = None
    tags_claim: str | None = None
    attributes: dict[Name, str] = field(default_factory=dict)
    required: dict[str, str] = field(default_factory=dict)
    leeway: Annotated[int, Meta(ge=0, le=300)] = 30
    models: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    priority: Priority = 10
    limits: OwnLimits = field(default_factory=OwnLimits)


class Network(_Table, frozen=True):
    """From where anybody at all may ask; empty `allow` means from anywhere."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


class PolicyPrincipal(_Table, frozen=True):
    """Whom a policy is about; patterns may hold `*`. All that is given must hold, one of each list."""

    tenant: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    owner: tuple[str, ...] = ()
    subject: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()
    kind: tuple[Literal["key", "token", "anonymous"], ...] = ()
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)


class PolicyResource(_Table, frozen=True):
    model: tuple[str, ...] = ()
    region: tuple[str, ...] = ()


class PolicyTime(_Table, frozen=True, rename={"from_": "from"}):
    """A window of each day in a zone, on some days of the week, between two moments."""

    zone: str = "UTC"
    from_: Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] | None = None
    until: Annotated[str, Meta(pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$")] | None = None
    days: tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...] = ()
    after: Annotated[datetime, Meta(tz=True)] | None = None
    before: Annotated[datetime, Meta(tz=True)] | None = None


class PolicyTokens(_Table, frozen=True):
    min: Annotated[int, Meta(ge=0)] | None = None
    max: Annotated[int, Meta(ge=0)] | None = None


class PolicyCondition(_Table, frozen=True):
    time: PolicyTime | None = None
    ip: tuple[str, ...] = ()
    not_ip: tuple[str, ...] = ()
    country: tuple[Country, ...] = ()
    not_country: tuple[Country, ...] = ()
    tokens: PolicyTokens | None = None


class Policy(_Table, frozen=True):
    """One rule of who may do what: without an allowing one nothing is allowed, a denying one wins."""

    id: Name
    effect: Literal["allow", "deny"]
    action: tuple[Literal["generate", "read", "revoke"], ...] = ()
    principal: PolicyPrincipal = field(default_factory=PolicyPrincipal)
    resource: PolicyResource = field(default_factory=PolicyResource)
    condition: PolicyCondition = field(default_factory=PolicyCondition)
    description: str = ""


class PerAddress(_Table, frozen=True):
    """What one address may ask without a key."""

    requests_per_second: Positive = 100.0
    burst: Count = 200


class Limits(_Table, frozen=True):
    body_bytes: Count = 10_485_760
    messages: Count = 2_048
    depth: Annotated[int, Meta(ge=4, le=500)] = 64
    choices: Count = 8
    stop: Count = 16
    top_logprobs: Annotated[int, Meta(ge=0)] = 20
    tools: Count = 128
    max_tokens: Count | None = None
    images: Literal["forward", "refuse"] = "forward"
    headers: Annotated[int, Meta(ge=16)] = 100
    header_bytes: Annotated[int, Meta(ge=4096)] = 32_768
    connections: Count = 4096
    per_address: PerAddress = field(default_factory=PerAddress)
    local_share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    notify_url: Annotated[str, Meta(pattern=r"^https?://[^\s/]+(/\S*)?$")] | None = None
    requests_per_5_minutes_per_address: Annotated[int, Meta(ge=10, le=2_000_000_000)] = 10_000


class ContentRule(_Table, frozen=True):
    """What may not be asked: texts that `pattern` finds something in."""

    name: Name
    pattern: str
    models: tuple[str, ...] = ()


class Content(_Table, frozen=True):
    moderation: str | None = None
    moderation_model: str = "omni-moderation-latest"
    after: Ratio = 0.0
    on_error: Literal["allow", "deny"] = "allow"
    rule: tuple[ContentRule, ...] = ()


PiiKind = Literal["email", "phone", "id_card", "bank_card", "secret", "ip", "name"]


class Pii(_Table, frozen=True):
    """Personal data: where it is taken out, and which."""

    mode: PiiMode = "off"
    kinds: tuple[PiiKind, ...] = ("email", "phone", "id_card", "bank_card", "secret")


class Audit(_Table, frozen=True):
    """What is remembered of every request, and where. `days` and `object_lock` are the bucket's."""

    to: Literal["none", "file", "firehose"] = "none"
    folder: str = ".local/audit"
    prompts: bool = False
    days: Count = 30
    object_lock: bool = False


class Waf(_Table, frozen=True):
    managed: bool = True
    reputation: bool = False
    block_countries: tuple[Country, ...] = ()


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
    rotate_days: Annotated[int, Meta(ge=1, le=1000)] = 30


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
    tenant: tuple[Tenant, ...] = ()
    issuer: tuple[Issuer, ...] = ()
    network: Network = field(default_factory=Network)
    policy: tuple[Policy, ...] = ()
    content: Content = field(default_factory=Content)
    pii: Pii = field(default_factory=Pii)
    audit: Audit = field(default_factory=Audit)
    waf: Waf = field(default_factory=Waf)
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
    for path, message in contradictions(settings):
        raise error_at(text, name, path, message)
    return settings


def error_at(text: str, name: str, path: KeyPath, message: str) -> SettingsError:
    """The one line that says which key of the file `name` (whose text is `text`) is wrong, and how."""
    return SettingsError(f"{name}:{line_of(text, path)}: {dotted(path)}: {message}")


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
