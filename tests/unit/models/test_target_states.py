"""Logits and states at the tokens of targets, against a plain forward pass for each row."""

import pytest
import torch
from literal import states

import tpv


def check(backbone, targets):
    texts = ["the man is eating", "an apple", "the man is eating an apple in a garden", "good"]
    sources = backbone.encode_sources(texts, 32)
    prompts = [tpv.SoftPrompt.sample(backbone, 3, seed).tensor for seed in range(2)]
    bank, index = torch.stack(prompts).requires_grad_(), torch.tensor([0, 1, 1, 0])
    found = backbone.target_states(bank, index, sources, targets)
    nll = backbone.nll(bank, index, sources, targets)
    gold = torch.tensor([token for target in targets for token in target])
    said = found.logits.log_softmax(-1).gather(1, gold[:, None])[:, 0]
    torch.testing.assert_close(-torch.zeros(4).index_add(0, found.row, said), nll, atol=1e-5, rtol=1e-5)
    for number, (source, target) in enumerate(zip(sources, targets, strict=True)):
        _, logits, hidden = states(backbone, prompts[index[number]], source, target)
        mine = found.row == number
        torch.testing.assert_close(found.logits[mine], logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.hidden[mine], hidden, atol=1e-4, rtol=1e-4)
    (gradient,) = torch.autograd.grad(found.hidden.square().sum(), bank)
    assert (gradient.abs().sum((1, 2)) > 0).all()
    assert backbone.nll(bank, index, sources, targets).shape == (4,)  # as before, without states behind the logits


def test_encoder_decoder(random_t5):
    backbone = random_t5(2)
    check(backbone, [backbone.encode_target(word) for word in ("good", "not good", "bad", "an apple in a garden")])


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_decoder_only(random_causal, family):
    backbone = random_causal(family)
    check(backbone, [tuple(backbone.encode_text(word)) for word in (" good", " not good", " bad", " an apple")])
