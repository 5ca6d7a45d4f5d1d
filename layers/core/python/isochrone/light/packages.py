"""The libraries of light work: whether they are there, and files that they carry."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path


def missing(packages: Iterable[str]) -> list[str]:
    """Those of `packages` that cannot be imported; none is."""
    return [package for package in packages if find_spec(package) is None]


def file_of(package: str, path: str) -> Path:
    """A file inside a package, which is not imported for it. FileNotFoundError when there is no such package."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"there is no package {package}")
    return Path(found.submodule_search_locations[0], path)
