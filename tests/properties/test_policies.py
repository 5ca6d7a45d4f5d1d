"""The rules say what a plain reading of them says: Cedar against an evaluator that shares no code with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from isochrone.admission.policies.book import PolicyBook
from isochrone.admission.policies.examples import Request, asking
from isochrone.admission.policies.facts import question_of
from isochrone.admission.policies.reading import policy_of, text_of
from isochrone.admission.policies.reasons import reasons
from isochrone.policy_contradictions import never_matches, shadow_of
from isochrone.settings import (
    Policy,
    PolicyCondition,
    PolicyPrincipal,
    PolicyResource,
    PolicyTime,
    PolicyTokens,
)

REGIONS = ("eu-west-1", "us-east-1")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
Truth = bool | None  # None: nobody can tell, since the request lacks what is asked for


# -- a plain reading -------------------------------------------------------------------------------------------------


def globs(given: Sequence[str], value: str | None) -> Truth:
    return None if not value else any(fnmatchcase(value, glob) for glob in given)


def inside(time: PolicyTime, now: datetime) -> bool:
    local = now.astimezone(ZoneInfo(time.zone))
    if time.after and now < time.after:
        return False
    if time.before and now >= time.before:
        return False
    start, end = time.from_ or "00:00", time.until or "24:00"
    clock, today, yesterday = f"{local:%H:%M}", DAYS[local.weekday()], DAYS[local.weekday() - 1]
    begun_today, begun_yesterday = clock >= start and (clock < end or end < start), end < start and clock < end
    return (begun_today and today in (time.days or DAYS)) or (begun_yesterday and yesterday in (time.days or DAYS))


def truths(policy: Policy, request: Request, region: str | None, now: datetime) -> list[Truth]:
    found: list[Truth] = []
    generating = policy.resource.model or policy.resource.region or policy.condition.tokens
    found.append(request.action in (("generate",) if generating else policy.action or (request.action,)))
    who, what, when = policy.principal, policy.resource, policy.condition
    for asked, value in (
        (who.tenant, request.tenant),
        (who.key, request.key),
        (who.owner, request.owner),
        (who.subject, request.subject),
        (what.model, request.model),
        (what.region, region),
    ):
        if asked:
            found.append(globs(asked, value))
    found += [globs(asked, request.attributes.get(name)) for name, asked in who.attributes.items()]
    if who.tag:
        found.append(any(globs(who.tag, tag) for tag in request.tags))
    if who.kind:
        found.append(request.kind in who.kind)
    for networks, wanted in ((when.ip, True), (when.not_ip, False)):
        if networks:
            address = ip_address(request.ip) if request.ip else None
            within = address and any(address in ip_network(network) for network in networks)
            found.append(None if address is None else bool(within) == wanted)
    for countries, wanted in ((when.country, True), (when.not_country, False)):
        if countries:
            found.append(None if request.country is None else (request.country in countries) == wanted)
    if tokens := when.tokens:
        low, high = tokens.min or 0, 10**9 if tokens.max is None else tokens.max
        found.append(None if request.tokens is None else low <= request.tokens <= high)
    if when.time:
        found.append(inside(when.time, now))
    return found


def fits(policy: Policy, request: Request, region: str | None, now: datetime) -> bool:
    found = truths(policy, request, region, now)
    return False not in found and (policy.effect == "deny" or None not in found)


def allowed(policies: Sequence[Policy], request: Request, region: str | None, now: datetime) -> bool:
    matching = [policy.effect for policy in policies if fits(policy, request, region, now)]
    return "allow" in matching and "deny" not in matching


# -- anything --------------------------------------------------------------------------------------------------------

names = st.sampled_from(["a", "ab", "b", "ü*x", 'q"\\'])
patterns = st.sampled_from(["a", "a*", "*b", "*", "b", "ü*", 'q"*'])
many = st.lists(patterns, max_size=2).map(tuple)
networks = st.lists(st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "::/0"]), max_size=2).map(tuple)
countries = st.lists(st.sampled_from(["FR", "CN", "US"]), max_size=2).map(tuple)
clocks = st.sampled_from(["00:00", "02:30", "09:00", "18:00", "23:59"])
moments = st.datetimes(datetime(2026, 3, 27), datetime(2026, 3, 31), timezones=st.just(UTC))
zones = st.sampled_from(["UTC", "Europe/Paris", "Asia/Shanghai", "America/New_York", "Asia/Kathmandu"])


def some(*of: Any) -> Any:
    return st.one_of(st.none(), *of)


times = st.builds(
    PolicyTime,
    zone=zones,
    from_=some(clocks),
    until=some(clocks),
    days=st.lists(st.sampled_from(DAYS), max_size=3).map(tuple),
    after=some(moments),
    before=some(moments),
)
rules = st.builds(
    Policy,
    id=st.just("r"),
    effect=st.sampled_from(["allow", "allow", "deny"]),
    action=st.lists(st.sampled_from(["generate", "read", "revoke"]), max_size=2).map(tuple),
    principal=st.builds(
        PolicyPrincipal,
        tenant=many,
        key=many,
        owner=many,
        subject=many,
        tag=many,
        kind=st.lists(st.sampled_from(["key", "token", "anonymous"]), max_size=2).map(tuple),
        attributes=st.dictionaries(names, st.lists(patterns, min_size=1, max_size=2).map(tuple), max_size=1),
    ),
    resource=st.builds(
        PolicyResource, model=many, region=st.lists(st.sampled_from(["eu-*", "us-east-1"]), max_size=1).map(tuple)
    ),
    condition=st.builds(
        PolicyCondition,
        time=some(times),
        ip=networks,
        not_ip=networks,
        country=countries,
        not_country=countries,
        tokens=some(st.builds(PolicyTokens, min=some(st.integers(0, 5)), max=some(st.integers(0, 5)))),
    ),
)
# Most rules of ten conditions match nothing: these have one or two.
plain_rules = st.builds(
    lambda rule, keep: Policy(
        "r",
        rule.effect,
        principal=PolicyPrincipal(**{keep: getattr(rule.principal, keep)}) if keep in WHO else PolicyPrincipal(),
        resource=rule.resource if keep == "resource" else PolicyResource(),
        condition=PolicyCondition(**{keep: getattr(rule.condition, keep)}) if keep in WHERE else PolicyCondition(),
    ),
    rules,
    st.sampled_from(
        [
            *(WHO := ("tenant", "owner", "tag", "attributes")),
            "resource",
            *(WHERE := ("time", "ip", "not_country", "tokens")),
        ]
    ),
)
books = st.lists(rules | plain_rules, min_size=1, max_size=4).map(
    lambda found: [
        Policy(f"r{i}", p.effect, p.action, p.principal, p.resource, p.condition) for i, p in enumerate(found)
    ]
)
requests = st.builds(
    Request,
    action=st.sampled_from(["generate", "generate", "read", "revoke"]),
    tenant=names,
    key=some(names),
    owner=st.one_of(st.just(""), names),
    subject=some(names),
    kind=st.sampled_from(["key", "token", "anonymous"]),
    tags=st.lists(names, max_size=2).map(tuple),
    attributes=st.dictionaries(names, names, max_size=2),
    model=some(names),
    ip=st.sampled_from(["", "10.1.2.3", "10.9.9.9", "2001:db8::1", "192.0.2.1"]),
    country=some(st.sampled_from(["FR", "CN"])),
    tokens=some(st.integers(0, 6)),
)


# Without what it asks for a denying rule matches, whatever it asks.
COMPLETE = {"key": "a", "owner": "a", "subject": "a", "model": "a", "ip": "10.1.2.3", "country": "FR", "tokens": 1}


@given(books, requests, moments)
def test_rules_say_what_a_plain_reading_of_them_says(policies: list[Policy], request: Request, now: datetime) -> None:
    said = PolicyBook(policies, REGIONS).decide(
        asking(request), request.action, model=request.model, tokens=request.tokens, now=now.timestamp()
    )
    anywhere = allowed(policies, request, None, now)
    somewhere = {region for region in REGIONS if allowed(policies, request, region, now)}
    assert said.allowed == (anywhere or (request.action == "generate" and bool(somewhere)))
    if said.allowed:
        assert said.regions == (None if anywhere else somewhere)


@given(books, requests, moments)
def test_what_is_allowed_without_a_region_is_allowed_in_every_one(
    policies: list[Policy], request: Request, now: datetime
) -> None:
    if allowed(policies, request, None, now):
        assert all(allowed(policies, request, region, now) for region in REGIONS)


@given(books, requests, st.lists(st.tuples(moments, some(st.integers(0, 6))), min_size=2, max_size=6))
def test_what_was_decided_before_changes_nothing(
    policies: list[Policy], request: Request, asked: list[tuple[datetime, int | None]]
) -> None:
    kept = PolicyBook(policies, REGIONS)
    for now, tokens in sorted(asked, key=lambda one: one[0]):
        for at in (now, now + timedelta(seconds=1)):
            said = [
                book.decide(asking(request), request.action, model=request.model, tokens=tokens, now=at.timestamp())
                for book in (kept, PolicyBook(policies, REGIONS))
            ]
            assert said[0] == said[1]


@given(books, requests, moments)
def test_reasons_agree_with_the_decision(policies: list[Policy], request: Request, now: datetime) -> None:
    asker = asking(request)
    question = question_of(asker, request.action, model=request.model, tokens=request.tokens)
    told = reasons(policies, question, None, now=now.timestamp())
    assert [one.matches for one in told] == [fits(policy, request, None, now) for policy in policies]


@given(books, requests, moments)
def test_a_rule_that_is_said_to_never_match_never_does_where_all_is_known(
    policies: list[Policy], request: Request, now: datetime
) -> None:
    known = Request(
        **{name: getattr(request, name) or value for name, value in {**asdict(request), **COMPLETE}.items()}
    )
    for policy in policies:
        if any(why.startswith("never") for _, why in never_matches(policy)):
            assert not fits(policy, known, "eu-west-1", now)


@given(books, requests, moments)
def test_what_is_in_the_shadow_of_a_denying_rule_allows_nothing(
    policies: list[Policy], request: Request, now: datetime
) -> None:
    for policy in policies:
        shadow = shadow_of(policy, policies)
        if shadow and fits(policy, request, "eu-west-1", now):
            assert fits(shadow, request, "eu-west-1", now)


@given(rules)
def test_a_rule_survives_its_way_through_the_directory(policy: Policy) -> None:
    assert policy_of(text_of(policy)) == policy
