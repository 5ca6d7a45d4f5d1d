"""Personal data is found by its form, and what only looks like it is left alone."""

from __future__ import annotations

from contextlib import suppress
from typing import get_args

import pytest

from isochrone.admission.key_record import new_key
from isochrone.pii.detectors import finder
from isochrone.pii.found import MOST_LOOKED_AT, TooMuch
from isochrone.settings import PiiKind
from measure_pii import KIND_OF, KINDS, read, tally

ALL = finder(KINDS)


def found(text: str, *kinds: str) -> list[str]:
    return [text[one.start : one.end] for one in (finder(kinds) if kinds else ALL).find(text)]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", ["email", "phone", "id_card", "bank_card", "secret"])
def test_nineteen_of_twenty_are_found_and_right_in_lines_nobody_looked_at(kind: str, language: str) -> None:
    measured = tally([line for line in read() if line.split == "held-out"])["held-out", language, kind]
    assert measured.right >= 15
    assert measured.precision >= 0.95
    assert measured.recall >= 0.9


def test_of_all_formatted_kinds_together_nineteen_of_twenty_are_found() -> None:
    tallies = tally([line for line in read() if line.split == "held-out"])
    formatted = [one for (_, _, kind), one in tallies.items() if kind not in ("name", "ip")]
    right, missed = sum(one.right for one in formatted), sum(one.missed for one in formatted)
    assert right / (right + missed) >= 0.95


def test_the_labelled_set_is_large_half_chinese_and_full_of_what_only_looks_like_it() -> None:
    lines = list(read())
    assert len(lines) >= 600
    assert 0.45 < sum(line.language == "zh" for line in lines) / len(lines) < 0.55
    assert sum(not line.things for line in lines) >= 0.4 * len(lines)


def test_every_kind_that_can_be_configured_can_be_found() -> None:
    assert set(KIND_OF.values()) == set(get_args(PiiKind)) == set(KINDS)


@pytest.mark.parametrize(
    ("number", "is_one"),
    [
        ("4111111111111111", True),
        ("4111111111111112", False),  # another check digit
        ("456712345678901234", False),  # no card that begins with 4 is so long
        ("378282246310005", True),
        ("3782 822463 10005", True),
        ("6222 0212 3456 7890 128", True),
        ("0000000000000000", False),
        ("1-4111111111111111", False),  # part of something longer
    ],
)
def test_a_bank_card_is_known_by_its_issuer_its_length_and_its_check_digit(number: str, is_one: bool) -> None:
    assert found(f"card {number}.", "bank_card") == ([number] if is_one else [])


@pytest.mark.parametrize(
    ("number", "is_one"),
    [
        ("11010519491231002X", True),
        ("11010519491231002x", True),
        ("110105 19491231 002X", True),
        ("110105194912310021", False),
        ("110105194902310029", False),  # the 31st of February
    ],
)
def test_a_chinese_identity_number_is_known_by_its_date_and_its_check_digit(number: str, is_one: bool) -> None:
    assert found(f"证件{number}。", "id_card") == ([number] if is_one else [])


@pytest.mark.parametrize("number", ["000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567", "123-45-0000"])
def test_a_social_security_number_that_was_never_given_out_is_none(number: str) -> None:
    assert found(f"SSN {number}", "id_card") == []


def test_digits_alone_are_a_social_security_number_only_where_they_are_called_that() -> None:
    assert found("social security 536228726", "id_card") == ["536228726"]
    assert found("we sold 536228726 of them", "id_card") == []


def test_what_is_called_an_order_is_no_phone() -> None:
    assert found("电话13812345678") == ["13812345678"]
    assert found("订单号13812345678") == []
    assert found("tracking number: 13812345678") == []


def test_two_numbers_side_by_side_are_two() -> None:
    assert found("13812345678,13912345678 13712345678") == ["13812345678", "13912345678", "13712345678"]


def test_wide_digits_and_signs_are_read_as_those_of_ascii() -> None:
    assert found("电话１３８１２３４５６７８，邮箱a＠example.com") == ["１３８１２３４５６７８", "a＠example.com"]


def test_a_part_of_another_thing_is_not_found_twice() -> None:
    assert [one.label for one in ALL.find("token=sk-13812345678-a@example.com-abcdefgh")] == ["SECRET"]


def test_a_private_key_is_taken_out_with_all_its_lines_and_also_when_it_is_cut_off() -> None:
    key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIF\nabc+/=\n-----END EC PRIVATE KEY-----"
    assert found(f"see {key} there") == [key]
    assert found(key[:49]) == [key[:49]]
    assert found(key.replace("\n", "\\n")) == [key.replace("\n", "\\n")]


def test_only_the_kinds_that_are_asked_for_are_looked_for() -> None:
    text = "a@example.com 13812345678 192.0.2.7"
    assert found(text, "email") == ["a@example.com"]
    assert found(text, "email", "phone", "id_card", "bank_card", "secret") == ["a@example.com", "13812345678"]


@pytest.mark.parametrize(
    "piece",
    [
        "a.",
        "1-",
        "13812345678 ",
        "-eyJ13812345678",
        "a@b.",
        "4111 ",
        "-----BEGIN PRIVATE KEY-----",
        "AB12 ",
        "::",
        "张",
    ],
)
def test_no_text_takes_more_than_time_linear_in_its_length(piece: str) -> None:
    """Time that grew with the square of the length would not let this end within the suite's patience."""
    text = piece * (2_000_000 // len(piece))
    with suppress(TooMuch):
        assert len(ALL.find(text)) <= MOST_LOOKED_AT


def test_what_is_full_of_numbers_is_not_looked_at_without_end() -> None:
    with pytest.raises(TooMuch):
        ALL.find("13812345678 " * 10_001)
    assert ALL.holds(["13812345678 " * 10_001])


def test_things_of_many_texts_are_found_each_in_its_own() -> None:
    every = ALL.find_in(["a@example.com", "", "none", "13812345678 or b@example.com", "pwd: 'abc", "d123456'"])
    assert [[(one.start, one.end, one.label) for one in found] for found in every] == [
        [(0, 13, "EMAIL")],
        [],
        [],
        [(0, 11, "PHONE"), (15, 28, "EMAIL")],
        [],
        [],
    ]


def test_a_key_of_our_own_is_a_secret() -> None:
    key = new_key(bytes(range(32)))
    assert found(f"my key {key} fails", "secret") == [key]
