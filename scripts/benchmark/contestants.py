"""Who is measured: the edge in its states, and its peers, each with the command and the configuration it runs with."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmark.arena import Target, free_port
from benchmark.errors import BenchError
from isochrone.routing.geo import GeoError, open_locator

ROOT = Path(__file__).resolve().parents[2]
ISOCHRONE = Path(sys.executable).with_name("isochrone")
GEO_DATABASE = ROOT / "node_modules" / "@ip-location-db" / "dbip-city-mmdb"
REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
KEY = "sk-benchmark-0123456789abcdef0123456789"
# Released before 1.107.0, a release that was tampered with.
LITELLM = "litellm[proxy]==1.102.4"
LITELLM_HOME = ROOT / ".local" / "bench" / "litellm"
INSTALL_SECONDS = 600

AUTHORIZED = f"Authorization: Bearer {KEY}"
FROM_TOKYO = "X-Forwarded-For: 133.11.0.1"
NOT_STORED = "x-isochrone-cache: no-store"


class Launch(NamedTuple):
    """How one contestant is started, and how it is asked."""

    command: Sequence[str | Path]
    target: Target
    environ: Mapping[str, str] = {}
    patience: float = 20.0


class Contestant(NamedTuple):
    """`launch(folder, mock_port)` writes its configuration; it raises BenchError when the contestant is not here.

    `known` says that it answers from memory: then its times are its own, and no backend is asked.
    """

    name: str
    note: str
    launch: Callable[[Path, int], Launch]
    known: bool = False


def edge_config(mock_port: int, *, state: str = 'kind = "memory"') -> str:
    """The configuration of the edge under test, with everything on: keys, places, three pools, probes, answers."""
    backends = "\n".join(_backend(region, mock_port) for region in REGIONS)
    return f"""\
[service]
name = "isochrone"

[state]
{state}

[geo]
{_geo_database()}
trusted_proxies = ["127.0.0.1/32"]

[[region]]
name = "us-east-1"
default = true

{backends}

[[key]]
id = "bench"
tenant = "bench"
sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
"""


def _geo_database() -> str:
    try:
        open_locator(str(GEO_DATABASE))
    except GeoError:
        return ""  # an edge without places is faster; the report says that there were none
    return f'database = "{GEO_DATABASE}"'


def has_places() -> bool:
    """Whether the real location database is there."""
    return bool(_geo_database())


def _backend(region: str, mock_port: int) -> str:
    return f"""\
[[backend]]
name = "pool-{region}"
region = "{region}"
base_url = "http://127.0.0.1:{mock_port}/v1"
engine = "vllm"
max_concurrency = 4096
models = {{ "mock" = "mock" }}
"""


def edge(headers: Sequence[str], flags: Sequence[str] = (), *, dynamodb: bool = False) -> Callable[[Path, int], Launch]:
    """An edge that is asked with these headers and options."""

    def launch(folder: Path, mock_port: int) -> Launch:
        stand_in = f'kind = "dynamodb"\nendpoint_url = "http://127.0.0.1:{mock_port}"'
        text = edge_config(mock_port, state=stand_in) if dynamodb else edge_config(mock_port)
        command, port = edge_command(folder, text)
        environ = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        return Launch(command, Target(port, (AUTHORIZED, *headers), flags), environ)

    return launch


def edge_command(folder: Path, config: str) -> tuple[list[str | Path], int]:
    """`isochrone serve` for a configuration, and the port it will listen on."""
    file, port = folder / "isochrone.toml", free_port()
    file.write_text(config)
    return [ISOCHRONE, "serve", "--config", file, "--region", "us-east-1", "--port", str(port)], port


def nginx(folder: Path, mock_port: int) -> Launch:
    """One worker, nothing buffered on the way back."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        raise BenchError("nginx is not installed (apt-get install nginx)")
    port, file = free_port(), folder / "nginx.conf"
    paths = "".join(f"  {kind}_temp_path {folder}/nginx-{kind};\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    file.write_text(
        f"""\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/nginx-body;
{paths}
  upstream mock {{ server 127.0.0.1:{mock_port}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://mock;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
    )
    return Launch([program, "-p", folder, "-e", "stderr", "-c", file], Target(port))


def aiohttp(folder: Path, mock_port: int) -> Launch:
    """The library that the local door and the client are built on, with nothing around it."""
    port = free_port()
    proxy = Path(__file__).with_name("aiohttp_proxy.py")
    return Launch([sys.executable, proxy, str(port), str(mock_port)], Target(port))


def litellm(folder: Path, mock_port: int) -> Launch:
    """Its proxy, one worker, in an environment of its own."""
    program = LITELLM_HOME / "bin" / "litellm"
    if not program.exists():
        raise BenchError(f"{LITELLM} is not installed (only a run without --quick installs it)")
    port, file = free_port(), folder / "litellm.yaml"
    file.write_text(
        f"""\
model_list:
  - model_name: mock
    litellm_params: {{ model: openai/mock, api_base: "http://127.0.0.1:{mock_port}/v1", api_key: sk-mock }}
litellm_settings: {{ telemetry: false, drop_params: true, num_retries: 0, request_timeout: 600 }}
general_settings: {{ disable_spend_logs: true }}
"""
    )
    environ = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DISABLE_ADMIN_UI": "True",
    }
    command: list[str | Path] = [
        program,
        "--config",
        file,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    return Launch([*command, "--telemetry", "False"], Target(port), environ, patience=120.0)


def install_litellm() -> None:
    """LiteLLM into an environment of its own, unless it is there. Raises BenchError."""
    if (LITELLM_HOME / "bin" / "litellm").exists():
        return
    uv = Path(sys.executable).with_name("uv")
    _run([uv, "venv", "--quiet", str(LITELLM_HOME)])
    _run([uv, "pip", "install", "--quiet", "--python", str(LITELLM_HOME), LITELLM])


def _run(command: Sequence[str | Path]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS)
    except FileNotFoundError:
        raise BenchError("uv is not in this environment: run `make install`") from None
    except subprocess.TimeoutExpired:
        raise BenchError(f"installing {LITELLM} took more than {INSTALL_SECONDS} s") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise BenchError(f"{LITELLM} cannot be installed; uv said: {said[-1]}")


CONTESTANTS = (
    Contestant("isochrone", "answers neither looked up nor stored", edge([FROM_TOKYO, NOT_STORED])),
    Contestant(
        "isochrone-new",
        "every request a new prompt from a new client: a miss, then stored",
        edge([], NEW := ("--unique", "--vary-client")),
    ),
    Contestant(
        "isochrone-dynamodb", "the same, with DynamoDB (a stand-in that is always empty)", edge([], NEW, dynamodb=True)
    ),
    Contestant("isochrone-known", "one prompt again and again: answered from memory", edge([FROM_TOKYO]), known=True),
    Contestant("nginx", "one worker, proxy_buffering off", nginx),
    Contestant("aiohttp", "a bare proxy of 20 lines on aiohttp", aiohttp),
    Contestant("litellm", f"{LITELLM}, one worker", litellm),
)
