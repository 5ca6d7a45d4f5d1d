"""Detectors for personal data with a form of its own: addresses, numbers, keys. English and Chinese.

Each looks for a shape with RE2 and then decides by what a shape cannot say: check digits, dates, prefixes that were
given out, and the words before it, by which a number is told from the number of an order. Numbers with check digits
are known by those alone.

Sources: ISO/IEC 7812 (bank cards), ISO 13616 (IBAN), GB 11643 (Chinese identity numbers), SSA's rules for Social
Security numbers, ITU-T E.164, the North American Numbering Plan, MIIT's numbering plan, and what the issuers of keys
say of their prefixes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Address

from stdnum import iban, luhn
from stdnum.cn import ric
from stdnum.exceptions import ValidationError
from stdnum.us import ssn

from isochrone.patterns import compile_pattern
from isochrone.pii import people
from isochrone.pii.found import Check, Detector, Finder

_SEPARATORS = re.compile(r"[^0-9A-Za-z]")
# How much of the text before a number is read for what it is called.
_WORDS_BEFORE = 24
_SAYS_PHONE = re.compile(
    r"(?:phone|tel|mobile|cell|call|text|fax|whatsapp|contact|dial|reach|电话|手机|致电|拨打|联系方式|联系电话|座机|热线|微信)"
    r"[^0-9\n]{0,16}\Z",
    re.IGNORECASE,
)
_SAYS_SOMETHING_ELSE = re.compile(
    r"(?:orders?|invoice|ticket|case|tracking|parcel|serial|isbn|sku|part|model|version|build|commit|batch|ref|"
    r"reference|transaction|timestamp|epoch|population|revenue|订单|单号|编号|流水|批次|序列|版本|货号|发票|工单|快递|运单|案号|时间戳|人口|型号)"
    r"(?:\s*(?:id|no|number|num|号|号码|为|是))?[\s.:：#＃=是为]{0,4}\Z",
    re.IGNORECASE,
)
_SAYS_IDENTITY = re.compile(r"(?:身份证|证件|居民证|\bID\b)[^0-9\n]{0,12}\Z", re.IGNORECASE)
_SAYS_SSN = re.compile(r"(?:ssn|social security)[^0-9\n]{0,16}\Z", re.IGNORECASE)

# ITU-T E.164 country codes, as of 2024.
_COUNTRY_CODE = (
    "1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|21[1-368]|2[2-6]\\d|29[0-9]|35\\d|37\\d|38[0-35-79]|"
    "42[013]|50\\d|59\\d|67\\d|68\\d|69[0-2]|85[02356]|88[06]|96\\d|97\\d|99[2-68]"
)


def _before(text: str, start: int) -> str:
    return text[max(0, start - _WORDS_BEFORE) : start]


def _stands_apart(text: str, start: int, end: int) -> bool:
    """Not part of a longer number, word, path or code."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return not (_joins(before[::-1], "-./_%") or _joins(after, "-._%"))


def _joins(neighbours: str, links: str) -> bool:
    """Do the next two characters belong to the same thing: a word's, or one of `links` and then a word's?"""
    if not neighbours or _is_of_word(neighbours[0]):
        return bool(neighbours)
    return neighbours[0] in links and _is_of_word(neighbours[1:])


def _is_of_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")


def _compact(text: str, start: int, end: int) -> str:
    return _SEPARATORS.sub("", text[start:end]).upper()


# -- phones ------------------------------------------------------------------------------------------------------------


def _is_mobile(text: str, start: int, end: int) -> bool:
    return _stands_apart(text, start, end) and not _SAYS_SOMETHING_ELSE.search(_before(text, start))


def _is_international(text: str, start: int, end: int) -> bool:
    digits = _compact(text, start, end)
    return 8 <= len(digits) <= 15 and _stands_apart(text, start, end) and len(set(digits)) > 2


def _is_called_phone(text: str, start: int, end: int) -> bool:
    return _stands_apart(text, start, end) and _SAYS_PHONE.search(_before(text, start)) is not None


# -- identity numbers --------------------------------------------------------------------------------------------------


