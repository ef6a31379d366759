"""The scikit-learn estimator: scikit-learn's own checks, its tools, and what a user sees."""

import io
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import skops.io
from places import SHARED
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import has_fit_parameter

import tpv
from tpv.estimators import classifier
from tpv.evaluation.ensemble import Ensemble, PromptPart
from tpv.evaluation.tuned import Tuned
from tpv.training.recipe import FEW_ROWS
from tpv.transfers.problem import LEVELS, Level

SMALL = {"model": "mini", "device": "cpu", "num_tokens": 4, "batch_size": 8}
TUNE = {**SMALL, "strategy": "tune", "steps": 3}
CHECKED = {**TUNE, "num_tokens": 2, "steps": 1, "batch_size": 4, "max_input_length": 24}


class Tabular(tpv.PromptClassifier):
    """The estimator, its tags without lists of texts, so that all checks of tables apply."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = False
        return tags


INDEXES = "the check takes a column of one dimension and then reads two"
TWO = "the check expects the number of columns of a table, which a list of texts does not have"
TEXTS = {
    "check_dont_overwrite_parameters": INDEXES,
    "check_f_contiguous_array_estimator": INDEXES,
    "check_methods_sample_order_invariance": INDEXES,
    "check_methods_subset_invariance": INDEXES,
    "check_fit2d_1sample": INDEXES,
    "check_fit2d_1feature": INDEXES,
    "check_dict_unchanged": INDEXES,
    "check_fit2d_predict1d": INDEXES,
    "check_n_features_in_after_fitting": TWO,
    "check_n_features_in": TWO,
    "check_classifiers_train": TWO,
    "check_estimators_nan_inf": "the check fits a list and predicts a table",
    "check_classifier_data_not_an_array": "the check makes a table of a list, which is another template",
    "check_estimator_sparse_array": "scipy has no sparse list of the format that the check wants",
    "check_fit1d": "a list of texts has one dimension",
}
TABLES = {
    "check_fit1d": "a list of texts has one dimension",
    "check_methods_subset_invariance": "batches padded to other lengths differ in the seventh digit, in fp32",
}


def not_applicable(estimator):
    """What of scikit-learn's checks does not apply to an estimator of texts, and why."""
    return TABLES if isinstance(estimator, Tabular) else TEXTS


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([Tabular(**CHECKED)], expected_failed_checks=not_applicable, xfail_strict=True)
def test_the_checks_of_scikit_learn_on_tables(estimator, check):
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks([tpv.PromptClassifier(**CHECKED)], expected_failed_checks=not_applicable, xfail_strict=True)
def test_the_checks_of_scikit_learn_on_texts(estimator, check):
    check(estimator)


def texts_of(task, split="train", count=None):
    rows = task.examples(split)[:count]
    return [row.source for row in rows], [row.target for row in rows]


@pytest.fixture(scope="module")
def data():
    return texts_of(tpv.load_task("mini/sst2").few_shot(40, 0))


@pytest.fixture(scope="module")
def fitted(data):
    return tpv.PromptClassifier(**{**TUNE, "num_tokens": 10, "steps": 60, "batch_size": 16, "template": "{text}"}).fit(
        *data
    )


@pytest.fixture
def quick(monkeypatch):
    """Races of a few steps."""
    monkeypatch.setitem(LEVELS, "quick", Level("quick", sources=1, folds=3, rounds=(3,)))


def test_it_learns_and_its_probabilities_are_those_of_tpv(fitted, backbone):
    texts, labels = texts_of(tpv.load_task("mini/sst2"), "test", 100)
    assert fitted.classes_.tolist() == ["negative", "positive"]
    assert fitted.strategy_ == "tune"
    assert fitted.score(texts, labels) == accuracy_score(labels, fitted.predict(texts)) > 0.8
    probabilities = fitted.predict_proba(texts)
    tuned = fitted.tuned_
    table = tpv.predict(backbone, tuned.task, tuned.prompt, texts, calibrator=tuned.about.calibrator)
    assert probabilities.max(1).tolist() == table["probability"].to_pylist()
    assert fitted.predict(texts).tolist() == table["predicted"].to_pylist()
    assert probabilities.sum(1) == pytest.approx(1)
    assert log_loss(labels, probabilities, labels=fitted.classes_) < 0.3 < np.log(2)
    weights = np.arange(len(labels))
    assert fitted.score(texts, labels, weights) == accuracy_score(labels, fitted.predict(texts), sample_weight=weights)


