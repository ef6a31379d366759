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
    assert initializers.parse("vocabulary", 3, 1) == initializers.Vocabulary()
    assert initializers.parse("vocabulary:limit=40", 3, 1) == initializers.Vocabulary(limit=40)
    assert initializers.parse("normal:std=0.5", 3, 1) == initializers.Normal(std=0.5)
    assert initializers.parse("text:the man", 3, 1).sample(backbone, 3, 1)[1].detail == "the man"
    with pytest.raises(tpv.TpvError, match="expected vocabulary, normal, text, zero; did you mean 'zero'"):
        initializers.parse("zeros", 3, 1)
    with pytest.raises(tpv.TpvError, match="unknown parameter 'limits', did you mean 'limit'"):
        initializers.parse("vocabulary:limits=40", 3, 1)
    with pytest.raises(tpv.TpvError, match="key=value"):
        initializers.parse("vocabulary:40", 3, 1)


@pytest.mark.parametrize("init", [initializers.Vocabulary(limit=50), initializers.Normal()])
def test_fresh_draws_are_of_the_distribution_that_is_sampled(backbone, init):
    """Training draws, validation and scoring sample: both from one initializer."""
    drawn = init.draw(backbone, 4, 200, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 4, backbone.identity.hidden_size)
    sampled = torch.stack([init.sample(backbone, 4, seed)[0] for seed in range(200)])
    assert drawn.std() == pytest.approx(float(sampled.std()), rel=0.05)
    if isinstance(init, initializers.Vocabulary):
        known = {tuple(row) for row in backbone.embeddings()[:50].float().tolist()}
        for prompts in (drawn, sampled):
            assert {tuple(row) for row in prompts.flatten(0, 1).tolist()} <= known
            assert all(len(prompt.unique(dim=0)) == 4 for prompt in prompts)  # distinct ids


def test_zero_has_nothing_to_draw(backbone):
    with pytest.raises(tpv.TpvError, match="initializer 'zero' has nothing to draw"):
        initializers.Zero().draw(backbone, 4, 2, torch.Generator())


@pytest.mark.parametrize("seed", [-1, 2**70, 1.5, True, None])
def test_a_seed_is_a_whole_number(backbone, seed):
    for make in (tpv.SoftPrompt.sample, tpv.SoftPrompt.normal):
        with pytest.raises(tpv.TpvError, match="seed of an initialization"):
            make(backbone, 3, seed=seed)
