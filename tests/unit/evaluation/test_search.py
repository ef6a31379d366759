"""The search for lambda: the race finds what the whole grid finds, from fewer rows."""

import numpy as np
import pytest
import torch

import tpv
from tpv.evaluation import search
from tpv.evaluation.search import search_scale


@pytest.fixture
def told(monkeypatch):
    """Outputs are told by a rule instead of a model: prompt k is right on row i where the rule says so."""

    def tell(rule):
        counted = []

        def greedy(backbone, prompts, sources, labels):
            counted.append(len(prompts) * len(sources))
            norms = [round(float(prompt.tensor[0, 0]), 3) for prompt in prompts]
            return np.array([[rule(scale, row[-1]) for row in sources] for scale in norms])

        monkeypatch.setattr(search, "greedy_labels", greedy)
        monkeypatch.setattr(search, "encode_examples", lambda _, rows, *__: [(int(row.id),) for row in rows])
        return counted

    return tell


def task_of(rows):
    spec = tpv.load_task("mini/sst2").spec
    return tpv.Task(spec, {"validation": tuple(tpv.Example(str(i), "x", "positive", 1) for i in range(rows))})


def parts(backbone):
    zero = tpv.SoftPrompt.from_tensor(backbone, torch.zeros(2, 128))
    return zero, zero.tuned_to(torch.ones(2, 128), "a task", "its rows") - zero


def noisy(best, seed):
    """Right with a chance that falls off from the best scale; the same row is hard or easy for all scales."""
    rng = np.random.default_rng(seed)
    hard = rng.random(5000)
    own = {}

    def rule(scale, row):
        if scale not in own:
            own[scale] = np.random.default_rng([seed, int(1000 * scale)]).normal(0, 0.03, 5000)
        return int(hard[row] + own[scale][row] < 0.9 - 1.2 * abs(scale - best))

    return rule


def test_the_race_chooses_as_the_grid_does(backbone, told):
    start, vector = parts(backbone)
    tasks = [task_of(1000), task_of(600)]
    same, cost, whole = 0, 0, 0
    for seed in range(40):
        counted = told(noisy(0.3 + 0.01 * seed, seed))
        raced = search_scale(backbone, start, vector, tasks, seed=seed)
        cost += sum(counted)
        counted.clear()
        full = search_scale(backbone, start, vector, tasks, race=False)
        whole += sum(counted)
        same += raced.scale == full.scale
        assert full.rows == (1000,) * 21
        assert raced.exact_match[raced.scales.index(raced.scale)] == pytest.approx(
            full.exact_match[raced.scales.index(raced.scale)]
        )
    assert same >= 38
    assert cost < whole / 2


def test_ties_go_to_the_smallest_scale(backbone, told):
    told(lambda scale, row: int(scale >= 0.35 and row % 3 > 0))
    start, vector = parts(backbone)
    for race in (True, False):
        assert search_scale(backbone, start, vector, [task_of(400)], race=race).scale == 0.35


def test_a_scale_that_is_bad_is_dropped_early_and_a_good_one_sees_every_row(backbone, told):
    told(lambda scale, row: int(row % 10 < (9 if scale == 0.5 else 2)))
    start, vector = parts(backbone)
    found = search_scale(backbone, start, vector, [task_of(800)])
    assert found.scale == 0.5
    assert found.rows[found.scales.index(0.5)] == 800
    assert max(rows for scale, rows in zip(found.scales, found.rows, strict=True) if scale != 0.5) <= 100


def test_it_is_evaluate_at_every_scale(backbone):
    """Against scores of the whole grid by `tpv.evaluate`, on a real prompt."""
    task = tpv.load_task("mini/sst2").limited({"train": 200, "validation": 60}, 0)
    start = tpv.SoftPrompt.sample(backbone, 5, 0)
    tuned = tpv.fit(backbone, task, start, tpv.Recipe(steps=15, batch_size=16, select="last"), callback=lambda _: None)
    scales = (0.0, 0.5, 1.0)
    found = search_scale(backbone, start, tuned - start, [task], scales, race=False)
    bank = [(tuned - start).apply(start, scale) for scale in scales]
    scores = [score.exact_match for score in tpv.evaluate(backbone, task, bank, "validation")]
    assert found.exact_match == pytest.approx(scores)
    assert found.scale == scales[int(np.argmax(scores))]


@pytest.mark.parametrize("scales", [[], [0.5, 0.5], [float("nan")]])
def test_scales_that_are_none_are_refused(backbone, scales):
    start, vector = parts(backbone)
    with pytest.raises(tpv.TpvError, match="scales to search"):
        search_scale(backbone, start, vector, [task_of(10)], scales)
    with pytest.raises(tpv.TpvError, match="tasks to search"):
        search_scale(backbone, start, vector, [])
