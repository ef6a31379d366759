"""Dynamic task vector grouping against a plain loop."""

from itertools import permutations

import pytest
import torch
from literal import Rows, descend, row_nll

import tpv
from tpv.methods.dtvg import DynamicGrouping, Grouped, group
from tpv.methods.sources import TrainedSource, adapt

RECIPE = tpv.Recipe(steps=8, batch_size=4, lr=0.1, warmup_steps=2, select="last", weight_decay=0.0)
P, H = 3, 32


def quiet(_):
    """No bar."""


def similarity(one, two):
    return sum(a * b for a, b in zip(one.mean(0).tolist(), two.mean(0).tolist(), strict=True)) / one.shape[1]


def literal_group(target, sources):
    """The two metrics, pair by pair."""
    near = [i for i in range(len(sources)) if similarity(target, sources[i]) >= 0]
    near.sort(key=lambda i: -similarity(target, sources[i]))
    consistency = [0.0][: len(near)]
    for size in range(2, len(near) + 1):
        pairs = [similarity(sources[i], sources[j]) for i, j in permutations(near[:size], 2)]
        consistency.append(sum(pairs) / len(pairs))
    return near[: consistency.index(max(consistency)) + 1] if near else []


@pytest.fixture
def setting(random_t5, toy_task):
    backbone = random_t5(1)
    target, init = toy_task(["good", "bad"], 18, "target"), tpv.SoftPrompt.sample(backbone, P, 9)
    words = (["good", "bad"], ["man", "garden"], ["is", "the", "apple"], ["not good", "good"])
    tasks = [toy_task(each, 15 + number, f"source{number}") for number, each in enumerate(words)]
    tuned = tpv.fit(backbone, tasks, [init] * 4, RECIPE, callback=quiet)
    return backbone, target, init, [TrainedSource(task, init, one) for task, one in zip(tasks, tuned, strict=True)]


def test_groups_are_the_literal_ones():
    torch.manual_seed(0)
    sizes = set()
    for _ in range(300):
        target, sources = torch.randn(P, 4), torch.randn(6, P, 4) + torch.randn(1, 1, 4)
        found = group(target, sources)
        assert found == literal_group(target, sources)
        sizes.add(len(found))
    assert sizes >= {0, 1, 2, 3, 4}


def test_groups_by_hand():
    east, north, west = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[-1.0, 0.0]])
    assert group(east, torch.stack([west, east])) == [1]  # one below 0 stays out
    assert group(east, torch.stack([west, west])) == []
    assert group(east, torch.stack([3 * east, 2 * east, east + 0.1 * north])) == [0, 1]  # the third is less consistent
    assert group(east, torch.stack([east + 9 * north, 2 * east - 9 * north])) == [1]  # alike to it, not to each other


def test_training_is_the_literal_loop(setting):
    backbone, target, init, sources = setting
    (ours,) = adapt(backbone, target, init, sources, DynamicGrouping(), RECIPE, callback=quiet)
    first = torch.nn.Parameter(init.tensor)
    descend([first], lambda *row: row_nll(backbone, first, *row), Rows(backbone, target, RECIPE), RECIPE)
    own = torch.nn.Parameter(first.detach() - init.tensor)
    mine, others = torch.nn.Parameter(torch.ones(P)), torch.nn.Parameter(torch.ones(4, P))
    vectors, groups = [source.prompt.tensor - init.tensor for source in sources], []

    def prompt():
        scaled = [torch.diag(others[s]) @ vectors[s] for s in range(4)]
        vector = torch.diag(mine) @ own
        groups.append(literal_group(vector.detach(), [one.detach() for one in scaled]))
        return init.tensor + vector + sum(scaled[s] for s in groups[-1])

    descend([own, mine, others], lambda *row: row_nll(backbone, prompt(), *row), Rows(backbone, target, RECIPE), RECIPE)
    torch.testing.assert_close(ours.tensor, prompt().detach(), atol=3e-3, rtol=3e-3)
    assert any(groups)
    assert (ours - init).terms == {"target": 1.0}


def test_the_group_follows_the_vectors_as_they_train(setting):
    """A target vector that turns round takes its sources with it, and only those that joined get a gradient."""
    _, _, init, _ = setting
    torch.manual_seed(1)
    way = torch.randn(P, H)
    trainee = Grouped(init.tensor, way, torch.stack([way, 2 * way, -way, -3 * way]), speed=2.0)
    torch.testing.assert_close(trainee.prompt(), init.tensor + 4 * way)
    trainee.prompt().sum().backward()
    assert [bool(one.any()) for one in trainee.factors.grad] == [True, True, False, False]
    with torch.no_grad():
        trainee.own.neg_()
    torch.testing.assert_close(trainee.prompt(), init.tensor - 5 * way)
    assert sum(one.numel() for one in trainee.parameters) == P * H + P + 4 * P
