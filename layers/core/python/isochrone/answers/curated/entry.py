"""One standard question with its permanent answer, and everything that can be wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from math import inf, prod
from typing import NamedTuple

from msgspec import Struct, field, structs

from isochrone.answers.curated.question import normalised
from isochrone.answers.curated.template import Template, TemplateError, fillings

MAX_PHRASINGS = 100
MAX_PHRASING_CHARS = 1_000
MAX_ANSWER_CHARS = 50_000
MAX_VARIABLES_CHARS = 100_000
# How many questions the placeholders of one phrasing may stand for.
MAX_FILLINGS = 1_000

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAMES_FORBID = re.compile(r"[,\s]")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
# But for those that break a line. Nobody types them: a file was damaged, or taken for another encoding.
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")


class Entry(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Any of `phrasings` is answered by `answer`.

    `tenants` and `models` say for whom and where; empty means all. `expires` is a date (its whole day counts) or a
    moment, in UTC unless it says otherwise. `variables` gives each placeholder what may stand in its place: those of
    phrasings take any of the values, those of the answer alone have exactly one. `version` counts its changes.
    """

    id: str
    phrasings: tuple[str, ...]
    answer: str
    tenants: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    language: str = ""
    expires: str = ""
    variables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    version: int = 1

    def says_the_same_as(self, other: Entry) -> bool:
        """Equal but for the version."""
        return structs.replace(self, version=1) == structs.replace(other, version=1)


class Fault(NamedTuple):
    """What is wrong with one field of an entry."""

    field: str
    message: str


class Saying(NamedTuple):
    """One question that an entry knows, and the answer to it, with all placeholders filled."""

    question: str
    answer: str


def sayings(entry: Entry) -> Iterator[Saying]:
    """Every question of an entry without faults."""
    answer = Template.of(entry.answer)
    fixed = {name: values[0] for name, values in entry.variables.items() if len(values) == 1}
    for phrasing in map(Template.of, entry.phrasings):
        for values in fillings(phrasing.names, entry.variables):
            yield Saying(phrasing.fill(values), answer.fill(fixed | values))


def expiry_of(entry: Entry) -> float:
    """Epoch seconds; inf when it has none. Raises ValueError when `expires` is no date of ISO 8601."""
    if not entry.expires:
        return inf
    moment = datetime.fromisoformat(entry.expires)
    if _DATE.fullmatch(entry.expires):
        moment += timedelta(days=1)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def has_expired(entry: Entry, now: float) -> bool:
    """Is it over at `now` (epoch seconds)? Only for an entry without faults."""
    return expiry_of(entry) <= now


def faults(entry: Entry) -> Iterator[Fault]:
    """Everything that keeps an entry from being used, field by field."""
    if not _ID.fullmatch(entry.id):
        yield Fault(
            "id", f"{entry.id!r:.80} must be letters, digits, '.', '_' or '-', at most 128, a letter or digit first"
        )
    yield from _faults_of_phrasings(entry)
    yield from _control_characters("answer", entry.answer)
    if not entry.answer.strip():
        yield Fault("answer", "is empty")
    if len(entry.answer) > MAX_ANSWER_CHARS:
        yield Fault("answer", f"has more than {MAX_ANSWER_CHARS:,} characters")
    for which, names in (("tenants", entry.tenants), ("models", entry.models)):
        yield from (
            Fault(which, f"{name!r:.80} is no name") for name in names if not name or _NAMES_FORBID.search(name)
        )
    if entry.language and not _LANGUAGE.fullmatch(entry.language):
        yield Fault("language", f"{entry.language!r:.80} is no language tag such as en or zh-Hant")
    yield from _faults_of_expiry(entry)
    yield from _faults_of_variables(entry)
    yield from _faults_of_placeholders(entry)


def _faults_of_phrasings(entry: Entry) -> Iterator[Fault]:
    if not entry.phrasings:
        yield Fault("phrasings", "there is none")
    if len(entry.phrasings) > MAX_PHRASINGS:
        yield Fault("phrasings", f"there are more than {MAX_PHRASINGS}")
    for phrasing in entry.phrasings:
        yield from _control_characters("phrasings", phrasing)
        if not normalised(phrasing):
            yield Fault("phrasings", f"{phrasing!r:.80} asks nothing")
        elif phrasing != phrasing.strip() or len(phrasing.splitlines()) > 1:
            yield Fault("phrasings", f"{phrasing!r:.80}: write it in one line, without spaces around it")
        elif len(phrasing) > MAX_PHRASING_CHARS:
            yield Fault("phrasings", f"{phrasing!r:.80} has more than {MAX_PHRASING_CHARS:,} characters")


def _control_characters(field: str, text: str) -> Iterator[Fault]:
    if found := CONTROL.search(text):
        what = f"the control character U+{ord(found.group()):04X}"
        yield Fault(field, f"{text!r:.80} has {what} at character {found.start() + 1}; take it out")


def _faults_of_expiry(entry: Entry) -> Iterator[Fault]:
    try:
        expiry_of(entry)
    except (ValueError, OverflowError):
        yield Fault("expires", f"{entry.expires!r:.80} is no date such as 2026-12-31 or 2026-12-31T18:00+01:00")


def _faults_of_variables(entry: Entry) -> Iterator[Fault]:
    if sum(len(value) for values in entry.variables.values() for value in values) > MAX_VARIABLES_CHARS:
        yield Fault("variables", f"they have more than {MAX_VARIABLES_CHARS:,} characters")
    for name, values in entry.variables.items():
        if not name.isidentifier():
            yield Fault("variables", f"{name!r:.80} is no name for a placeholder: letters, digits and '_'")
        if not values:
            yield Fault("variables", f"{name} has no value")
        for value in values:
            yield from _control_characters("variables", value)
            if not value or value != value.strip() or "|" in value or len(value.splitlines()) > 1:
                yield Fault("variables", f"{name}: {value!r:.80}: a value has no '|', line break or space around it")


def _faults_of_placeholders(entry: Entry) -> Iterator[Fault]:
    asked: list[frozenset[str]] = []
    for phrasing in entry.phrasings:
        try:
            names = Template.of(phrasing).names
        except TemplateError as error:
            yield Fault("phrasings", f"{phrasing!r:.80}: {error}")
            continue
        asked.append(names)
        yield from _unknown("phrasings", names, entry)
        if prod(len(entry.variables.get(name, ())) for name in names) > MAX_FILLINGS:
            yield Fault("phrasings", f"{phrasing!r:.80} stands for more than {MAX_FILLINGS:,} questions")
    try:
        names = Template.of(entry.answer).names
    except TemplateError as error:
        yield Fault("answer", str(error))
        return
    yield from _unknown("answer", names, entry)
    everywhere = frozenset.intersection(*asked) if asked else frozenset()
    for name in sorted(names - everywhere):
        if len(entry.variables.get(name, ())) > 1:
            yield Fault("answer", f"{{{name}}} has several values, and not every phrasing says which")
    yield from (
        Fault("variables", f"no phrasing and no answer has {{{name}}}")
        for name in entry.variables
        if name not in names.union(*asked)
    )


def _unknown(field: str, names: frozenset[str], entry: Entry) -> Iterator[Fault]:
    yield from (
        Fault(field, f"{{{name}}} is unknown: give its values in `variables`, or write {{{{ and }}}} for braces")
        for name in sorted(names)
        if name not in entry.variables
    )
