"""What a training step reads back from tensors: on a GPU, each would keep Python waiting for the device."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import tpv

STEPS = 4


class Waits(TorchDispatchMode):
    """Counts operations whose result, or its shape, depends on values."""

    def __init__(self):
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masked = name in ("index", "index_put_") and any(
            at is not None and at.dtype in (torch.bool, torch.uint8) for at in args[1]
        )
        if masked or name in ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero"):
            self.count[name] += 1
        return function(*args, **(kwargs or {}))


def test_the_counter_sees_what_waits():
    values = torch.arange(4.0)
    with Waits() as waits:
        values.sum().item()
        values[values > 1]
        (values > 1).nonzero()
        bool((values > 1).any())
        values.index_select(0, torch.tensor([1]))
    assert waits.count == {"_local_scalar_dense": 2, "index": 1, "nonzero": 1}


@pytest.fixture(params=["seq2seq", "llama"])
def model(request, random_t5, random_causal):
    return random_t5() if request.param == "seq2seq" else random_causal("llama")


def own(model):
    """What transformers asks of a T5's padding mask, once for each kind of attention that reads the text."""
    return 2 if isinstance(model, tpv.models.Seq2SeqBackbone) else 0


def test_a_pass_and_its_gradient_wait_for_nothing(model):
    bank = tpv.SoftPrompt.sample(model, 4, seed=0).tensor[None].repeat(2, 1, 1).requires_grad_()
    sources = model.encode_sources(["the man is eating an apple", "not good", "good"], 32)
    targets = [model.encode_target(word) for word in ("good", "bad", "not at all")]
    with Waits() as waits:
        model.nll(bank, torch.tensor([0, 1, 1]), sources, targets).sum().backward()
    assert sum(waits.count.values()) <= own(model), waits.count
    assert bank.grad.abs().sum() > 0


@pytest.mark.parametrize("runs", [1, 3])
def test_a_step_reads_back_no_more_than_it_checks(model, toy_task, runs):
    """Three values a run, of gradients, which lie on the CPU: whether they are finite, and by how much to clip."""
    inits = [tpv.SoftPrompt.sample(model, 4, seed=seed) for seed in range(runs)]
    task, seen = toy_task(["good", "bad"]), []
    with Waits() as waits:
        tpv.fit(
            model,
            task,
            inits,
            tpv.Recipe(steps=STEPS, batch_size=4, select="last"),
            callback=lambda progress: seen.append(sum(waits.count.values())),
        )
    each = [after - before for before, after in pairwise(seen)]
    assert len(each) == STEPS - 1
    assert max(each) <= 3 * runs + own(model), waits.count
