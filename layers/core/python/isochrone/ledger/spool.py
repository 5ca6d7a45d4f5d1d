"""How attempts are noted on disk, and where: the next process tells the ledger of those that this one did not live to
tell."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from isochrone.durable.journal import Form
from isochrone.durable.spool import NoSpool, Spool, folder_for
from isochrone.ledger.entry import Begun, Entry, lost
from isochrone.settings import Settings

ATTEMPTS: Form[Begun, Entry] = Form(
    "ledger entries", msgspec.json.Encoder().encode, msgspec.json.Decoder(Begun | Entry).decode, Entry, lost
)


def open_spool(settings: Settings, region: str, environ: Mapping[str, str]) -> NoSpool[Begun, Entry]:
    """That of an edge; a ledger that is in memory itself needs none."""
    if settings.state.kind == "memory":
        return NoSpool()
    return Spool(folder_for(settings, region, environ), ATTEMPTS)
