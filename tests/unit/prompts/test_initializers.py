"""Starts: which rows, which seeds, and that the identity says so."""

import pytest
import torch

import tpv
from tpv.prompts import initializers


def test_vocabulary_rows_are_distinct_and_named(backbone):
    prompt = tpv.SoftPrompt.sample(backbone, num_tokens=50, seed=4)
    ids = prompt.init.token_ids
    assert len(set(ids)) == 50
    assert prompt.init.seed == 4
    weight = backbone.model.get_input_embeddings().weight
    assert torch.equal(prompt.tensor, weight[list(ids)])
    assert prompt == tpv.SoftPrompt.sample(backbone, num_tokens=50, seed=4)
    assert prompt != tpv.SoftPrompt.sample(backbone, num_tokens=50, seed=5)


def test_only_the_first_5000_ids_are_drawn(random_t5):
    large = random_t5(vocab_size=9000)
    ids = tpv.SoftPrompt.sample(large, num_tokens=5000, seed=0).init.token_ids
    assert sorted(ids) == list(range(5000))
    with pytest.raises(tpv.TpvError, match="at most 5000"):
        tpv.SoftPrompt.sample(large, num_tokens=5001)


def test_a_text_is_repeated_or_cut(backbone):
    ids = backbone.encode_text("the man is eating")
    whole = tpv.SoftPrompt.from_text(backbone, "the man is eating")
    assert whole.init.token_ids == tuple(ids)
    longer = tpv.SoftPrompt.from_text(backbone, "the man is eating", 10)
    assert longer.init.token_ids == tuple((ids * 3)[:10])
    assert longer.init.detail == "the man is eating"
    with pytest.raises(tpv.TpvError, match="at least one token"):
        tpv.SoftPrompt.from_text(backbone, " ")


def test_gaussian_rows_are_as_wide_as_the_embeddings(backbone):
    prompt = tpv.SoftPrompt.normal(backbone, num_tokens=400, seed=1)
    rms = backbone.embeddings().square().mean().sqrt()
    assert prompt.tensor.std() == pytest.approx(float(rms), rel=0.05)
    assert tpv.SoftPrompt.normal(backbone, 400, seed=1, std=0.5).tensor.std() == pytest.approx(0.5, rel=0.05)
    with pytest.raises(tpv.TpvError, match="positive"):
        tpv.SoftPrompt.normal(backbone, 4, std=0.0)


@pytest.mark.parametrize("count", [0, -1, 2.0, True, "3"])
def test_a_prompt_has_at_least_one_row(backbone, count):
    for make in (tpv.SoftPrompt.sample, tpv.SoftPrompt.normal):
        with pytest.raises(tpv.TpvError, match="number of prompt tokens"):
            make(backbone, count)


def test_a_given_tensor_is_known_by_its_hash(backbone):
    tensor = torch.randn(3, backbone.identity.hidden_size)
    one, two = tpv.SoftPrompt.from_tensor(backbone, tensor), tpv.SoftPrompt.from_tensor(backbone, tensor + 1)
    assert one.init.kind == "given"
    assert one.init != two.init
    with pytest.raises(tpv.IncompatibleError, match="does not fit"):
        tpv.SoftPrompt.from_tensor(backbone, torch.randn(3, 5))


def test_names_on_the_command_line(backbone):
    assert initializers.parse("vocabulary", 3, 1)(backbone)[1].kind == "vocabulary"
    assert initializers.parse("normal", 3, 1)(backbone)[1].kind == "normal"
    assert initializers.parse("text:the man", 3, 1)(backbone)[1].detail == "the man"
    with pytest.raises(tpv.TpvError, match="vocabulary, normal"):
        initializers.parse("zeros", 3, 1)


@pytest.mark.parametrize("seed", [-1, 2**70, 1.5, True, None])
def test_a_seed_is_a_whole_number(backbone, seed):
    for make in (tpv.SoftPrompt.sample, tpv.SoftPrompt.normal):
        with pytest.raises(tpv.TpvError, match="seed of an initialisation"):
            make(backbone, 3, seed=seed)
