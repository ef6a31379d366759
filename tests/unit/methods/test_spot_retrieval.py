"""SPoT's retrieval against a plain loop."""

from dataclasses import replace

import pytest
import torch
from literal import Rows, descend, row_nll

import tpv
from tpv.methods.sources import TrainedSource, adapt
from tpv.methods.spot_retrieval import SpotRetrieval, retrieval_weights
from tpv.prompts.similarity import token_cosines

RECIPE = tpv.Recipe(steps=6, batch_size=4, lr=0.1, warmup_steps=2, select="last", weight_decay=0.01)
P = 3


def quiet(_):
    """No bar."""


@pytest.fixture
def setting(random_t5, toy_task):
    backbone = random_t5(1)
    target = toy_task(["good", "bad"], 18, "target")
    sources = []
    for number, words in enumerate((["good", "bad"], ["man", "garden"], ["is", "the", "apple"])):
        task, init = toy_task(words, 15 + number, f"source{number}"), tpv.SoftPrompt.sample(backbone, P, 9)
        sources.append(TrainedSource(task, init, tpv.fit(backbone, task, init, RECIPE, callback=quiet)))
    return backbone, target, tpv.SoftPrompt.sample(backbone, P, 9), sources


def tuned(backbone, task, start, recipe):
    """Plain prompt tuning, row by row."""
    prompt = torch.nn.Parameter(start.clone())
    descend(
        [prompt], lambda source, target: row_nll(backbone, prompt, source, target), Rows(backbone, task, recipe), recipe
    )
    return prompt.detach()


@pytest.mark.parametrize("top", [1, 2])
def test_against_a_plain_loop(setting, top):
    backbone, target, init, sources = setting
    (ours,) = adapt(backbone, target, init, sources, SpotRetrieval(top=top, early=3), RECIPE, callback=quiet)
    first = replace(RECIPE, steps=3, schedule="constant")
    mine = tuned(backbone, target, init.tensor, first).mean(0)
    cosines = []
    for source in sources:
        other = tuned(backbone, source.task, source.init.tensor, first).mean(0)
        cosines.append(float(mine @ other / mine.norm() / other.norm()))
    best = sorted(range(3), key=lambda i: -cosines[i])[:top]
    total = sum(cosines[i] for i in best)
    start = sum(cosines[i] / total * sources[i].prompt.tensor for i in best)
    torch.testing.assert_close(ours.tensor, tuned(backbone, target, start, RECIPE), atol=2e-4, rtol=1e-3)
    assert ours.init == init.init
    assert (ours - init).terms == {"target": 1.0}


def test_weights_and_cosines_by_hand():
    weights = retrieval_weights(torch.tensor([0.6, -0.2, 0.2, 0.1]), 2)
    torch.testing.assert_close(weights, torch.tensor([0.75, 0.0, 0.25, 0.0]))
    torch.testing.assert_close(retrieval_weights(torch.tensor([0.5, -0.2, -0.9]), 2), torch.tensor([1.0, 0.0, 0.0]))
    torch.testing.assert_close(retrieval_weights(torch.tensor([-0.5, -0.2, -0.9]), 2), torch.tensor([0.5, 0.5, 0.0]))
    prompt, others = torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([[[0.0, 2.0]], [[1.0, 1.0]], [[-3.0, -3.0]]])
    torch.testing.assert_close(token_cosines(prompt, others), torch.tensor([0.5**0.5, 1.0, -1.0]))


def test_the_first_stage_is_run_once_for_all_targets(setting):
    backbone, target, init, sources = setting
    method = SpotRetrieval(top=2, early=3)
    prepared = method.prepare(backbone, sources, method.source_recipe(RECIPE), seed=0)
    assert prepared["early"].shape == (3, P, 32)
    (given,) = adapt(backbone, target, init, sources, method, RECIPE, prepared=prepared, callback=quiet)
    (made,) = adapt(backbone, target, init, sources, method, RECIPE, callback=quiet)
    assert torch.equal(given.tensor, made.tensor)


def test_refusals(setting, random_t5):
    backbone, target, init, sources = setting
    with pytest.raises(tpv.TpvError, match="expected at most 3, the number of sources; got 4"):
        adapt(backbone, target, init, sources, SpotRetrieval(top=4, early=1), RECIPE, callback=quiet)
    with pytest.raises(tpv.TpvError, match="at least one, and none twice; got none"):
        adapt(backbone, target, init, [], SpotRetrieval(), RECIPE)
    with pytest.raises(tpv.TpvError, match="none twice; got source0, source0"):
        adapt(backbone, target, init, [sources[0], sources[0]], SpotRetrieval(), RECIPE)
    with pytest.raises(tpv.TpvError, match="another model"):
        adapt(backbone, target, tpv.SoftPrompt.sample(random_t5(5), P), sources, SpotRetrieval(), RECIPE)
