"""The clients of one process: DynamoDB in its own region, and in others where it has something to say there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from isochrone.stores.dynamodb.client import DEFAULT_TIMEOUTS, DynamoClient, Timeouts, connect
from isochrone.stores.dynamodb.server_clock import ServerClock

# Half around the world a round trip takes 0.4 s, and a first call four of them. Who waits for it says how long.
_FAR = Timeouts(connect=1.0, total=3.0)


class Clients:
    """A client for each region, made when it is first asked for. `region` is the own one. The clocks of all regions
    agree, so what one of them tells of the time holds for the others."""

    def __init__(self, region: str, *, endpoint_url: str | None, environ: Mapping[str, str]) -> None:
        self._region = region
        self._endpoint_url = endpoint_url
        self._environ = environ
        self._made: dict[str, DynamoClient] = {}
        self._server_clock = ServerClock()

    def of(self, region: str) -> DynamoClient:
        """The client for this region. Call it inside the event loop."""
        if region not in self._made:
            timeouts = DEFAULT_TIMEOUTS if region == self._region else _FAR
            self._made[region] = connect(
                region,
                endpoint_url=self._endpoint_url,
                environ=self._environ,
                timeouts=timeouts,
                server_clock=self._server_clock,
            )
        return self._made[region]

    async def aclose(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(client.aclose() for client in self._made.values()))
