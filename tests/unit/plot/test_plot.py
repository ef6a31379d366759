"""Plots show the numbers they are given: what is drawn is read back from the axes."""

import subprocess
import sys

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

import tpv

P = 4


@pytest.fixture(autouse=True)
def closed():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def task():
    return tpv.load_task("mini/sst2").few_shot(40, 0)


@pytest.fixture(scope="module")
def tuned(backbone, task):
    init = tpv.SoftPrompt.sample(backbone, P, seed=0)
    recipe = tpv.Recipe(steps=7, batch_size=8, eval_every=3, warmup_steps=2)
    return tpv.fit(backbone, task, init, recipe, callback=lambda _: None)


@pytest.fixture(scope="module")
def scores(backbone, tuned):
    return tpv.evaluate(backbone, tpv.load_task("mini/trec"), tuned)


def image_of(axes):
    return np.asarray(axes.images[0].get_array())


def test_a_history_has_every_step_and_its_rate(backbone, task, tuned):
    history = tuned.history.to_pydict()
    seen = []
    recipe = tpv.Recipe(steps=7, batch_size=8, eval_every=3, warmup_steps=2)
    again = tpv.fit(backbone, task, tpv.SoftPrompt.sample(backbone, P, seed=0), recipe, callback=seen.append)
    assert history["step"] == [1, 2, 3, 4, 5, 6, 7]
    assert history["loss"] == [progress.loss for progress in seen]
    rate = recipe.fitted(float(backbone.embeddings().float().square().mean().sqrt())).lr
    assert history["lr"] == pytest.approx([rate * share for share in (0, 1 / 2, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5)])
    assert [step for step, score in zip(history["step"], history["score"], strict=True) if score is not None] == [
        3,
        6,
        7,
    ]
    assert history["exact_match"][6] == pytest.approx(seen[-1].score)
    assert tuned.history.schema.metadata == {b"select": b"loss"}
    assert again == tuned
    best = min(score for score in history["score"] if score is not None)
    assert tpv.evaluate(backbone, task, tuned, "validation").loss == pytest.approx(best, rel=1e-5)


def test_a_history_by_another_metric_and_without_validation(backbone, task):
    init = tpv.SoftPrompt.sample(backbone, P, seed=0)
    by_match, last = (
        tpv.fit(backbone, task, init, tpv.Recipe(steps=2, batch_size=4, select=select), callback=lambda _: None)
        for select in ("exact_match", "last")
    )
    found = by_match.history.to_pydict()
    assert found["score"] == found["exact_match"]
    assert found["score"][0] is None
    assert last.history["score"].to_pylist() == [None, None]
    assert last.history.schema.metadata == {b"select": b"last"}


def test_a_history_does_not_change_what_a_prompt_is(tuned, tmp_path):
    assert tuned.with_history(None) == tuned
    assert tuned.with_history(None).digest == tuned.digest
    tuned.save(tmp_path / "p.safetensors")
    read = tpv.SoftPrompt.load(tmp_path / "p.safetensors")
    assert read.history is None
    with pytest.raises(tpv.TpvError, match="no history"):
        tpv.plot.loss(read)


def test_a_resumed_training_has_its_whole_history(backbone, task, tmp_path, monkeypatch):
    monkeypatch.setattr("tpv.training.checkpoint.CHECKPOINT_SECONDS", 0.0)
    init = tpv.SoftPrompt.sample(backbone, P, seed=0)
    recipe = tpv.Recipe(steps=6, batch_size=8, eval_every=2)

    def stop(progress):
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tpv.fit(backbone, task, init, recipe, callback=stop, checkpoint=tmp_path / "state")
    resumed = tpv.fit(backbone, task, init, recipe, callback=lambda _: None, checkpoint=tmp_path / "state")
    plain = tpv.fit(backbone, task, init, recipe, callback=lambda _: None)
    assert resumed.history.equals(plain.history)


def test_the_plot_of_a_history_shows_it(tuned):
    axes = tpv.plot.loss(tuned.history)
    training, validation = axes.get_lines()
    history = tuned.history.to_pydict()
    assert training.get_xydata().tolist() == [list(pair) for pair in zip(history["step"], history["loss"], strict=True)]
    judged = [[s, v] for s, v in zip(history["step"], history["score"], strict=True) if v is not None]
    assert validation.get_xydata().tolist() == judged
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training loss", "validation loss"]
    two = tpv.plot.loss({"a": tuned, "b": tuned.history})
    assert len(two.get_lines()) == 4


def test_the_plot_of_a_metric_has_an_axis_of_its_own(tuned):
    history = tuned.history.replace_schema_metadata({"select": "macro_f1"})
    axes = tpv.plot.loss(history)
    assert len(axes.get_lines()) == 1
    (other,) = [one for one in axes.figure.axes if one is not axes]
    assert "macro" in other.get_ylabel().lower()
    assert len(other.get_lines()) == 1


