"""The audit log that the configuration asks for."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

from isochrone.audit.chain import writer_name
from isochrone.audit.log import REPLIES, AuditLog, NoLog, Sink
from isochrone.durable.spool import Spool, folder_for
from isochrone.settings import Settings, SettingsError
from isochrone.stores.protocols import CheckpointStore


def stream_name(settings: Settings) -> str:
    """The delivery stream of each region."""
    return f"{settings.service.name}-audit"


def check_folder(settings: Settings) -> None:
    """An edge that cannot write its log answers nobody. Raises SettingsError."""
    if settings.audit.to != "file":
        return
    from tempfile import TemporaryFile  # noqa: PLC0415

    try:
        Path(settings.audit.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        with TemporaryFile(dir=settings.audit.folder):
            pass
    except OSError as error:
        raise SettingsError(
            f"audit.folder: nothing can be written in {settings.audit.folder}: {error.strerror or error}"
        ) from None


def open_log(
    settings: Settings, region: str, environ: Mapping[str, str], *, checkpoints: CheckpointStore | None = None
) -> AuditLog | NoLog:
    """That of an edge; call it inside the event loop."""
    if settings.audit.to == "none":
        return NoLog()
    return AuditLog(
        _sink(settings, region, environ),
        Spool(folder_for(settings, region, environ, purpose="-audit"), REPLIES),
        edge=region,
        clock=time.time,
        new_id=lambda: writer_name(time.time(), os.urandom(8).hex()),
        checkpoints=checkpoints,
    )


def _sink(settings: Settings, region: str, environ: Mapping[str, str]) -> Sink:
    """Its libraries are loaded by who needs them."""
    if settings.audit.to == "file":
        from isochrone.audit.files import FileSink  # noqa: PLC0415

        return FileSink(Path(settings.audit.folder), edge=region, days=settings.audit.days, clock=time.time)
    from isochrone.stores.dynamodb.client import Timeouts, connect  # noqa: PLC0415
    from isochrone.stores.firehose import FIREHOSE, FirehoseSink  # noqa: PLC0415

    client = connect(
        region,
        service=FIREHOSE,
        endpoint_url=settings.state.endpoint_url,
        environ=environ,
        timeouts=Timeouts(connect=0.5, total=2.0),  # what is not taken waits on disk
    )
    return FirehoseSink(client, stream_name(settings))
