"""`fit`: a bank equals separate runs, and both equal a plain PEFT-style loop."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from toys import teach
from transformers import get_scheduler

import tpv
from tpv.compat.half import half_prompt
from tpv.compat.targets import padded_targets
from tpv.evaluation.bank import SharedPrompt
from tpv.outputs.label import label_tokens
from tpv.training import loop
from tpv.training.run import Run
from tpv.training.sampler import batches

QUIET = pytest.mark.filterwarnings("ignore::tpv.TpvWarning")
SHORT = tpv.Recipe(steps=20, batch_size=4, warmup_steps=2, eval_every=10)


def starts(backbone, count, num_tokens=4):
    return [tpv.SoftPrompt.sample(backbone, num_tokens, seed=s) for s in range(count)]


@QUIET
def test_a_bank_equals_separate_runs(random_t5, toy_task):
    backbone = random_t5(0)
    tasks = [
        toy_task(["good", "not good"], rows=40, name="a"),
        toy_task(["bad", "movie plot", "good"], rows=17, name="b"),
        toy_task(["is", "the"], rows=90, name="c"),
    ]
    inits = starts(backbone, 3)
    together = tpv.fit(backbone, tasks, inits, SHORT, seeds=[5, 6, 7])
    for task, init, seed, prompt in zip(tasks, inits, (5, 6, 7), together, strict=True):
        alone = tpv.fit(backbone, task, init, SHORT, seeds=[seed])
        assert (alone.tensor - prompt.tensor).abs().max() < 1e-4
        assert alone.terms == {task.name: 1.0}
        assert (alone.tensor - init.tensor).abs().max() > 0.1


@QUIET
def test_proximity_pulls_each_step_back_to_the_start(random_t5, toy_task):
    """One step of a constant schedule leaves `1 - lr · proximity` of what it does alone; a strong pull leaves nothing."""
    backbone, task, (init,) = random_t5(0), toy_task(["good", "not good"], rows=8), starts(random_t5(0), 1)
    once = tpv.Recipe(steps=1, batch_size=8, warmup_steps=0, schedule="constant", lr=0.3, select="last")
    free, half, none = (
        tpv.fit(backbone, task, init, replace(once, proximity=pull)).tensor - init.tensor
        for pull in (0.0, 0.5 / 0.3, 1 / 0.3)
    )
    torch.testing.assert_close(half, 0.5 * free, atol=1e-6, rtol=1e-5)
    assert free.abs().max() > 0.1
    assert none.abs().max() < 1e-6


@QUIET
def test_many_small_forward_passes_give_what_one_gives(random_t5, toy_task, monkeypatch):
    """With a budget of a row or two at a time, gradients accumulate to the same prompts and scores."""
    backbone, task = random_t5(0), toy_task(["good", "not good", "bad"], rows=40)
    whole = tpv.fit(backbone, task, starts(backbone, 2), SHORT)
    scores = tpv.evaluate(backbone, task, whole, "train")
    passes = []
    nll = backbone.nll
    monkeypatch.setattr(
        backbone, "nll", lambda bank, index, *rows: passes.append(len(index)) or nll(bank, index, *rows)
    )
    tpv.fit(backbone, task, starts(backbone, 2), SHORT)
    few, passes[:] = list(passes), []
    monkeypatch.setattr(backbone, "training_positions", 24)
    monkeypatch.setattr(backbone, "scoring_positions", 60)
    monkeypatch.setattr("tpv.models.seq2seq.DECODER_BUDGET", 70)
    for one, two in zip(whole, tpv.fit(backbone, task, starts(backbone, 2), SHORT), strict=True):
        assert (one.tensor - two.tensor).abs().max() < 1e-4
    assert sum(passes) == sum(few)  # the same rows
    assert len(passes) >= 3 * len(few)  # in many more passes
    for one, two in zip(scores, tpv.evaluate(backbone, task, whole, "train"), strict=True):
        assert one.loss == pytest.approx(two.loss, rel=1e-5)
        assert one.predictions["said"] == two.predictions["said"]


@QUIET
def test_epochs_of_different_length_share_a_bank(random_t5, toy_task):
    backbone = random_t5(0)
    tasks = [toy_task(["good", "bad"], rows=n, name=f"t{n}") for n in (12, 44)]
    recipe = tpv.Recipe(epochs=2, batch_size=4, eval_every=3, select="exact_match")
    together = tpv.fit(backbone, tasks, starts(backbone, 2), recipe)
    for task, init, prompt in zip(tasks, starts(backbone, 2), together, strict=True):
        assert (tpv.fit(backbone, task, init, recipe).tensor - prompt.tensor).abs().max() < 1e-4


@QUIET
def test_against_a_plain_loop_on_the_stock_model(random_t5, toy_task):
    """The same batches through the model's own loss, torch's AdamW and transformers' scheduler."""
    backbone, task = random_t5(1), toy_task(["good movie", "bad"], rows=50)
    recipe = tpv.Recipe(steps=25, batch_size=4, warmup_steps=5, select="last", weight_decay=0.01, lr=0.3)
    (init,) = starts(backbone, 1)
    tuned = tpv.fit(backbone, task, init, recipe)

    rows = task.examples("train")
    sources = backbone.encode_sources([row.source for row in rows], 256)
    words = label_tokens(backbone, task)
    parameter = torch.nn.Parameter(init.tensor)
    optimizer = torch.optim.AdamW([parameter], lr=recipe.lr, weight_decay=recipe.weight_decay)
    scheduler = get_scheduler("linear", optimizer, num_warmup_steps=5, num_training_steps=25)
    order = batches([len(s) for s in sources], 4, 0)
    for _ in range(25):
        chosen = next(order)
        width = max(len(sources[i]) for i in chosen)
        ids = torch.tensor([[*sources[i], *[0] * (width - len(sources[i]))] for i in chosen])
        tall = max(len(words[rows[i].label]) for i in chosen)
        labels = torch.tensor([[*words[rows[i].label], *[-100] * (tall - len(words[rows[i].label]))] for i in chosen])
        embeds = torch.cat([parameter.expand(len(chosen), -1, -1), backbone.model.get_input_embeddings()(ids)], 1)
        mask = torch.cat([torch.ones(len(chosen), 4), (ids != 0).float()], 1)
        backbone.model(inputs_embeds=embeds, attention_mask=mask, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert (parameter.detach() - tuned.tensor).abs().max() < 1e-4


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize(("total", "warmup"), [(100, 10), (40, 20), (7, 2)])
def test_learning_rates_are_those_of_transformers(schedule, total, warmup):
    recipe = tpv.Recipe(steps=total, schedule=schedule, warmup_steps=warmup, lr=0.3)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    reference = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    for step in range(total):
        assert recipe.lr_at(step, total) == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        reference.step()


def test_warm_up_is_capped_in_short_runs_only():
    recipe = tpv.Recipe(lr=0.3)
    assert recipe.effective_warmup(1000) == 500
    assert recipe.effective_warmup(501) == 500
    assert recipe.effective_warmup(500) == 50
    assert recipe.effective_warmup(150) == 15
    assert recipe.effective_warmup(3) == 0
    assert recipe.lr_at(0, 1) == recipe.lr
    assert recipe.total_steps(1000) == 10 * 32
    assert tpv.Recipe(epochs=0.5, batch_size=10).total_steps(95) == 5


def test_every_epoch_sees_every_row_once_and_the_seed_decides():
    lengths = [i % 13 for i in range(103)]
    order = batches(lengths, 8, seed=3)
    for _ in range(3):
        epoch = [i for _ in range(13) for i in next(order)]
        assert sorted(epoch) == list(range(103))
    one, two, three = (next(batches(lengths, 8, seed)) for seed in (3, 3, 4))
    assert one == two != three


@QUIET
def test_the_best_checkpoint_is_kept(random_t5, toy_task):
    """Validation wants a word that training makes ever less likely: the best prompt is an early one.

    The schedule is constant, so shorter runs pass through the same prompts.
    """
    backbone, task = random_t5(0), toy_task(["good", "bad", "movie"], rows=60)
    rows = [example for split in ("train", "validation", "test") for example in task.examples(split)]
    train, other = [row for row in rows if row.label < 2], [row for row in rows if row.label == 2]
    teach(backbone, task, steps=60)
    task = replace(task, splits={"train": tuple(train), "validation": tuple(other)})
    (init,) = starts(backbone, 1)
    options = {"batch_size": 4, "lr": 0.5, "warmup_steps": 0, "schedule": "constant"}
    best = tpv.fit(backbone, task, init, tpv.Recipe(**options, steps=10, eval_every=1))
    every = [tpv.fit(backbone, task, init, tpv.Recipe(**options, steps=n, select="last")) for n in range(1, 11)]
    losses = [scores.loss for scores in tpv.evaluate(backbone, task, [best, *every], "validation")]
    assert losses[0] == pytest.approx(min(losses[1:]), rel=1e-6)
    assert min(losses[1:]) < losses[-1] - 1e-3


@QUIET
def test_patience_stops_a_run(random_t5, toy_task):
    backbone, task = random_t5(0), toy_task(["good", "bad"], rows=40)
    seen = []
    tpv.fit(
        backbone,
        task,
        starts(backbone, 1)[0],
        callback=lambda progress: seen.append(progress.step),
        recipe=tpv.Recipe(steps=50, batch_size=2, lr=1e-9, select="exact_match", eval_every=2, patience=2),
    )
    assert seen[-1] == 6  # exact match stays 0: the first validation is the best, the next two are not better


@QUIET
def test_dropout_is_off_unless_asked_for(random_t5, toy_task):
    backbone, task = random_t5(0), toy_task(["good", "bad"], rows=40)
    recipe = {"steps": 6, "batch_size": 4, "warmup_steps": 1, "select": "last"}

    def train(**more):
        return tpv.fit(backbone, task, starts(backbone, 1)[0], tpv.Recipe(**recipe, **more))

    assert train() == train()
    assert train(dropout=True) != train()
    assert train(dropout=True) == train(dropout=True) != train(dropout=True, seed=1)
    assert not backbone.model.training


@QUIET
def test_every_row_of_the_prompt_is_trained_and_the_model_is_not(random_t5, toy_task):
    backbone, task = random_t5(0), toy_task(["good", "bad"], rows=40)
    before = {name: weight.clone() for name, weight in backbone.model.named_parameters()}
    (init,) = starts(backbone, 1, num_tokens=10)
    vector = tpv.fit(backbone, task, init, SHORT) - init
    assert (vector.tensor.norm(dim=1) > 1e-2).all()
    assert all(torch.equal(weight, before[name]) for name, weight in backbone.model.named_parameters())


@QUIET
def test_bf16_keeps_prompts_in_fp32(random_t5, toy_task):
    backbone, task = random_t5(0), toy_task(["good", "bad"], rows=40)
    (init,) = starts(backbone, 1)
    half = tpv.fit(backbone, task, init, tpv.Recipe(steps=5, batch_size=4, autocast=True))
    full = tpv.fit(backbone, task, init, tpv.Recipe(steps=5, batch_size=4))
    assert half.tensor.dtype == torch.float32
    assert half != full


def test_a_loss_that_is_not_finite_stops_with_the_task_and_step(random_t5, toy_task):
    backbone, task = random_t5(0), toy_task(["good", "bad"], rows=40)
    backbone.model.decoder.final_layer_norm.weight.data[0] = math.inf
    with pytest.raises(tpv.TrainingError, match=r"'toy' broke at step 1.*lower lr"):
        tpv.fit(backbone, task, starts(backbone, 1)[0], tpv.Recipe(steps=5, batch_size=4, select="last"))
    assert not backbone.model.training


def test_a_flat_loss_and_a_constant_prediction_are_told(random_t5, toy_task):
    backbone, task = random_t5(0), toy_task(["good", "bad"], rows=120)
    (init,) = starts(backbone, 1)
    with pytest.warns(tpv.TpvWarning, match="stayed flat"):
        tpv.fit(backbone, task, init, tpv.Recipe(steps=20, batch_size=16, lr=1e-9, select="last"))
    with pytest.warns(tpv.TpvWarning, match="no label word at all"):
        tpv.fit(backbone, task, init, tpv.Recipe(steps=1, batch_size=16, lr=1e-9))
    teach(backbone, toy_task(["good", "good movie"], rows=40, name="other"), steps=20)
    with pytest.warns(tpv.TpvWarning, match="one class only"):
        tpv.fit(backbone, task, init, tpv.Recipe(steps=1, batch_size=16, lr=1e-9))


def test_a_good_run_warns_of_nothing(backbone):
    task = tpv.load_task("mini/trec").few_shot(200, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", tpv.TpvWarning)
        tpv.fit(backbone, task, tpv.SoftPrompt.sample(backbone, 10), tpv.Recipe(steps=40, batch_size=8))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0}, "lr must be a positive finite number, is 0"),
        ({"lr": math.nan}, "lr must be a positive finite number, is nan"),
        ({"lr": "0.3"}, "lr must be"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, is 0"),
        ({"steps": 0}, "steps must be"),
        ({"steps": True}, "steps must be"),
        ({"epochs": -1}, "epochs must be"),
        ({"steps": 3, "epochs": 2}, "not both"),
        ({"schedule": "zigzag"}, "linear, constant, cosine"),
        ({"select": "best"}, "select must be one of"),
        ({"autocast": "fp16"}, "true or false"),
        ({"weight_decay": -1}, "weight_decay must be"),
        ({"max_grad_norm": math.inf}, "max_grad_norm must be"),
        ({"lr": 0, "batch_size": -2, "warmup_steps": 1.5}, "warmup_steps.*lr|lr.*warmup_steps|batch_size.*lr"),
    ],
)
def test_a_recipe_that_does_not_hold_is_refused(options, words):
    with pytest.raises(tpv.TpvError, match=words):
        tpv.Recipe(**options)


