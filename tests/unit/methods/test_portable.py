"""`fit_vectors`: vectors under fresh starts and beside each other, against literal loops and laws."""

from dataclasses import replace

import pytest
import torch
from torch.nn import Parameter

import tpv
from tpv.evaluation.portability import interference
from tpv.methods.readers import Inits, Mixture
from tpv.outputs.label import label_tokens
from tpv.training.sampler import batches

QUIET = pytest.mark.filterwarnings("ignore::tpv.TpvWarning")
SHORT = tpv.Recipe(steps=8, batch_size=4, warmup_steps=1, eval_every=4, lr=0.2, weight_decay=0.0)
P = 3


@pytest.fixture
def tasks(toy_task):
    return [
        toy_task(["good", "not good"], rows=40, name="a"),
        toy_task(["bad", "movie plot", "good"], rows=17, name="b"),
        toy_task(["is", "the"], rows=30, name="c"),
    ]


def fit(backbone, tasks, recipe=SHORT, **options):
    return tpv.fit_vectors(backbone, tasks, recipe, num_tokens=P, callback=lambda _: None, **options)


def test_a_prompt_is_start_plus_vectors_with_their_factors(random_t5):
    """Every drawn prompt minus its vectors is a start: distinct rows of the vocabulary; factors are as asked."""
    backbone = random_t5()
    torch.manual_seed(0)
    own, others, pool = torch.randn(P, 32), [torch.randn(P, 32) for _ in range(2)], torch.randn(2, P, 32)
    starts = Inits(backbone, "vocabulary", P, True, 0)
    reader = Mixture(starts, own, others, pool, scales=(0.5, 0.9), chance=0.3, draws=400, seed="s")
    prompts, index = reader.read([(1,)] * 400)
    assert index.tolist() == list(range(400))
    rows = backbone.embeddings().float()
    basis = torch.stack([own, *others, *pool]).flatten(1)
    known, seen = [], []
    for prompt, factors in zip(prompts, reader._factors, strict=True):
        start = prompt - (factors @ basis).view(P, 32)
        distance = torch.cdist(start.double(), rows.double())
        assert distance.min(dim=1).values.max() < 1e-4
        ids = distance.argmin(dim=1).tolist()
        assert len(set(ids)) == P
        known.append(factors)
        seen += ids
    factors = torch.stack(known)
    assert factors[:, 0].min() >= 0.5
    assert factors[:, 0].max() <= 0.9
    assert set(factors[:, 1:3].unique().tolist()) == {0.0, 1.0}
    assert factors[:, 3:][factors[:, 3:] > 0].min() >= 0.5
    assert (factors[:, 1:] > 0).float().mean(0).sub(0.3).abs().max() < 0.08
    assert len(set(seen)) > 300  # starts differ
    reader.begin(0)
    assert torch.equal(reader.read([(1,)] * 400)[0], prompts)  # a step's draws are decided by its number
    reader.begin(1)
    assert not torch.equal(reader.read([(1,)] * 400)[0], prompts)
    reader.begin(0)
    halves = [reader.read([(1,)] * 200) for _ in range(2)]  # however a batch is cut
    assert torch.equal(torch.cat([bank[rows] for bank, rows in halves]), prompts)


