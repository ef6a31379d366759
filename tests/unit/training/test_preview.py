"""What is said before a tuning, and cross-validation of one: compared with counting and training by hand."""

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from scipy.stats import norm

import tpv
from tpv.outputs.scores import wilson
from tpv.training.preview import preview

P = 3


@pytest.fixture
def init(backbone):
    return tpv.SoftPrompt.sample(backbone, P, seed=0)


@pytest.fixture
def small(toy_task):
    return toy_task(["not", "good"], rows=50)


def wilson_by_hand(hits, n):
    z = norm.ppf(0.975)
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return middle - half, middle + half


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (5, 5), (43, 50), (1, 3)])
def test_intervals_are_wilsons(hits, n):
    assert wilson(hits, n) == pytest.approx(wilson_by_hand(hits, n), abs=1e-9)


def test_scores_have_intervals_of_their_shares(backbone, init, small):
    scores = tpv.evaluate(backbone, small, init, "train")
    hits = sum(row["gold"] == row["predicted"] for row in scores.predictions.to_pylist())
    assert scores.interval("accuracy") == pytest.approx(wilson_by_hand(hits, scores.n))
    assert scores.interval()[0] <= scores.exact_match <= scores.interval()[1]
    with pytest.raises(tpv.TpvError, match="expected exact_match, accuracy, invalid_rate; got 'macro_f1'"):
        scores.interval("macro_f1")


def test_rows_labels_truncation_steps_and_rate(backbone, init, small):
    recipe = tpv.Recipe(epochs=4, batch_size=8, max_input_length=9, eval_every=6)
    found = preview(backbone, small, init, recipe, measure=False)
    assert found.rows == {split: len(rows) for split, rows in small.splits.items()}
    assert found.held_out == ("validation", "test")
    assert found.labels == Counter(row.target for row in small.examples("train"))
    encode = backbone.tokenizer
    for split, rows in small.splits.items():
        lengths = [len(encode(row.source)["input_ids"]) for row in rows]
        assert found.cuts[split].cut == sum(length > 9 for length in lengths) > 0
        assert found.cuts[split].longest == max(lengths)
    assert found.template_tokens == len(encode("text: ")["input_ids"])
    assert found.steps == 4 * math.ceil(len(small.examples("train")) / 8)
    assert found.validations == math.ceil(found.steps / 6)
    tuned = tpv.fit(backbone, small, init, recipe, callback=lambda _: None)
    assert tuned.history.num_rows == found.steps
    assert tuned.history["score"].null_count == found.steps - found.validations
    peak = max(tuned.history["lr"].to_pylist())
    assert found.recipe.lr == pytest.approx(peak)
    lines = {line[:10].strip(): line[11:] for line in found.lines()}
    assert list(lines) == ["rows", "labels", "truncated", "steps", "rate", "few rows"]
    cut, count = sum(one.cut for one in found.cuts.values()), sum(found.rows.values())
    assert f"{cut} of {count} texts ({cut / count:.0%}) at 9 tokens" in lines["truncated"]
    assert "or shorten the template" in lines["truncated"]
    assert "--folds 5 judges on all 50" in lines["few rows"]
    low, high = wilson_by_hand(5, 5)
    assert f"the 95 % interval is {low:.2f} to {high:.2f}" in lines["few rows"]


def test_chat_and_cue_count_among_the_tokens_of_a_text(random_causal, small):
    backbone = random_causal(chat=True)
    init = tpv.SoftPrompt.sample(backbone, P, seed=0)
    found = preview(backbone, small, init, tpv.Recipe(steps=1, max_input_length=20), measure=False)
    chat = backbone.encode_sources(["text: "], 1000)[0]
    assert found.template_tokens == len(chat) > 10
    longest = max(len(row) for row in backbone.encode_sources([row.source for row in small.examples("train")], 1000))
    assert found.cuts["train"].longest == longest


def test_enough_rows_are_not_called_few(backbone, init):
    task = tpv.load_task("mini/sst2")
    assert not any(line.startswith("few") for line in preview(backbone, task, init, measure=False).lines())
    assert preview(backbone, task, init, measure=False).held_out == ()


def test_the_time_is_that_of_the_steps(backbone, init, small):
    recipe = tpv.Recipe(steps=400, batch_size=8, select="last", max_input_length=20)
    found = preview(backbone, small, init, recipe)
    seen = []
    tpv.fit(backbone, small, init, replace(recipe, steps=12), callback=lambda p: seen.append(p.seconds))
    real = sorted(b - a for a, b in pairwise(seen))[5]
    assert real / 8 < found.step_seconds < real * 8  # of a machine that others use
    assert found.seconds == pytest.approx(400 * found.step_seconds, rel=0.3)
    more = preview(backbone, small, init, recipe, folds=5)
    assert more.seconds > 4 * more.step_seconds * 400
    assert "5 prompts more" in "".join(more.lines())


def test_measuring_does_not_change_what_is_trained(backbone, init, small):
    recipe = tpv.Recipe(steps=3, batch_size=8)
    before = tpv.fit(backbone, small, init, recipe, callback=lambda _: None)
    preview(backbone, small, init, recipe)
    assert tpv.fit(backbone, small, init, recipe, callback=lambda _: None) == before


def test_cross_validation_judges_every_row_by_what_did_not_learn_from_it(backbone, init, small):
    recipe = tpv.Recipe(steps=4, batch_size=8)
    found = tpv.cross_validate(backbone, small, init, recipe, folds=3, callback=lambda _: None)
    rows = {row.id: row for row in small.examples("train")}
    table = found.scores.predictions
    assert sorted(table["example"].to_pylist()) == sorted(rows)
    assert found.scores.n == len(rows) == sum(part.n for part in found.folds)
    for part in found.folds:
        ids = set(part.predictions["example"].to_pylist())
        assert max(ids, key=lambda i: i) in rows
        others = replace(small, splits={"train": tuple(row for row in rows.values() if row.id not in ids)})
        prompt = tpv.fit(backbone, others, init, replace(recipe, select="last"), callback=lambda _: None)
        held = replace(small, splits={"test": tuple(row for row in rows.values() if row.id in ids)})
        alone = tpv.evaluate(backbone, held, prompt)
        assert alone.accuracy == part.accuracy
        assert alone.log_loss == pytest.approx(part.log_loss, rel=1e-4)
    hits = sum(row["gold"] == row["predicted"] for row in table.to_pylist())
    assert found.scores.accuracy == pytest.approx(hits / len(rows))
    again = tpv.cross_calibrate(backbone, small, init, recipe, folds=3, callback=lambda _: None)
    assert found.calibrator.temperature == pytest.approx(again.temperature, rel=1e-4)
    assert found.calibrator.rows == again.rows == len(rows)


@pytest.mark.parametrize("folds", [1, 0, 1000, True, 2.5])
def test_folds_that_cannot_be(backbone, init, small, folds):
    with pytest.raises(tpv.TpvError, match="folds; expected a whole number from 2 to"):
        tpv.cross_validate(backbone, small, init, tpv.Recipe(steps=1), folds=folds)