def test_few_rows_are_calibrated_by_cross_fitting_and_many_on_held_out_ones(fitted, data, backbone):
    task = tpv.load_task(pd.DataFrame({"text": data[0], "label": data[1]}), template="{text}", hold_out=False)
    init = tpv.SoftPrompt.sample(backbone, 10, seed=0)
    recipe = tpv.Recipe(steps=60, batch_size=16, select="last")
    assert fitted.tuned_.about.calibrator == tpv.cross_calibrate(backbone, task, init, recipe, callback=lambda _: None)
    assert fitted.tuned_.prompt == tpv.fit(backbone, task, init, recipe, callback=lambda _: None)
    assert fitted.history_["step"].to_pylist() == list(range(1, 61))
    many = tpv.PromptClassifier(**TUNE).fit(*texts_of(tpv.load_task("mini/sst2"), count=500))
    assert many.tuned_.about.calibrator.rows == 50
    assert many.history_["score"].to_pylist()[-1] is not None


def vectors_of(backbone):
    init = tpv.SoftPrompt.sample(backbone, 4, seed=5)
    recipe = tpv.Recipe(steps=40, batch_size=16, select="last", warmup_steps=5)
    tasks = [tpv.load_task(f"mini/{name}") for name in ("sst2", "trec")]
    tuned = tpv.fit(backbone, tasks, [init, init], recipe, callback=lambda _: None)
    return {task.name: prompt - init for task, prompt in zip(tasks, tuned, strict=True)}


def same_choice(backbone, texts, labels, library, **how):
    """Whether `auto` chooses what `tpv.transfer` does, and answers alike."""
    estimator = tpv.PromptClassifier("mini", library, device="cpu", budget="quick", random_state=3, **how).fit(
        texts, labels
    )
    task = tpv.load_task(pd.DataFrame({"text": texts, "label": labels}), hold_out=False)
    result = tpv.transfer(backbone, task, library, budget="quick", seed=3)
    assert estimator.strategy_ == "transfer"
    assert estimator.chosen_ == result.chosen
    assert estimator.reason_ == result.reason
    assert [one["entrant"] for one in estimator.standings_] == result.table["entrant"].to_pylist()
    assert (
        estimator.predict(texts).tolist() == result.predict([{"text": text} for text in texts])["predicted"].to_pylist()
    )
    return estimator


def test_auto_is_a_transfer_where_rows_are_few(backbone, quick):
    task = tpv.load_task("mini/imdb").few_shot(12, 0)
    found = same_choice(backbone, *texts_of(task), vectors_of(backbone))
    assert found.history_ is None
    again = pickle.loads(pickle.dumps(found))  # whatever won
    assert again.predict_proba(texts_of(task)[0]).tolist() == found.predict_proba(texts_of(task)[0]).tolist()


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data, which are not here")
@pytest.mark.parametrize("name", ["sst2", "trec", "rte", "imdb"])
def test_auto_chooses_as_transfer_does_on_shared_tasks(name, backbone):
    task = tpv.load_task(name, data_dir=SHARED / "data").few_shot(24, 0)
    task = replace(
        task, splits={"train": tuple(replace(row, source=row.source[:300]) for row in task.examples("train"))}
    )
    same_choice(backbone, *texts_of(task), vectors_of(backbone), max_input_length=256)


def test_auto_tunes_from_a_thousand_rows_on():
    task = tpv.load_task("mini/sst2")
    how = {**TUNE, "strategy": "auto", "steps": 1}
    assert tpv.PromptClassifier(**how).fit(*texts_of(task, count=1000)).strategy_ == "tune"
    assert FEW_ROWS == 1000


def test_default_steps_are_those_of_few_rows_else_ten_epochs(monkeypatch, data):
    seen = []

    def look(backbone, task, init, recipe, **_):
        seen.append((recipe.steps, len(task.examples("train"))))
        raise tpv.TpvError("enough")

    monkeypatch.setattr(classifier, "fit", look)
    for texts, labels in (data, *(texts_of(tpv.load_task("mini/sst2"), count=count) for count in (1000, 1200))):
        with pytest.raises(tpv.TpvError, match="enough"):
            tpv.PromptClassifier(**{**TUNE, "steps": None, "batch_size": 20}).fit(texts, labels)
    assert seen == [(32, 40), (150, 900), (None, 1080)]  # ten epochs are the recipe's own


