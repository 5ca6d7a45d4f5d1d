"""How an answer is kept: packed, compressed where that saves more than it costs, under a first byte that says how.

    3 | msgpack                 small ones
    4 | zlib(msgpack)           from COMPRESS_FROM bytes on

Whatever cannot be read (of another version, damaged, or larger than it may be when unpacked) is a miss.
"""

from __future__ import annotations

import zlib

import msgspec

from isochrone.answers.completion import Answer

# A write costs by the KB begun, and key and numbers take a quarter of the first.
COMPRESS_FROM = 750
# More than any answer of a real engine; a few bytes of zlib can claim to be anything.
MAX_UNPACKED_BYTES = 32 * 1024 * 1024

_PACKED, _COMPRESSED = b"\x03", b"\x04"
# With the library's usual 256 KB of work memory a short answer waits longer for that than for the packing.
_LEVEL, _WINDOW_BITS, _MEMORY_LEVEL = 1, 13, 5
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Answer).decode


def to_bytes(answer: Answer) -> bytes:
    """How it is kept. Raises ValueError for what msgpack has no form for, or that would never be read again."""
    try:
        packed = _pack(answer)
    except (OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"answer: {error}") from None
    if len(packed) > MAX_UNPACKED_BYTES:
        raise ValueError(f"answer: {len(packed)} bytes are more than {MAX_UNPACKED_BYTES}")
    if len(packed) < COMPRESS_FROM:
        return _PACKED + packed
    return _COMPRESSED + _compressed(packed)


def _compressed(packed: bytes) -> bytes:
    packing = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL)
    return packing.compress(packed) + packing.flush()


def from_bytes(value: bytes) -> Answer | None:
    """The answer, or None when it cannot be read."""
    try:
        return _unpack(_packed_in(value))
    except (ValueError, msgspec.MsgspecError, zlib.error, RecursionError):
        return None


def _packed_in(value: bytes) -> bytes:
    if value[:1] == _PACKED:
        return value[1:]
    if value[:1] != _COMPRESSED:
        raise ValueError("of another version")
    unpacking = zlib.decompressobj()
    packed = unpacking.decompress(value[1:], MAX_UNPACKED_BYTES)
    if not unpacking.eof:
        raise ValueError("cut short, or too large when unpacked")
    return packed
