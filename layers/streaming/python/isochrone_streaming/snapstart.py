"""SnapStart: hooks before the snapshot and after each restore, in the order of AWS's own runtime.

    init -> before-snapshot hooks (last registered first) -> /restore/next ... the snapshot sleeps ...
         -> after-restore hooks (first registered first) -> start -> the first invocation

A function registers hooks with `snapshot_restore_py`, which the managed runtime brings along.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from isochrone_streaming.application import InitFailed
from isochrone_streaming.faults import Fault


def wanted(environ: Mapping[str, str]) -> bool:
    """True when this process is started to be photographed."""
    return environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start"


def before_snapshot() -> None:
    """Run the registered hooks, the last one first. Raises InitFailed."""
    if registry := _registry():
        _run(reversed(registry.get_before_snapshot()), "Runtime.BeforeSnapshotError")


def after_restore() -> None:
    """Run the registered hooks, the first one first. Raises InitFailed."""
    random.seed()  # every copy wakes with the same generator; their ids and jitter must differ
    if registry := _registry():
        _run(registry.get_after_restore(), "Runtime.AfterRestoreError")


def _run(hooks: Iterable[tuple[Any, Any, Any]], kind: str) -> None:
    for hook, args, kwargs in hooks:
        try:
            hook(*args, **kwargs)
        except Exception as error:
            raise InitFailed(Fault.of(error, f"hook {hook.__name__}: {error}", kind=kind)) from error


def _registry() -> ModuleType | None:
    """Only the managed runtime has the module."""
    try:
        return import_module("snapshot_restore_py")
    except ImportError:
        return None
