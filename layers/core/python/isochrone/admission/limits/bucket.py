"""Requests per second of each address, counted exactly in this process: the generic cell rate algorithm (ITU-T I.371).

theoretical arrival time (tat):  each request moves it on by 1 / rate; it may be ahead of now by (burst - 1) / rate
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

# About 20 MB at the most. Who has not asked for longest is forgotten first, and had its burst back long ago.
_ADDRESSES = 50_000
_MINUTE = 60.0


class _Bucket:
    __slots__ = ("asked", "since", "tat")

    def __init__(self, now: float) -> None:
        self.tat = now
        self.since = now
        self.asked = 0


class Addresses:
    """At most `rate` requests a second from each address and `burst` at once. `now` is seconds on a monotonic clock."""

    def __init__(self, rate: float, burst: float, *, capacity: int = _ADDRESSES) -> None:
        self._step = 1.0 / rate
        self._ahead = (burst - 1) / rate
        self._capacity = capacity
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, address: str, now: float) -> float:
        """0 when a request is admitted, and counted; else the seconds until it would be."""
        bucket = self._bucket(address, now)
        wait = bucket.tat - now - self._ahead
        if wait > 1e-9:
            return wait
        bucket.tat = max(bucket.tat, now) + self._step
        bucket.asked += 1
        return 0.0

    def asked(self, address: str, now: float) -> int:
        """How many were admitted since a minute began, which began with the first of them."""
        bucket = self._bucket(address, now)
        if now - bucket.since >= _MINUTE:
            bucket.since, bucket.asked = now, 0
        return bucket.asked

    def _bucket(self, address: str, now: float) -> _Bucket:
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = _Bucket(now)
            if len(self._buckets) > self._capacity:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(address)
        return bucket


def one_caller(address: str) -> str | None:
    """What is counted as one: an IPv4 address, or the /64 that a subscriber of IPv6 has to itself. None for this very
    machine, which needs no protection from itself."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if parsed.is_loopback:
        return None
    if isinstance(parsed, IPv6Address):
        return str(IPv6Address(int(parsed) >> 64 << 64)) + "/64"
    return address
