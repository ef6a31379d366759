"""ATTEMPT against a slow, literal implementation of it."""

import math

import pytest
import torch
from literal import Rows, descend, row_nll
from torch import nn

import tpv
from tpv.evaluation.score import evaluate_readers
from tpv.methods.attempt import Attempt, fit_attempt
from tpv.methods.attempt_single import SingleAttempt
from tpv.training.recipe import Recipe
from tpv.training.sampler import batches


class Literal(nn.Module):
    """One row at a time, as Asai et al. (2022) and quirk 12 write it down."""

    def __init__(self, sources, count, model):
        super().__init__()
        rows, width = sources[0].shape
        self.sources = sources
        self.targets = nn.ParameterList([nn.Parameter(sources[0].clone()) for _ in range(count)])
        self.down = nn.Linear(width, rows, bias=False)
        self.up = nn.Linear(rows, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.embed = model.get_input_embeddings()
        self.temperature = math.e * width

    def weights(self, target, ids):
        pooled = self.embed(torch.tensor(ids)).max(dim=0).values
        hidden = self.norm(self.up(nn.functional.silu(self.down(pooled))))
        scores = [torch.dot(prompt.max(dim=0).values, hidden) / self.temperature for prompt in self.pool(target)]
        return torch.softmax(torch.stack(scores), dim=0)

    def pool(self, target):
        return [*self.sources, self.targets[target]]

    def prompt(self, target, ids):
        weights = self.weights(target, ids)
        result = self.targets[target]
        for weight, prompt in zip(weights, self.pool(target), strict=True):
            result = result + weight * prompt
        return result


@pytest.fixture
def setting(random_t5, toy_task):
    backbone = random_t5(3)
    tasks = [toy_task(["good", "bad"], 14, "one"), toy_task(["man", "garden", "apple"], 18, "two")]
    sources = [
        tpv.SoftPrompt.from_tensor(backbone, tpv.SoftPrompt.sample(backbone, 5, seed=seed).tensor * (1 + seed))
        for seed in range(3)
    ]
    return backbone, tasks, sources


def copied(backbone, sources, model):
    literal = Literal([prompt.tensor for prompt in sources], len(model.targets), backbone.model)
    with torch.no_grad():
        literal.down.weight.copy_(model.down)
        literal.up.weight.copy_(model.up)
    return literal


def test_an_untrained_mixture_is_the_literal_one(setting):
    backbone, tasks, sources = setting
    model = Attempt(backbone, sources, ["one", "two"], seed=4)
    with torch.no_grad():  # away from the start, so that the target prompt and the norm are seen
        for parameter in model.parameters:
            parameter.add_(torch.randn_like(parameter) * 0.3)
    literal = copied(backbone, sources, model)
    with torch.no_grad():
        literal.norm.weight.copy_(model.scale)
        literal.norm.bias.copy_(model.shift)
        for mine, theirs in zip(model.prompts, literal.targets, strict=True):
            theirs.copy_(mine)
    texts = backbone.encode_sources([row.source for row in tasks[1].examples("train")], 64)
    for target in (0, 1):
        weights = model.attention(target, texts)
        assert weights.shape == (len(texts), 4)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(len(texts)))
        bank, index = model.reader(target).read(texts)
        for row, ids in enumerate(texts):
            torch.testing.assert_close(weights[row], literal.weights(target, ids), atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(bank[index[row]], literal.prompt(target, ids), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(model.attention(0, texts), model.attention(1, texts))


def test_the_temperature_is_the_authors_for_their_width(random_t5):
    backbone = random_t5(0, d_model=768, num_layers=1, d_kv=8)
    model = Attempt(backbone, [tpv.SoftPrompt.sample(backbone, 2)], ["one"])
    assert int(model.temperature) == 2087
    assert Attempt(backbone, [tpv.SoftPrompt.sample(backbone, 2)], ["one"], temperature=3.0).temperature == 3.0


def test_training_is_the_literal_loop(setting):
    backbone, tasks, sources = setting
    # batches of 2, so that some have rows of one target only
    recipe = Recipe(steps=12, batch_size=2, lr=0.05, warmup_steps=2, select="last", weight_decay=0.01)
    models = [Attempt(backbone, sources, ["one", "two"], seed=seed) for seed in (1, 2)]
    literals = [copied(backbone, sources, model) for model in models]
    fit_attempt(backbone, [tasks, tasks], models, recipe, seeds=[7, 8], callback=lambda _: None)
    rows = [(target, row) for target, task in enumerate(tasks) for row in task.examples("train")]
    texts = backbone.encode_sources([row.source for _, row in rows], 256)
    for model, literal, seed in zip(models, literals, (7, 8), strict=True):
        trained = [*literal.targets, literal.down.weight, literal.up.weight, literal.norm.weight, literal.norm.bias]
        optimizer = torch.optim.AdamW(trained, lr=recipe.lr, weight_decay=recipe.weight_decay)
        order = batches([len(text) for text in texts], 2, seed)
        for step in range(12):
            total, tokens = 0.0, 0
            for i in next(order):
                target, row = rows[i]
                prompt = literal.prompt(target, texts[i])
                embeds = torch.cat([prompt, literal.embed(torch.tensor(texts[i]))])[None]
                labels = torch.tensor([backbone.encode_target(row.target)])
                total = total + backbone.model(inputs_embeds=embeds, labels=labels).loss * labels.shape[1]
                tokens += labels.shape[1]
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr_at(step, 12)
            optimizer.zero_grad()
            (total / tokens).backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
        for mine, theirs in zip(model.parameters, trained, strict=True):
            torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)
    assert not torch.equal(models[0].prompts[0], models[1].prompts[0])


def test_one_target_has_an_attention_of_its_own(setting):
    """The single-target mode is the literal loop on that target's rows alone."""
    backbone, tasks, sources = setting
    recipe = Recipe(steps=12, batch_size=3, lr=0.05, warmup_steps=2, select="last", weight_decay=0.01)
    found = SingleAttempt().fit(backbone, tasks[1], sources, recipe, seed=4, callback=lambda _: None)
    literal = copied(backbone, sources, Attempt(backbone, sources, ["two"], seed=4))
    trained = [*literal.targets, literal.down.weight, literal.up.weight, literal.norm.weight, literal.norm.bias]
    descend(
        trained,
        lambda text, word: row_nll(backbone, literal.prompt(0, text), text, word),
        Rows(backbone, tasks[1], recipe),
        recipe,
    )
    for mine, theirs in zip(found.parameters, trained, strict=True):
        torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=5e-4)
    both = Attempt(backbone, sources, ["one", "two"], seed=4)
    fit_attempt(backbone, [tasks], [both], recipe, seeds=[0], callback=lambda _: None)
    assert (both.prompts[1] - found.prompts[0]).abs().max() > 0.01  # trained beside another target it is another


