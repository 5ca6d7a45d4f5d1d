from __future__ import annotations

import pytest

from isochrone.routing.prober import waiting_in

VLLM = """\
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="a",engine="0"} 3.0
vllm:num_requests_waiting{model_name="b"} 2.0
vllm:num_requests_waiting_total 99
vllm:num_requests_running{model_name="a"} 7.0
"""


@pytest.mark.parametrize(
    ("text", "engine", "waiting"),
    [
        (VLLM, "vllm", 5),
        ("llamacpp:requests_deferred 4\nllamacpp:requests_processing 1\n", "llama.cpp", 4),
        ("llamacpp:requests_deferred 1e1\n", "llama.cpp", 10),
        (VLLM, "llama.cpp", None),
        ("", "vllm", None),
        ("# vllm:num_requests_waiting 5", "vllm", None),
        ("<html>502</html>", "vllm", None),
    ],
)
def test_queue_is_read_from_the_engines_metrics(text: str, engine: str, waiting: int | None) -> None:
    assert waiting_in(text, engine) == waiting


@pytest.mark.parametrize("number", ["1e999", "-", "1.2.3", "e", "..", "1e", "-3"])
def test_senseless_number_in_an_engines_metrics_is_no_accident(number: str) -> None:
    waiting = waiting_in(f"vllm:num_requests_waiting {number}\n", "vllm")
    assert waiting is None or waiting >= 0
