"""What an operator can get wrong is said in one line that names the file, the line and the key."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.layers import ROOT, LayerMissing, find_layers
from infra.settings import load
from isochrone.settings import SettingsError
from tests.infra.conftest import BASE

MISTAKES = {
    "region": ('name = "ap-southeast-1"', 'name = "asia"', "region[2].name: 'asia' is not the name of an AWS region"),
    "emulator": (
        'kind = "dynamodb"',
        'kind = "dynamodb"\nendpoint_url = "http://127.0.0.1:1"',
        "state.endpoint_url: is",
    ),
    "http": (
        "https://pool.eu",
        "http://pool.eu",
        "backend[0].base_url: a pool that pool.create builds answers on https",
    ),
    "no key": ('api_key_secret = "iso/pool-eu"\n', "", "backend[0].api_key_secret: is missing"),
    "model": ("casperhansen/", "somebody/", "backend[0].models: none of them is pool.model"),
    "port": ("example.com/v1", "example.com:8443/v1", "backend[0].base_url: a pool that pool.create builds answers on"),
    "no port at all": ("example.com/v1", "example.com:x/v1", "backend[0].base_url: its port is no number"),
    "open to all": (
        "[pool]",
        "[auth]\nrequired = false\n[pool]",
        "auth.required: false is for the local edition only",
    ),
    "no zone id": (
        'hosted_zone_id = "Z0123456789ABC"\n',
        "",
        "service.hosted_zone_id: is missing; it is what "
        "`aws route53 list-hosted-zones-by-name --dns-name example.com` gives",
    ),
    "zone id": ("Z0123456789ABC", "example.com", "service.hosted_zone_id: "),
    "unknown key": ("create = true", "create = true\nspot = true", "pool.spot: unknown key"),
}


def _mistaken(tmp_path: Path, old: str, new: str) -> Path:
    assert old in BASE
    config = tmp_path / "mine.toml"
    config.write_text(BASE.replace(old, new, 1))
    return config


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_told_in_one_line_with_file_line_and_key(tmp_path: Path, mistake: str) -> None:
    old, new, complaint = MISTAKES[mistake]
    config = _mistaken(tmp_path, old, new)
    with pytest.raises(SettingsError) as caught:
        load(config)
    file, line, _ = str(caught.value).split(":", 2)
    assert (file, line.isdigit()) == (str(config), True)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


SECOND_POOL = """
[[backend]]
name = "pool-us"
kind = "pool"
region = "us-east-1"
base_url = "https://POOL.eu-west-1.example.com:443/v1"
api_key_secret = "iso/pool-us"
models = { "r1" = "casperhansen/deepseek-r1-distill-qwen-7b-awq" }
"""


def test_two_pools_that_want_one_host_are_told(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text(BASE + SECOND_POOL)
    with pytest.raises(SettingsError, match=r"backend\[2\]\.base_url: pool-eu has this host already"):
        load(config)


def test_two_pools_on_one_host_that_are_not_built_here_are_none_of_our_business(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    config.write_text((BASE + SECOND_POOL).replace("create = true", "create = false"))
    assert len(load(config).settings.backend) == 3


def test_name_that_makes_that_of_the_audits_bucket_too_long_for_s3_is_told(tmp_path: Path) -> None:
    config = tmp_path / "mine.toml"
    audited = BASE + '\n[audit]\nto = "firehose"\n'
    config.write_text(audited.replace('name = "iso"', f'name = "{"n" * 29}"', 1))
    assert load(config).name == "n" * 29
    config.write_text(audited.replace('name = "iso"', f'name = "{"n" * 30}"', 1))
    with pytest.raises(SettingsError, match=r"service\.name: is too long by 1 .* the audit's bucket in ap-southeast-1"):
        load(config)


def test_mistake_points_at_the_very_line(tmp_path: Path) -> None:
    config = _mistaken(tmp_path, "https://pool.eu", "http://pool.eu")
    wanted = 1 + next(i for i, line in enumerate(config.read_text().splitlines()) if "http://pool" in line)
    with pytest.raises(SettingsError, match=rf"mine\.toml:{wanted}: "):
        load(config)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"EU", "AF", "IL"', '"EU", "AS"', "AS is served by eu-west-1 already"),
        ('serves = ["AS", "OC"]', "", "no client would ever be sent to this region"),
    ],
)
def test_geolocation_that_route_53_would_refuse_or_never_use_is_told(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    config = _mistaken(tmp_path, old, new)
    config.write_text(config.read_text().replace('dns = "latency"', 'dns = "geolocation"'))
    with pytest.raises(SettingsError, match=complaint):
        load(config)


def test_emulator_and_plain_http_are_fine_for_the_local_profile(tmp_path: Path) -> None:
    config = _mistaken(tmp_path, 'kind = "dynamodb"', 'kind = "dynamodb"\nendpoint_url = "http://127.0.0.1:1"')
    text = config.read_text().replace("https://pool.eu", "http://pool.eu")
    config.write_text(text.replace("[pool]", "[auth]\nrequired = false\n[pool]"))
    assert load(config, "local").settings.state.endpoint_url == "http://127.0.0.1:1"


def test_unknown_profile_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="profile=moon: expected one of aws, local"):
        load(_mistaken(tmp_path, "iso", "iso"), "moon")


def test_layer_that_was_not_built_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(LayerMissing, match=r"^layer build/layers/lambda/dependencies is not built: run `make install`"):
        find_layers("aws", tmp_path)


def test_half_built_layer_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "build/layers/lambda/dependencies/python").mkdir(parents=True)
    with pytest.raises(LayerMissing):
        find_layers("aws", tmp_path)


def test_app_ends_with_one_line_and_no_traceback(tmp_path: Path) -> None:
    config = _mistaken(tmp_path, 'name = "ap-southeast-1"', 'name = "asia"')
    line = 1 + config.read_text().splitlines().index('name = "asia"')
    environment = {**os.environ, "CDK_CONTEXT_JSON": f'{{"config": "{config}"}}', "CDK_OUTDIR": str(tmp_path / "out")}
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"isochrone: {config}:{line}: region[2].name: 'asia' is not the name of an AWS region, such as eu-west-1"
    ]
