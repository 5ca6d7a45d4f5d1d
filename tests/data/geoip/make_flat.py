#!/usr/bin/env python3
"""Make flat-ipv4.mmdb and flat-ipv6.mmdb: invented places in the record shape of DB-IP's files, good and bad.

Needs the package mmdb-writer, which the project itself does not:
    .venv/bin/uv run --no-project --with mmdb-writer==0.2.7 tests/data/geoip/make_flat.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter  # type: ignore[import-not-found]
from netaddr import IPSet  # type: ignore[import-untyped]

HERE = Path(__file__).parent


def record(latitude: Any, longitude: Any, country_code: str, city: str) -> dict[str, Any]:
    place = {"latitude": latitude, "longitude": longitude, "country_code": country_code, "city": city}
    return {**place, "state1": "", "state2": "", "postcode": "", "timezone": ""}


IPV4 = {
    "198.51.100.0/26": record(35.75, 139.5, "JP", "Tokyo"),
    "198.51.100.64/26": record(-23.5, -46.625, "BR", ""),
    "198.51.100.128/26": record(0.0, 0.0, "FR", "Nowhere"),
    "198.51.100.192/26": record(0.0, 0.0, "ZZ", ""),
    "203.0.113.0/26": record(91.0, 10.0, "", ""),
    "203.0.113.64/26": record(float("nan"), 10.0, "", ""),
    "203.0.113.128/26": record("50.1", "8.7", "", ""),
    "203.0.113.192/26": {"asn": 64500},
}
IPV6 = {"2001:db8:1::/48": record(50.125, 8.75, "DE", "Frankfurt")}


def main() -> None:
    for version, networks in ((4, IPV4), (6, IPV6)):
        writer = MMDBWriter(ip_version=version, database_type=f"city ipv{version}", float_type="f32")
        for network, values in networks.items():
            writer.insert_network(IPSet([network]), values)
        writer.to_db_file(str(HERE / f"flat-ipv{version}.mmdb"))


if __name__ == "__main__":
    main()