def test_fit_refuses_what_does_not_fit(random_t5, toy_task):
    one, two, task = random_t5(0), random_t5(1), toy_task(["good", "bad"])
    with pytest.raises(tpv.IncompatibleError, match="another model"):
        tpv.fit(one, task, starts(two, 1)[0], SHORT)
    (start,) = starts(one, 1)
    narrow = tpv.SoftPrompt(start.tensor[:, :4], start.model.model_copy(update={"hidden_size": 4}), start.init)
    with pytest.raises(tpv.IncompatibleError, match="another model"):
        tpv.fit(one, task, narrow, SHORT)
    with pytest.raises(tpv.IncompatibleError, match="different shapes"):
        tpv.fit(one, task, [*starts(one, 1), tpv.SoftPrompt.sample(one, 5)], SHORT)
    with pytest.raises(tpv.TpvError, match="number of tasks"):
        tpv.fit(one, [task], starts(one, 2), SHORT)
    with pytest.raises(tpv.TpvError, match="number of data-order seeds"):
        tpv.fit(one, task, starts(one, 2), SHORT, seeds=[1])
    with pytest.raises(tpv.TpvError, match="at least one"):
        tpv.fit(one, task, [], SHORT)
    with pytest.raises(tpv.TpvError, match="expected SoftPrompt; got TaskPromptVector"):
        tpv.fit(one, task, [starts(one, 1)[0] - starts(one, 1)[0]], SHORT)
    with pytest.raises(tpv.TpvError, match="needs two labels"):
        tpv.fit(one, toy_task(["a", "b", "c"]), starts(one, 1)[0], tpv.Recipe(steps=1, select="f1"))
    for select in ("pearson", "spearman"):
        with pytest.raises(tpv.TpvError, match=f"select '{select}' needs label words that are numbers; got task 'toy'"):
            tpv.fit(one, task, starts(one, 1)[0], tpv.Recipe(steps=1, select=select))


