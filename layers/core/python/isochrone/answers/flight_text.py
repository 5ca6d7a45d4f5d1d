"""What one generation has said so far: read by many, each from the first byte on and at a speed of its own.

    blocks, packed             pieces, as they came
    |---- 64 KB ----|---- 64 KB ----|.|..|.|...|
          ^ one who came late              ^ the others

An event stream repeats itself in every event, so what is packed takes a tenth to a fortieth of its room.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_right
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from isochrone.api.sse import DONE

BLOCK_BYTES = 64 * 1024
_QUICKLY = 1
_EVENT = re.compile(rb".+?(?:\r\n\r\n|\n\n|\r\r|\Z)", re.DOTALL)


class _Block(NamedTuple):
    """Bytes `start` to `end` of the text, packed; piece number `next_piece` follows them."""

    start: int
    end: int
    next_piece: int
    packed: bytes


class FlightText:
    """An event stream that grows. Every piece holds whole events; `size` counts all bytes that were said."""

    def __init__(self) -> None:
        self.size = 0
        self.is_complete = False
        self._blocks: list[_Block] = []
        self._pieces: list[bytes] = []
        self._packed_pieces = 0
        self._packed_bytes = 0

    @property
    def bytes_held(self) -> int:
        """What it takes of memory, without the bookkeeping."""
        return self.size - self._packed_bytes + sum(len(block.packed) for block in self._blocks)

    def say(self, piece: bytes) -> None:
        """Add a piece."""
        self._pieces.append(piece)
        self.size += len(piece)
        if self.size - self._packed_bytes >= 2 * BLOCK_BYTES:
            self._pack()

    def whole(self) -> bytes:
        """All that was said."""
        return b"".join([*(zlib.decompress(block.packed) for block in self._blocks), *self._pieces])

    def _pack(self) -> None:
        """The older half; whoever has not read it yet unpacks it again."""
        count, size = 0, 0
        while size < BLOCK_BYTES:
            size += len(self._pieces[count])
            count += 1
        packed = zlib.compress(b"".join(self._pieces[:count]), _QUICKLY)
        del self._pieces[:count]
        self._packed_pieces += count
        start, self._packed_bytes = self._packed_bytes, self._packed_bytes + size
        self._blocks.append(_Block(start, self._packed_bytes, self._packed_pieces, packed))

    def piece(self, number: int) -> bytes | None:
        """Piece `number` (from 0) as it came, None when it is not said yet; LookupError when it is packed by now."""
        at = number - self._packed_pieces
        if at < 0:
            raise LookupError
        return self._pieces[at] if at < len(self._pieces) else None

    def unpack(self, offset: int) -> tuple[bytes, int]:
        """What was said from byte `offset` to the end of its block, and the number of the next piece."""
        block = self._blocks[bisect_right(self._blocks, offset, key=lambda block: block.end)]
        return zlib.decompress(block.packed)[offset - block.start :], block.next_piece


class Cursor:
    """One reader's place in a text: `offset` bytes were read. Without `usage`, events that tell only that are left
    out."""

    __slots__ = ("_number", "_text", "_usage", "offset")

    def __init__(self, text: FlightText, *, usage: bool) -> None:
        self.offset = 0
        self._text = text
        self._usage = usage
        self._number = 0

    @property
    def is_at_end(self) -> bool:
        """All that was said so far is read."""
        return self.offset == self._text.size

    def next(self) -> bytes | None:
        """What comes next, None when it is not said yet."""
        while (piece := self._next()) is not None:
            self.offset += len(piece)
            if not self._usage and b'"usage"' in piece:
                piece = without_usage(piece)
            if piece:
                return piece
        return None

    def _next(self) -> bytes | None:
        try:
            piece = self._text.piece(self._number)
        except LookupError:
            piece, self._number = self._text.unpack(self.offset)
            return piece
        if piece is not None:
            self._number += 1
        return piece


class _Chunk(Struct):
    choices: list[msgspec.Raw] | None = None
    usage: Any = None


_decode = msgspec.json.Decoder(_Chunk).decode


def without_usage(events: bytes) -> bytes:
    """The same events, less those that say nothing but the usage."""
    return b"".join(event for event in _EVENT.findall(events) if b'"usage"' not in event or not _is_usage(event))


def _is_usage(event: bytes) -> bool:
    data = b"\n".join(line[5:].strip() for line in event.splitlines() if line.startswith(b"data:"))
    if data == DONE:
        return False
    try:
        chunk = _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return isinstance(chunk.usage, dict) and bool(chunk.usage) and not chunk.choices
