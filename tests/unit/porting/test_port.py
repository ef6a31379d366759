"""`tpv.port`: what moves, what is recorded, training after it, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import tpv
from tpv.porting.distilled import distillation
from tpv.prompts.facts import facts_of
from tpv.prompts.homes import home_of
from tpv.training.run import TrainingRow

P = 4
QUICK = tpv.Recipe(steps=3, batch_size=4, warmup_steps=1, select="last")


@pytest.fixture(scope="module")
def second(random_t5):
    return random_t5(seed=1, d_model=48)


@pytest.fixture(scope="module")
def init(backbone):
    return tpv.SoftPrompt.sample(backbone, P, seed=0)


@pytest.fixture(scope="module")
def tuned(backbone, init):
    return init.tuned_to(init.tensor + tpv.SoftPrompt.normal(backbone, P, seed=5).tensor, "mini/sst2", "rows")


@pytest.fixture(scope="module")
def task():
    whole = tpv.load_task("mini/sst2")
    return replace(whole, splits={"train": whole.examples("train")[:8], "test": whole.examples("test")[:8]})


# --- what moves -----------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["procrustes", "ridge", "relative", "copy"])
def test_the_port_of_a_difference_is_the_difference_of_the_ports(method, backbone, second, init, tuned):
    apart = tpv.port(tuned, backbone, second, method=method) - tpv.port(init, backbone, second, method=method)
    whole = tpv.port(tuned - init, backbone, second, method=method)
    torch.testing.assert_close(apart.tensor, whole.tensor, atol=1e-4, rtol=1e-4)
    assert apart.terms == whole.terms == {"mini/sst2": 1.0}


def test_sums_and_factors_move_as_they_are(backbone, second, init, tuned):
    one = tuned - init
    two = init.tuned_to(tpv.SoftPrompt.normal(backbone, P, seed=6).tensor, "mini/yelp") - init
    both = tpv.port(one - 0.5 * two, backbone, second, method="ridge")
    parts = tpv.port([one, two], backbone, second, method="ridge")
    torch.testing.assert_close(both.tensor, (parts[0] - 0.5 * parts[1]).tensor, atol=1e-4, rtol=1e-4)
    assert both.terms == {"mini/sst2": 1.0, "mini/yelp": -0.5}


def test_the_number_of_tokens_may_differ(backbone, second, tuned):
    same = tpv.port(tuned, backbone, second).tensor
    assert torch.equal(tpv.port(tuned, backbone, second, num_tokens=2).tensor, same[:2])
    assert torch.equal(tpv.port(tuned, backbone, second, num_tokens=6).tensor, torch.cat([same, same[:2]]))


def test_to_a_decoder_only_model_with_another_tokenizer(backbone, random_causal, tuned, task):
    other = random_causal()
    moved = tpv.port(tuned, backbone, other)
    assert moved.model == other.identity
    assert tpv.evaluate(other, task, moved, "test").n == 8


# --- what is recorded -----------------------------------------------------------------------------
def test_provenance_goes_with_the_file(backbone, second, init, tuned, tmp_path):
    moved = tpv.port(tuned - init, backbone, second, method="ridge", alpha=2.0)
    moved.save(tmp_path / "v.safetensors")
    again = tpv.TaskPromptVector.load(tmp_path / "v.safetensors")
    assert again == moved
    assert again.model == second.identity
    (part,) = again.components
    assert (part.task, part.data, part.init, part.coefficient) == ("mini/sst2", "rows", None, 1.0)
    assert (part.port.method, part.port.parameters) == ("ridge", {"alpha": 2.0, "scale": "match"})
    assert part.port.model == backbone.identity
    assert part.port.anchors == len(backbone.pieces())
    assert part.port.of == (tuned - init).components[0]
    assert "ported from mini by ridge" in facts_of(again.model, P, again.components).init
    with pytest.raises(tpv.IncompatibleError):
        _ = init + again


def test_a_ported_prompt_knows_its_initialization(backbone, second, init, tuned, tmp_path):
    moved = tpv.port(tuned, backbone, second)
    moved.save(tmp_path / "p.safetensors")
    again = tpv.SoftPrompt.load(tmp_path / "p.safetensors")
    assert again == moved
    assert again.init.kind == "ported"
    assert again.init.matches(tpv.port(init, backbone, second).init)
    assert not again.init.matches(tpv.port(init, backbone, second, method="copy").init)


def test_what_was_not_ported_is_written_as_before(tuned):
    assert "port" not in tuned.components[0].model_dump()


def test_a_port_of_a_port_and_of_a_merge(backbone, second, random_t5, init, tuned):
    merged = tpv.merge([tuned - init, 2 * (tuned - init)], "ties")
    there = tpv.port(merged, backbone, second)
    back = tpv.port(there, second, backbone)
    assert back.model == backbone.identity
    assert back.components[0].port.of.port.of.merge.method == "ties"
    assert back.expression == merged.expression


# --- training after it ----------------------------------------------------------------------------
def test_training_starts_from_the_port(backbone, second, tuned, task):
    moved = tpv.port(tuned, backbone, second)
    after = tpv.port(tuned, backbone, second, data=task, recipe=QUICK)
    by_hand = tpv.fit(second, task, moved, QUICK)
    assert torch.equal(after.tensor, by_hand.tensor)
    adapted = after.components[0].port.adapted
    assert (adapted.task, adapted.rows, adapted.steps, adapted.teacher) == ("mini/sst2", 8, 3, "labels")
    assert after.terms == {"mini/sst2": 1.0}


def test_a_trained_vector_belongs_to_the_initialization_it_trained_on(backbone, second, init, tuned, task):
    start = tpv.SoftPrompt.sample(second, P, seed=3)
    vector = tpv.port(tuned - init, backbone, second, data=task, recipe=QUICK, start=start)
    by_hand = tpv.fit(second, task, start + tpv.port(tuned - init, backbone, second), QUICK)
    torch.testing.assert_close((start + vector).tensor, by_hand.tensor, atol=1e-6, rtol=1e-6)
    assert home_of(second, vector) == start


def test_the_source_teaches_without_labels(backbone, second, tuned, task):
    """The rows' labels decide nothing, and rows may be texts alone."""

    def taught(**how):
        return tpv.port(tuned, backbone, second, teacher="source", recipe=QUICK, **how).tensor

    rows = task.examples("train")
    flipped = tuple(replace(row, label=1 - row.label, target=task.labels[1 - row.label]) for row in rows)
    first = taught(data=task)
    assert torch.equal(first, taught(data=replace(task, splits={"train": flipped})))
    assert torch.equal(first, taught(data=task, texts=[row.source for row in rows]))
    assert not torch.equal(first, tpv.port(tuned, backbone, second, data=task, recipe=QUICK).tensor)


