"""What operators type, and what commands and the admin API say: a key stands where it is made, and nowhere else."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from isochrone.admin import KeyAdmin
from isochrone.admin_function import AdminApi
from isochrone.admission.keys import digest_of
from isochrone.cli import main
from isochrone.settings import Settings, SettingsError, parse
from isochrone.stores.dynamodb.client import connect
from isochrone.stores.memory import MemoryDirectoryStore
from isochrone.stores.protocols import StoreUnavailable
from isochrone.stores.tables import TABLES
from tests.conftest import free_port
from tests.contract.conftest import PATIENT
from tests.security.canaries import files_in, items_of

# As `isochrone keys create` makes them; what somebody types by mistake looks like this, too.
KEY = "isk_canary" + "0" * 37
CONFIG = """
[service]
name = "{name}"
[state]
kind = "dynamodb"
endpoint_url = "{endpoint}"
[[region]]
name = "eu-west-1"
[[backend]]
name = "pool"
base_url = "http://127.0.0.1:9/v1"
models = {{ "m" = "m" }}
"""


def configured(folder: Path, endpoint: str) -> Path:
    path = folder / "isochrone.toml"
    path.write_text(CONFIG.format(name=f"t{uuid4().hex[:12]}", endpoint=endpoint))
    return path


@pytest.fixture
def config(ministack: str, tmp_path: Path) -> Path:
    """A configuration whose tables exist."""
    path = configured(tmp_path, ministack)
    assert CliRunner().invoke(main, ["tables", "create", "--config", str(path)]).exit_code == 0
    return path


def run(config: Path, *words: str, said: str | None = None) -> subprocess.CompletedProcess[str]:
    """`isochrone keys`, in a process that tells as much as Python can be made to."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "isochrone.cli", "keys", *words, "--config", str(config)],
        env=os.environ | {"PYTHONFAULTHANDLER": "1", "PYTHONASYNCIODEBUG": "1"},
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def items(config: Path) -> str:
    """Every item of every table."""

    settings = parse(config.read_text())

    async def read() -> list[Any]:
        async with connect("eu-west-1", endpoint_url=settings.state.endpoint_url, timeouts=PATIENT) as client:
            return [await items_of(client, f"{settings.service.name}-{table.name}") for table in TABLES]

    return json.dumps(asyncio.run(read()))


def test_key_stands_in_the_output_that_made_it_and_nowhere_else(config: Path) -> None:
    made = run(config, "create", "--tenant", "t", "--id", "k")
    again = run(config, "rotate", "k")
    keys = [made.stdout.strip(), again.stdout.strip()]
    listed = run(config, "list", "--json")
    gone = run(config, "revoke", "--stdin", said=keys[0])
    all_gone = run(config, "revoke", "k")
    assert [done.returncode for done in (made, again, listed, gone, all_gone)] == [0] * 5
    told = "".join([made.stderr, again.stderr, *(done.stdout + done.stderr for done in (listed, gone, all_gone))])
    kept = items(config)
    assert digest_of(keys[0]) in kept
    for key in keys:
        assert len(key) == len(KEY)
        assert key[8:] not in told + kept + files_in(config.parent)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("revoke", "--stdin"), KEY),
        (("revoke", "--stdin"), f"Bearer {KEY}"),
        (("revoke", KEY), None),
        (("rotate", KEY), None),
        (("create", "--tenant", "t", "--id", KEY), None),
        (("revoke", KEY, "--stdin"), KEY),
    ],
)
def test_key_in_the_wrong_place_is_refused_without_repeating_it(
    config: Path, words: tuple[str, ...], said: str | None
) -> None:
    done = run(config, *words, said=said)
    assert done.returncode in (1, 2)
    assert done.stderr.strip().count("\n") <= 3 and "Traceback" not in done.stderr
    assert "canary" not in done.stdout + done.stderr + items(config)


def test_key_that_no_table_can_be_asked_about_is_not_repeated(tmp_path: Path) -> None:
    done = run(configured(tmp_path, f"http://127.0.0.1:{free_port()}"), "revoke", "--stdin", said=KEY)
    assert done.returncode == 1
    assert "does not answer" in done.stderr and "Traceback" not in done.stderr
    assert "canary" not in done.stdout + done.stderr