def test_sources_stay_frozen_and_the_best_checkpoint_is_kept(setting):
    backbone, tasks, sources = setting
    before = [prompt.digest for prompt in sources]
    model = Attempt(backbone, sources, ["one", "two"])
    pool = model.sources.clone()
    fit_attempt(
        backbone,
        [tasks],
        [model],
        Recipe(steps=8, batch_size=4, eval_every=2, lr=0.5),
        seeds=[0],
        callback=lambda _: None,
    )
    assert torch.equal(model.sources, pool)
    assert [prompt.digest for prompt in sources] == before
    again = Attempt(backbone, sources, ["one", "two"], seed=99).restore(model.state())
    parts = [(task, model.reader(i)) for i, task in enumerate(tasks)]
    other = [(task, again.reader(i)) for i, task in enumerate(tasks)]
    with torch.no_grad():
        assert evaluate_readers(backbone, parts, "test", 64) == evaluate_readers(backbone, other, "test", 64)


def test_refusals(setting):
    backbone, tasks, sources = setting
    with pytest.raises(tpv.TpvError, match="at least one target"):
        Attempt(backbone, sources, [])
    with pytest.raises(tpv.TpvError, match="at least one"):
        Attempt(backbone, [], ["one"])
    with pytest.raises(tpv.TpvError, match="expected 2; got 1"):
        fit_attempt(backbone, [tasks[:1]], [Attempt(backbone, sources, ["one", "two"])], Recipe(steps=1), seeds=[0])