def _is_resident(text: str, start: int, end: int) -> bool:
    number = _compact(text, start, end)
    if not _stands_apart(text, start, end) or ric.calc_check_digit(number) != number[-1]:
        return False
    return _is_born(number)


def _is_old_resident(text: str, start: int, end: int) -> bool:
    """15 digits without a check digit, as they were given out until 1999."""
    number = text[start:end]
    said = _SAYS_IDENTITY.search(_before(text, start))
    return said is not None and _stands_apart(text, start, end) and _is_born(f"{number[:6]}19{number[6:]}")


def _is_born(number: str) -> bool:
    try:
        ric.get_birth_date(number)
    except ValidationError:
        return False
    return True


def _is_ssn(text: str, start: int, end: int) -> bool:
    if not ssn.is_valid(_compact(text, start, end)) or not _stands_apart(text, start, end):
        return False
    before = _before(text, start)
    if text[start + 3] == "-":
        return not _SAYS_SOMETHING_ELSE.search(before)
    return _SAYS_SSN.search(before) is not None


# -- accounts ----------------------------------------------------------------------------------------------------------


# ISO/IEC 7812: the beginnings that were given out, and how many digits follow from them.
_ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|35[2-8]\d{13,16}"
    r"|6(?:011\d{12,15}|[2-5]\d{14,17})|81\d{14,17}|9558\d{15}"
)


def _is_card(text: str, start: int, end: int) -> bool:
    number = _compact(text, start, end)
    if not _stands_apart(text, start, end) or not _ISSUERS.fullmatch(number):
        return False
    return len(set(number)) > 1 and luhn.is_valid(number)


def _is_iban(text: str, start: int, end: int) -> bool:
    return _stands_apart(text, start, end) and iban.is_valid(text[start:end], check_country=False)


# -- the rest ----------------------------------------------------------------------------------------------------------


def _is_address(text: str, start: int, end: int) -> bool:
    """Not a file for screens of twice the density (icon@2x.png), not a package at a version."""
    domain = text[start:end].rpartition("@")[2].lower()
    return not domain.rpartition(".")[2].isdigit() and not domain.endswith((".png", ".jpg", ".jpeg", ".svg", ".webp"))


def _is_ipv4(text: str, start: int, end: int) -> bool:
    return _stands_apart(text, start, end) and not _SAYS_SOMETHING_ELSE.search(_before(text, start))


def _is_ipv6(text: str, start: int, end: int) -> bool:
    if not _stands_apart(text, start, end) or text[start:end].count(":") < 3:
        return False
    try:
        IPv6Address(text[start:end])
    except ValueError:
        return False
    return True


def _is_secret(text: str, start: int, end: int) -> bool:
    """A key is made by chance: with digits and letters, and of many kinds."""
    secret = text[start:end]
    return any(map(str.isdigit, secret)) and any(map(str.isalpha, secret)) and len(set(secret)) >= 8


def _is_whatever(text: str, start: int, end: int) -> bool:
    return True


_CHAR = "[A-Za-z0-9_-]"
_KEYS = (
    *(f"sk-{_CHAR}{{20,200}}", "[spr]k_(?:live|test)_[A-Za-z0-9]{16,250}", f"isk_{_CHAR}{{40,60}}"),
    *(r"(?:AKIA|ASIA)[A-Z0-9]{16}\b", r"LTAI[A-Za-z0-9]{12,24}\b", r"AKID[A-Za-z0-9]{32}\b"),
    *(r"gh[pousr]_[A-Za-z0-9]{30,255}", r"github_pat_\w{22,255}", f"glpat-{_CHAR}{{20,60}}"),
    *("xox[abeoprs]-[A-Za-z0-9-]{10,250}", f"AIza{_CHAR}{{35}}", rf"ya29\.{_CHAR}{{20,250}}"),
    *("hf_[A-Za-z0-9]{30,60}", "npm_[A-Za-z0-9]{36}", f"pypi-{_CHAR}{{40,250}}", "whsec_[A-Za-z0-9+/]{24,64}"),
    *(rf"SG\.{_CHAR}{{16,32}}\.{_CHAR}{{16,64}}", "gsk_[A-Za-z0-9]{40,64}", "pplx-[A-Za-z0-9]{40,64}"),
)
_PEM = (
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY-----\s*(?:[A-Za-z-]+: [^\n]{0,100}\n){0,3}"
    r"[A-Za-z0-9+/=\s\\]*(?:-----END [A-Z0-9 ]{0,30}PRIVATE KEY-----)?"
)
_AFTER_ITS_NAME = (
    r"(?i:(?:(?:api|access)[_ -]?key|secret(?:[_ -]?(?:access[_ -]?)?key)?|(?:(?:auth|access)[_ -]?)?token"
    r"|password|passwd|pwd|密码|口令|密钥|令牌)[\"']?\s{0,3}(?:[:=：]|是|为|is|to)\s{0,3})"
    r"(?:[\"'“「]([^\"'”」\s]{8,200})[\"'”」]|([A-Za-z0-9!@#$%^&*_+/=.~-]{8,200}))"
)

