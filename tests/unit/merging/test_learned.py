"""A merge whose weights are learned from a few labelled rows."""

import json

import pytest
import torch

import tpv

P = 4


@pytest.fixture(scope="module")
def pair(backbone):
    """A vector of sst2, trained a little, and a random direction."""
    init = tpv.SoftPrompt.sample(backbone, P, seed=5)
    recipe = tpv.Recipe(steps=60, batch_size=16, select="last", warmup_steps=5)
    tuned = tpv.fit(backbone, tpv.load_task("mini/sst2"), init, recipe, callback=lambda _: None)
    noise = init.tuned_to(tpv.SoftPrompt.sample(backbone, P, seed=6).tensor, "noise") - init
    return init, [tuned - init, noise]


@pytest.fixture(scope="module")
def few():
    return tpv.load_task("mini/imdb").few_shot(12, 0)


def test_learned_weights_make_a_sum_that_fits_the_rows_better(backbone, pair, few):
    init, vectors = pair
    merged = tpv.merge(vectors, "learned", backbone=backbone, task=few, init=init, steps=25)
    assert set(merged.terms) == {"mini/sst2", "noise"}
    weights = [merged.terms["mini/sst2"], merged.terms["noise"]]
    assert merged == tpv.merge(vectors, "linear", weights=weights)
    learned, equal = (
        tpv.evaluate(backbone, few, init + one, "train").loss for one in (merged, tpv.merge(vectors, "mean"))
    )
    assert learned < equal
    again = tpv.merge(vectors, "learned", backbone=backbone, task=few, init=init, steps=25)
    assert again == merged
    searched = tpv.merge(vectors, "learned", backbone=backbone, task=few, init=init, steps=4, way="search")
    assert set(searched.terms) == {"mini/sst2", "noise"}
    assert searched != merged


def test_a_weight_for_each_token_is_recorded(backbone, pair, few, tmp_path):
    init, vectors = pair
    merged = tpv.merge(vectors, "learned", backbone=backbone, task=few, init=init, steps=2, per_token=True)
    (part,) = merged.components
    weights = torch.tensor(part.merge.parameters["weights"])
    assert weights.shape == (2, P)
    expected = sum(one[:, None] * vector.tensor for one, vector in zip(weights, vectors, strict=True))
    torch.testing.assert_close(merged.tensor, expected)
    merged.save(tmp_path / "merged.safetensors")
    assert tpv.TaskPromptVector.load(tmp_path / "merged.safetensors") == merged


def test_what_cannot_be_learned_from_is_refused(backbone, pair, few):
    _, vectors = pair
    with pytest.raises(tpv.TpvError, match="backbone is missing; task is missing"):
        tpv.merge(vectors, "learned")
    with pytest.raises(tpv.TpvError, match="backbone of a learned merge; expected a model; got 'mini'"):
        tpv.merge(vectors, "learned", backbone="mini", task=few)
    with pytest.raises(tpv.TpvError, match="task of a learned merge"):
        tpv.merge(vectors, "learned", backbone=backbone, task="mini/imdb")
    with pytest.raises(tpv.TpvError, match="a search; expected one coefficient for each vector; got per_token"):
        tpv.merge(vectors, "learned", backbone=backbone, task=few, way="search", per_token=True)
    with pytest.raises(tpv.TpvError, match="steps"):
        tpv.merge(vectors, "learned", backbone=backbone, task=few, steps=0)


def test_the_command_learns_from_a_file(pair, few, tmp_path, run):
    _, vectors = pair
    places = [str(tmp_path / f"{name}.safetensors") for name in ("sst2", "noise")]
    for place, vector in zip(places, vectors, strict=True):
        vector.save(place)
    rows = [json.dumps({"text": row.source, "label": row.target}) for row in few.examples("train")]
    (tmp_path / "few.jsonl").write_text("\n".join(rows))
    out = tmp_path / "merged.safetensors"
    command = ["vector", "merge", *places, "-o", str(out), "--method"]
    code, said, _ = run(*command, "learned", "--train", str(tmp_path / "few.jsonl"), "--set", "steps=3")
    assert code == 0
    assert str(out) in said
    assert set(tpv.TaskPromptVector.load(out).terms) == {"mini/sst2", "noise"}
    code, _, told = run(*command, "ties", "--train", str(tmp_path / "few.jsonl"))
    assert code == 2
    assert "merge 'ties' learns from no rows" in told
    code, _, told = run(*command, "learned")
    assert code == 2
    assert "--train" in told