MISTAKES = {
    "a key in place of its digest": f'[[key]]\nid = "k"\ntenant = "t"\nsha256 = "{KEY}"',
    "a key under another name": f'[[key]]\nid = "k"\ntenant = "t"\nkey = "{KEY}"',
    "a key as an id": f'[[key]]\nid = "{KEY}"\ntenant = "t"\nsha256 = "{"0" * 64}"',
    "a backend's key": f'[[backend]]\nname = "b"\nbase_url = "http://h/v1"\nmodels = {{m = "m"}}\napi_key = "{KEY}"',
    "a backend's key in place of a name": (
        '[[backend]]\nname = "b"\nbase_url = "http://h/v1"\nmodels = {m = "m"}\napi_key_env = "sk-canary0123456789"'
    ),
    "a password in a URL": '[[backend]]\nname = "b"\nbase_url = "http://u:canary@h/v1"\nmodels = {m = "m"}',
    "a password in the URL of notices": '[limits]\nnotify_url = "https://u:canary@hooks.example.com/x"',
    "no TOML": f'[[key]]\nsha256 = "{KEY}',
    "no TOML either": f"[[key]]\nsha256 = {KEY}",
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_secret_in_a_configuration_is_refused_without_repeating_it(mistake: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(CONFIG.format(name="t", endpoint="http://127.0.0.1:9") + mistake)
    assert "canary" not in str(refused.value)


# -- the admin API -----------------------------------------------------------------------------------------------------


class Broken(MemoryDirectoryStore):
    """Says in its errors all that it was given, as no store should."""

    async def items(self, *args: Any, **more: Any) -> Any:
        raise StoreUnavailable("it does not answer")

    async def put(self, *args: Any, **more: Any) -> Any:
        raise StoreUnavailable("it does not answer")


def api(store: MemoryDirectoryStore) -> AdminApi:
    settings: Settings = parse(CONFIG.format(name="t", endpoint="http://127.0.0.1:9"))
    return AdminApi(KeyAdmin(settings, store), random=lambda count: b"canary0123456789canary0123456789"[:count])


def event(method: str, path: str, body: Any = None, *, packed: bool = False, **more: Any) -> dict[str, Any]:
    text = body if isinstance(body, str) else json.dumps(body)
    return {
        "path": path,
        "httpMethod": method,
        "headers": {"authorization": "AWS4-HMAC-SHA256 canary", "x-amz-security-token": "canary"},
        "queryStringParameters": {"key": KEY},
        "requestContext": {"identity": {"userArn": "arn:aws:iam::111122223333:user/ann"}},
        "body": b64encode(text.encode()).decode() if packed else text,
        "isBase64Encoded": packed,
        **more,
    }


BAD_CALLS = {
    "an unknown key": event("POST", "/admin/keys/revoke", {"key": KEY}),
    "a key as an id": event("POST", "/admin/keys/revoke", {"id": KEY}),
    "a key as the id of a new one": event("POST", "/admin/keys", {"tenant": "t", "id": KEY}),
    "a key to rotate": event("POST", "/admin/keys/rotate", {"id": KEY}),
    "a key of a wrong type": event("POST", "/admin/keys/revoke", {"key": [KEY]}),
    "a key where there is no such field": event("POST", "/admin/keys", {"tenant": "t", "key": KEY}),
    "a key in place of its digest": event("POST", "/admin/keys", {"tenant": "t", "sha256": KEY}),
    "no JSON": event("POST", "/admin/keys", f'{{"tenant": "{KEY}'),
    "a packed body that is none": event("POST", "/admin/keys", "canary!", isBase64Encoded=True),
    "nobody": event("POST", "/admin/keys/revoke", {"key": KEY}, requestContext={}),
}


@pytest.mark.anyio
@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
async def test_admin_api_repeats_no_key_that_it_does_not_take(call: dict[str, Any], logged: io.StringIO) -> None:
    reply = await api(MemoryDirectoryStore()).handle(call)
    assert 400 <= reply["statusCode"] < 500
    assert "canary" not in reply["body"] + str(reply["headers"]) + logged.getvalue()


@pytest.mark.anyio
async def test_admin_api_logs_who_did_what_and_no_key(logged: io.StringIO) -> None:
    store = MemoryDirectoryStore()
    made = await api(store).handle(event("POST", "/admin/keys", {"tenant": "t", "id": "k"}, packed=True))
    key = json.loads(made["body"])["key"]
    for path, body in (("rotate", {"id": "k"}), ("revoke", {"key": key}), ("revoke", {"id": "k"})):
        assert (await api(store).handle(event("POST", f"/admin/keys/{path}", body)))["statusCode"] in (200, 201)
    listed = await api(store).handle(event("GET", "/admin/keys"))
    failed = await api(Broken()).handle(event("POST", "/admin/keys/revoke", {"key": key}))
    assert (listed["statusCode"], failed["statusCode"]) == (200, 503)
    assert "POST /admin/keys by arn:aws:iam::111122223333:user/ann" in logged.getvalue()
    assert "does not answer" in logged.getvalue()
    for sink in (logged.getvalue(), listed["body"], failed["body"], repr(vars(store)), repr(api(store))):
        assert key[8:] not in sink and "canary" not in sink
