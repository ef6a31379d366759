"""Shared fixtures: the embedded backbone, and random models small enough to check by hand."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from toys import CAUSAL, CHAT, write_rating
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

import tpv
from tpv import cli, mini
from tpv.models import CausalBackbone, Seq2SeqBackbone


@pytest.fixture(scope="session")
def backbone() -> tpv.Backbone:
    return tpv.load_backbone("mini", device="cpu")


@pytest.fixture(scope="session")
def random_t5() -> Callable[..., Seq2SeqBackbone]:
    """A T5 of random weights with the embedded tokenizer; a seed gives one model."""
    tokenizer = AutoTokenizer.from_pretrained(mini.model_folder())

    def build(seed: int = 0, **changes: object) -> Seq2SeqBackbone:
        torch.manual_seed(seed)
        options = {
            "vocab_size": len(tokenizer),
            "d_model": 32,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 2,
            "d_kv": 16,
            "decoder_start_token_id": 0,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "dropout_rate": 0.1,
        }
        model = T5ForConditionalGeneration(T5Config(**(options | changes)))
        return Seq2SeqBackbone(model, tokenizer, f"random {seed}")

    return build


@pytest.fixture
def toy_task(tmp_path: Path) -> Callable[..., tpv.Task]:
    """A task from a CSV written on the spot, with label words of the caller's choice."""

    def build(labels: list[str], rows: int = 30, name: str = "toy") -> tpv.Task:
        words = ["the", "man", "is", "eating", "an", "apple", "in", "a", "garden", "and", "not", "good"]
        lines = [
            f"{' '.join(words[(i + j) % len(words)] for j in range(3 + i % 7))},{labels[i % len(labels)]}"
            for i in range(rows)
        ]
        path = tmp_path / f"{name}.csv"
        path.write_text("text,label\n" + "\n".join(lines) + "\n")
        return tpv.load_task(path, labels=labels)

    return build


@pytest.fixture
def rating(tmp_path: Path) -> tpv.Task:
    """The task of `write_rating`."""
    return tpv.load_task(write_rating(tmp_path))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `tpv ARGS` in this process: exit code, standard output, standard error."""

    monkeypatch.setattr("tpv.models.loading.hub_answers", lambda: False)
    monkeypatch.delenv("COLUMNS", raising=False)  # of the terminal that the tests run in, or of pytest-xdist

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tpv", *map(str, args)])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
            cli.main()
        out = capsys.readouterr()
        return end.value.code or 0, out.out, out.err

    return call


@pytest.fixture(scope="session")
def causal_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the spot, as those of Llama 3, Qwen and GPT-2 are built."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [row.source for name in ("mini/sst2", "mini/mnli") for row in tpv.load_task(name).examples("train")[:200]]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<eos>", "<|im_start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")
    fast.chat_template = CHAT
    return fast


@pytest.fixture(scope="session")
def random_causal(causal_tokenizer: PreTrainedTokenizerFast) -> Callable[..., CausalBackbone]:
    """A small decoder-only model of random weights; a seed gives one model."""

    def build(family: str = "llama", seed: int = 0, *, chat: bool = False, recompute: bool = False) -> CausalBackbone:
        name, own = CAUSAL[family]
        options = {
            "vocab_size": len(causal_tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "max_position_embeddings": 128,
            "initializer_range": 0.3,
            "pad_token_id": None,
            "bos_token_id": None,
            "eos_token_id": causal_tokenizer.eos_token_id,
            "attention_dropout": 0.0,
        }
        if family == "gpt2":
            options = {key: options[key] for key in ("vocab_size", "initializer_range", "bos_token_id", "eos_token_id")}
        config = getattr(transformers, f"{name}Config")(**(options | own))
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        return CausalBackbone(model, causal_tokenizer, f"random {family} {seed}", chat=chat, recompute=recompute)

    return build
