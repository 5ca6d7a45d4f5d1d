"""Is a JSON Schema small when all its references are written out? Engines do that, and some never come to an end.

A schema that refers to itself has no end; one whose definitions refer to each other twice, ten times in a row, is a
thousand times as large as its text (the "billion laughs" of XML).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import msgspec

from isochrone.api.errors import BadRequest

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
LARGEST_SCHEMA = 64 * 1024  # bytes of its text
_LARGEST_UNFOLDED = 20_000  # lists and objects, with every reference written out


def check_size(schema: Any, param: str) -> None:
    """Raises BadRequest for a schema whose text is too long."""
    if len(msgspec.json.encode(schema)) > LARGEST_SCHEMA:
        raise BadRequest(f"'{param}' has a schema of more than {LARGEST_SCHEMA} bytes.", param=param)


def check_references(schema: Any, param: str) -> None:
    """Raises BadRequest for a schema that has no end or a far one, or refers to something outside of it."""
    try:
        _Unfolding(schema).size_of(schema)
    except _Refused as refused:
        raise BadRequest(f"'{param}' has a schema {refused}.", param=param) from None
    except RecursionError:
        raise BadRequest(f"'{param}' has a schema whose references go too deep.", param=param) from None


class _Refused(Exception):
    """Says what is wrong with a schema."""


class _Unfolding:
    """Counts the lists and objects of a schema with every reference written out; each definition is counted once."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._sizes: dict[str, int | None] = {}  # None while it is being counted: who comes by again goes in circles

    def size_of(self, node: Any) -> int:
        """Raises _Refused."""
        if isinstance(node, list):
            size = 1 + sum(map(self.size_of, node))
        elif isinstance(node, dict):
            size = 1 + sum(map(self.size_of, node.values())) + sum(map(self._size_behind, _references_of(node)))
        else:
            return 0
        if size > _LARGEST_UNFOLDED:
            raise _Refused(f"that unfolds to more than {_LARGEST_UNFOLDED} parts")
        return size

    def _size_behind(self, reference: str) -> int:
        if reference not in self._sizes:
            self._sizes[reference] = None
            self._sizes[reference] = self.size_of(self._found(reference))
        size = self._sizes[reference]
        if size is None:
            raise _Refused(
                f"that refers to itself ({reference[:100]!r}): recursive schemas are not taken here, "
                "for engines that write references out never come to an end; write out the levels that you need"
            )
        return size

    def _found(self, reference: str) -> Any:
        """What a JSON pointer (RFC 6901) points to; None for nothing, about which an engine has its own words."""
        if reference != "#" and not reference.startswith("#/"):
            raise _Refused(f"that refers to something outside of it ({reference[:100]!r})")
        node = self._root
        for step in unquote(reference[2:]).split("/") if len(reference) > 1 else ():
            node = _below(node, step.replace("~1", "/").replace("~0", "~"))
        return node


def _references_of(node: dict[str, Any]) -> list[str]:
    return [node[name] for name in _REFERENCES if isinstance(node.get(name), str)]


def _below(node: Any, step: str) -> Any:
    if isinstance(node, list):
        return node[int(step)] if step.isdecimal() and int(step) < len(node) else None
    return node.get(step) if isinstance(node, dict) else None
