"""Where an address is: real database files, good, odd and damaged."""

from __future__ import annotations

import gzip
import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from isochrone.routing.geo import GeoError, Location, Locator, MmdbLocator, NoLocator, location_of, open_locator

DATABASES = Path(__file__).parent.parent / "data/geoip"
CITY = DATABASES / "GeoIP2-City-Test.mmdb"
SOURCE: list[dict[str, Any]] = json.loads(gzip.decompress((DATABASES / "GeoIP2-City-Test.json.gz").read_bytes()))
NETWORKS = [(network, record) for entry in SOURCE for network, record in entry.items()]


@pytest.fixture(scope="module")
def city() -> Locator:
    return MmdbLocator(CITY)


@pytest.fixture(scope="module")
def flat() -> Locator:
    return MmdbLocator(DATABASES)


def test_every_record_of_the_city_database_reads_as_its_source_says(city: Locator) -> None:
    expected = {network: stated_by(record) for network, record in NETWORKS}
    assert {network: city.locate(first_of(network)) for network in expected} == expected
    assert sum(place is not None for place in expected.values()) == len(expected) - 2


def stated_by(record: dict[str, Any]) -> Location | None:
    """What the JSON source says, read without the code under test."""
    if "location" not in record:
        return None
    country, city = record.get("country", {}).get("iso_code"), record.get("city", {}).get("names", {}).get("en")
    return Location(record["location"]["latitude"], record["location"]["longitude"], country, city)


def first_of(network: str) -> str:
    return str(ip_network(network).network_address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("198.51.100.1", Location(35.75, 139.5, "JP", "Tokyo")),
        ("198.51.100.65", Location(-23.5, -46.625, "BR", None)),
        ("2001:db8:1::1", Location(50.125, 8.75, "DE", "Frankfurt")),
        ("2.125.160.216", Location(51.75, -1.25, "GB", "Boxford")),
    ],
)
def test_a_folder_answers_from_whichever_of_its_files_knows_the_address(
    flat: Locator, address: str, expected: Location
) -> None:
    assert flat.locate(address) == expected


def test_an_ipv4_address_inside_ipv6_is_the_same_address(flat: Locator) -> None:
    assert flat.locate("::ffff:198.51.100.1") == flat.locate("198.51.100.1") is not None


NOWHERE = """
0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 169.254.0.1 192.168.0.1 255.255.255.255
:: ::1 ::ffff:10.0.0.1 fd00::1 fe80::1 fe80::1%eth0 ff02::1
"""


@pytest.mark.parametrize("address", NOWHERE.split())
def test_an_address_that_is_nowhere_in_public_has_no_place(flat: Locator, address: str) -> None:
    assert flat.locate(address) is None


@given(st.text() | st.from_regex(r"[0-9a-f:.%\[\]]{0,45}", fullmatch=True))
@example("198.51.100.1:443")
@example(" 198.51.100.1")
@example("[2001:db8:1::1]")
@example("198.51.100")
@example("198.51.100.001")
@example("unknown")
@example("\0")
def test_text_that_is_no_address_has_no_place(flat: Locator, address: str) -> None:
    assume(not is_address(address))
    assert flat.locate(address) is None


def is_address(text: str) -> bool:
    try:
        return bool(ip_address(text))
    except ValueError:
        return False


def test_a_record_with_only_a_country_lies_among_the_people_of_that_country() -> None:
    place = MmdbLocator(DATABASES / "GeoIP2-Country-Test.mmdb").locate("2.125.160.216")
    assert place is not None
    assert (place.country, place.city) == ("GB", None)
    assert 50 < place.latitude < 56
    assert -5 < place.longitude < 1


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        {},
        {"location": None},
        {"location": {"latitude": 1.0}},
        {"location": {"latitude": 0.0, "longitude": 0.0}},
        {"latitude": 91.0, "longitude": 0.0},
        {"latitude": 0.0, "longitude": -181.0},
        {"latitude": float("nan"), "longitude": 1.0},
        {"latitude": float("inf"), "longitude": 1.0},
        {"latitude": "50", "longitude": "8"},
        {"country_code": "ZZ"},
        {"country": {"iso_code": "XX"}, "city": {"names": ["en"]}},
        {"registered_country": {"iso_code": "US"}},
    ],
)
def test_a_record_that_states_no_place_on_earth_has_none(record: object) -> None:
    assert location_of(record) is None


def test_an_unknown_position_falls_back_to_the_country() -> None:
    place = location_of({"latitude": 0.0, "longitude": 0.0, "country_code": "JP", "city": "Tokyo"})
    assert place is not None
    assert round(place.latitude) == 36


def test_a_place_need_not_have_a_country() -> None:
    assert location_of({"location": {"latitude": 48, "longitude": 9}}) == Location(48.0, 9.0, None, None)


def test_without_a_database_no_address_has_a_place() -> None:
    assert isinstance(open_locator(None), NoLocator)
    assert open_locator(None).locate("2.125.160.216") is None


def test_a_named_database_is_opened() -> None:
    assert open_locator(str(CITY)).locate("2.125.160.216") is not None


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.mmdb", "No such file or directory"),
        ("x" * 300, "File name too long"),
        ("empty", "holds no .mmdb file"),
        ("text.mmdb", "damaged, or not a MaxMind DB file; download it again"),
        ("blank.mmdb", "damaged, or not a MaxMind DB file; download it again"),
        ("owners.mmdb", "knows no places; a city or country database is needed"),
    ],
)
def test_an_unusable_database_is_one_clear_line(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mmdb").write_text("not a database\n" * 20)
    (tmp_path / "blank.mmdb").touch()
    (tmp_path / "owners.mmdb").write_bytes((DATABASES / "GeoLite2-ASN-Test.mmdb").read_bytes())
    with pytest.raises(GeoError) as raised:
        open_locator(str(tmp_path / name))
    assert str(raised.value) == f"{tmp_path / name}: {reason}"


def test_one_damaged_file_makes_the_folder_unusable_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.mmdb").write_bytes(CITY.read_bytes())
    (tmp_path / "half.mmdb").write_bytes(CITY.read_bytes()[:10_000])
    with pytest.raises(GeoError, match=r"half\.mmdb: damaged"):
        open_locator(str(tmp_path))


@st.composite
def damages(draw: st.DrawFn) -> bytes:
    """The city database cut short, or with a few bytes changed in its tree, its records or its metadata."""
    content = bytearray(CITY.read_bytes())
    if draw(st.booleans()):
        return bytes(content[: draw(st.integers(0, len(content) - 1))])
    start = draw(st.sampled_from([0, 10_900, len(content) - 400]))
    places = st.integers(start, min(len(content) - 1, start + 11_000))
    for place, value in draw(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=60)):
        content[place] = value
    return bytes(content)


@given(content=damages(), networks=st.lists(st.sampled_from([network for network, _ in NETWORKS]), max_size=30))
def test_a_damaged_database_is_refused_or_answers_but_never_fails_a_request(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, networks: list[str]
) -> None:
    file = tmp_path_factory.mktemp("damaged") / "city.mmdb"
    file.write_bytes(content)
    try:
        locator = MmdbLocator(file)
    except GeoError as error:
        assert "\n" not in str(error)
        return
    for network in networks:
        place = locator.locate(first_of(network))
        assert place is None or (abs(place.latitude) <= 90 and abs(place.longitude) <= 180)
