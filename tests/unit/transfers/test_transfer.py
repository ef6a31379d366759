"""From a few rows and a library to the best start: the ranking, the race, and what comes out of it."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

import tpv
from tpv.evaluation.encode import encode_examples
from tpv.evaluation.ensemble import Ensemble
from tpv.training.coefficients import learn_coefficients
from tpv.transfers import problem_of, racing
from tpv.transfers.candidates import Entrant
from tpv.transfers.judging import fitted_parts
from tpv.transfers.members import FixedMember, prompts_of
from tpv.transfers.problem import LEVELS, Level
from tpv.transfers.racing import tempered_log_probs
from tpv.transfers.ranking import rank_sources

P = 4


@pytest.fixture(scope="module")
def library(backbone):
    """Two vectors from the same initialization, trained a little, and a random direction."""
    init = tpv.SoftPrompt.sample(backbone, P, seed=5)
    tasks = [tpv.load_task(f"mini/{name}") for name in ("sst2", "yelp")]
    recipe = tpv.Recipe(steps=60, batch_size=16, select="last", warmup_steps=5)
    tuned = tpv.fit(backbone, tasks, [init, init], recipe, callback=lambda _: None)
    vectors = {task.name.removeprefix("mini/"): prompt - init for task, prompt in zip(tasks, tuned, strict=True)}
    other = tpv.SoftPrompt.sample(backbone, P, seed=6)
    return vectors | {"noise": init.tuned_to(other.tensor, "noise") - init}


@pytest.fixture
def few():
    task = tpv.load_task("mini/imdb").few_shot(12, 0)
    return replace(task, splits={name: rows for name, rows in task.splits.items() if name != "validation"})


@pytest.fixture
def quick(monkeypatch):
    """Races of a few steps."""
    for name, level in (("quick", (0.2,)), ("standard", (0.1, 0.25))):
        made = Level(name, sources=1, folds=3, rounds=level)
        monkeypatch.setitem(LEVELS, name, made)


def test_sources_are_ranked_by_the_likelihood_of_the_rows(backbone, library, few):
    init = tpv.SoftPrompt.sample(backbone, P, seed=5)
    prompts = {name: init + vector for name, vector in library.items()}
    ranked = rank_sources(backbone, few, prompts)
    losses = {}
    for name, prompt in prompts.items():
        total = 0.0
        for row in tpv.evaluate(backbone, few, prompt, "train").predictions.to_pylist():
            scores = row["log_probs"]
            gold = few.labels.index(row["gold"])
            total += math.log(sum(math.exp(score) for score in scores)) - scores[gold]
        losses[name] = total / 12
    assert [one.name for one in ranked] == sorted(losses, key=losses.get)
    for one in ranked:
        assert one.loss == pytest.approx(losses[one.name], rel=1e-4)
    assert ranked[-1].name == "noise"


def test_folds_hold_every_row_once_and_keep_labels_apart(backbone, few, quick):
    seen = []

    @dataclass(frozen=True, kw_only=True)
    class Look:
        """Keeps the problem that it is asked about."""

        def entrants(self, problem):
            seen.append(problem)
            return [Entrant("look", (FixedMember("look", problem.init()),))]

    tpv.register.candidate("look")(Look)
    try:
        result = tpv.transfer(backbone, few, budget="quick", candidates=["look"], num_tokens=P)
        judged = replace(few, splits=few.splits | {"validation": few.examples("test")[:50]})
        tpv.transfer(backbone, judged, budget="quick", candidates=["look"], num_tokens=P)
    finally:
        tpv.register.candidate.without("look")
    assert result.chosen == "look"
    assert result.ranking == []
    problem, with_validation = seen
    assert sorted(problem.judged) == list(range(12))
    for part in problem.parts:
        assert sorted([*part.train, *part.held]) == list(range(12))
        assert {problem.rows[i].label for i in part.held} == {0, 1}
    assert [(len(part.train), len(part.held)) for part in with_validation.parts] == [(12, 50)]


def test_the_same_call_gives_the_same_result(backbone, library, few, quick, tmp_path):
    told = []
    first = tpv.transfer(backbone, few, library, budget="standard", tell=lambda what, _: told.append(what))
    second = tpv.transfer(backbone, few, list(library.values()), budget="standard")
    assert sorted(second.ranking) == ["mini/sst2", "mini/yelp", "noise"]  # a list is named by terms
    assert [row["log_loss"] for row in first.table.to_pylist()] == [row["log_loss"] for row in second.table.to_pylist()]
    again = tpv.transfer(backbone, few, library, budget="standard")
    timeless = [table.drop_columns(["seconds"]) for table in (first.table, again.table)]
    assert timeless[0].equals(timeless[1])
    assert first.answerer.digest == again.answerer.digest
    assert any("round 2 of 2" in what for what in told)
    assert set(first.ranking) == set(library)
    assert first.table["chosen"].to_pylist() == [True] + [False] * (len(first.table) - 1)
    rows = first.table.to_pylist()
    singles = [row for row in rows if row["candidate"] != "average"]
    losses = [row["log_loss"] for row in singles if not row["chosen"]]
    assert losses == sorted(losses)
    assert sum(row["weight"] for row in singles) == pytest.approx(1.0)
    assert first.reason.startswith(first.chosen) or "the answer is an average" in first.reason


def test_an_interrupted_race_resumes_with_the_same_result(backbone, library, few, quick, tmp_path, monkeypatch):
    whole = tpv.transfer(backbone, few, library, budget="standard")

    class Stopped(Exception):
        pass

    def stop(what, _):
        if "round 2" in what:
            raise Stopped

    with pytest.raises(Stopped):
        tpv.transfer(backbone, few, library, budget="standard", work=tmp_path / "work", tell=stop)
    stored = sorted((tmp_path / "work").glob("*.npz"))
    assert stored
    calls = []
    real = racing.cross_scores
    monkeypatch.setattr(racing, "cross_scores", lambda *given: calls.append(given[2]) or real(*given))
    resumed = tpv.transfer(backbone, few, library, budget="standard", work=tmp_path / "work")
    assert calls == [4]  # the second round alone
    assert resumed.answerer.digest == whole.answerer.digest
    assert resumed.table.drop_columns(["seconds"]).equals(whole.table.drop_columns(["seconds"]))
    stored[0].write_bytes(b"damaged")
    assert tpv.transfer(backbone, few, library, budget="standard", work=tmp_path / "work").chosen == whole.chosen


def test_a_budget_of_seconds_is_the_most_thorough_race_that_fits(backbone, library, few, quick, tmp_path, monkeypatch):
    """What it came to decides as its name would, also where the same call resumes on a slower machine."""

    def came_to(**given):
        told = []
        result = tpv.transfer(
            backbone, few, library, candidates=["random"], tell=lambda what, _: told.append(what), **given
        )
        (line,) = (what for what in told if what.endswith("s") and " race, about " in what)
        return line.split()[1], result.table.drop_columns(["seconds"])

    named = {name: came_to(budget=name) for name in ("quick", "standard")}
    assert [level for level, _ in named.values()] == ["quick", "standard"]
    monkeypatch.delitem(LEVELS, "thorough")
    assert came_to(budget=1e9)[0] == "standard"
    assert came_to(budget=1e9)[1].equals(named["standard"][1])
    with pytest.warns(tpv.TpvWarning, match="even a quick race is expected to take longer than the"):
        level, table = came_to(budget=1e-9, work=tmp_path)
    assert level == "quick"
    assert table.equals(named["quick"][1])
    assert came_to(budget=1e9, work=tmp_path)[0] == "quick"  # the race that was begun there


def test_more_steps_that_do_worse_do_not_count(backbone, library, few, monkeypatch):
    """Each candidate stands as in its best round, and the winner is fitted with that round's steps."""
    monkeypatch.setitem(LEVELS, "standard", Level("standard", sources=1, folds=3, rounds=(0.2, 0.25)))
    real = racing.cross_scores

    def worse(problem, members, steps):
        found = real(problem, members, steps)
        return found if steps == 3 else {key: np.log(np.full_like(scores, 0.5)) for key, scores in found.items()}

    monkeypatch.setattr(racing, "cross_scores", worse)
    result = tpv.transfer(backbone, few, library, budget="standard", candidates=["source"])
    tuned = next(row for row in result.table.to_pylist() if row["entrant"].endswith(", tuned"))
    assert (tuned["round"], tuned["steps"]) == (1, 3)


