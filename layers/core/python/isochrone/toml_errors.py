"""What is wrong with a TOML file, in an operator's words: the key as it stands there, its line, and what may stand."""

from __future__ import annotations

import re

import msgspec

KeyPath = tuple[str | int, ...]


_STEP = re.compile(r"\.([A-Za-z0-9_-]+)|\[(\d+)\]|\[\.\.\.\]")


def path_of(trail: str, message: str) -> KeyPath:
    """msgspec's `.backend[0].kind` -> ("backend", 0, "kind"); a field that the message names goes last."""
    path: list[str | int] = [name or int(index) for name, index in _STEP.findall(trail) if name or index]
    if named := re.search(r"field `([^`]+)`", message):
        path.append(named.group(1))
    return tuple(path)


_IN_WORDS = {
    r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$": "a name: letters, digits and . _ / -, up to 128, a letter or digit first",
    r"^[a-z][a-z0-9-]{0,30}$": "a name: small letters, digits and -, up to 31, a letter first",
    r"^[A-Z]{2}$": "two capital letters, such as FR",
    r"^https?://[^\s/]+(/\S*)?$": "a URL that begins with https:// or http://",
    r"^[0-9a-f]{64}$": "64 digits from 0 to f, as SHA-256 has",
    r"^[^\x00-\x1f\x7f]*$": "text on one line",
    r"^([01]\d|2[0-3]):[0-5]\d$": "a time of day from 00:00 to 23:59",
    r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$": "a time of day from 00:00 to 24:00",
    r"^Z[A-Z0-9]+$": "the id of a hosted zone, such as Z0123456789ABC",
    r"^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[A-Za-z0-9-]+$": "the ARN of a KMS key: arn:aws:kms:REGION:ACCOUNT:...",
    r"^/?[A-Za-z0-9._/-]{1,1010}$": "the name of a parameter: letters, digits and . _ / -",
}
"""What may stand where a pattern holds."""
_REGEX = "Expected `str` matching regex "


def in_plain_words(message: str, path: KeyPath, schema: type) -> str:
    """What msgspec says of the value at `path`, for an operator; `schema` is the Struct of the whole file."""
    if message.startswith("Object contains unknown field"):
        return "unknown key"
    if message.startswith("Object missing required field"):
        return "is missing"
    if message.startswith("Invalid enum value"):
        return f"{message.removeprefix('Invalid enum value ')} {_alternatives(path, schema)}"
    if message.startswith(_REGEX):
        fitting = (words for regex, words in _IN_WORDS.items() if message == f"{_REGEX}{regex!r}")
        return f"expected {next(fitting, 'another form')}"
    return message.replace("`", "").replace("Expected", "expected", 1)


def _alternatives(path: KeyPath, schema: type) -> str:
    """What a word that may not stand at a key is not."""
    kind = msgspec.inspect.type_info(schema)
    for step in path:
        kind = _inside(kind, step)
    kinds = _kinds_of(kind)
    words = [str(word) for one in kinds if isinstance(one, msgspec.inspect.LiteralType) for word in one.values]
    listed = ", ".join(words)
    is_number = any(isinstance(one, msgspec.inspect.IntType) for one in kinds)
    return f"is neither a whole number nor {listed}" if is_number else f"is none of {listed}"


def _inside(kind: msgspec.inspect.Type, step: str | int) -> msgspec.inspect.Type:
    for one in _kinds_of(kind):
        if isinstance(one, msgspec.inspect.VarTupleType) and isinstance(step, int):
            return one.item_type
        if isinstance(one, msgspec.inspect.StructType):
            return next((field.type for field in one.fields if field.encode_name == step), kind)
    return kind


def _kinds_of(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    return kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)


def dotted(path: KeyPath) -> str:
    """`backend[0].engine`"""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".") or "file"


_TABLE = re.compile(r"""^\s*\[(\[?)\s*([^\]]+?)\s*\]""")
_KEY = re.compile(r"""^\s*["']?([A-Za-z0-9_-]+)["']?\s*[=.]""")


def line_of(text: str, path: KeyPath) -> int:
    """The line where `path` stands, or else the table around it; 1 when neither is there."""
    lines = _key_lines(text)
    candidates = (path[:length] for length in range(len(path), 0, -1))
    return next((lines[candidate] for candidate in candidates if candidate in lines), 1)


def _key_lines(text: str) -> dict[KeyPath, int]:
    """Line numbers of tables and of their keys: ("backend", 0), ("backend", 0, "engine"), ("answers", "rule", 0)."""
    lines: dict[KeyPath, int] = {}
    last: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            names = tuple(name.strip().strip("\"'") for name in header.group(2).split("."))
            if header.group(1):
                last[names] = last.get(names, -1) + 1
            table = _numbered(names, last)
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            lines.setdefault((*table, key.group(1)), number)
    return lines


def _numbered(names: tuple[str, ...], last: dict[KeyPath, int]) -> KeyPath:
    """The names with the index after each that may stand several times, of the one that stands last so far."""
    path: KeyPath = ()
    for length, name in enumerate(names, start=1):
        index = last.get(names[:length])
        path += (name,) if index is None else (name, index)
    return path
