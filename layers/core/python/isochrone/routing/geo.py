"""Where an IP address is: a city database (MaxMind DB format) turned into one small value.

Two record shapes are read: MaxMind's (`location.latitude`, `country.iso_code`, `city.names.en`) and the flat one of the
DB-IP files (`latitude`, `country_code`, `city`). A record that names only a country is placed where its people live.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from maxminddb import Reader

_COUNTRIES = Path(__file__).with_name("data") / "countries.json"
_WITHOUT_PLACES = ("asn", "isp", "anonymous", "domain", "connection")


class GeoError(Exception):
    """The location database cannot be used; the message is one line for the operator."""


class Location(NamedTuple):
    """Degrees north and east, and what is known by name: ISO 3166 country code, city in English."""

    latitude: float
    longitude: float
    country: str | None = None
    city: str | None = None


class Locator(Protocol):
    """Anything that can place an address."""

    def locate(self, address: str) -> Location | None:
        """The place of an IPv4 or IPv6 address in text; None when it is unknown, private or no address at all."""


class NoLocator:
    """The locator of an edge without a database: it knows no address."""

    def locate(self, address: str) -> Location | None:
        """None."""
        return None


class MmdbLocator:
    """Places addresses by one .mmdb file, or by all of a folder (DB-IP has one file for IPv4 and one for IPv6)."""

    def __init__(self, path: str | Path) -> None:
        """Map the files into memory; nothing is read ahead. Raises GeoError."""
        readers = [reader for file in _files(Path(path)) if (reader := _open(file))]
        if not readers:
            raise GeoError(f"{path}: knows no places; a city or country database is needed")
        six = [reader for reader in readers if reader.metadata().ip_version == 6]
        self._readers = {4: [reader for reader in readers if reader not in six] + six, 6: six}
        self._known = lru_cache(maxsize=1024)(self._find)

    def locate(self, address: str) -> Location | None:
        """See Locator. A damaged record counts as unknown."""
        return self._known(address)

    def _find(self, address: str) -> Location | None:
        try:
            ip = ip_address(address)
        except ValueError:
            return None
        if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
            ip = ip.ipv4_mapped
        return next((place for reader in self._readers[ip.version] if (place := _look_up(reader, ip))), None)


def open_locator(path: str | None) -> Locator:
    """The locator for `geo.database`: None gives one that knows nothing. Raises GeoError."""
    return MmdbLocator(path) if path else NoLocator()


def location_of(record: object) -> Location | None:
    """The place that a database record states, in either shape; None when it states none that makes sense."""
    country = _country(_at(record, "country", "iso_code") or _at(record, "country_code"))
    city = _at(record, "city", "names", "en") or _at(record, "city")
    position = (
        _position(_at(record, "location", "latitude"), _at(record, "location", "longitude"))
        or _position(_at(record, "latitude"), _at(record, "longitude"))
        or _countries().get(country or "")
    )
    return Location(*position, country, city if isinstance(city, str) and city else None) if position else None


def _files(path: Path) -> list[Path]:
    try:
        files = sorted(path.glob("*.mmdb")) if path.is_dir() else [path]
    except OSError as error:
        raise GeoError(f"{path}: {error.strerror}") from None
    if not files:
        raise GeoError(f"{path}: holds no .mmdb file")
    return files


def _open(file: Path) -> Reader | None:
    """A reader, or None for a file of the same format that holds networks' owners and the like."""
    import maxminddb  # noqa: PLC0415  # 50 ms that an edge without a database need not pay

    try:
        # Not the faster C reader: a damaged record makes that one (3.2.0) end the whole process.
        reader = maxminddb.open_database(file, maxminddb.MODE_MMAP)
        kind = reader.metadata().database_type.lower()
    except OSError as error:
        raise GeoError(f"{file}: {error.strerror or error}") from None
    except Exception:  # a damaged file makes the reader fail in a dozen ways
        raise GeoError(f"{file}: damaged, or not a MaxMind DB file; download it again") from None
    return None if any(word in kind for word in _WITHOUT_PLACES) else reader


def _look_up(reader: Reader, ip: IPv4Address | IPv6Address) -> Location | None:
    try:
        return location_of(reader.get(ip))
    except Exception:  # as in _open; a request must not fail because of a bad byte in a map
        return None


def _at(record: object, *path: str) -> object:
    for step in path:
        record = record.get(step) if isinstance(record, dict) else None
    return record


def _country(code: object) -> str | None:
    known = isinstance(code, str) and len(code) == 2 and code.isascii() and code.isupper() and code != "ZZ"
    return code if known and isinstance(code, str) else None


def _position(latitude: object, longitude: object) -> tuple[float, float] | None:
    """None for what is no place on Earth, and for 0,0, which databases write when they know nothing."""
    if not (isinstance(latitude, float | int) and isinstance(longitude, float | int)):
        return None
    on_earth = abs(latitude) <= 90 and abs(longitude) <= 180 and math.isfinite(latitude + longitude)
    return (float(latitude), float(longitude)) if on_earth and (latitude or longitude) else None


@cache
def _countries() -> dict[str, tuple[float, float]]:
    return msgspec.json.decode(_COUNTRIES.read_bytes(), type=dict[str, tuple[float, float]])