def test_a_learning_curve_is_the_winner_with_fewer_rows(backbone, quick):
    """It learns from 8, 16 … of the rows of each fold, label distribution kept; the last point is the race itself."""
    task = tpv.load_task("mini/imdb").few_shot(48, 0)
    task = replace(task, splits={"train": task.examples("train")})
    result = tpv.transfer(backbone, task, budget="quick", candidates=["probe"], num_tokens=P)
    points = result.curve.to_pylist()
    assert [point["rows"] for point in points] == [8, 16, 32]
    standing = result.table.to_pylist()[0]
    assert points[-1] == {"rows": 32} | {name: standing[name] for name in ("accuracy", "low", "high", "log_loss")}
    problem, _ = problem_of(backbone, task, budget="quick", candidates=["probe"], num_tokens=P)
    some = replace(problem, part_rows=8)
    for whole, part in zip(problem.parts, some.parts, strict=True):
        assert part.held == whole.held
        assert len(part.train) == 8
        assert set(part.train) <= set(whole.train)
        assert sorted(problem.rows[i].label for i in part.train) == [0] * 4 + [1] * 4
    assert not tpv.transfer(backbone, task, shots=12, budget="quick", candidates=["probe"], num_tokens=P).curve


def test_the_test_split_decides_nothing(backbone, library, few, quick):
    blind = replace(few, splits={"train": few.examples("train")})
    one = tpv.transfer(backbone, few, library, budget="quick")
    two = tpv.transfer(backbone, blind, library, budget="quick")
    assert one.answerer.digest == two.answerer.digest


