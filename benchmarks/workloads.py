"""What the benchmarks work on: texts, a tokenizer for them, and models of real shapes with random weights."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForSeq2SeqLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from tpv.mini import model_folder
from tpv.models import CausalBackbone, Seq2SeqBackbone, load_backbone
from tpv.tasks import Example, Task, load_task
from tpv.tasks.spec import TaskSpec

# words of a text: quantiles 0, 5, ... 100 % of the data set named, from which texts are made where it is not at hand
WORDS = {
    "sst2": (1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 11, 12, 14, 17, 20, 25, 52),
    "mnli": (2, 10, 12, 15, 17, 19, 21, 22, 24, 26, 28, 29, 31, 33, 36, 38, 41, 44, 49, 57, 252),
}
LABELS = {"sst2": ("negative", "positive"), "mnli": ("entailment", "neutral", "contradiction")}
VOCABULARY = 4000  # of the tokenizer: as many pieces a word as T5's has on such text, about 1.3


@dataclass(frozen=True)
class Texts:
    """Inputs and labels of a task, and where they come from."""

    name: str
    rows: tuple[tuple[str, int], ...]
    origin: str

    def task(self, train: int, test: int) -> Task:
        """A `Task` of the first rows for training and as many of the next for testing."""
        spec = TaskSpec(
            name=self.name,
            fields=("text",),
            template="{text}",
            labels=LABELS[self.name],
            source={"kind": "files", "train": "-"},
        )
        rows = [Example(str(i), text, spec.labels[label], label, spec.cue) for i, (text, label) in enumerate(self.rows)]
        parts = {"train": rows[:train], "validation": rows[train : train + test], "test": rows[train : train + test]}
        return Task(spec, {split: tuple(part) for split, part in parts.items()}, {"benchmark": self.origin})


def texts(name: str, count: int, data: Path | None) -> Texts:
    """So many rows of a data set, or made-up ones with as many words."""
    rng = random.Random(f"{name} {count}")
    if data and (data / name).is_dir():
        rows = [(row.source, row.label) for row in load_task(name, data_dir=data).examples("train")]
        rng.shuffle(rows)
        return Texts(name, tuple(rows[i % len(rows)] for i in range(count)), f"{name}, local copy")
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(3000)]
    made = []
    for _ in range(count):
        place = rng.random() * (len(WORDS[name]) - 1)
        low = int(place)
        length = WORDS[name][low] + (place - low) * (WORDS[name][low + 1] - WORDS[name][low])
        made.append((f"{name}: {' '.join(rng.choices(words, k=max(1, round(length))))}", rng.randrange(2)))
    return Texts(name, tuple(made), f"made up with the lengths of {name}")


@lru_cache
def tokenizer(corpus: tuple[str, ...], causal: bool) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer made from these texts."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if not causal:
        from tokenizers.processors import TemplateProcessing

        made.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@dataclass(frozen=True)
class Model:
    """A backbone, and the same model as `transformers` makes it, for others to use: tpv changes its own."""

    backbone: Seq2SeqBackbone | CausalBackbone
    stock: Any


def _model(model: Any, words: PreTrainedTokenizerFast, name: str) -> Model:
    stock = copy.deepcopy(model)
    kind = Seq2SeqBackbone if model.config.is_encoder_decoder else CausalBackbone
    return Model(kind(model, words, name), stock)


def mini() -> Model:
    """The embedded model."""
    backbone: Any = load_backbone("mini")
    return Model(backbone, AutoModelForSeq2SeqLM.from_pretrained(model_folder()))


def t5_small(corpus: tuple[str, ...]) -> Model:
    """A model of T5-small's shape."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=32128,
        d_model=512,
        d_kv=64,
        d_ff=2048,
        num_layers=6,
        num_decoder_layers=6,
        num_heads=8,
        dropout_rate=0.1,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return _model(T5ForConditionalGeneration(config), tokenizer(corpus, causal=False), "T5-small shape")


def smollm2(corpus: tuple[str, ...]) -> Model:
    """A model of SmolLM2-135M's shape."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return _model(LlamaForCausalLM(config), tokenizer(corpus, causal=True), "SmolLM2-135M shape")
