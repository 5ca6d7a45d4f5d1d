"""The load that engines tell of themselves, read from their metrics."""

from __future__ import annotations

import pytest

from isochrone.routing.engines import EngineLoad, load_in

VLLM = """\
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="a",engine="0"} 3.0
vllm:num_requests_waiting{model_name="b"} 2.0
vllm:num_requests_waiting_total 99
vllm:num_requests_waiting_by_reason{reason="capacity"} 99
vllm:num_requests_running{model_name="a"} 7.0
vllm:kv_cache_usage_perc{engine="0"} 0.125
vllm:kv_cache_usage_perc{engine="1"} 0.75
"""
LLAMA = """\
llamacpp:requests_processing 1
llamacpp:requests_deferred 4
llamacpp:kv_cache_usage_ratio 3.5e-2
"""


@pytest.mark.parametrize(
    ("text", "engine", "load"),
    [
        (VLLM, "vllm", EngineLoad(waiting=5, running=7, kv_use=0.75)),
        (LLAMA, "llama.cpp", EngineLoad(waiting=4, running=1, kv_use=0.035)),
        ("llamacpp:requests_deferred 1e1\n", "llama.cpp", EngineLoad(waiting=10)),
        (VLLM, "llama.cpp", EngineLoad()),
        ("", "vllm", EngineLoad()),
        ("# vllm:num_requests_waiting 5", "vllm", EngineLoad()),
        ("<html>502</html>", "vllm", EngineLoad()),
        ("vllm:kv_cache_usage_perc 12.5\n", "vllm", EngineLoad(kv_use=1.0)),
    ],
)
def test_load_is_read_from_the_engines_metrics(text: str, engine: str, load: EngineLoad) -> None:
    assert load_in(text, engine) == load


@pytest.mark.parametrize("number", ["1e999", "-", "1.2.3", "e", "..", "1e", "-3", "NaN", "+Inf", "1e99"])
def test_senseless_number_in_an_engines_metrics_is_no_accident(number: str) -> None:
    load = load_in(f"vllm:num_requests_waiting {number}\nvllm:kv_cache_usage_perc {number}\n", "vllm")
    assert load.waiting is None or load.waiting >= 0
    assert load.kv_use is None or 0 <= load.kv_use <= 1
