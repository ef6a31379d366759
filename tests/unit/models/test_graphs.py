"""Training passes of a few shapes, for CUDA graphs: the numbers of ordinary passes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import CAUSAL

from tpv.errors import TpvWarning
from tpv.models.graphs import Graphs, _Spread, rounded

TEXTS = ["the film is good", "a man is eating an apple in the garden and it is not good", "no", "the dog sleeps"]
WORDS = ["negative", "not good", "good", "a dog sleeps in the garden"]


@pytest.mark.parametrize("family", ["t5", *CAUSAL])
def test_padded_passes_have_the_loss_and_gradient_of_ordinary_ones(random_t5, random_causal, family, monkeypatch):
    backbone = random_t5() if family == "t5" else random_causal(family)
    bank = torch.randn(3, 5, backbone.identity.hidden_size, generator=torch.Generator().manual_seed(1))
    bank = (0.5 * bank).requires_grad_(True)
    index = torch.tensor([0, 2, 2, 1])
    sources = backbone.encode_sources(TEXTS, 256, ["label:"] * 4)
    targets = [backbone.encode_target(word) for word in WORDS]
    plain = backbone.nll(bank, index, sources, targets)
    weight = torch.tensor([1.0, 0.5, 2.0, 1.0])
    (reference,) = torch.autograd.grad((plain * weight).sum(), bank)

    graphs = Graphs(True)
    monkeypatch.setattr(graphs, "_capture", lambda function, _: function)
    monkeypatch.setattr(backbone, "graphs", graphs)
    seen = []
    padded = backbone._padded_nll
    monkeypatch.setattr(backbone, "_padded_nll", lambda *inputs: seen.append(inputs[2].shape[1]) or padded(*inputs))
    ours = backbone.nll(bank, index, sources, targets)
    (gradient,) = torch.autograd.grad((ours * weight).sum(), bank)
    assert seen
    assert rounded(seen[0]) == seen[0]
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    assert (gradient - reference).abs().max() <= 1e-5 * reference.abs().max()
    # without a gradient, and in training mode, passes are ordinary ones
    with torch.no_grad():
        backbone.nll(bank, index, sources, targets)
    backbone.set_dropout(True)
    backbone.nll(bank, index, sources, targets)
    backbone.set_dropout(False)
    assert len(seen) == 1


def test_a_graph_is_replayed_only_after_the_backward_pass_of_the_last(monkeypatch):
    graphs = Graphs(True)
    captured, replayed, ordinary = [], [], []

    def capture(function, inputs):
        captured.append(inputs[0].shape)
        return lambda *given: replayed.append(given[0].shape) or function(*given)

    def double(tensor):
        return 2 * tensor

    def call(rows):
        before = len(replayed)
        result = graphs(double, torch.ones(rows, requires_grad=True))
        ordinary.append(len(replayed) == before)
        return result

    monkeypatch.setattr(graphs, "_capture", capture)
    call(3).sum().backward()
    call(3).sum().backward()
    call(4).sum().backward()
    assert captured == [(3,), (4,)]
    assert ordinary == [False] * 3
    both = call(3) + call(3)  # two passes before a backward pass: the second would overwrite the first
    assert ordinary[3:] == [False, True]
    both.sum().backward()
    call(3)  # never followed by a backward pass
    call(3)
    assert ordinary[5:] == [False, True]
    graphs.forget()
    call(3)
    assert ordinary[7:] == [False]
    assert captured == [(3,), (4,)]


def test_a_model_that_cannot_be_captured_goes_on_without_graphs(monkeypatch):
    graphs = Graphs(True)

    def fail(*_, **__):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fail)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    with pytest.warns(TpvWarning, match="without CUDA graphs.*not permitted when stream is capturing"):
        result = graphs(lambda tensor: 2 * tensor, torch.ones(3))
    assert result.tolist() == [2, 2, 2]
    assert not graphs.enabled


@given(st.integers(1, 5000), st.integers(0, 300))
def test_lengths_are_rounded_up_to_few(length, room):
    assert length <= rounded(length) <= length + max(1, length // 4)
    assert rounded(rounded(length)) == rounded(length)
    assert length <= rounded(length, length + room) <= length + room
    assert len({rounded(i) for i in range(1, 257)}) <= 32


def test_the_gradient_of_a_bank_is_the_sum_over_its_rows():
    bank = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([2, 0, 2, 2, 3])
    assert torch.equal(_Spread.apply(bank, index), bank[index])
    weight = torch.randn(5, 3, 2, dtype=torch.float64)
    ours, theirs = (
        torch.autograd.grad((rows * weight).sum(), bank)[0] for rows in (_Spread.apply(bank, index), bank[index])
    )
    torch.testing.assert_close(ours, theirs)
    assert torch.autograd.gradcheck(lambda x: _Spread.apply(x, index), bank)
