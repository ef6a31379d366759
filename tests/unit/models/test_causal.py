"""Decoder-only models: shared prompts, label trees and chat, each against the stock model row by row."""

import pytest
import torch
from toys import CAUSAL

import tpv
from tpv.evaluation.encode import encode_examples
from tpv.models.causal import CONTEXT
from tpv.outputs.label import label_tokens

TEXTS = ["the film is good", "a man is eating an apple in the garden and it is not good", "no", "the dog sleeps"]
WORDS = ["negative", "positive", "not good", "good", "negation"]
PROMPTS, ROWS = 3, 5


def bank_of(backbone, prompts=PROMPTS, rows=ROWS):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(prompts, rows, backbone.identity.hidden_size, generator=generator) * 0.5


def stock(backbone, prompt, source, target):
    """Log-probabilities of a target's tokens by one plain forward pass of one row, without padding or cache."""
    ids = torch.tensor([[*source, *target]])
    embeds = torch.cat([prompt[None], backbone.model.get_input_embeddings()(ids)], dim=1)
    logits = backbone.model(inputs_embeds=embeds, use_cache=False).logits[0].log_softmax(-1)
    first = len(prompt) + len(source) - 1
    return logits[first : first + len(target)].gather(1, torch.tensor(target)[:, None])[:, 0]


