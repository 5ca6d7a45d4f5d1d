"""The configuration as AWS sees it: `isochrone.settings` plus the few rules that only a deployment has.

`load(path, profile)` gives a `Deployment` or raises SettingsError, whose text is one line for the operator.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args
from urllib.parse import urlsplit

from isochrone.answers.curated.shelf import load_file
from isochrone.ledger.usage import estimate
from isochrone.settings import (
    Backend,
    Region,
    Settings,
    SettingsError,
    error_at,
    home_of,
    main_region,
    semantic_somewhere,
)
from isochrone.settings import load as load_settings
from isochrone.toml_errors import KeyPath

Profile = Literal["aws", "local"]

_LONGEST_BUCKET = 63  # characters, of S3
_REGION = re.compile(r"^[a-z]{2}(-[a-z]+)+-\d$")
_DEFAULT_HTTPS = re.compile(r"^https://[^:/@]+(:443)?(/|$)")
# RFC 2606 keeps these names for examples: nobody can prove that they are theirs.
_RESERVED = re.compile(r"(^|\.)example(\.(com|net|org))?$")


class Deployment(NamedTuple):
    """What the stacks are made from: the settings, the file they stand in, and where they go."""

    settings: Settings
    config: Path
    profile: Profile = "aws"

    @property
    def name(self) -> str:
        return self.settings.service.name

    @property
    def local(self) -> bool:
        return self.profile == "local"

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(region.name for region in self.settings.region)

    @property
    def home(self) -> str:
        """The region of the global stack: the default region, else the first one."""
        return main_region(self.settings)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of the backends' keys in Secrets Manager, each once, in the order of the file."""
        return tuple(dict.fromkeys(b.api_key_secret for b in self.settings.backend if b.api_key_secret))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the backends' keys in SSM's parameter store, each once. The operator puts them into every region:
        neither CloudFormation nor SSM copies a SecureString."""
        return tuple(dict.fromkeys(b.api_key_parameter for b in self.settings.backend if b.api_key_parameter))

    @property
    def own_secrets(self) -> frozenset[str]:
        """Those of `secrets` whose value is made here: keys of pools that this app builds, and of nothing else."""
        built = self.settings.pool.create
        others = {b.api_key_secret for b in self.settings.backend if not (built and b.kind == "pool")}
        return frozenset(self.secrets) - others

    @property
    def rotated(self) -> tuple[Backend, ...]:
        """The pools whose key is made anew from time to time: those whose nodes are built here and learn of it."""
        built = [pool for region in self.regions for pool in self.pools(region)]
        return tuple(pool for pool in built if pool.api_key_secret in self.own_secrets)

    @property
    def probes(self) -> bool:
        """Is there a prober function? Without a table it could tell nobody what it saw."""
        return self.settings.state.kind == "dynamodb" and self.settings.routing.probe_interval > 0

    @property
    def warms(self) -> bool:
        """Is there a warmer function? Only a table has answers that it can make anew."""
        return self.settings.state.kind == "dynamodb" and self.settings.answers.warm

    @property
    def administered(self) -> bool:
        """Is there an admin function? Only where edges look for keys in a table. An emulator vouches for nobody's
        identity, so there the command has to do."""
        return self.settings.state.kind == "dynamodb" and self.settings.auth.keys and not self.local

    @property
    def semantic(self) -> bool:
        """Is any answer semantic? Then the edge function needs the embedder, and the right to search."""
        return semantic_somewhere(self.settings)

    @property
    def standards(self) -> Path | None:
        """The file of curated answers, from the configuration's folder; it is deployed with the configuration."""
        if not self.settings.answers.curated:
            return None
        file, folder = Path(self.settings.answers.curated), self.config.parent
        return file.relative_to(folder) if file.is_relative_to(folder) else file

    @property
    def extras(self) -> tuple[str, ...]:
        """Which libraries the edge function needs that not every one does; requirements-NAME.txt pins each."""
        settings = self.settings
        wanted = {
            "light": bool(settings.light),
            "tokens": bool(settings.issuer),
            "policies": bool(settings.policy) or settings.auth.policies,
        }
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)

    @property
    def kms_key(self) -> str | None:
        """The ARN of the key that encrypts the tables, as it stands in the file; an emulator's are not encrypted."""
        return None if self.local else self.settings.state.kms_key

    @property
    def fleet_homes(self) -> tuple[str, ...]:
        """The regions whose fleet table the edges of all regions use: where slots of a backend are leased and the
        requests that it takes in a day are counted, and the main one, where days and months of limits are."""
        if self.settings.state.kind == "memory":
            return ()
        limited = [backend for backend in self.settings.backend if backend.max_concurrency or backend.requests_per_day]
        homes = [home_of(backend, self.settings) for backend in limited]
        return tuple(dict.fromkeys([*homes, main_region(self.settings)]))

    def region(self, name: str) -> Region:
        return next(region for region in self.settings.region if region.name == name)

    def pools(self, region: str) -> tuple[Backend, ...]:
        """The GPU pools that this app builds in `region`; none for the local profile."""
        if self.local or not self.settings.pool.create:
            return ()
        return tuple(b for b in self.settings.backend if b.kind == "pool" and b.region == region)


def load(path: Path, profile: str = "aws") -> Deployment:
    """Read and check one configuration for a deployment. Raises SettingsError."""
    if profile not in get_args(Profile):
        raise SettingsError(f"-c profile={profile}: expected one of {', '.join(get_args(Profile))}")
    deployment = Deployment(load_settings(path), path, cast(Profile, profile))
    text = path.read_text(encoding="utf-8")
    for where, message in _contradictions(deployment):
        raise error_at(text, str(path), where, message)
    if deployment.standards:
        load_file(path.parent / deployment.standards, estimate=estimate)  # or the functions would fail when they start
    return deployment


