"""What must not be, and what must be said, anywhere in the repository."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.repository import ROOT, files

# Taken apart, so that this file does not find itself.
_REGISTRIES = ("files.python" + "hosted.org", "registry.npm" + "js.org", "pypi" + ".org/simple")
# Inside vLLM's container image, /root/.cache is where weights go.
_MACHINE = re.compile("/(?:" + "|".join(("work", r"root(?!/\.cache)", "home/[a-z]+", "Users/[A-Za-z]+")) + ")/")


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""  # a database or a compressed table


def test_no_file_names_a_package_registrys_host() -> None:
    assert [path.name for path in files() if any(host in _text_of(path) for host in _REGISTRIES)] == []


def test_no_file_names_a_place_of_one_machine() -> None:
    assert [path.name for path in files() if _MACHINE.search(_text_of(path))] == []


def test_notice_names_every_data_file_or_its_folder() -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert [path.relative_to(ROOT).as_posix() for path in _data_files() if not _is_named(path, notice)] == []


def _data_files() -> list[Path]:
    """Files in a data folder that are neither code nor documents."""
    places = [path.relative_to(ROOT) for path in files()]
    return [
        ROOT / path
        for path in places
        if (path.parts[0] == "layers" or path.parts[:2] == ("tests", "data"))
        and "data" in path.parts[:-1]
        and path.suffix not in (".py", ".md")
    ]


def _is_named(path: Path, notice: str) -> bool:
    """By itself, or by a folder of tests/data: each of these has one source."""
    relative = path.relative_to(ROOT)
    folder = relative.parent.as_posix()
    return relative.as_posix() in notice or (folder.startswith("tests/data/") and folder in notice)


def test_changelog_has_the_version_of_the_package_or_an_unreleased_part() -> None:
    from isochrone import __version__

    titles = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert titles[0] in ("Unreleased", __version__)
    assert __version__ in titles
