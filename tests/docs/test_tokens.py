"""The examples of docs/tokens.md are configurations that are taken."""

from __future__ import annotations

import pytest

from isochrone.settings import parse
from tests.docs.repository import page

_REST = """
[[region]]
name = "eu-west-1"
[[backend]]
name = "pool"
base_url = "http://127.0.0.1:9/v1"
models = { m = "m" }
"""
EXAMPLES = [fence.text for fence in page("docs/tokens.md").fences if fence.language == "toml"]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_of_an_issuer_is_a_configuration(example: str) -> None:
    assert len(parse(_REST + example).issuer) == 1


def test_there_is_an_example_for_each_kind_of_issuer() -> None:
    headings = {"Amazon Cognito", "Auth0", "Keycloak", "Signing in with a wallet"}
    assert len(EXAMPLES) == 1 + len(headings)
