"""Keeps the memory that reading a socket takes, and gives back at once, from going to the system and back each time.

asyncio reads into a new buffer of 256 KiB and keeps the few bytes that came. Blocks above a threshold of 128 KiB glibc
maps anew each time, which makes a read cost 9 us in place of 1. The threshold rises to the size of the first such block
that is freed (mallopt(3), M_MMAP_THRESHOLD), so one larger than every buffer, freed once, is all that it takes. Other
allocators take no notice.
"""

from __future__ import annotations

_LARGER_THAN_BUFFERS = 1024 * 1024


def keep_buffers() -> None:
    """Once, before there is anything to read. The block is never written to, so it takes no memory."""
    bytes(_LARGER_THAN_BUFFERS)