def spread(model):
    """Weights that make the model's outputs differ a lot, so that a wrong mask would show."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" not in name:
                value.mul_(1.5)


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("recompute", [False, True])
def test_loss_and_gradient_are_the_stock_models(random_causal, family, recompute):
    backbone = random_causal(family, recompute=recompute)
    assert backbone.share_prompts is not recompute
    bank = bank_of(backbone).requires_grad_(True)
    index = torch.tensor([0, 2, 2, 1])
    sources = backbone.encode_sources(TEXTS, 256, ["label:"] * 4)
    targets = [backbone.encode_target(WORDS[i]) for i in range(4)]
    ours = backbone.nll(bank, index, sources, targets)
    (gradient,) = torch.autograd.grad(ours.sum(), bank)
    theirs = torch.stack(
        [-stock(backbone, bank[k], s, t).sum() for k, s, t in zip(index, sources, targets, strict=True)]
    )
    (reference,) = torch.autograd.grad(theirs.sum(), bank)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (gradient - reference).abs().max() <= 1e-5 * reference.abs().max()
    assert reference.abs().sum(-1).gt(1e-4).all()  # every row of every prompt is read


@pytest.mark.parametrize("family", CAUSAL)
def test_scores_are_the_stock_models(random_causal, family):
    backbone = random_causal(family)
    spread(backbone.model)
    bank, index = bank_of(backbone), torch.tensor([0, 2, 2, 1])
    sources = backbone.encode_sources(TEXTS, 256, ["label:", "answer:", "", "label:"])
    labels = [backbone.encode_target(word) for word in WORDS]
    assert len({len(label) for label in labels}) > 1
    assert any(a[0] == b[0] for i, a in enumerate(labels) for b in labels[:i])  # a shared beginning
    scores = backbone.score_labels(bank, index, sources, labels)
    with torch.no_grad():
        theirs = torch.stack(
            [
                torch.stack([stock(backbone, bank[k], source, label).sum() for label in labels])
                for k, source in zip(index, sources, strict=True)
            ]
        )
    torch.testing.assert_close(scores.log_probs, theirs, atol=1e-4, rtol=1e-5)
    backbone.ways = backbone.ways._replace(shared_prompts=False)
    plain = backbone.score_labels(bank, index, sources, labels)
    torch.testing.assert_close(plain.log_probs, scores.log_probs, atol=1e-4, rtol=1e-5)


def teach_causal(backbone, task, steps=40):
    """Train the *model* a little on a task, so that it says label words, right and wrong ones."""
    model = backbone.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = task.examples("train")[:64]
    words = [*label_tokens(backbone, task)[:-1], backbone.encode_target(f"{task.labels[-1]} good")]  # goes on too long
    sources = encode_examples(backbone, rows, 64)
    bank, index = torch.zeros(1, ROWS, backbone.identity.hidden_size), torch.zeros(len(rows), dtype=torch.long)
    for _ in range(steps):
        backbone.nll(bank, index, sources, [words[row.label] for row in rows]).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    model.requires_grad_(False)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma2"])
@pytest.mark.parametrize("chat", [False, True])
def test_exact_match_is_what_generate_emits(random_causal, toy_task, family, chat):
    task = toy_task(["negative", "not good", "not bad"], rows=48)
    backbone = random_causal(family, chat=chat)
    teach_causal(backbone, task)
    prompts = [tpv.SoftPrompt.normal(backbone, ROWS, seed, std=scale) for seed, scale in enumerate((0.01, 1.0, 30.0))]
    said = []
    for prompt, scores in zip(prompts, tpv.evaluate(backbone, [task] * 3, prompts, "train"), strict=True):
        rows = task.examples("train")
        for source, predicted in zip(
            encode_examples(backbone, rows, 256), scores.predictions["said"].to_pylist(), strict=True
        ):
            embeds = torch.cat([prompt.tensor[None], backbone.model.get_input_embeddings()(torch.tensor([source]))], 1)
            out = backbone.model.generate(
                inputs_embeds=embeds,
                attention_mask=torch.ones(embeds.shape[:2]),
                max_new_tokens=12,
                do_sample=False,
                pad_token_id=0,
            )[0].tolist()
            eos = backbone.tokenizer.eos_token_id
            tokens = tuple(out[: out.index(eos) + 1]) if eos in out else tuple(out)
            words = dict(zip(label_tokens(backbone, task), task.labels, strict=True))
            assert words.get(tokens) == predicted
            said.append(predicted)
    assert len(set(said)) > 1  # label words and invalid outputs both occur
    assert None in said


def test_what_a_row_reads(random_causal, causal_tokenizer):
    backbone = random_causal()
    (tokens,) = backbone.encode_sources(["the film is good"], 256, ["label:"])
    assert causal_tokenizer.decode(tokens) == "the film is good\nlabel:"
    whole = causal_tokenizer("the film is good\nlabel: negative")["input_ids"]
    assert [*tokens, *backbone.encode_target("negative")] == [*whole, causal_tokenizer.eos_token_id]
    (cut,) = backbone.encode_sources(["the film is good and the dog sleeps"], 12, ["label:"])
    assert len(cut) == 12  # the text is cut, the cue is not
    assert causal_tokenizer.decode(cut).endswith("\nlabel:")
    (bare,) = backbone.encode_sources(["the film is good"], 256)
    assert causal_tokenizer.decode(bare) == "the film is good"
    assert CONTEXT == "\nlabel:"


def test_chat_is_the_tokenizers_own_template(random_causal, causal_tokenizer):
    backbone = random_causal(chat=True)
    (tokens,) = backbone.encode_sources(["the film is good"], 256, ["label:"])
    turns = [{"role": "user", "content": "the film is good"}]
    whole = causal_tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=True)
    assert list(tokens) == list(whole["input_ids"])
    said = [*turns, {"role": "assistant", "content": "negative"}]
    both = causal_tokenizer.apply_chat_template(said, tokenize=True)["input_ids"]
    assert list(both[: len(tokens) + len(backbone.encode_target("negative"))]) == [
        *tokens,
        *backbone.encode_target("negative"),
    ]
    (cut,) = backbone.encode_sources(["the film is good and the dog sleeps"], len(tokens), ["label:"])
    assert causal_tokenizer.decode(cut).endswith("<eos>\n<|im_start|>assistant\n")
    assert len(cut) == len(tokens)


def test_chat_without_a_template_is_refused(random_causal, causal_tokenizer):
    template, causal_tokenizer.chat_template = causal_tokenizer.chat_template, None
    try:
        with pytest.raises(tpv.TpvError, match="has no chat template"):
            random_causal(chat=True)
        causal_tokenizer.chat_template = "always the same"
        with pytest.raises(tpv.TpvError, match="does not keep the user's text"):
            random_causal(chat=True)
    finally:
        causal_tokenizer.chat_template = template


def test_a_prompt_that_does_not_fit_is_refused(random_causal):
    backbone = random_causal("gpt2")
    sources = backbone.encode_sources(["good " * 200], 126)
    labels = [backbone.encode_target("good")]
    with pytest.raises(tpv.TpvError, match="at most 128 positions"):
        backbone.score_labels(bank_of(backbone), torch.tensor([0]), sources, labels)
    with pytest.raises(tpv.TpvError, match="at most 128 positions"):
        backbone.nll(bank_of(backbone), torch.tensor([0]), sources, labels)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_bank_is_what_separate_runs_give(random_causal, family):
    backbone = random_causal(family)
    tasks = [tpv.load_task("mini/sst2"), tpv.load_task("mini/trec")]
    recipe = tpv.Recipe(steps=6, batch_size=4, lr=0.05, warmup_steps=1, select="last")
    inits = [tpv.SoftPrompt.sample(backbone, ROWS, seed) for seed in range(2)]
    together = tpv.fit(backbone, tasks, inits, recipe)
    for task, init, prompt in zip(tasks, inits, together, strict=True):
        alone = tpv.fit(backbone, task, init, recipe)
        torch.testing.assert_close(prompt.tensor, alone.tensor, atol=1e-4, rtol=1e-4)
        assert (alone.tensor - init.tensor).abs().max() > 0.01


def test_blocks_of_logits_change_nothing(random_causal, monkeypatch):
    backbone, task = random_causal(), tpv.load_task("mini/trec").limited({"test": 30}, 0)
    prompts = [tpv.SoftPrompt.sample(backbone, ROWS, seed) for seed in range(3)]
    whole = tpv.evaluate(backbone, task, prompts)
    monkeypatch.setattr("tpv.models.causal.LOGIT_BUDGET", 1)
    for one, other in zip(whole, tpv.evaluate(backbone, task, prompts), strict=True):
        assert one.loss == pytest.approx(other.loss, abs=1e-5)
        assert one.predictions["said"] == other.predictions["said"]


def test_texts_that_are_cut_are_counted(random_causal, backbone):
    task = tpv.load_task("mini/trec").limited({"test": 60}, 0)
    for model in (random_causal(), backbone):
        prompt = tpv.SoftPrompt.sample(model, ROWS, 0)
        texts = [row.source for row in task.examples("test")]
        lengths = [len(row) for row in model.encode_sources(texts, 10**6, ["label:"] * 60)]
        limit = sorted(lengths)[40]
        long = sum(length > limit for length in lengths)
        assert 0 < long < 60
        assert limit in lengths  # rows of just this length are not cut, and not counted
        told = rf"{long} of 60 texts of task 'mini/trec' \(test\) are longer than {limit} tokens"
        with pytest.warns(tpv.CutWarning, match=told):
            tpv.evaluate(model, task, prompt, max_input_length=limit)
        with pytest.warns(tpv.CutWarning, match=r"of task 'mini/trec' \(train\)"):
            tpv.fit(model, task, prompt, tpv.Recipe(steps=1, max_input_length=limit, select="last"))