def test_cosines_are_those_of_numpy(backbone, tuned):
    init = tpv.SoftPrompt.sample(backbone, P, seed=0)
    other = init.tuned_to(tpv.SoftPrompt.sample(backbone, P, seed=2).tensor, "other") - init
    vectors = {"one": tuned - init, "two": other}
    axes = tpv.plot.cosine(vectors)
    a, b = (vector.tensor.numpy().ravel() for vector in vectors.values())
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert image_of(axes) == pytest.approx(np.array([[1, expected], [expected, 1]]), abs=1e-6)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["one", "two"]
    listed = tpv.plot.cosine(list(vectors.values()))
    assert [tick.get_text() for tick in listed.get_yticklabels()] == ["mini/sst2", "other"]
    library = tpv.Library(None)
    library.add(other, "kept")
    assert [tick.get_text() for tick in tpv.plot.cosine(library).get_yticklabels()] == ["kept"]


def test_a_lambda_curve_shows_the_search(backbone, tuned):
    init = tpv.SoftPrompt.sample(backbone, P, seed=0)
    found = tpv.search_scale(backbone, init, tuned - init, [tpv.load_task("mini/sst2")], [0.0, 0.5, 1.0], race=False)
    axes = tpv.plot.lambda_curve(found)
    curve, mark = axes.get_lines()[0], axes.get_lines()[-1]
    assert curve.get_xdata().tolist() == [0.0, 0.5, 1.0]
    assert curve.get_ydata().tolist() == list(found.exact_match)
    assert set(mark.get_xdata()) == {found.scale}


def test_confusion_is_that_of_scikit_learn(scores):
    axes = tpv.plot.confusion(scores)
    table = scores.predictions.to_pydict()
    labels = [tick.get_text() for tick in axes.get_xticklabels()]
    assert image_of(axes).tolist() == confusion_matrix(table["gold"], table["predicted"], labels=labels).tolist()
    assert {int(text.get_text()) for text in axes.texts} == set(image_of(axes).ravel().tolist())


def test_reliability_is_that_of_scikit_learn(scores):
    axes = tpv.plot.reliability(scores)
    table = scores.predictions.to_pydict()
    right = [gold == said for gold, said in zip(table["gold"], table["predicted"], strict=True)]
    accuracy, confidence = calibration_curve(right, table["probability"], n_bins=15)
    drawn = axes.collections[0].get_offsets()
    assert np.asarray(drawn[:, 0]) == pytest.approx(confidence)
    assert np.asarray(drawn[:, 1]) == pytest.approx(accuracy)


def test_plots_are_drawn_on_the_axes_given_and_leave_settings_alone(scores, tuned, backbone):
    before = dict(matplotlib.rcParams)
    init = tpv.SoftPrompt.sample(backbone, P, seed=0)
    draws = {
        "confusion": lambda ax: tpv.plot.confusion(scores, ax=ax),
        "reliability": lambda ax: tpv.plot.reliability(scores, ax=ax),
        "loss": lambda ax: tpv.plot.loss(tuned, ax=ax),
        "cosine": lambda ax: tpv.plot.cosine([tuned - init], ax=ax),
    }
    assert set(draws) | {"lambda_curve"} == set(tpv.plot.__all__)
    for draw in draws.values():
        axes = Figure().subplots()
        assert draw(axes) is axes
        assert axes.has_data()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: tpv.plot.cosine([]), "at least one; got none"),
        (lambda: tpv.plot.cosine([1]), "got int"),
        (lambda: tpv.plot.loss({}), "at least one"),
        (lambda: tpv.plot.loss([1.0]), "expected prompt.history; got list"),
        (lambda: tpv.plot.lambda_curve([0.1]), "what tpv.search_scale gives; got list"),
        (lambda: tpv.plot.confusion({}), "what tpv.evaluate gives; got dict"),
    ],
)
def test_plots_refuse_what_they_cannot_draw(draw, message):
    with pytest.raises(tpv.TpvError, match=message):
        draw()


def test_matplotlib_is_imported_when_something_is_drawn():
    code = "import sys, tpv, tpv.plot, tpv.reporting.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_colours_of_the_figures_are_those_of_the_plots(scores):
    from tpv.metrics.probability import bins
    from tpv.outputs.scores import LabelTable
    from tpv.reporting import figures

    table = LabelTable.of(scores.predictions)
    panel = figures.reliability({"trec": bins(table.gold, table.probabilities)}).axes[0]
    plot = tpv.plot.reliability(scores)
    assert (
        np.asarray(panel.collections[0].get_offsets()).tolist()
        == np.asarray(plot.collections[0].get_offsets()).tolist()
    )
    assert to_rgba(panel.get_lines()[1].get_color()) == to_rgba(plot.get_lines()[1].get_color())
