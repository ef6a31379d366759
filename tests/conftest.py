"""Shared fixtures: the embedded backbone, and random models small enough to check by hand."""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

import tpv
from tpv import cli, mini
from tpv.backbones import Seq2SeqBackbone
from tpv.tasks.local import task_from_path

SHARED = Path(__file__).resolve().parents[2] / "shared"


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
            "vocab_size": len(tokenizer), "d_model": 32, "d_ff": 64, "num_layers": 2, "num_heads": 2, "d_kv": 16,
            "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, "dropout_rate": 0.1,
        }  # fmt: skip
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
        return task_from_path(path, labels=labels)

    return build


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `tpv ARGS` in this process: exit code, standard output, standard error."""

    monkeypatch.setattr("tpv.backbones.hub_answers", lambda: False)

    def call(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tpv", *map(str, args)])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
            cli.main()
        out = capsys.readouterr()
        return end.value.code or 0, out.out, out.err

    return call


def teach(backbone: Seq2SeqBackbone, task: tpv.Task, steps: int = 60) -> None:
    """Train the *model* a little on a task, so that it says label words, right and wrong ones."""
    model = backbone.model.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = task.examples("train")
    inputs = backbone.tokenizer([row.source for row in rows], return_tensors="pt", padding=True)
    targets = backbone.tokenizer([row.target for row in rows], return_tensors="pt", padding=True)["input_ids"]
    for _ in range(steps):
        model(**inputs, labels=targets.masked_fill(targets == 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.requires_grad_(False)