@pytest.mark.parametrize(
    "candidates", [["probe"], ["random"], {"source": {"count": 2}}, ["probe", "random", "instruction"]]
)
def test_a_saved_result_labels_as_it_did(backbone, library, few, quick, tmp_path, candidates):
    result = tpv.transfer(backbone, few, library, budget="quick", candidates=candidates)
    texts = [row.source for row in few.examples("test")[:20]]
    before = result.predict(texts)
    assert before.column_names == ["source", "predicted", "probability", "said", "log_probs"]
    result.save(tmp_path / "out")
    result.report(tmp_path / "page.html")
    assert "Candidates" in (tmp_path / "page.html").read_text()
    from tpv.evaluation.tuned import Tuned

    tuned = Tuned.load(tmp_path / "out")
    after = tpv.predict(backbone, tuned.task, tuned.prompt, texts, calibrator=tuned.about.calibrator)
    assert after["predicted"].equals(before["predicted"])
    np.testing.assert_allclose(after["probability"], before["probability"], rtol=1e-6)
    scores = tpv.evaluate(backbone, few, tuned.prompt, "test", calibrator=tuned.about.calibrator)
    assert scores.n == len(few.examples("test"))
    if result.prompt is not None and result.vector is not None:
        assert result.vector.tensor.shape == (P, 128)
    other = tpv.transfer(backbone, few, library, budget="quick", candidates=["probe", "random"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    other.save(tmp_path / "out")
    other.save(tmp_path / "new")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in (tmp_path / "new").iterdir()}
    assert {"task.toml", "transfer.json", "transfer.html"} <= names


def test_a_small_validation_split_joins_the_training_rows(backbone, few, quick):
    small = replace(few, splits=few.splits | {"validation": few.examples("test")[:8]})
    table = tpv.transfer(backbone, small, budget="quick", candidates=["probe"], num_tokens=P).table
    assert table["folds"].to_pylist() == [3]
    large = replace(few, splits=few.splits | {"validation": few.examples("test")[:50]})
    table = tpv.transfer(backbone, large, budget="quick", candidates=["probe"], num_tokens=P).table
    assert table["folds"].to_pylist() == [1]


def test_an_average_is_the_mean_of_its_parts(backbone, library, few, quick):
    @dataclass(frozen=True, kw_only=True)
    class Both:
        """Two prompts, averaged."""

        def entrants(self, problem):
            members = [FixedMember(f"f {name}", problem.start(problem.vectors[name])) for name in ("sst2", "noise")]
            return [Entrant("both", tuple(members)), *(Entrant(one.key, (one,)) for one in members)]

    tpv.register.candidate("both")(Both)
    try:
        result = tpv.transfer(backbone, few, library, budget="quick", candidates=["both"])
    finally:
        tpv.register.candidate.without("both")
    table = {row["entrant"]: row for row in result.table.to_pylist()}
    assert {"both", "f sst2", "f noise"} <= set(table)
    assert table["both"]["candidate"] == "both"
    assert table["f sst2"]["steps"] == 0


def test_weights_are_how_likely_each_is_the_best():
    """Against a loop over draws; few rows spread them, many concentrate them, equal entrants share."""
    generator = np.random.default_rng(1)
    losses = generator.gamma(2.0, 0.5, size=(3, 12))
    found = racing.weights(losses, seed=4)
    draws, total = np.random.default_rng(4).dirichlet(np.ones(12), size=racing.DRAWS), np.zeros(3)
    for draw in draws:
        likelihood = [math.exp(-racing.SHARE * 12 * sum(draw * each)) for each in losses]
        total += np.array(likelihood) / sum(likelihood)
    np.testing.assert_allclose(found, total / racing.DRAWS, rtol=1e-9)
    np.testing.assert_allclose(racing.weights(np.stack([losses[0]] * 4)), 0.25)
    gap = np.array([[0.4], [0.7]])
    few, many = (racing.weights(gap + 0.1 * generator.normal(size=(2, n)))[0] for n in (8, 400))
    assert 0.5 < few < 0.95 < many


def test_the_answer_is_the_weighted_average_of_what_is_named(backbone, library, few, quick, tmp_path):
    """Its judged probabilities, its weights and its answers to new texts, each by hand."""
    given = {"random": {}, "probe": {}, "instruction": {}}
    problem, entrants = problem_of(backbone, few, library, budget="quick", candidates=given)
    average, *singles = racing.race(problem, entrants, None, lambda *_: None)
    assert [one.name for one in (average.entrant,)] == [f"average of {len(average.parts)}"]
    kept = [one for one in singles if one.weight >= racing.LEAST_WEIGHT]
    assert {one.entrant.name for one in average.parts} == {one.entrant.name for one in kept}
    whole = sum(one.weight for one in kept)
    by_hand = sum(one.weight / whole * np.exp(one.log_probs) for one in kept)
    np.testing.assert_allclose(np.exp(average.log_probs), by_hand, rtol=1e-9)

    answerer, _ = fitted_parts(problem, average)
    sources = encode_examples(backbone, few.examples("test")[:9], 256)
    said = np.exp(answerer.answers(backbone, few, sources).log_probs.double().numpy())
    alone = [
        np.exp(Ensemble((part,)).answers(backbone, few, sources).log_probs.double().numpy()) for part in answerer.parts
    ]
    weights = answerer.weights or (1 / len(alone),) * len(alone)
    assert sum(weights) == pytest.approx(1.0)
    np.testing.assert_allclose(said, sum(w * one for w, one in zip(weights, alone, strict=True)), rtol=1e-4)
    unlike = Ensemble(answerer.parts, tuple(float(k + 1) for k in range(len(alone))))
    read = Ensemble.load(tmp_path, unlike.save(tmp_path), len(few.labels))
    assert read.weights == unlike.weights
    assert read.digest == unlike.digest != Ensemble(answerer.parts).digest
    np.testing.assert_array_equal(
        read.answers(backbone, few, sources).log_probs, unlike.answers(backbone, few, sources).log_probs
    )


def test_one_with_all_the_weight_answers_alone(backbone, library, few, quick, monkeypatch):
    monkeypatch.setattr(racing, "weights", lambda losses, seed: np.eye(len(losses))[1])
    result = tpv.transfer(backbone, few, library, budget="quick")
    rows = result.table.to_pylist()
    assert [row["weight"] for row in rows] == [1.0] + [0.0] * (len(rows) - 1)
    assert result.chosen == rows[0]["entrant"]
    assert "average" not in {row["candidate"] for row in rows}
    assert rows[0]["log_loss"] >= rows[1]["log_loss"]  # the second by log loss, which has the weight here


def test_a_fold_chooses_its_sources_by_its_own_rows(backbone, library, few, quick):
    """A source that suits the rows of one fold only is not judged by them after being chosen by them."""
    problem, _ = problem_of(backbone, few, library, budget="quick", candidates=["source"])
    count = len(problem.rows)
    held = list(problem.parts[0].held)
    sure = np.full((count, 2), 0.5)
    lucky = np.full((count, 2), 0.5)
    lucky[np.arange(count), 1 - problem.gold], lucky[np.arange(count), problem.gold] = 0.6, 0.4
    lucky[held, problem.gold[held]], lucky[held, 1 - problem.gold[held]] = 0.999, 0.001
    problem._said.update({"sst2": sure, "yelp": sure, "noise": lucky})
    problem.__dict__.pop("ranking")
    assert problem.best(1) == ["noise"]
    assert [problem.ranked(part.train)[0].name == "noise" for part in problem.parts] == [False, True, True]
    member = FixedMember("best", lambda names: problem.start(problem.vectors[names[0]]))
    prompts = prompts_of(problem, [member], [part.train for part in problem.parts], 1)["best"]
    noise = problem.start(problem.vectors["noise"]).digest
    assert [prompt.digest == noise for prompt in prompts] == [False, True, True]


def test_a_temperature_is_the_best_one():
    generator = np.random.default_rng(0)
    gold = generator.integers(0, 3, 400)
    logits = generator.normal(size=(400, 3)) + 2 * np.eye(3)[gold]
    sharp = 5 * logits
    log_probs = sharp - np.log(np.exp(sharp).sum(1, keepdims=True))
    rows = np.arange(400)
    found = -tempered_log_probs(log_probs, gold)[rows, gold].mean()
    tried = [
        -(one - np.log(np.exp(one).sum(1, keepdims=True)))[rows, gold].mean()
        for one in (log_probs / t for t in np.geomspace(0.5, 19, 300))
    ]
    assert found == pytest.approx(min(tried), abs=2e-3)


def test_learned_coefficients_lower_the_loss(backbone, library):
    init = tpv.SoftPrompt.sample(backbone, P, seed=5)
    recipe = tpv.Recipe(steps=25, batch_size=12, select="last", warmup_steps=2)
    vectors = [library["noise"], library["sst2"]]
    task = tpv.load_task("mini/sst2").few_shot(12, 0)
    prompts = {"equal": init + 0.5 * vectors[0] + 0.5 * vectors[1]}
    for way in ("gradient", "search"):
        own = replace(recipe, steps=25 if way == "gradient" else 8)
        (weights,) = learn_coefficients(backbone, [task], vectors, init, own, way=way, callback=lambda _: None)
        assert weights.shape == (2,)
        first, second = weights.tolist()
        prompts[way] = init + first * vectors[0] + second * vectors[1]
    scores = dict(zip(prompts, tpv.evaluate(backbone, task, list(prompts.values()), "train"), strict=True))
    assert scores["gradient"].loss < scores["equal"].loss  # of the words, which it descends
    assert scores["search"].log_loss < scores["equal"].log_loss  # of the labels, which it searches
    (each,) = learn_coefficients(
        backbone, [task], vectors, init, replace(recipe, steps=2), per_token=True, callback=lambda _: None
    )
    assert each.shape == (2, P)
    with pytest.raises(tpv.TpvError, match="per_token"):
        learn_coefficients(backbone, [task], vectors, init, recipe, way="search", per_token=True)
    with pytest.raises(tpv.TpvError, match="at least one"):
        learn_coefficients(backbone, [task], [], init, recipe)


def test_bad_input_is_refused_in_one_line(backbone, library, few, random_t5):
    def refused(message, task=few, vectors=library, **more):
        with pytest.raises(tpv.TpvError, match=message):
            tpv.transfer(backbone, task, vectors, **{"budget": "quick", **more})

    one = replace(few, splits={"train": tuple(row for row in few.examples("train") if row.label == 0)})
    single = [next(row for row in few.examples("train") if row.label == label) for label in (0, 1)]
    refused("the library is empty", vectors={})
    refused("the library is empty", vectors=[])
    refused("without a training row.*positive", task=one)
    refused("at least two of each label.*1 of", task=replace(few, splits={"train": tuple(single)}))
    refused("budget; expected quick, standard, thorough", budget="slow")
    refused("unknown candidate 'probes'.*probe", candidates=["probes"])
    refused(r"write \['probe'\]", candidates="probe")
    refused("give a library", vectors=None, candidates=["source"])
    refused("shots", shots=10_000)
    refused("4, as the library's vectors have", num_tokens=7)
    refused("number of", vectors=None, num_tokens=0, candidates=["random"])
    refused("task prompt vectors; got int", vectors={"a": 3})
    refused("a tpv.Library, a path, a mapping or a list; got int", vectors=7)
    refused("no library at", vectors="no_such_folder")
    refused("expected a Task", task="few.csv")
    with pytest.raises(tpv.TpvError, match="load_backbone"):
        tpv.transfer("mini", few, library)
    result = tpv.transfer(backbone, few, budget="quick", candidates=["probe"])
    for texts, message in (([None], "text 1; expected a string"), (None, "a sequence"), ("one", "one text")):
        with pytest.raises(tpv.TpvError, match=message):
            result.predict(texts)
    with pytest.raises(tpv.TpvError, match="a path"):
        result.save("")
    foreign = random_t5()
    start = tpv.SoftPrompt.sample(foreign, P)
    refused("of another model", vectors=[start.tuned_to(start.tensor + 1, "x") - start])
    with pytest.raises(tpv.TpvError, match="text task"):
        tpv.transfer(backbone, tpv.load_task("mini/new_word"), library)


def test_vectors_that_do_not_fit_are_left_out_and_counted(backbone, library, few, quick, random_t5):
    longer, foreign = tpv.SoftPrompt.sample(backbone, 6), tpv.SoftPrompt.sample(random_t5(), P)
    others = {name: start.tuned_to(start.tensor + 1, name) - start for name, start in (("l", longer), ("f", foreign))}
    with pytest.warns(tpv.TpvWarning) as told:
        result = tpv.transfer(backbone, few, library | others, budget="quick", candidates=["source"])
    said = [str(one.message) for one in told]
    assert any("1 of another model" in line for line in said)
    assert any("1 not of 4 tokens" in line for line in said)
    assert set(result.ranking) == set(library)


def test_truncated_texts_are_told_once(backbone, library, few, quick, recwarn):
    tpv.transfer(backbone, few, library, budget="standard", candidates=["random", "source"], max_input_length=6)
    told = [str(one.message) for one in recwarn if issubclass(one.category, tpv.CutWarning)]
    assert len(told) == 1
    assert "of 12 texts of task 'mini/imdb'" in told[0]
