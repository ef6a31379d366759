"""Multitask prompt tuning against a plain loop, and its files against PEFT."""

import json

import peft
import pytest
import torch
from literal import Rows, descend, row_nll, states

import tpv
from tpv.methods.mpt import MultitaskPromptTuning
from tpv.methods.sources import Target, TrainedSource, adapt
from tpv.prompts.peft_multitask import Decomposition, read_multitask
from tpv.training.sampler import batches

RECIPE = tpv.Recipe(steps=6, batch_size=4, lr=0.1, warmup_steps=2, select="last", weight_decay=0.0)
P = 3


def quiet(_):
    """No bar."""


@pytest.fixture
def setting(random_t5, toy_task):
    return made(random_t5(1), toy_task)


def made(backbone, toy_task):
    target, init = toy_task(["good", "bad"], 18, "target"), tpv.SoftPrompt.sample(backbone, P, 9)
    sources = []
    for number, words in enumerate((["good", "not good"], ["man", "garden", "an apple"])):
        task = toy_task(words, 15 + number, f"source{number}")
        sources.append(TrainedSource(task, init, tpv.fit(backbone, task, init, RECIPE, callback=quiet)))
    return backbone, target, init, sources


def distilled(backbone, sources, weight, speed):
    """Source training, row by row: AdamW with two learning rates, and no trick to have them."""
    shared = torch.nn.Parameter(sources[0].init.tensor)
    cols = [torch.nn.Parameter(torch.ones(P, 1)) for _ in sources]
    rows = [torch.nn.Parameter(torch.ones(1, 32)) for _ in sources]
    fast = [*cols, *rows]
    optimizer = torch.optim.AdamW([{"params": [shared]}, {"params": fast}], weight_decay=0.0)
    each = [Rows(backbone, source.task, RECIPE) for source in sources]
    every = [
        (task, source, target)
        for task, mine in enumerate(each)
        for source, target in zip(mine.sources, mine.targets, strict=True)
    ]
    order = batches([len(source) for _, source, _ in every], RECIPE.batch_size, RECIPE.seed)
    for step in range(RECIPE.steps):
        total, tokens = 0.0, 0
        for task, source, target in (every[i] for i in next(order)):
            prompt = shared * torch.outer(cols[task][:, 0], rows[task][0])
            nll, logits, hidden = states(backbone, prompt, source, target)
            with torch.no_grad():
                _, wanted, reference = states(backbone, sources[task].prompt.tensor, source, target)
            divergence = torch.distributions.kl_divergence(
                torch.distributions.Categorical(logits=wanted), torch.distributions.Categorical(logits=logits)
            ).sum()
            apart = sum(torch.nn.functional.mse_loss(one, two) for one, two in zip(hidden, reference, strict=True))
            total, tokens = total + nll + weight * (divergence + apart), tokens + len(target)
        (total / tokens).backward()
        for group, factor in zip(optimizer.param_groups, (1.0, speed), strict=True):
            group["lr"] = factor * RECIPE.lr_at(step, RECIPE.steps)
        optimizer.step()
        optimizer.zero_grad()
    return shared.detach(), [col.detach() for col in cols], [row.detach() for row in rows]


@pytest.mark.parametrize(("weight", "speed"), [(0.9, 4 / 3), (0.0, 1.0)])
def test_source_training_is_the_literal_loop(setting, monkeypatch, weight, speed):
    backbone, _, _, sources = setting
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)  # it would see u and v divided by `speed`
    state = MultitaskPromptTuning(weight=weight, speed=speed).prepare(backbone, sources, RECIPE, seed=0, callback=quiet)
    shared, cols, rows = distilled(backbone, sources, weight, speed)
    close = {"atol": 2e-3, "rtol": 2e-3}
    torch.testing.assert_close(state["prompt_embeddings"], shared, **close)
    torch.testing.assert_close(state["prefix_task_cols"], torch.stack(cols), **close)
    torch.testing.assert_close(state["prefix_task_rows"], torch.stack(rows), **close)
    assert (state["prompt_embeddings"] - sources[0].init.tensor).abs().max() > 0.1
    assert (state["prefix_task_cols"][0] - state["prefix_task_cols"][1]).abs().max() > 0.01


def test_target_training_is_the_literal_loop(setting):
    backbone, target, init, sources = setting
    torch.manual_seed(3)
    found = Decomposition(torch.randn(P, 32), 1 + 0.1 * torch.randn(2, P, 1), 1 + 0.1 * torch.randn(2, 1, 32))
    method = MultitaskPromptTuning(speed=1.0)
    (ours,) = adapt(backbone, target, init, sources, method, RECIPE, prepared=found.state(), callback=quiet)
    parts = [torch.nn.Parameter(one.clone()) for one in (found.shared, found.cols.mean(0), found.rows.mean(0))]

    def prompt():
        return parts[0] * torch.outer(parts[1][:, 0], parts[2][0])

    untrained = method.begin(backbone, Target(target, init), sources, found.state(), RECIPE)
    torch.testing.assert_close(untrained.prompt(), prompt())
    descend(parts, lambda text, word: row_nll(backbone, prompt(), text, word), Rows(backbone, target, RECIPE), RECIPE)
    torch.testing.assert_close(ours.tensor, prompt().detach(), atol=1e-3, rtol=1e-3)
    assert sum(one.numel() for one in untrained.parameters) == P * 32 + P + 32


