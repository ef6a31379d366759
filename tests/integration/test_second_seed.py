"""Ports to a model that was trained from another seed: tools/models/seed8, made by tools/pretrain_mini.py."""

import hashlib
import json

import pytest
from places import ROOT
from safetensors import safe_open

import tpv

FOLDER = ROOT / "tools" / "models" / "seed8"


@pytest.fixture(scope="module")
def second():
    return tpv.load_backbone(FOLDER, device="cpu")


def test_the_card_tells_the_truth():
    card, weights = (FOLDER / "README.md").read_text(), FOLDER / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in card
    with safe_open(weights, "pt") as file:
        assert f"{sum(file.get_tensor(name).numel() for name in file.keys()):,} parameters" in card  # noqa: SIM118
    assert json.loads((FOLDER / "config.json").read_text())["d_model"] == 128


def test_the_two_models_share_tokens_and_no_space(backbone, second):
    """So that a map has to look tokens up: no linear one takes a token that it was not fitted on to its own."""
    assert backbone.pieces() == second.pieces()
    assert backbone.identity.fingerprint != second.identity.fingerprint


@pytest.mark.slow
def test_portable_vectors_work_there_at_once_and_copies_do_not(backbone, second):
    names = ("mini/trec", "mini/dbpedia")
    tasks = [tpv.load_task(name).limited({"test": 100}, 0) for name in names]
    recipe = tpv.Recipe(steps=300, batch_size=16, warmup_steps=30, select="last", lr=1.0)
    vectors = tpv.fit_vectors(backbone, tasks, recipe, num_tokens=20, callback=lambda _: None)
    start = tpv.SoftPrompt.sample(second, 20, seed=100)
    found = {
        method: tpv.evaluate(
            second,
            tasks,
            [start + vector for vector in tpv.port(vectors, backbone, second, method=method)],
            split="test",
        )
        for method in ("sparse", "copy")
    }
    assert min(score.exact_match for score in found["sparse"]) > 0.6
    assert max(score.exact_match for score in found["copy"]) < 0.2