def test_the_model_is_loaded_once_a_process(monkeypatch, data):
    loads, own = [], tpv.load_backbone

    def load(*args, **options):
        loads.append(options)
        return own(*args, **options)

    monkeypatch.setattr(tpv.models, "load_backbone", load)
    classifier._load.cache_clear()
    texts, labels = data
    pipeline = make_pipeline(
        FunctionTransformer(lambda rows: [row.lower() for row in rows]), tpv.PromptClassifier(**TUNE)
    )
    found = cross_val_score(pipeline, texts, labels, cv=2)
    assert len(found) == 2
    search = GridSearchCV(pipeline, {"promptclassifier__num_tokens": [2, 3]}, cv=2).fit(texts, labels)
    assert search.best_params_["promptclassifier__num_tokens"] in (2, 3)
    tokens = search.best_estimator_[-1].tuned_.prompt.num_tokens
    assert tokens == search.best_params_["promptclassifier__num_tokens"]
    assert len(loads) == 1
    tpv.PromptClassifier(**{**TUNE, "precision": "bf16"}).fit(texts, labels)
    assert [load["precision"] for load in loads] == ["fp32", "bf16"]
    classifier._load.cache_clear()


def test_pickles_hold_what_was_learned_and_not_the_model(fitted, data, tmp_path):
    content = pickle.dumps(fitted)
    assert len(content) < 50_000
    again = pickle.loads(content)
    assert again.predict_proba(data[0]).tolist() == fitted.predict_proba(data[0]).tolist()
    assert again.get_params() == fitted.get_params()
    assert again.history_.equals(fitted.history_)
    assert again.history_.schema.metadata == fitted.history_.schema.metadata
    assert pickle.loads(pickle.dumps(tpv.PromptClassifier())).get_params() == tpv.PromptClassifier().get_params()
    both = clone(fitted).set_params(random_state=None)
    both.__setstate__(fitted.__getstate__())
    prompt = fitted.tuned_.prompt
    calibrator = fitted.tuned_.about.calibrator
    ensemble = Ensemble((PromptPart(prompt, calibrator), PromptPart(prompt)))
    both.tuned_ = Tuned(fitted.tuned_.task, ensemble, fitted.tuned_.about)
    other = pickle.loads(pickle.dumps(both))
    assert other.predict_proba(data[0]).tolist() == both.predict_proba(data[0]).tolist()


def test_skops_reads_and_writes_it(fitted, data):
    content = skops.io.dumps(fitted)
    unknown = skops.io.get_untrusted_types(data=content)
    assert unknown == ["tpv.estimators.classifier.PromptClassifier"]
    again = skops.io.loads(content, trusted=unknown)
    assert again.predict_proba(data[0]).tolist() == fitted.predict_proba(data[0]).tolist()
    assert again.get_params() == fitted.get_params()
    assert again.classes_.tolist() == fitted.classes_.tolist()


def test_its_folder_is_one_that_tpv_predict_knows(fitted, run, tmp_path):
    fitted.save(tmp_path / "out")
    text = "a great and funny film"
    code, out, err = run("predict", tmp_path / "out", text, "--device", "cpu")
    assert code == 0, err
    (label,) = fitted.predict([text])
    assert out.startswith(label)
    assert f"{fitted.predict_proba([text]).max():.3f}" in out or f"{fitted.predict_proba([text]).max():.2f}" in out


def test_unfitted(data):
    for call in ("predict", "predict_proba"):
        with pytest.raises(NotFittedError, match="PromptClassifier instance is not fitted yet"):
            getattr(tpv.PromptClassifier(), call)(data[0])


def test_sample_weight_is_refused_by_name(data):
    assert not has_fit_parameter(tpv.PromptClassifier(), "sample_weight")
    with pytest.raises(tpv.TpvError, match="got sample_weight; repeat rows"):
        tpv.PromptClassifier(**TUNE).fit(*data, sample_weight=np.ones(40))
    with pytest.raises(ValueError, match="sample_weight"):
        make_pipeline(tpv.PromptClassifier(**TUNE)).fit(*data, promptclassifier__sample_weight=np.ones(40))


