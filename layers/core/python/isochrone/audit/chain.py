"""A log that shows whether it was changed: each line carries the hash of itself and of the line before it.

    {"writer":"1795...-4f1c...","seq":0,"prev":"000...","record":"start", ...          ,"hash":"9ab..."}
    {"writer":"1795...-4f1c...","seq":1,"prev":"9ab...","record":"request", ...        ,"hash":"77e..."}
    {"writer":"1795...-4f1c...","seq":2,"prev":"77e...","record":"request", ...        ,"hash":"c01..."}

Every process is a writer with a chain of its own, so writers need not wait for one another; files and batches do not
matter to it. Its name says when it began, so that each line tells whether the beginning must still be there. A hash is
SHA-256 over the bytes of the line that stand before `,"hash"`, as they are: no two programs have to agree on how JSON
is to be written. Without a key anybody could make a whole new chain; what speaks against that are checkpoints, which
are kept elsewhere, and a bucket whose objects cannot be replaced.
"""

from __future__ import annotations

import re
from hashlib import sha256

import msgspec
from msgspec import Struct

NOTHING = "0" * 64
_HASH = re.compile(rb',"hash":"([0-9a-f]{64})"\}$')
_HEAD = re.compile(rb'^\{"writer":"([^"\\]+)","seq":([0-9]+),"prev":"([0-9a-f]{64})",')


def writer_name(began: float, chance: str) -> str:
    """The name of a writer that began at this moment (epoch seconds); no other one had the same chance."""
    return f"{round(began * 1000)}-{chance}"


def began_at(writer: str) -> int:
    """When a writer began, by its name, in epoch milliseconds; 0 where that does not say so."""
    moment, dash, _ = writer.partition("-")
    return int(moment) if dash and moment.isdecimal() else 0


class Link(Struct, frozen=True):
    """A line's place in its chain. `intact`: its hash is that of its content."""

    writer: str
    seq: int
    prev: str
    hash: str
    intact: bool


class Chain:
    """The chain of one writer, from its beginning on. Whatever is linked must be kept: a gap looks like a theft."""

    def __init__(self, writer: str) -> None:
        self.writer = writer
        self._next = 0
        self._head = NOTHING

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the newest line; number -1 before the first one."""
        return self._next - 1, self._head

    def link(self, record: Struct) -> bytes:
        """`record` (whose JSON is an object that is not empty) as the next line, without a line end."""
        body = msgspec.json.encode(record)
        start = f'{{"writer":"{self.writer}","seq":{self._next},"prev":"{self._head}",'
        hashed = start.encode() + body[1:-1]
        self._head = sha256(hashed).hexdigest()
        self._next += 1
        return hashed + f',"hash":"{self._head}"}}'.encode()


def link_of(line: bytes) -> Link | None:
    """Where a line stands; None when it is no whole line of a chain."""
    head, end = _HEAD.match(line), _HASH.search(line)
    if head is None or end is None:
        return None
    hash_ = end[1].decode()
    intact = sha256(line[: end.start()]).hexdigest() == hash_
    return Link(head[1].decode("utf-8", "replace"), int(head[2]), head[3].decode(), hash_, intact)


def place_in(torn: bytes) -> tuple[str, int] | None:
    """Writer and number of what is left of a line; None when not even that can be read."""
    head = _HEAD.match(torn)
    return (head[1].decode("utf-8", "replace"), int(head[2])) if head else None