_SHAPES: dict[str, tuple[tuple[str, str, Check], ...]] = {
    "secret": (
        ("SECRET", _PEM, _is_whatever),
        ("SECRET", r"\beyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*", _is_whatever),
        ("SECRET", rf"\b(?:{'|'.join(_KEYS)})", _is_secret),
        ("SECRET", r"(?i:\bbearer )([A-Za-z0-9._~+/-]{16,400}=*)", _is_secret),
        ("SECRET", _AFTER_ITS_NAME, _is_secret),
    ),
    "email": (
        ("EMAIL", r"[A-Za-z0-9][A-Za-z0-9._%+'-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b", _is_address),
    ),
    "id_card": (
        ("ID", r"\b[1-8]\d{5}[ -]?(?:18|19|20)\d{2}[ -]?[01]\d[ -]?[0-3]\d[ -]?\d{3}[\dXx]\b", _is_resident),
        ("ID", r"\b[1-8]\d{5}\d{2}[01]\d[0-3]\d{4}\b", _is_old_resident),
        ("ID", r"\b\d{3}(?:-\d{2}-| \d{2} |\d{2})\d{4}\b", _is_ssn),
    ),
    "bank_card": (
        ("CARD", r"\b[2-689]\d{3}(?:\d{9,15}|(?:[ -]\d{4}){3}(?:[ -]?\d{1,3})?|[ -]\d{6}[ -]\d{4,5})\b", _is_card),
        ("IBAN", r"\b[A-Z]{2}\d{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)\b", _is_iban),
    ),
    "phone": (
        ("PHONE", r"(?:(?:\+86|\b0086|\b86)[ -]?|\b)1[3-9]\d(?:[ -]?\d{4}){2}\b", _is_mobile),
        ("PHONE", rf"\+(?:{_COUNTRY_CODE})(?:[ .-]?\(?\d{{1,5}}\)?){{2,6}}\b", _is_international),
        ("PHONE", r"(?:\b0\d{2,3}[ -]|[(（]0\d{2,3}[)）][ -]?)[2-9]\d{6,7}(?:-\d{1,5})?\b", _is_mobile),
        ("PHONE", r"(?:\b1[ .-])?(?:\([2-9]\d{2}\) ?|\b[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}\b", _is_mobile),
        ("PHONE", r"\b\d{2,4}[ .-]?\d{3,4}[ .-]?\d{3,4}\b", _is_called_phone),
    ),
    "ip": (
        ("IP", r"\b(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b", _is_ipv4),
        ("IP", r"\b(?:[0-9A-Fa-f]{1,4}:){1,7}(?::?[0-9A-Fa-f]{1,4}){1,7}\b", _is_ipv6),
    ),
}


def finder(kinds: Iterable[str]) -> Finder:
    """What finds these kinds (`settings.pii.kinds`)."""
    wanted = frozenset(kinds)
    detectors = [
        Detector(label, compile_pattern("(?-i)" + shape), check)
        for kind, shapes in _SHAPES.items()
        if kind in wanted
        for label, shape, check in shapes
    ]
    return Finder(detectors + people.detectors() if "name" in wanted else detectors)
