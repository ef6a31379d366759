"""Keys and values that are kept between passes change no answer, and stay within their budget."""

import pytest
import torch

import tpv
from tpv.models.generation import Decoding

TEXTS = ["the man is eating", "an apple in the garden and not good", "good"]


@pytest.fixture
def passes(random_causal):
    model = random_causal("llama", 3)
    sources = model.encode_sources(TEXTS, 64)
    labels = [model.encode_target("good"), model.encode_target("not good")]

    def score(bank):
        return model.score_labels(bank, torch.arange(len(TEXTS)) % len(bank), sources, labels)

    return model, sources, score


def bank_of(model, *seeds):
    return torch.stack([tpv.SoftPrompt.normal(model, 5, seed=seed).tensor for seed in seeds])


def size_of_one(model):
    kept = model.keep_prompts(2**30)
    model.score_labels(bank_of(model, 0), torch.tensor([0]), [(5, 6)], [(7,), (8,)])
    return kept.used


def test_answers_are_those_without(passes):
    model, sources, score = passes
    banks = [bank_of(model, *seeds) for seeds in ((1, 2), (2, 3), (1, 2, 3), (1, 2))]
    plain = [score(bank) for bank in banks]
    decoding = Decoding(max_new_tokens=4)
    index = torch.tensor([0, 1, 2])
    said = model.generate(banks[2], index, sources, decoding)
    kept = model.keep_prompts(2**30)
    for bank, before in zip(banks, plain, strict=True):
        after = score(bank)
        torch.testing.assert_close(after.log_probs, before.log_probs, atol=1e-4, rtol=0)
        assert after.greedy.equal(before.greedy)
    assert model.generate(banks[2], index, sources, decoding) == said
    assert (kept.misses, len(kept)) == (3, 3)
    assert kept.hits == 1 + 3 + 2 + 3
    assert model.keep_prompts(0) is None


def test_a_budget_is_kept_and_the_least_recent_go(passes):
    model, _, score = passes
    one = size_of_one(model)
    kept = model.keep_prompts(2 * one)
    score(bank_of(model, 1))
    score(bank_of(model, 2))
    score(bank_of(model, 1))
    score(bank_of(model, 3))
    assert (len(kept), kept.used, kept.misses) == (2, 2 * one, 3)
    score(bank_of(model, 1))
    assert kept.misses == 3
    score(bank_of(model, 2))
    assert kept.misses == 4
    score(bank_of(model, 4, 5, 6))
    assert kept.used <= 2 * one


def test_what_does_not_fit_is_not_kept(passes):
    model, _, score = passes
    plain = score(bank_of(model, 1, 2)).log_probs
    kept = model.keep_prompts(10)
    torch.testing.assert_close(score(bank_of(model, 1, 2)).log_probs, plain)
    assert (len(kept), kept.used) == (0, 0)


def test_training_takes_nothing_that_is_kept(passes):
    model, sources, score = passes
    bank = bank_of(model, 1)
    score(bank)
    kept = model.keep_prompts(2**30)
    grown = bank.clone().requires_grad_()
    model.nll(grown, torch.zeros(len(TEXTS), dtype=torch.long), sources, [(7, 8)] * len(TEXTS)).sum().backward()
    assert float(grown.grad.abs().sum()) > 0
    assert len(kept) == 0


def test_an_encoder_decoder_keeps_none(backbone):
    assert backbone.keep_prompts(2**30) is None