@QUIET
@pytest.mark.parametrize("select", ["pearson", "spearman"])
def test_the_best_checkpoint_may_be_that_of_the_highest_correlation(random_t5, rating, select):
    """Of what single runs of each length would give."""
    backbone = random_t5(3)
    teach(backbone, rating, steps=60)
    few = replace(rating, splits={**rating.splits, "validation": rating.examples("test")})
    options = {"batch_size": 4, "lr": 0.3, "warmup_steps": 0, "schedule": "constant"}
    init = tpv.SoftPrompt.sample(backbone, 3, 0)
    best = tpv.fit(backbone, few, init, tpv.Recipe(**options, steps=6, eval_every=1, select=select))
    every = [tpv.fit(backbone, few, init, tpv.Recipe(**options, steps=n, select="last")) for n in range(1, 7)]
    values = [scores.metric(select) for scores in tpv.evaluate(backbone, few, every, "validation")]
    assert len(set(values)) > 1
    assert torch.equal(best.tensor, every[values.index(max(values))].tensor)


class Killed(Exception):
    pass


@pytest.mark.parametrize("dropout", [False, True])
def test_a_training_that_was_killed_goes_on_bit_for_bit(random_t5, toy_task, tmp_path, monkeypatch, dropout):
    monkeypatch.setattr("tpv.training.checkpoint.CHECKPOINT_SECONDS", 0.0)
    backbone, task = random_t5(), toy_task(["good", "bad"])
    inits = [tpv.SoftPrompt.sample(backbone, 3, seed=seed) for seed in (0, 1)]
    recipe = tpv.Recipe(steps=11, batch_size=4, eval_every=3, patience=2, dropout=dropout, lr=0.2)
    expected = tpv.fit(backbone, task, inits, recipe, callback=lambda _: None)
    path = tmp_path / "state.safetensors"

    def killed_at(step):
        def callback(progress):
            if progress.step == step:
                raise Killed

        return callback

    for step in (2, 5, 9):
        with pytest.raises(Killed):
            tpv.fit(backbone, task, inits, recipe, callback=killed_at(step), checkpoint=path)
        assert path.exists()
    seen = []
    resumed = tpv.fit(backbone, task, inits, recipe, callback=lambda p: seen.append(p.step), checkpoint=path)
    assert seen[0] == 10
    assert [prompt.digest for prompt in resumed] == [prompt.digest for prompt in expected]
    assert not path.exists()


