"""Gradient ascent against a plain loop."""

from dataclasses import replace

import pytest
import torch
from literal import Rows, descend, row_nll

import tpv

RECIPE = tpv.Recipe(steps=6, batch_size=4, lr=0.1, warmup_steps=0, select="last", schedule="constant")


def quiet(_):
    """No bar."""


def test_it_is_descent_of_the_likelihood_and_forgets(random_t5, toy_task):
    backbone, task = random_t5(1), toy_task(["good", "not good"], 22)
    init = tpv.SoftPrompt.sample(backbone, 3)
    tuned = tpv.fit(backbone, task, init, replace(RECIPE, steps=30), callback=quiet)
    found = tpv.fit(backbone, task, tuned, RECIPE, method="ascent", callback=quiet)
    prompt = torch.nn.Parameter(tuned.tensor)
    descend([prompt], lambda *row: -row_nll(backbone, prompt, *row), Rows(backbone, task, RECIPE), RECIPE)
    torch.testing.assert_close(found.tensor, prompt.detach(), atol=2e-3, rtol=2e-3)
    before, after = (tpv.evaluate(backbone, task, one, split="train").loss for one in (tuned, found))
    assert after > before + 0.2
    bank = tpv.fit(backbone, task, [tuned, init], RECIPE, method="ascent", callback=quiet)
    torch.testing.assert_close(bank[0].tensor, found.tensor, atol=1e-4, rtol=1e-4)


def test_the_prompt_that_has_forgotten_least_is_not_what_is_wanted(random_t5, toy_task):
    backbone, task = random_t5(1), toy_task(["good", "bad"], 22)
    with pytest.raises(tpv.TpvError, match="select of a gradient ascent; expected 'last'; got 'loss'"):
        tpv.fit(backbone, task, tpv.SoftPrompt.sample(backbone, 3), replace(RECIPE, select="loss"), method="ascent")
