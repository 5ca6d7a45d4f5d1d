"""Texts with placeholders, `Open in {city}`, as Python's format strings write them; `{{` and `}}` are braces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from string import Formatter
from typing import NamedTuple

_parse = Formatter().parse


class TemplateError(ValueError):
    """A text that is no template; the message says what is wrong with it."""


class Template(NamedTuple):
    """`pieces` are texts, each with the name of the placeholder behind it, or None for the last."""

    pieces: tuple[tuple[str, str | None], ...]

    @classmethod
    def of(cls, text: str) -> Template:
        """Raises TemplateError."""
        return cls(tuple(_pieces(text)))

    @property
    def names(self) -> frozenset[str]:
        """The placeholders in it."""
        return frozenset(name for _, name in self.pieces if name)

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with `values` in place of its placeholders. KeyError for one that has none."""
        return "".join(text + (values[name] if name else "") for text, name in self.pieces)


def fillings(names: frozenset[str], choices: Mapping[str, tuple[str, ...]]) -> Iterator[dict[str, str]]:
    """Every way to give each of `names` one of its `choices`."""
    ordered = sorted(names)
    for values in product(*(choices[name] for name in ordered)):
        yield dict(zip(ordered, values, strict=True))


def _pieces(text: str) -> Iterator[tuple[str, str | None]]:
    try:
        for literal, name, form, conversion in _parse(text):
            if name is not None and (form or conversion or not name.isidentifier()):
                raise TemplateError(
                    f"{{{name}}} is no placeholder: a name in braces is; write {{{{ and }}}} for braces"
                )
            yield literal, name
    except TemplateError:
        raise
    except ValueError as error:  # what the parser says of a lone brace
        raise TemplateError(f"{error}; write {{{{ and }}}} for braces") from None