def test_a_checkpoint_of_another_training_is_refused(random_t5, toy_task, tmp_path, monkeypatch):
    monkeypatch.setattr("tpv.training.checkpoint.CHECKPOINT_SECONDS", 0.0)
    backbone, task = random_t5(), toy_task(["good", "bad"])
    init, path = tpv.SoftPrompt.sample(backbone, 3), tmp_path / "state.safetensors"

    def stop(progress):
        raise Killed

    recipe = tpv.Recipe(steps=4, batch_size=4, select="last")
    with pytest.raises(Killed):
        tpv.fit(backbone, task, init, recipe, callback=stop, checkpoint=path)
    for other in (tpv.Recipe(steps=4, batch_size=4, select="last", lr=0.1), recipe):
        start = tpv.SoftPrompt.sample(backbone, 3, seed=int(other is recipe))
        with pytest.raises(tpv.TpvError, match="another training"):
            tpv.fit(backbone, task, start, other, callback=stop, checkpoint=path)
    whole = path.read_bytes()
    for place in (-1, whole.index(b"best_score") + 15):  # a tensor's last byte; in what the runs have seen
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place:][1:])
        with pytest.raises(tpv.DamagedFileError, match="is damaged"):
            tpv.fit(backbone, task, init, recipe, callback=stop, checkpoint=path)
    path.write_bytes(whole[:100])
    with pytest.raises(tpv.DamagedFileError, match="does not read"):
        tpv.fit(backbone, task, init, recipe, callback=stop, checkpoint=path)