def test_distillation_brings_the_answers_of_the_target_to_those_of_the_source(backbone, task):
    """On one model, from an unrelated start: the divergence from the teacher falls."""
    teacher = tpv.SoftPrompt.from_text(backbone, "sentiment of the movie", P)
    vector = teacher.tuned_to(teacher.tensor, "t") - teacher  # nothing: so that `start` alone is where training starts
    start = tpv.SoftPrompt.sample(backbone, P, seed=9)
    recipe = tpv.Recipe(steps=40, batch_size=8, warmup_steps=4, select="last")
    options = {"method": "copy", "data": task, "teacher": "source", "init": teacher, "start": start, "recipe": recipe}
    student = start + tpv.port(vector, backbone, backbone, **options)

    def answers(prompt):
        said = tpv.evaluate(backbone, task, prompt, "train").predictions["log_probs"].to_pylist()
        shares = np.exp(np.array(said))
        return shares / shares.sum(1, keepdims=True)

    wanted = answers(teacher)
    before, after = ((wanted * -np.log(answers(prompt))).sum(1).mean() for prompt in (start, student))
    assert after < 0.5 * before


def test_the_loss_of_distillation_by_hand(backbone, task, tuned):
    rows = task.examples("train")[:3]
    shares = {rows[0]: (0.25, 0.75), rows[1]: (1.0, 0.0), rows[2]: (0.0001, 0.9999)}
    sources = backbone.encode_sources([row.source for row in rows], 64)
    training = [TrainingRow(source, (), None, row) for source, row in zip(sources, rows, strict=True)]
    bank, index = tuned.tensor[None], torch.zeros(3, dtype=torch.long)
    found = distillation(task, shares)(backbone, bank, index, training)
    words = [backbone.encode_target(word) for word in task.labels]
    logs = backbone.score_labels(bank, index, sources, words).log_probs
    wanted = [-(0.25 * logs[0, 0] + 0.75 * logs[0, 1]), -logs[1, 0], -0.9999 * logs[2, 1]]
    torch.testing.assert_close(found, torch.stack(wanted), atol=1e-4, rtol=1e-4)


