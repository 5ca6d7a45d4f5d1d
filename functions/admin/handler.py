"""The admin function: each call is one request of the admin API. Its parts are built when the module is loaded, so a
broken configuration fails at once.

Environment: ISOCHRONE_CONFIG (the TOML file), AWS_REGION, and what the configuration names.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from typing import Any

from isochrone.admin_function import AdminApi, build_admin
from isochrone.settings import load

# Who did what is worth keeping.
logging.getLogger("isochrone.admin").setLevel(logging.INFO)


async def _build() -> AdminApi:
    return build_admin(load(os.environ["ISOCHRONE_CONFIG"]), region=os.environ["AWS_REGION"], environ=os.environ)


def _close() -> None:
    _runner.run(_admin.close())
    _runner.close()


_runner = asyncio.Runner()
_admin = _runner.run(_build())
atexit.register(_close)


def handler(event: dict[str, Any], _context: object) -> dict[str, Any]:
    """The reply to an event of API Gateway's proxy integration."""
    return _runner.run(_admin.handle(event))