def test_label_padding_enters_the_loss(random_t5, toy_task):
    """Quirk 3: labels padded to the longest, never masked: what the stock model's loss is then."""
    backbone, task = random_t5(), toy_task(["a", "not good apple"])
    init = tpv.SoftPrompt.sample(backbone, 3)
    losses = {}
    for padding in (False, True):
        seen = []
        recipe = tpv.Recipe(steps=1, batch_size=30, select="last")
        targets = padded_targets if padding else None
        tpv.fit(backbone, task, init, recipe, targets=targets, callback=lambda p, seen=seen: seen.append(p.loss))
        losses[padding] = seen[0]
    rows = task.examples("train")
    inputs = backbone.tokenizer([row.source for row in rows], return_tensors="pt", padding=True)
    labels = backbone.tokenizer([row.target for row in rows], return_tensors="pt", padding=True)["input_ids"]
    prompt = init.tensor[None].expand(len(rows), -1, -1)
    embeds = torch.cat([prompt, backbone.model.get_input_embeddings()(inputs["input_ids"])], dim=1)
    mask = torch.cat([torch.ones(len(rows), 3), inputs["attention_mask"]], dim=1)
    for padding, target in ((True, labels), (False, labels.masked_fill(labels == 0, -100))):
        expected = backbone.model(inputs_embeds=embeds, attention_mask=mask, labels=target).loss
        assert losses[padding] == pytest.approx(float(expected), rel=1e-5)
    assert abs(losses[True] - losses[False]) > 1e-3