@QUIET
@pytest.mark.parametrize("composable", [False, True])
def test_against_a_plain_loop(random_t5, tasks, composable):
    """The same draws, row by row through the model, with autograd and torch's AdamW."""
    backbone, tasks = random_t5(), tasks[:2]
    recipe = tpv.Recipe(steps=6, batch_size=4, warmup_steps=1, select="last", lr=0.2, weight_decay=0.01)
    ours = fit(backbone, tasks, recipe, composable=composable, seed=3, scales=(0.5, 1.0))
    taus = [Parameter(torch.zeros(P, 32)) for _ in tasks]
    starts = Inits(backbone, "vocabulary", P, True, 3)
    readers = [
        Mixture(
            starts,
            taus[k],
            [taus[1 - k]] if composable else [],
            torch.empty(0, P, 32),
            scales=(0.5, 1.0),
            chance=0.5,
            draws=4,
            seed=f"3 {task.name}",
        )
        for k, task in enumerate(tasks)
    ]
    optimizer = torch.optim.AdamW(taus, lr=0.2, weight_decay=0.01)
    schedules = []
    for task in tasks:
        rows = task.examples("train")
        sources = backbone.encode_sources([row.source for row in rows], 256)
        words = label_tokens(backbone, task)
        order = batches([len(source) for source in sources], 4, 0)
        schedules.append((sources, [words[row.label] for row in rows], order))
    for step in range(6):
        for reader, (sources, targets, order) in zip(readers, schedules, strict=True):
            reader.begin(step)
            chosen = next(order)
            # longest first, as chunks have them
            chosen = sorted(chosen, key=lambda i: len(sources[i]), reverse=True)
            bank, _ = reader.read([sources[i] for i in chosen])
            tokens = sum(len(targets[i]) for i in chosen)
            for prompt, i in zip(bank, chosen, strict=True):
                loss = backbone.nll(prompt[None], torch.tensor([0]), [sources[i]], [targets[i]]).sum() / tokens
                loss.backward(retain_graph=True)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(step, 6)
        for tau in taus:
            torch.nn.utils.clip_grad_norm_([tau], 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for vector, tau in zip(ours, taus, strict=True):
        torch.testing.assert_close(vector.tensor, tau.detach(), atol=2e-4, rtol=1e-3)
        assert vector.norm() > 0.5


@QUIET
def test_portable_vectors_in_a_bank_are_those_trained_alone(random_t5, tasks):
    backbone = random_t5()
    for task, vector in zip(tasks, fit(backbone, tasks), strict=True):
        (alone,) = fit(backbone, [task])
        assert (alone.tensor - vector.tensor).abs().max() < 1e-4
        assert vector.terms == {task.name: 1.0}
    one, two = fit(backbone, tasks[:2], composable=True)
    assert (one.tensor - fit(backbone, tasks[:1])[0].tensor).abs().max() > 0.01  # each shapes the other
    assert (two.tensor - fit(backbone, tasks[1:2])[0].tensor).abs().max() > 0.01


@QUIET
def test_one_fixed_start_is_ordinary_tuning(random_t5, tasks):
    backbone = random_t5()
    (vector,) = fit(backbone, tasks[:1], portable=False, seed=5)
    init = tpv.SoftPrompt.sample(backbone, P, seed=5)
    ordinary = tpv.fit(backbone, tasks[0], init, SHORT, callback=lambda _: None) - init
    torch.testing.assert_close(vector.tensor, ordinary.tensor, atol=1e-4, rtol=1e-4)
    assert vector.components[0].init == init.init
    (zero,) = fit(backbone, tasks[:1], portable=False, init="zero")
    assert zero.components[0].home == "zero"
    assert (zero.tensor - vector.tensor).abs().max() > 0.01


@QUIET
def test_a_vector_without_a_home_says_how_it_was_trained(random_t5, tasks, tmp_path):
    backbone = random_t5()
    a, b = fit(backbone, tasks[:2], composable=True, scales=(0.5, 1.0), seed=7)
    (part,) = a.components
    assert part.init is None
    assert part.training.starts == "vocabulary"
    assert part.training.beside == ("b",)
    assert part.home == "fresh vocabulary (limit 5000) initializations; beside b; scales 0.5 to 1"
    a.save(tmp_path / "a.safetensors")
    again = tpv.TaskPromptVector.load(tmp_path / "a.safetensors")
    assert again == a
    assert again.components == a.components
    total = a + b
    assert total.terms == {"a": 1.0, "b": 1.0}
    assert (tpv.SoftPrompt.sample(backbone, P) + total).terms == total.terms
    (other,) = fit(backbone, tasks[:1], seed=8)
    assert len((a + other).components) == 2  # two trainings of one task are two components


@QUIET
def test_a_pool_stays_and_the_new_vector_is_trained_beside_it(random_t5, tasks):
    backbone = random_t5()
    pool = fit(backbone, tasks[:2])
    before = [vector.digest for vector in pool]
    (beside,) = fit(backbone, tasks[2:], composable=True, pool=pool)
    (alone,) = fit(backbone, tasks[2:])
    (replayed,) = fit(backbone, tasks[2:], composable=True, pool=pool, replay=tasks[:2])
    assert [vector.digest for vector in pool] == before
    for one, other in ((beside, alone), (beside, replayed)):
        assert (one.tensor - other.tensor).abs().max() > 0.01
    assert beside.components[0].training.beside == ("a", "b")
    assert set(beside.components[0].training.pool) == {vector.components[0].origin for vector in pool}


@QUIET
def test_replay_protects_the_pool(backbone):
    """A new task that wants the opposite words for the same texts: with replay the old task loses less."""
    old = tpv.load_task("mini/sst2").limited({"train": 64, "test": 50}, 0)
    flipped = {row.target: old.labels[1 - row.label] for row in old.examples("train")}
    new = replace(
        old,
        spec=old.spec.model_copy(update={"name": "new"}),
        splits={
            split: tuple(replace(row, target=flipped[row.target], label=1 - row.label) for row in rows)
            for split, rows in old.splits.items()
        },
    )
    recipe = tpv.Recipe(steps=50, batch_size=8, lr=0.3, warmup_steps=5, select="last")
    pool = fit(backbone, [old], recipe)
    losses = []
    for replayed in ([], [old]):
        (vector,) = fit(backbone, [new], recipe, composable=True, pool=pool, replay=replayed)
        starts = [tpv.SoftPrompt.sample(backbone, P, seed) for seed in range(2)]
        scores = tpv.evaluate(backbone, old, [start + pool[0] + vector for start in starts])
        losses.append(sum(score.loss for score in scores))
    assert losses[1] < losses[0] - 0.1


class Killed(Exception):
    pass


def test_a_training_that_was_killed_goes_on_bit_for_bit(random_t5, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr("tpv.training.checkpoint.CHECKPOINT_SECONDS", 0.0)
    backbone, path = random_t5(), tmp_path / "state.safetensors"
    options = {"num_tokens": P, "composable": True, "pool": fit(backbone, tasks[2:]), "replay": tasks[2:]}
    expected = tpv.fit_vectors(backbone, tasks[:2], SHORT, callback=lambda _: None, **options)

    def killed(progress):
        if progress.step == 5:
            raise Killed

    with pytest.raises(Killed):
        tpv.fit_vectors(backbone, tasks[:2], SHORT, callback=killed, checkpoint=path, **options)
    with pytest.raises(tpv.TpvError, match="belongs to another training"):
        tpv.fit_vectors(backbone, tasks[:2], SHORT, callback=killed, checkpoint=path, **(options | {"seed": 1}))
    resumed = tpv.fit_vectors(backbone, tasks[:2], SHORT, callback=lambda _: None, checkpoint=path, **options)
    assert [vector.digest for vector in resumed] == [vector.digest for vector in expected]


@QUIET
@pytest.mark.parametrize("starts", ["normal", "given"])
def test_other_starts(random_t5, tasks, starts):
    backbone = random_t5()
    given = [tpv.SoftPrompt.sample(backbone, P, seed) for seed in range(3)]
    (vector,) = fit(backbone, tasks[:1], init=given if starts == "given" else starts)
    assert vector.components[0].training.starts == starts
    if starts == "given":
        drawn = Inits(backbone, given, P, True, 0).draw(50, torch.Generator().manual_seed(0))
        assert {tuple(prompt.flatten().tolist()) for prompt in drawn} == {
            tuple(prompt.tensor.flatten().tolist()) for prompt in given
        }


@QUIET
def test_where_prompts_are_calculated_once_one_is_drawn_a_batch(random_causal, tasks, monkeypatch):
    backbone = random_causal()
    counts = []
    plain = type(backbone).nll

    def counted(self, bank, index, sources, targets):
        counts.append((len(bank), len(index)))
        return plain(self, bank, index, sources, targets)

    monkeypatch.setattr(type(backbone), "nll", counted)
    fit(backbone, tasks[:2], tpv.Recipe(steps=3, batch_size=4, select="last"), composable=True)
    assert {bank for bank, _ in counts} == {2}
    assert max(rows for _, rows in counts) == 8
    counts.clear()
    fit(backbone, tasks[:2], tpv.Recipe(steps=3, batch_size=4, select="last"), composable=True, draws=4)
    assert all(bank == rows for bank, rows in counts)


def test_what_does_not_fit_together_is_refused(random_t5, tasks, backbone):
    model = random_t5()
    (pooled,) = fit(model, tasks[:1])
    elsewhere = fit(model, tasks[1:2], tpv.Recipe(steps=1, batch_size=2, select="last"))[0]
    cases = [
        ({"tasks": []}, "at least one"),
        ({"tasks": [tasks[0], tasks[0]]}, "no name twice"),
        ({"composable": True}, "other tasks, or a pool"),
        ({"pool": [pooled]}, "composable=True"),
        ({"init": "zero"}, "portable=False"),
        ({"init": "one"}, "unknown initializer 'one'"),
        ({"init": [tpv.SoftPrompt.sample(model, P + 1)]}, f"expected {P} tokens"),
        ({"scales": (0.0, 1.0)}, "two positive numbers"),
        ({"scales": (1.0, 0.5)}, "two positive numbers"),
        ({"chance": 0.0}, "above 0"),
        ({"draws": 0}, "at least 1"),
        ({"composable": True, "pool": [0.5 * elsewhere]}, "at scale 1"),
        ({"composable": True, "pool": [pooled]}, "tasks that are not trained"),
        ({"composable": True, "pool": [elsewhere], "replay": [tasks[2]]}, "a task of the pool"),
        ({"composable": True, "pool": [tpv.SoftPrompt.sample(model, P)]}, "TaskPromptVector"),
    ]
    for options, words in cases:
        with pytest.raises(tpv.TpvError, match=words):
            fit(model, **({"tasks": tasks[:1]} | options))
    with pytest.raises(tpv.IncompatibleError, match="of the pool does not fit"):
        fit(backbone, tasks[:1], composable=True, pool=[elsewhere])
    with pytest.raises(tpv.TpvError, match="at most"):
        tpv.fit_vectors(model, tasks[:1], SHORT, num_tokens=10**5)


OPTIONS = ["--tokens", P, "--steps", 6, "--batch-size", 4, "--warmup", 1, "--lr", 0.2]


def test_by_command(run, tmp_path, backbone):
    code, out, _ = run("tune", "--portable", "--task", "mini/sst2", "--out", tmp_path / "a", *OPTIONS)
    assert code == 0
    assert "init + vector" in out
    recipe = tpv.Recipe(steps=6, batch_size=4, warmup_steps=1, lr=0.2)
    task = tpv.load_task("mini/sst2")
    (expected,) = fit(backbone, [task], recipe)
    vector = tpv.TaskPromptVector.load(tmp_path / "a/vector.safetensors")
    torch.testing.assert_close(vector.tensor, expected.tensor, atol=1e-5, rtol=1e-5)
    both = ["--task", "mini/trec", "--task", "mini/yelp"]
    code, out, _ = run(
        "tune",
        "--composable",
        *both,
        "--pool",
        tmp_path / "a/vector.safetensors",
        "--replay",
        "--out",
        tmp_path / "b",
        *OPTIONS,
    )
    assert code == 0
    assert out.count("init + all vectors") == 2 * 3  # in the table, and each with its interval
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"mini-trec.safetensors", "mini-yelp.safetensors"}
    files = [tmp_path / "a/vector.safetensors", tmp_path / "b/mini-trec.safetensors"]
    code, out, _ = run("vector", "show", *files)
    assert "fresh vocabulary" in out
    assert "beside mini/sst2," in out
    code, out, _ = run(
        "vector", "show", *files, "--on", "mini", "--task", "mini/sst2", "--task", "mini/trec", "--starts", 2
    )
    assert code == 0
    second = tpv.TaskPromptVector.load(files[1])
    matrix = interference(backbone, [vector, second], [task, tpv.load_task("mini/trec")], inits=2)
    for score in matrix.flatten():
        assert f"{score:.3f}" in out


def test_bad_commands_are_one_line_and_leave_nothing(run, tmp_path):
    out = tmp_path / "out"
    for args, words in (
        (["--portable", "--composable", "--task", "mini/sst2"], "other tasks, or a pool"),
        (["--pool", "x.safetensors", "--task", "mini/sst2"], "--portable or --composable"),
        (["--portable", "--find-lr", "--task", "mini/sst2"], "got --find-lr"),
        (["--portable", "--init", "text:a", "--task", "mini/sst2"], "vocabulary or normal"),
        (["--task", "mini/sst2", "--task", "mini/trec"], "got 2"),
        (["--composable", "--pool", tmp_path / "x.safetensors", "--task", "mini/sst2"], "cannot be read"),
    ):
        code, _, error = run("tune", *args, "--out", out, *OPTIONS)
        assert (code, words in error, error.count("\n")) == (2, True, 1), error
        assert not out.exists()
    for args, words in (
        (["--on", "mini"], "a --task for each"),
        (["--on", "mini", "--task", "a", "--task", "b"], "got 2"),
    ):
        code, _, error = run("vector", "show", tmp_path / "x.safetensors", *args)
        assert (code, words in error) == (2, True), error