def test_params_and_clones(data):
    vectors = tpv.Library(None)
    estimator = tpv.PromptClassifier("mini", vectors, "tune", steps=2)
    copy = clone(estimator)
    assert {**copy.get_params(), "library": 0} == {**estimator.get_params(), "library": 0}
    assert copy.set_params(steps=5).steps == 5
    assert not hasattr(copy, "classes_")


@pytest.mark.parametrize(
    ("classes", "words", "said"),
    [
        ([0, 1], None, ["0", "1"]),
        ([0.0, 1.0], None, ["0", "1"]),
        ([False, True], {False: "bad", True: "good"}, ["bad", "good"]),
        (["b", "a"], ["one", "two"], ["one", "two"]),
    ],
)
def test_classes_of_any_kind(data, classes, words, said):
    labels = [classes[word == "positive"] for word in data[1]]
    estimator = tpv.PromptClassifier(**TUNE, label_words=words).fit(data[0], labels)
    assert estimator.classes_.tolist() == np.unique(labels).tolist()
    assert list(estimator.tuned_.task.labels) == said
    assert estimator.predict(data[0][:5]).dtype == estimator.classes_.dtype


def test_frames_and_their_columns(data):
    frame = pd.DataFrame({"title": data[0], "stars": range(40)})
    estimator = tpv.PromptClassifier(**TUNE, template="{stars} stars: {title}").fit(frame, pd.Series(data[1]))
    assert estimator.n_features_in_ == 2
    assert estimator.feature_names_in_.tolist() == ["title", "stars"]
    assert estimator.tuned_.task.render({"title": "fine", "stars": "3"}) == "3 stars: fine"
    assert len(estimator.predict(frame[:3])) == 3
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(frame[["stars", "title"]])
    with pytest.raises(tpv.TpvError, match="expected a table, as in fit"):
        estimator.predict(data[0])
    series = tpv.PromptClassifier(**TUNE).fit(pd.Series(data[0]), data[1])
    assert not hasattr(series, "n_features_in_")
    assert series.tuned_.task.spec.template == "text: {text}"
    with pytest.raises(tpv.TpvError, match="expected a list of texts, as in fit"):
        series.predict(frame)


@pytest.mark.parametrize(
    ("params", "X", "y", "message"),
    [
        ({"strategy": "best"}, None, None, "expected 'auto', 'tune' or 'transfer'; got 'best'"),
        ({"model": object()}, None, None, "expected its name or path; got object"),
        ({"precision": "fp16"}, None, None, "'fp32' or 'bf16'; got 'fp16'"),
        ({"steps": 0}, None, None, "steps must be"),
        ({"template": "{review}"}, None, None, "review"),
        ({"label_words": ["one"]}, None, None, "expected 2 words"),
        ({"label_words": {"positive": "yes"}}, None, None, "negative"),
        ({}, "one text", None, "put it in a list"),
        ({}, ["a", None], ["x", "y"], "row 2 of X, text; expected a text; got a missing value"),
        ({}, ["a", "b", ""], ["x", "y", "x"], "the text is empty"),
        ({}, ["a", "b"], ["x", "x"], "at least two classes; got one class"),
        ({}, ["a", "b"], ["x"], "inconsistent numbers of samples"),
        ({}, ["a"], ["x"], "minimum of 2"),
        ({}, ["a", "b"], [0.1, 0.2], "continuous"),
    ],
)
def test_refusals(data, params, X, y, message):
    with pytest.raises(tpv.TpvError, match=message):
        tpv.PromptClassifier(**{**TUNE, **params}).fit(data[0] if X is None else X, data[1] if y is None else y)


def test_it_prints_what_it_does_only_when_asked(data, capsys, quick):
    task = tpv.load_task("mini/imdb").few_shot(8, 0)
    for verbose in (False, True):
        tpv.PromptClassifier(**SMALL, budget="quick", verbose=verbose).fit(*texts_of(task))
        assert ("round 1" in capsys.readouterr().out) is verbose


def test_joblib_keeps_it(fitted, data):
    import joblib

    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    assert joblib.load(file).predict(data[0]).tolist() == fitted.predict(data[0]).tolist()