def test_label_padding_enters_the_choice_of_the_checkpoint(random_t5, toy_task):
    backbone, task = random_t5(), toy_task(["a", "not good apple"])
    recipe = tpv.Recipe(steps=1, batch_size=4)
    parameter = torch.nn.Parameter(tpv.SoftPrompt.sample(backbone, 3).tensor)
    run = Run([(task, SharedPrompt(parameter))], [parameter], backbone, recipe, 0, targets=padded_targets)
    loop.train(backbone, [run], recipe, callback=lambda _: None)
    words = {word: backbone.encode_target(word) for word in task.labels}
    longest = max(map(len, words.values()))
    rows = task.examples("validation")
    padded = [(*words[row.target], *[0] * (longest - len(words[row.target]))) for row in rows]
    sources = backbone.encode_sources([row.source for row in rows], 256)
    with torch.no_grad():
        nll = backbone.nll(parameter[None], torch.zeros(len(rows), dtype=torch.long), sources, padded)
    assert -run.best_score == pytest.approx(float(nll.sum()) / (longest * len(rows)), rel=1e-5)


def test_dead_rows_get_no_gradient_and_only_shrink(random_t5, toy_task):
    """Quirk 1: with half of the rows unread, these end as their start times the decay of every step."""
    backbone, task = half_prompt(random_t5(), 2), toy_task(["good", "bad"])
    init = tpv.SoftPrompt.sample(backbone, 4)
    recipe = tpv.Recipe(steps=5, batch_size=4, warmup_steps=1, weight_decay=0.1, select="last", lr=0.3)
    tuned = tpv.fit(backbone, task, init, recipe, callback=lambda _: None)
    decay = math.prod(1 - 0.1 * recipe.lr_at(step, 5) for step in range(5))
    torch.testing.assert_close(tuned.tensor[2:], init.tensor[2:] * decay)
    assert (tuned.tensor[:2] - init.tensor[:2]).abs().max() > 0.1
    changed = init.tensor.clone()
    changed[2:] = 7.0
    other = tpv.SoftPrompt.from_tensor(backbone, changed)
    assert tpv.evaluate(backbone, task, other) == tpv.evaluate(backbone, task, init)
    alone = random_t5()  # the live rows alone, as a prompt of their own
    half = tpv.SoftPrompt.from_tensor(alone, init.tensor[:2])
    assert tpv.evaluate(alone, task, half).loss == pytest.approx(tpv.evaluate(backbone, task, init).loss, rel=1e-6)
