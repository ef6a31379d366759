"""Learning rates: fitted to a model's embeddings, and searched for in one bank."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn import Parameter

import tpv
from tpv.evaluation.bank import SharedPrompt
from tpv.prompts.embeddings import embedding_rms
from tpv.training.learning_rate import RATES, find_lr
from tpv.training.loop import train
from tpv.training.recipe import fitting_lr, fitting_vector_lr
from tpv.training.run import Run

TASK = "mini/sst2"


def test_auto_is_the_papers_rate_on_t5_and_smaller_where_embeddings_are(backbone):
    assert fitting_lr(11.6) == 0.3  # T5 1.1 small
    assert fitting_lr(embedding_rms(backbone)) == 0.3  # the embedded T5
    assert 0.01 <= fitting_lr(0.1356) <= 0.03  # SmolLM2-135M, where 0.01 to 0.03 were measured to work
    assert fitting_lr(0.05) == pytest.approx(fitting_lr(0.1) / 2)
    rates = [fitting_lr(rms / 100) for rms in range(1, 200)]
    assert rates == sorted(rates)
    assert max(b / a for a, b in pairwise(rates[20:])) < 1.1  # no jump between the two


def test_auto_trains_as_its_number_does(random_t5):
    backbone, task = random_t5(), tpv.load_task(TASK).limited({"train": 20}, 0)
    init = tpv.SoftPrompt.sample(backbone, 4, 0)
    rate = fitting_lr(embedding_rms(backbone))
    auto, number = (tpv.fit(backbone, task, init, tpv.Recipe(steps=3, lr=lr, select="last")) for lr in ("auto", rate))
    assert auto == number
    with pytest.raises(tpv.TpvError, match="'auto' has no value"):
        tpv.Recipe(steps=3).lr_at(1, 3)
    with pytest.raises(tpv.TpvError, match="lr must be a positive finite number, is 'fast'"):
        tpv.Recipe(lr="fast")


def alone(backbone, task, init, rate, steps):
    """The losses of one training at a constant rate, warmed up over a tenth of the steps."""
    recipe = tpv.Recipe(
        lr=rate, steps=steps, batch_size=4, warmup_steps=steps // 10, schedule="constant", select="last"
    )
    parameter = Parameter(init.tensor)
    run = Run([(task, SharedPrompt(parameter))], [parameter], backbone, recipe, 0)
    train(backbone, [run], recipe, callback=lambda _: None)
    return run.losses


@pytest.mark.filterwarnings("ignore::tpv.TpvWarning")
def test_each_rate_is_tried_as_if_alone(random_t5):
    backbone, task = random_t5(), tpv.load_task(TASK).limited({"train": 20}, 0)
    init = tpv.SoftPrompt.sample(backbone, 4, 0)
    trials = find_lr(backbone, task, init, tpv.Recipe(batch_size=4), rates=[0.5, 0.01, 0.1], steps=12)
    assert [trial.lr for trial in trials] == [0.01, 0.1, 0.5]
    for trial in trials:
        losses = alone(backbone, task, init, trial.lr, 12)
        assert trial.first == pytest.approx(sum(losses[:3]) / 3, abs=1e-4)
        assert trial.last == pytest.approx(sum(losses[-3:]) / 3, abs=1e-4)
    assert len({trial.last for trial in trials}) == 3


def test_a_rate_that_breaks_the_training_leaves_the_others_alone(random_t5):
    backbone, task = random_t5(), tpv.load_task(TASK).limited({"train": 20}, 0)
    init = tpv.SoftPrompt.sample(backbone, 4, 0)
    recipe = tpv.Recipe(batch_size=4, max_grad_norm=1e30)
    calm, wild = find_lr(backbone, task, init, recipe, rates=[0.01, 1e30], steps=8)
    (single,) = find_lr(backbone, task, init, recipe, rates=[0.01], steps=8)
    assert wild.last == math.inf
    assert calm.last == pytest.approx(single.last, abs=1e-4)


def test_the_rates_tried_follow_the_embeddings(random_causal):
    backbone, task = random_causal(), tpv.load_task(TASK).limited({"train": 8}, 0)
    trials = find_lr(backbone, task, tpv.SoftPrompt.sample(backbone, 3, 0), tpv.Recipe(batch_size=2), steps=4)
    rms = float(torch.linalg.vector_norm(backbone.embeddings().double()) / backbone.embeddings().numel() ** 0.5)
    assert [trial.lr for trial in trials] == pytest.approx([rms * rate for rate in RATES])
    assert trials[0].lr < fitting_lr(rms) < trials[-1].lr


@pytest.mark.parametrize("rates", [[], [0.0], [-1.0], [math.nan], [math.inf]])
def test_bad_rates_are_refused(random_t5, rates):
    backbone = random_t5()
    with pytest.raises(tpv.TpvError, match="learning rates to try"):
        find_lr(backbone, tpv.load_task(TASK), tpv.SoftPrompt.sample(backbone, 3), rates=rates)
    with pytest.raises(tpv.TpvError, match="at least 4"):
        find_lr(backbone, tpv.load_task(TASK), tpv.SoftPrompt.sample(backbone, 3), steps=3)


def test_tune_finds_its_rate(run, tmp_path, monkeypatch):
    monkeypatch.setattr("tpv.training.learning_rate.STEPS", 8)
    options = ["--tokens", "4", "--steps", "4", "--batch-size", "4", "--select", "last"]
    code, out, _ = run("tune", "--task", TASK, "--find-lr", "--out", tmp_path / "a", *options)
    assert code == 0
    (taken,) = [line.removeprefix("taking lr ") for line in out.splitlines() if line.startswith("taking lr")]
    assert out.count("█") > len(RATES)
    code, _, _ = run("tune", "--task", TASK, "--lr", taken, "--out", tmp_path / "b", *options)
    assert code == 0
    found, given = (tpv.SoftPrompt.load(tmp_path / name / "prompt.safetensors") for name in "ab")
    torch.testing.assert_close(found.tensor, given.tensor, atol=1e-2, rtol=1e-2)  # the rate is printed rounded
    for wrong, words in ((["--lr", "fast"], "a number, or auto"), (["--lr", "1", "--find-lr"], "got both")):
        code, _, error = run("tune", "--task", TASK, "--out", tmp_path / "c", *wrong)
        assert (code, words in error, error.count("\n")) == (2, True, 1)
        assert not (tmp_path / "c").exists()


def test_vectors_get_a_larger_rate_where_embeddings_are_small(backbone):
    """The rates that were measured on SmolLM2, whose embeddings have an RMS of 0.14; that of prompts on T5."""
    assert fitting_vector_lr(0.14, composable=False) == pytest.approx(0.12, abs=0.002)
    assert fitting_vector_lr(0.14, composable=True) == pytest.approx(0.06, abs=0.002)
    for rms in (11.6, embedding_rms(backbone)):
        assert fitting_vector_lr(rms, composable=False) == fitting_vector_lr(rms, composable=True) == fitting_lr(rms)


def test_fit_vectors_takes_it(random_causal):
    """`auto` gives the vectors that the number gives."""
    backbone, tasks = random_causal(), [tpv.load_task(f"mini/{name}").few_shot(8, 0) for name in ("sst2", "yelp")]
    recipe = tpv.Recipe(steps=2, batch_size=4, warmup_steps=0, select="last")
    rms = embedding_rms(backbone)
    for composable in (False, True):
        options = {"num_tokens": 3, "composable": composable, "callback": lambda _: None}
        number = fitting_vector_lr(rms, composable)
        left = tpv.fit_vectors(backbone, tasks, recipe, **options)
        right = tpv.fit_vectors(backbone, tasks, replace(recipe, lr=number), **options)
        assert all(one.tensor.equal(two.tensor) for one, two in zip(left, right, strict=True))
        assert number > fitting_lr(rms)
