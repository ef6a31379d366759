"""Replicas on a Ray cluster; needs `make ray`."""

import socket
import time

import pytest
from servers import fill

import tpv
from tpv.evaluation.tuned import ModelChoice
from tpv.serving.settings import ServeSettings

pytest.importorskip("ray", reason="Ray is not installed: `make ray`")
pytestmark = pytest.mark.slow


def known_to_all(client, name, present, replicas=2):
    """Whether many requests in a row, which go to all replicas, find a prompt or do not."""
    for _ in range(12 * replicas):
        try:
            client.prompt(name)
            found = True
        except tpv.TpvError:
            found = False
        if found is not present:
            return False
    return True


def seconds_until(condition, most=10.0):
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() < begun + most
    return time.monotonic() - begun


def test_two_replicas_share_a_library(backbone, tmp_path, monkeypatch):
    import ray

    from tpv.serving.cluster import deploy, shut_down

    monkeypatch.setenv("TPV_API_KEY", "a key for replicas")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    library = fill(tmp_path / "library", backbone)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = ServeSettings(model=ModelChoice(name="mini"), library=f"file://{library}", device="cpu", port=port)
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    try:
        deploy(settings, replicas=2)
        client = tpv.Client(f"http://127.0.0.1:{port}")
        task, texts = tpv.load_task("mini/sst2"), ["a good film", "never dull"]
        prompt = tpv.SoftPrompt.sample(backbone, 4, seed=0) + tpv.Library(library)["sst2"]
        expected = tpv.predict(backbone, task, prompt, texts)
        for _ in range(6):
            table = client.predict("sst2", texts)
            assert table["predicted"].to_pylist() == expected["predicted"].to_pylist()
        with pytest.raises(tpv.TpvError, match="takes a key"):
            tpv.Client(client.url, "").prompts()
        pieces = []
        client.generate("sst2", ["good"], task="mini/new_word", max_new_tokens=4, tell=pieces.append)
        assert pieces
        client.put("mix", "init:1 + 0.5*(sst2 + yelp)", task="mini/sst2")
        took = seconds_until(lambda: known_to_all(client, "mix", True))
        assert took < 2 + 1  # the looking takes time, too
        client.delete("mix")
        assert seconds_until(lambda: known_to_all(client, "mix", False)) < 2 + 1
        print(f"known to all after {took:.2f} s")
    finally:
        shut_down()
