"""The deploy as a process of its own, so that stopping it also stops the CDK's Node and everything below it."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from local.deploy import DeployError, deploy


def main() -> None:
    """`deploying.py CONFIG ENDPOINT FOLDER RESULT`: prints progress; the last line of a failure is for the user.

    FOLDER gets the log and the templates; RESULT is a file that gets {region: URL of its API} as JSON.
    """
    config, endpoint, folder, result = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    try:
        deployed = deploy(Path(config), endpoint, Path(folder), lambda line: print(line, flush=True))
    except DeployError as error:
        sys.exit(str(error))
    Path(result).write_text(json.dumps({region: edge.url for region, edge in deployed.edges.items()}))


if __name__ == "__main__":
    main()
