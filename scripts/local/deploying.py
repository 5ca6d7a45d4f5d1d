"""The deploy as a process of its own, so that stopping it also stops the CDK's Node and everything below it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from local.deploy import DeployError, deploy


def main() -> None:
    """`deploying.py CONFIG ENDPOINT`: prints progress; the last line of a failure is for the user."""
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    try:
        deploy(Path(sys.argv[1]), sys.argv[2], lambda line: print(line, flush=True))
    except DeployError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
