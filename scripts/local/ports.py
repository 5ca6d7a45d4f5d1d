"""Is a port free, and if not, who holds it?"""

from __future__ import annotations

import socket
from pathlib import Path

_LISTENING = "0A"


def is_free(port: int) -> bool:
    """Whether 127.0.0.1:port can be listened on right now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """The process that listens on `port`, as " (pid 12, python3)"; empty where the system does not tell."""
    inodes = _listening_inodes(port)
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue  # ended meanwhile, or not ours to see
        if target.startswith("socket:[") and target[8:-1] in inodes:
            return f" (pid {descriptor.parts[2]}, {_name_of(descriptor.parts[2])})"
    return ""


def _listening_inodes(port: int) -> set[str]:
    lines: list[str] = []
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        lines += table.read_text().splitlines()[1:] if table.exists() else []
    sockets = [line.split() for line in lines]
    return {entry[9] for entry in sockets if entry[3] == _LISTENING and int(entry[1].rpartition(":")[2], 16) == port}


def _name_of(pid: str) -> str:
    try:
        return Path("/proc", pid, "comm").read_text().strip()
    except OSError:
        return "unknown"