# --- the projector --------------------------------------------------------------------------------
def test_a_projector_that_learns_from_tasks_makes_them_likelier(backbone, second, init, tuned, task):
    def loss(**how):
        moved = tpv.port(tuned, backbone, second, **how)
        return tpv.evaluate(second, task, moved, "train").loss

    known = [(tuned, task)]
    assert loss(method="projector", known=known, steps=20, lr=1e-2) < loss(method="procrustes") - 0.1


def test_a_projector_that_learns_from_counterparts_comes_close_to_them(backbone, second, init):
    ours = [init.tuned_to(tpv.SoftPrompt.normal(backbone, P, seed=k).tensor, f"t{k}") for k in range(3)]
    theirs = [tpv.SoftPrompt.normal(second, P, seed=k) for k in range(3)]
    known = list(zip(ours, theirs, strict=True))
    near = tpv.port(ours[0], backbone, second, method="projector", known=known, steps=300)
    far = tpv.port(ours[0], backbone, second)
    distance = [(moved.tensor - theirs[0].tensor).norm() for moved in (near, far)]
    assert distance[0] < 0.3 * distance[1]


# --- what is refused ------------------------------------------------------------------------------
def mistakes():
    yield "third model", lambda c: tpv.port(c.other, c.a, c.b), "belongs to another model"
    yield "mixed", lambda c: tpv.port([c.tuned, c.vector], c.a, c.b), "SoftPrompt, TaskPromptVector"
    yield "nothing", lambda c: tpv.port([], c.a, c.b), "nothing"
    yield "a task", lambda c: tpv.port(c.task, c.a, c.b), "what to port"
    yield "map", lambda c: tpv.port(c.vector, c.a, c.b, method="procrust"), "did you mean 'procrustes'"
    yield "parameter", lambda c: tpv.port(c.vector, c.a, c.b, alpha=1.0), "unknown parameter 'alpha'"
    yield "too long", lambda c: tpv.port(c.vector, c.a, c.short, num_tokens=128), "at most 127 tokens"
    yield "no tokens", lambda c: tpv.port(c.vector, c.a, c.b, num_tokens=0), "num_tokens"
    yield "anchors", lambda c: tpv.port(c.vector, c.a, c.b, anchors=1), "at least 2"
    yield "anchor texts", lambda c: tpv.port(c.vector, c.a, c.b, anchors=["a", ""]), "has no tokens"
    yield "one text", lambda c: tpv.port(c.vector, c.a, c.b, anchors="the"), "at least 2 texts"
    yield "known", lambda c: tpv.port(c.vector, c.a, c.b, known=[(c.vector, c.task)]), "does not learn"
    yield "unknown", lambda c: tpv.port(c.vector, c.a, c.b, method="projector"), "pairs of what is known"
    yield "pair", lambda c: tpv.port(c.vector, c.a, c.b, method="projector", known=[(c.tuned, c.task)]), "known pairs"
    yield (
        "pair of another",
        lambda c: tpv.port(c.vector, c.a, c.b, method="projector", known=[(c.vector, c.vector)]),
        "another model",
    )
    yield "texts", lambda c: tpv.port(c.vector, c.a, c.b, data=c.task, texts=["x"]), "no labels to learn from"
    yield "teacher", lambda c: tpv.port(c.vector, c.a, c.b, teacher="source"), "without data"
    yield "no teacher", lambda c: tpv.port(c.vector, c.a, c.b, teacher="nobody"), "'labels' or 'source'"
    yield "start", lambda c: tpv.port(c.vector, c.a, c.b, start=c.tuned), "start belongs to another model"
    yield "sparse", lambda c: tpv.port(c.vector, c.a, c.b, method="sparse", terms=1000), "at most"


@pytest.mark.parametrize(
    ("call", "said"), [(call, said) for _, call, said in mistakes()], ids=[m[0] for m in mistakes()]
)
def test_mistakes_are_one_line(call, said, backbone, second, random_causal, init, tuned, task):
    class Case:
        a, b, short = backbone, second, random_causal()
        vector, other = tuned - init, tpv.SoftPrompt.sample(second, P)

    Case.tuned, Case.task = tuned, task
    with pytest.raises(tpv.TpvError, match=said) as error:
        call(Case)
    assert "\n" not in str(error.value)


def test_models_without_shared_tokens(backbone, second, tuned, monkeypatch):
    monkeypatch.setattr(second, "pieces", lambda: {"\u5b57": 3})
    with pytest.raises(tpv.TpvError, match="share no tokens"):
        tpv.port(tuned, backbone, second)
    moved = tpv.port(tuned, backbone, second, anchors=["the movie", "a film", "good"], method="procrustes")
    assert moved.model == second.identity
    assert tpv.port(tuned, backbone, second, method="copy").model == second.identity