def test_distillation_brings_a_student_to_its_teacher(setting):
    """With one source and much weight, the shared prompt says what the teacher says."""
    backbone, _, _, sources = setting
    long = tpv.Recipe(steps=60, batch_size=8, lr=0.05, warmup_steps=2, select="last", weight_decay=0.0)
    apart = []
    for weight in (0.0, 100.0):
        state = MultitaskPromptTuning(weight=weight).prepare(backbone, sources[:1], long, seed=0, callback=quiet)
        prompt = Decomposition.from_state(state).prompt(0)
        rows = Rows(backbone, sources[0].task, RECIPE)
        gaps = [
            states(backbone, prompt, text, word)[2] - states(backbone, sources[0].prompt.tensor, text, word)[2]
            for text, word in zip(rows.sources, rows.targets, strict=True)
        ]
        apart.append(float(torch.cat(gaps).square().mean()))
    assert apart[1] < 0.5 * apart[0]


def test_a_decoder_only_model(random_causal, toy_task):
    backbone, target, init, sources = made(random_causal("llama"), toy_task)
    state = MultitaskPromptTuning(speed=1.0).prepare(backbone, sources, RECIPE, seed=0, callback=quiet)
    (ours,) = adapt(backbone, target, init, sources, MultitaskPromptTuning(), RECIPE, prepared=state, callback=quiet)
    assert tpv.evaluate(backbone, target, ours, split="test").n > 0
    assert (ours - init).terms == {"target": 1.0}


@pytest.mark.parametrize("rank", [1, 2])
def test_peft_reads_what_is_written(random_t5, tmp_path, rank):
    backbone = random_t5(4)
    torch.manual_seed(0)
    found = Decomposition(torch.randn(P, 32), torch.randn(3, P, rank), torch.randn(3, rank, 32))
    found.to_peft(tmp_path / "mpt", backbone.identity)
    model = peft.PeftModel.from_pretrained(backbone.model, tmp_path / "mpt")
    for task in range(3):
        theirs = model.get_prompt(1, task_ids=torch.tensor([task]))[0]
        torch.testing.assert_close(theirs, found.prompt(task))
    again = read_multitask(tmp_path / "mpt", backbone.identity)
    assert all(torch.equal(one, again.state()[name]) for name, one in found.state().items())
    found.average().to_peft(tmp_path / "mpt", backbone.identity)  # its own is replaced
    assert read_multitask(tmp_path / "mpt", backbone.identity).cols.shape == (1, P, rank)


def test_what_peft_writes_is_read_without_its_dead_rows(random_t5, tmp_path):
    backbone = random_t5(4)
    config = peft.MultitaskPromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_virtual_tokens=P, num_tasks=2, num_ranks=1, token_dim=32
    )
    model = peft.get_peft_model(backbone.model, config)
    model.save_pretrained(str(tmp_path))
    found = read_multitask(tmp_path, backbone.identity)
    assert found.shared.shape == (P, 32)  # of 6 rows
    for task in range(2):
        torch.testing.assert_close(model.get_prompt(1, task_ids=torch.tensor([task]))[0, :P], found.prompt(task))
    with pytest.raises(tpv.TpvError, match="tpv did not write"):
        found.to_peft(tmp_path, backbone.identity)


def test_files_that_do_not_fit_are_refused(random_t5, random_causal, tmp_path):
    backbone = random_t5(4)
    found = Decomposition(torch.randn(P, 32), torch.randn(2, P, 1), torch.randn(2, 1, 32))
    found.to_peft(tmp_path / "a", backbone.identity)
    with pytest.raises(tpv.TpvError, match="another kind of model"):
        read_multitask(tmp_path / "a", random_causal("llama").identity)
    with pytest.raises(tpv.TpvError, match="rows of width 16"):
        read_multitask(tmp_path / "a", random_t5(0, d_model=16).identity)
    with pytest.raises(tpv.TpvError, match="does not exist"):
        read_multitask(tmp_path / "none", backbone.identity)
    with pytest.raises(tpv.TpvError, match="of another method; expected PROMPT_TUNING; got MULTITASK_PROMPT_TUNING"):
        tpv.SoftPrompt.from_peft(tmp_path / "a", backbone)
    tpv.SoftPrompt.sample(backbone, P).to_peft(tmp_path / "b")
    with pytest.raises(tpv.TpvError, match="of another method; expected MULTITASK_PROMPT_TUNING; got PROMPT_TUNING"):
        read_multitask(tmp_path / "b", backbone.identity)
    config = tmp_path / "a" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_virtual_tokens": P + 1}))
    with pytest.raises(tpv.TpvError, match="do not fit each other; expected 4 rows"):
        read_multitask(tmp_path / "a", backbone.identity)
    Decomposition(found.shared * float("nan"), found.cols, found.rows).to_peft(tmp_path / "c", backbone.identity)
    with pytest.raises(tpv.TpvError, match="finite"):
        read_multitask(tmp_path / "c", backbone.identity)
    with pytest.raises(tpv.TpvError, match="a decomposition of prompts"):
        Decomposition(found.shared, found.cols, found.rows[:1])
    with pytest.raises(tpv.TpvError, match="expected 0 to 1; got 2"):
        found.prompt(2)
    with pytest.raises(tpv.TpvError, match="tensors of a decomposition"):
        Decomposition.from_state({"early": found.shared})
