"""Exact match against `generate()`, log-probabilities against the model's own loss."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from toys import teach
from transformers import BartConfig, BartForConditionalGeneration

import tpv
from tpv.evaluation.bank import chunks
from tpv.models import Seq2SeqBackbone
from tpv.outputs.label import label_tokens
from tpv.outputs.scores import score_predictions

PREFIXES = ["good", "good movie", "good movie plot", "bad", "not good", "movie"]


def generated(backbone, prompt, task, split="test"):
    """What `generate()` says, one example at a time, prompt rows put before the text by hand."""
    texts = []
    model, tokenizer = backbone.model, backbone.tokenizer
    for example in task.examples(split):
        ids = tokenizer(example.source, return_tensors="pt")["input_ids"]
        embeds = torch.cat([prompt.tensor[None], model.get_input_embeddings()(ids)], 1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        out = model.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=8, do_sample=False, num_beams=1)
        texts.append(tokenizer.decode(out[0], skip_special_tokens=True).strip())
    return texts


def test_exact_match_equals_generate(random_t5, toy_task):
    """On five models, which must have said labels that are prefixes of one another, and other things too."""
    task, said = toy_task(PREFIXES, rows=36), set()
    gold = [example.target for example in task.examples("train")]
    for seed in range(5):
        backbone = random_t5(seed)
        teach(backbone, task, steps=20 * (seed + 1))
        prompts = [tpv.SoftPrompt.sample(backbone, num_tokens=4, seed=s) for s in range(2)]
        scores = tpv.evaluate(backbone, task, prompts, split="train")
        for prompt, score in zip(prompts, scores, strict=True):
            texts = generated(backbone, prompt, task, "train")
            expected = [text if text in task.labels else None for text in texts]
            assert score.predictions["said"].to_pylist() == expected, seed
            assert score.exact_match == sum(a == b for a, b in zip(expected, gold, strict=True)) / len(gold)
            assert score.invalid_rate == expected.count(None) / len(gold)
            said |= set(texts)
    assert len(said & set(PREFIXES)) >= 3
    assert said - set(PREFIXES)


@pytest.mark.parametrize("forced", [None, "good"])
def test_bart_too_with_or_without_a_forced_first_token(random_t5, toy_task, forced):
    tokenizer = random_t5().tokenizer
    first = None if forced is None else tokenizer(forced)["input_ids"][0]
    torch.manual_seed(3)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        scale_embedding=True,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=1,
        decoder_start_token_id=1,
        forced_bos_token_id=first,
        forced_eos_token_id=None,
    )
    backbone = Seq2SeqBackbone(BartForConditionalGeneration(config), tokenizer, "bart")
    task = toy_task(["good", "good movie", "bad"], rows=40)
    teach(backbone, task, steps=40)
    prompt = tpv.SoftPrompt.sample(backbone, num_tokens=3, seed=0)
    score = tpv.evaluate(backbone, task, prompt, split="train")
    texts = generated(backbone, prompt, task, "train")
    assert score.predictions["said"].to_pylist() == [text if text in task.labels else None for text in texts]
    long = tpv.SoftPrompt.sample(backbone, num_tokens=60, seed=0)
    with pytest.raises(tpv.TpvError, match="do not fit"):
        tpv.evaluate(backbone, task, long, split="train")


def test_log_probs_equal_the_models_own_loss(random_t5, toy_task):
    backbone, task = random_t5(1), toy_task(PREFIXES)
    prompt = tpv.SoftPrompt.sample(backbone, num_tokens=5, seed=0)
    score = tpv.evaluate(backbone, task, prompt, split="train")
    log_probs = torch.tensor(score.predictions["log_probs"].to_pylist())
    total = tokens = 0.0
    for row, example in enumerate(task.examples("train")):
        ids = backbone.tokenizer(example.source, return_tensors="pt")["input_ids"]
        embeds = torch.cat([prompt.tensor[None], backbone.model.get_input_embeddings()(ids)], 1)
        for column, word in enumerate(task.labels):
            labels = torch.tensor([backbone.encode_target(word)])
            loss = backbone.model(inputs_embeds=embeds, labels=labels).loss * labels.numel()
            assert log_probs[row, column] == pytest.approx(-float(loss), abs=1e-4)
            if word == example.target:
                total, tokens = total + float(loss), tokens + labels.numel()
    assert score.loss == pytest.approx(total / tokens, rel=1e-5)


def test_a_bank_scores_as_its_members_do_alone(random_t5, toy_task):
    backbone = random_t5(2)
    tasks = [toy_task(PREFIXES, name="a"), toy_task(["bad", "not good"], rows=44, name="b")]
    prompts = [tpv.SoftPrompt.sample(backbone, num_tokens=5, seed=s) for s in range(4)]
    chosen = [tasks[0], tasks[1], tasks[0], tasks[1]]
    together = tpv.evaluate(backbone, chosen, prompts, split="train")
    for task, prompt, scores in zip(chosen, prompts, together, strict=True):
        alone = tpv.evaluate(backbone, task, prompt, split="train")
        assert alone.predictions["said"] == scores.predictions["said"]
        assert alone.loss == pytest.approx(scores.loss, rel=1e-5)


def test_predict_agrees_with_evaluate(random_t5, toy_task):
    backbone, task = random_t5(0), toy_task(PREFIXES)
    prompt = tpv.SoftPrompt.sample(backbone, num_tokens=5, seed=0)
    texts = [example.source for example in task.examples("test")]
    table = tpv.predict(backbone, task, prompt, texts)
    scores = tpv.evaluate(backbone, task, prompt)
    assert table["said"] == scores.predictions["said"]
    assert table["source"].to_pylist() == texts
    for bad, words in (
        (["a", "  "], "text 2 is empty"),
        ("one", "put it in a list"),
        (["a\udcff"], "not UTF-8"),
        ([], "at least one"),
    ):
        with pytest.raises(tpv.TpvError, match=words):
            tpv.predict(backbone, task, prompt, bad)
    with pytest.raises(tpv.TpvError, match="max_input_length"):
        tpv.predict(backbone, task, prompt, ["a"], max_input_length=-5)


def test_labels_the_model_cannot_tell_apart_are_refused(random_t5, toy_task):
    backbone = random_t5()
    task = toy_task(["good movie", "good  movie"])
    with pytest.raises(tpv.TpvError, match="same tokens"):
        label_tokens(backbone, task)
    with pytest.raises(tpv.TpvError, match="cannot be written"):
        label_tokens(backbone, toy_task(["gut", "schön"]))


def test_prompts_of_another_model_and_odd_numbers_of_tasks_are_refused(random_t5, toy_task):
    one, two, task = random_t5(0), random_t5(1), toy_task(["good", "bad"])
    prompt = tpv.SoftPrompt.sample(one, num_tokens=3, seed=0)
    with pytest.raises(tpv.IncompatibleError, match=r"random 1.*random 0"):
        tpv.evaluate(two, task, prompt)
    with pytest.raises(tpv.TpvError, match="number of tasks"):
        tpv.evaluate(one, [task, task, task], [prompt, prompt])
    with pytest.raises(tpv.TpvError, match="max_input_length"):
        tpv.evaluate(one, task, prompt, max_input_length=0)


def test_chunks_hold_every_row_once_within_budget():
    costs = [3, 50, 7, 7, 120, 1, 9]
    parts = chunks(costs, 60, 512)
    assert sorted(i for part in parts for i in part) == list(range(len(costs)))
    for part in parts:
        assert len(part) == 1 or len(part) * max(costs[i] for i in part) <= 60


def test_chunks_part_long_rows_from_short_ones_where_that_pays():
    costs = [60] * 16 + [20] * 16
    assert [len(part) for part in chunks(costs, 10_000, 512)] == [16, 16]  # 640 positions of padding saved
    assert [len(part) for part in chunks([60] * 4 + [50] * 8, 10_000, 512)] == [12]  # 80
    generator = np.random.default_rng(0)
    costs = generator.integers(10, 200, 400).tolist()
    parts = chunks(costs, 4000, 512)
    assert sorted(i for part in parts for i in part) == list(range(400))
    for part in parts:
        longest = max(costs[i] for i in part)
        assert len(part) * longest <= 4000
        assert sum(longest - costs[i] for i in part) <= 512 * np.log(4000)  # a harmonic sum of 512 / rows left


@pytest.mark.parametrize("steps", [0, 60])
def test_correlations_are_with_the_true_numbers(random_t5, rating, steps):
    """Against scipy on what `generate()` says; 0 steps say no label word, and -1 throughout correlates with nothing."""
    backbone = random_t5(3)
    teach(backbone, rating, steps=steps)
    prompt = tpv.SoftPrompt.sample(backbone, num_tokens=4, seed=0)
    scores = tpv.evaluate(backbone, rating, prompt)
    texts = generated(backbone, prompt, rating)
    said = [float(text) if text in rating.labels else -1.0 for text in texts]
    true = [(i * 7 % 12) / 3 for i in range(36)]
    assert scores.predictions["value"].to_pylist() == pytest.approx(true)
    assert [row.target for row in rating.examples("test")] == [str(round(value)) for value in true]
    if steps == 60:
        assert scores.pearson > 0.3
        assert scores.pearson == pytest.approx(pearsonr(true, said).statistic)
        assert scores.spearman == pytest.approx(spearmanr(true, said).statistic)
        assert scores.metric("pearson") == scores.pearson != scores.spearman
    if steps == 0:
        assert scores.invalid_rate == 1.0
        assert scores.pearson == scores.spearman == 0.0


def test_predictions_score_again_with_or_without_true_numbers(random_t5, rating, toy_task):
    backbone = random_t5(3)
    prompt = tpv.SoftPrompt.sample(backbone, num_tokens=4, seed=0)
    teach(backbone, rating, steps=60)
    scores = tpv.evaluate(backbone, rating, prompt)
    assert score_predictions(scores.predictions) == scores
    old = score_predictions(scores.predictions.drop_columns(["value"]))  # as tables were before there were such tasks
    assert (old.pearson, old.spearman) == (None, None)
    assert old.exact_match == scores.exact_match
    column = scores.predictions.schema.get_field_index("value")
    holes = scores.predictions.set_column(column, "value", pa.nulls(36, pa.float64()))
    with pytest.raises(tpv.TpvError, match="a value in every row"):
        score_predictions(holes)
    words = tpv.evaluate(backbone, toy_task(["good", "bad"]), prompt)
    assert "value" not in words.predictions.column_names
    with pytest.raises(tpv.TpvError, match="metric 'pearson' is not defined for this task"):
        words.metric("pearson")
    assert (scores.metric("pearson"), scores.metric("spearman")) == (scores.pearson, scores.spearman)
    assert not scores.defined("f1")
    assert [name for name in ("f1", "pearson", "spearman") if words.defined(name)] == ["f1"]


@pytest.mark.parametrize("said", ["said", "predicted"])  # predicted: as 0.1 stored it
def test_one_output_that_is_no_label_word_counts_as_minus_one(said):
    """By hand: true 0, 2, 4; said 0, nothing, 4, so -1 in the middle and r = 8 / sqrt(8 * 14)."""
    table = pa.table(
        {
            "example": ["a", "b", "c"],
            "gold": ["0", "2", "4"],
            said: ["0", None, "4"],
            "log_probs": pa.FixedSizeListArray.from_arrays(pa.array([0.0] * 9, pa.float32()), 3),
            "value": [0.0, 2.0, 4.0],
        }
    ).replace_schema_metadata({"task": "t", "labels": "0\x1f2\x1f4", "label_tokens": "1\x1f1\x1f1", "positive": "1"})
    scores = score_predictions(table)
    assert scores.pearson == pytest.approx(8 / (8 * 14) ** 0.5)
    assert scores.spearman == pytest.approx(0.5)