def doubts(deployment: Deployment) -> Iterator[tuple[str, str]]:
    """What can be deployed and is most likely not meant: (name of the doubt, one line for the operator)."""
    settings = deployment.settings
    if settings.state.kind == "memory":
        yield "memory-state", 'state.kind = "memory": every execution environment keeps answers and health for itself'
    if deployment.local:
        return
    if not (settings.key or settings.issuer):
        how = "until `isochrone keys create` makes one " if deployment.administered else ""
        yield "no-key", f"there is no [[key]]: {how}every request will be refused with 401 (docs/keys.md says how)"
    for backend in settings.backend:
        if env := backend.api_key_env:
            yield (
                f"api-key-env:{backend.name}",
                f"{backend.name}: nothing sets {env} in the function; use api_key_secret",
            )
    for host in filter(_RESERVED.search, _certified_hosts(deployment)):
        yield (
            f"reserved:{host}",
            f"{host} can have no certificate: the deployment would wait for it for hours, then fail",
        )


def _certified_hosts(deployment: Deployment) -> Iterator[str]:
    if domain := deployment.settings.service.domain:
        yield domain
    for region in deployment.regions:
        yield from (urlsplit(pool.base_url).hostname or "" for pool in deployment.pools(region))


def _contradictions(deployment: Deployment) -> Iterator[tuple[KeyPath, str]]:
    yield from _strange_regions(deployment.settings)
    if (standards := deployment.standards) and (standards.is_absolute() or ".." in standards.parts):
        yield ("answers", "curated"), "must be in the configuration's folder or below: the two are deployed together"
    service = deployment.settings.service
    if service.hosted_zone and not service.hosted_zone_id:
        how = f"aws route53 list-hosted-zones-by-name --dns-name {service.hosted_zone}"
        yield ("service", "hosted_zone_id"), f"is missing; it is what `{how}` gives, without /hostedzone/"
    yield from _long_buckets(deployment)
    if deployment.local:
        return
    if not deployment.settings.auth.required:
        yield ("auth", "required"), "false is for the local edition only: on AWS everybody could spend your money"
    if deployment.settings.state.endpoint_url:
        yield ("state", "endpoint_url"), "is for an emulator; leave it out, or deploy with -c profile=local"
    if deployment.kms_key:
        yield from _key_gaps(deployment.kms_key, deployment.regions)
    if deployment.settings.service.dns == "geolocation":
        yield from _geolocation_gaps(deployment.settings)
    if deployment.settings.pool.create:
        yield from _pool_mistakes(deployment.settings)


def _key_gaps(arn: str, regions: tuple[str, ...]) -> Iterator[tuple[KeyPath, str]]:
    """A multi-Region key is taken to be in every region: whether it is, only the account knows."""
    home, name = arn.split(":")[3], arn.rpartition("/")[2]
    if name.startswith("mrk-"):
        return
    if elsewhere := [region for region in regions if region != home]:
        yield (
            ("state", "kms_key"),
            f"is in {home} only, and there are tables in {', '.join(elsewhere)}: "
            "name a multi-Region key (mrk-...) that has a replica in each region",
        )


def _strange_regions(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    for i, region in enumerate(settings.region):
        if not _REGION.match(region.name):
            yield ("region", i, "name"), f"{region.name!r} is not the name of an AWS region, such as eu-west-1"


def _long_buckets(deployment: Deployment) -> Iterator[tuple[KeyPath, str]]:
    """The name is put together when it is deployed: only S3 would say so."""
    if deployment.settings.audit.to != "firehose":
        return
    region = max(deployment.regions, key=len)
    excess = len(audit_bucket(deployment.name, "0" * 12, region)) - _LONGEST_BUCKET
    if excess > 0:
        yield ("service", "name"), f"is too long by {excess} for the name of the audit's bucket in {region}"


def audit_bucket(service: str, account: str, region: str) -> str:
    """The bucket of the audit log of a region."""
    return f"{service}-audit-{account}-{region}"


def _geolocation_gaps(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    served: dict[str, str] = {}
    for i, region in enumerate(settings.region):
        if not region.serves and not region.default:
            yield ("region", i, "serves"), "with dns = geolocation no client would ever be sent to this region"
        for code in region.serves:
            if code in served:
                yield ("region", i, "serves"), f"{code} is served by {served[code]} already"
            served.setdefault(code, region.name)


def _pool_mistakes(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    holders: dict[str, str] = {}
    for i, backend in enumerate(settings.backend):
        if backend.kind != "pool":
            continue
        if not _DEFAULT_HTTPS.match(backend.base_url):
            yield ("backend", i, "base_url"), "a pool that pool.create builds answers on https and port 443 only"
        host = urlsplit(backend.base_url).hostname or ""
        if host in holders:
            yield (
                ("backend", i, "base_url"),
                f"{holders[host]} has this host already; each pool that is built needs its own",
            )
        holders.setdefault(host, backend.name)
        if not backend.api_key_secret:
            yield (
                ("backend", i, "api_key_secret"),
                "is missing: only its key protects a pool that pool.create builds",
            )
        if settings.pool.model not in backend.models.values():
            yield ("backend", i, "models"), f"none of them is pool.model, {settings.pool.model!r}"
