"""Accuracy, normalization and calibration of prompts, on the embedded model and tiny random ones."""

import numpy as np
import pytest
import torch

import tpv
from tpv.evaluation.encode import encode_examples


def plain_log_probs(backbone, task, prompt, sources):
    """Log-probability of every label word by teacher forcing, one row and one word at a time."""
    rows = []
    for source in sources:
        words = [backbone.encode_target(word) for word in task.labels]
        with torch.no_grad():
            costs = [backbone.nll(prompt.tensor[None], torch.tensor([0]), [source], [word]) for word in words]
        rows.append([-float(cost) for cost in costs])
    return np.array(rows)


@pytest.mark.parametrize("labels", [["good", "not good at all"], ["a", "b c", "d e f"]])
def test_accuracy_is_the_likeliest_word(random_t5, random_causal, toy_task, labels):
    task = toy_task(labels)
    for backbone in (random_t5(), random_causal("llama")):
        prompt = tpv.SoftPrompt.sample(backbone, 3)
        rows = task.examples("test")
        log_probs = plain_log_probs(backbone, task, prompt, encode_examples(backbone, rows, 256))
        tokens = np.array([len(backbone.encode_target(word)) for word in labels])
        blank = encode_examples(backbone, [tpv.Example("", "text: ", "", 0, task.spec.cue)], 256)
        context = plain_log_probs(backbone, task, prompt, blank)[0]
        for normalize, scores in (
            ("none", log_probs),
            ("tokens", log_probs / tokens),
            ("context", log_probs - context),
        ):
            found = tpv.evaluate(backbone, task, prompt, normalize=normalize)
            best = [labels[i] for i in scores.argmax(1)]
            assert found.predictions["predicted"].to_pylist() == best
            assert found.accuracy == pytest.approx(
                np.mean([word == row.target for word, row in zip(best, rows, strict=True)])
            )
            table = tpv.predict(backbone, task, prompt, [row.source for row in rows], normalize=normalize)
            for column in ("predicted", "probability", "said", "log_probs"):
                assert table[column].equals(found.predictions[column])


def test_prompts_of_a_bank_have_their_own_context(random_t5, toy_task):
    backbone, task = random_t5(), toy_task(["good", "not good"])
    prompts = [tpv.SoftPrompt.sample(backbone, 3, seed) for seed in range(3)]
    together = tpv.evaluate(backbone, task, prompts, normalize="context")
    for prompt, scores in zip(prompts, together, strict=True):
        alone = tpv.evaluate(backbone, task, prompt, normalize="context")
        assert alone.log_loss == pytest.approx(scores.log_loss, abs=1e-5)


def test_rows_go_through_the_template(random_t5, toy_task):
    backbone, task = random_t5(), toy_task(["good", "bad"])
    prompt = tpv.SoftPrompt.sample(backbone, 3)
    rows = tpv.predict(backbone, task, prompt, [{"text": "the man", "other": 3}])
    assert rows.equals(tpv.predict(backbone, task, prompt, ["text: the man"]))
    with pytest.raises(tpv.TpvError, match="expected text in text; got only txt"):
        tpv.predict(backbone, task, prompt, [{"txt": "the man"}])


def test_calibration_lowers_log_loss_and_keeps_exact_match(backbone):
    task = tpv.load_task("mini/trec").few_shot(40, 0)
    init = tpv.SoftPrompt.sample(backbone, 5)
    tuned = tpv.fit(backbone, task, init, tpv.Recipe(steps=30, batch_size=8, select="last"), callback=lambda _: None)
    before = tpv.evaluate(backbone, task, tuned)
    for normalize in ("none", "tokens", "context"):
        calibrator = tpv.calibrate(backbone, task, tuned, normalize=normalize)
        assert calibrator.rows == len(task.examples("validation"))
        after = tpv.evaluate(backbone, task, tuned, calibrator=calibrator)
        assert after.log_loss < before.log_loss
        assert after.exact_match == before.exact_match
        assert after.loss == before.loss
    restored = tpv.Calibrator.model_validate_json(calibrator.model_dump_json())
    table = tpv.predict(backbone, task, tuned, [task.examples("test")[0].source], calibrator=restored)
    assert table["probability"][0].as_py() == pytest.approx(after.predictions["probability"][0].as_py())


def test_cross_fitting_calibrates_without_a_validation_split(backbone):
    task = tpv.load_task("mini/sst2").few_shot(24, 0)
    bare = tpv.Task(task.spec, {"train": task.examples("train"), "test": task.examples("test")})
    init = tpv.SoftPrompt.sample(backbone, 5)
    recipe = tpv.Recipe(steps=40, batch_size=8, select="last")
    calibrator = tpv.cross_calibrate(backbone, bare, init, recipe, folds=4, callback=lambda _: None)
    assert calibrator.rows == 24
    tuned = tpv.fit(backbone, bare, init, recipe, callback=lambda _: None)
    before, after = (tpv.evaluate(backbone, bare, tuned, calibrator=each) for each in (None, calibrator))
    assert after.log_loss <= before.log_loss + 0.05
    with pytest.raises(tpv.TpvError, match="folds; expected a whole number from 2 to 24"):
        tpv.cross_calibrate(backbone, bare, init, recipe, folds=25)


def test_what_does_not_fit_is_refused(random_t5, toy_task):
    backbone, task = random_t5(), toy_task(["good", "bad"])
    prompt = tpv.SoftPrompt.sample(backbone, 3)
    with pytest.raises(tpv.TpvError, match="unknown normalize 'token'; did you mean 'tokens'"):
        tpv.evaluate(backbone, task, prompt, normalize="token")
    other = tpv.Calibrator(labels=("yes", "no"), bias=(0.0, 0.0), rows=3)
    with pytest.raises(tpv.TpvError, match="label words of the calibrator; expected"):
        tpv.evaluate(backbone, task, prompt, calibrator=other)
    mine = tpv.Calibrator(labels=("good", "bad"), bias=(0.0, 0.0), rows=3)
    with pytest.raises(tpv.TpvError, match="normalize 'context' beside a calibrator"):
        tpv.evaluate(backbone, task, prompt, calibrator=mine, normalize="context")
    bare = tpv.tasks.labels_only(["good", "bad"])
    table = tpv.predict(backbone, bare, prompt, ["a text"], normalize="context")
    assert table["predicted"][0].as_py() in ("good", "bad")
