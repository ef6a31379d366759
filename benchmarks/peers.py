"""Prompt tuning and scoring with PEFT and the transformers trainers, written as their users write them.

`authors`: as the paper's code does it: everything padded to 256 tokens, shuffled batches, `predict_with_generate`.
`tuned`: PEFT by someone who knows it: padded to the longest of a batch, like lengths together, outputs generated no
longer than a label word.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import peft
import torch
from datasets import Dataset
from torch import Tensor
from transformers import (
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils.logging import set_verbosity_error

Style = Literal["authors", "tuned"]
PADDED = 256  # tokens, the authors' way


class _Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


@dataclass
class Peer:
    """A PEFT model around a frozen one, and how its user feeds it.

    Args:
        model: of `transformers`, used as it is: PEFT's wrapper is undone by `close`.
        tokens: rows of the prompt.
    """

    model: Any
    tokenizer: Any
    tokens: int
    style: Style

    def __post_init__(self) -> None:
        set_verbosity_error()
        self.causal = not self.model.config.is_encoder_decoder
        kind = peft.TaskType.CAUSAL_LM if self.causal else peft.TaskType.SEQ_2_SEQ_LM
        config = peft.PromptTuningConfig(task_type=kind, num_virtual_tokens=self.tokens)
        self.peft = peft.get_peft_model(self.model, config)

    # --- data -------------------------------------------------------------------------------------
    def _padding(self) -> dict[str, Any]:
        return (
            {"padding": "max_length", "truncation": True, "max_length": PADDED}
            if self.style == "authors"
            else {"truncation": True, "max_length": PADDED}
        )

    def _training_rows(self, texts: Sequence[str], targets: Sequence[str]) -> Dataset:
        if self.causal:
            rows = []
            for text, target in zip(texts, targets, strict=True):
                before = self.tokenizer(f"{text}\nlabel:", truncation=True, max_length=PADDED)["input_ids"]
                after = [*self.tokenizer(f" {target}")["input_ids"], self.tokenizer.eos_token_id]
                rows.append(
                    {
                        "input_ids": before + after,
                        "attention_mask": [1] * len(before + after),
                        "labels": [-100] * len(before) + after,
                    }
                )
            return Dataset.from_list(rows)
        encoded = self.tokenizer(list(texts), **self._padding())
        labels = self.tokenizer(text_target=list(targets))["input_ids"]
        return Dataset.from_dict(
            {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}
        )

    # --- work -------------------------------------------------------------------------------------
    def train(self, texts: Sequence[str], targets: Sequence[str], batch: int, steps: int, lr: float = 0.3) -> float:
        """Seconds a step, the first left out."""
        clock = _Clock()
        with tempfile.TemporaryDirectory() as folder:
            options: dict[str, Any] = {
                "output_dir": folder,
                "per_device_train_batch_size": batch,
                "max_steps": steps,
                "learning_rate": lr,
                "weight_decay": 1e-5,
                "save_strategy": "no",
                "report_to": "none",
                "disable_tqdm": True,
                "use_cpu": not torch.cuda.is_available(),
                "logging_strategy": "no",
                "dataloader_pin_memory": False,
            }
            if self.style == "tuned":
                options["train_sampling_strategy"] = "group_by_length"
            rows = self._training_rows(texts, targets)
            collator = DataCollatorForSeq2Seq(self.tokenizer, padding=True)
            make, args = (Trainer, TrainingArguments) if self.causal else (Seq2SeqTrainer, Seq2SeqTrainingArguments)
            if not self.causal:
                options["predict_with_generate"] = True
            trainer = make(
                model=self.peft, args=args(**options), train_dataset=rows, data_collator=collator, callbacks=[clock]
            )
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        return (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)

    def score(self, texts: Sequence[str], targets: Sequence[str], labels: Sequence[str], batch: int) -> float:
        """Seconds for generating an output for every text and comparing it with its target."""
        longest = max(len(self.tokenizer(text_target=label)["input_ids"]) for label in labels) + self.causal
        self.peft.eval()
        begun = time.perf_counter()
        if not self.causal:
            with tempfile.TemporaryDirectory() as folder:
                options: dict[str, Any] = {}
                if self.style == "tuned":
                    options["train_sampling_strategy"] = "group_by_length"
                trainer = Seq2SeqTrainer(
                    model=self.peft,
                    args=Seq2SeqTrainingArguments(
                        output_dir=folder,
                        per_device_eval_batch_size=batch,
                        predict_with_generate=True,
                        report_to="none",
                        disable_tqdm=True,
                        use_cpu=not torch.cuda.is_available(),
                        dataloader_pin_memory=False,
                        generation_max_length=longest + 1,
                        **options,
                    ),
                    data_collator=DataCollatorForSeq2Seq(self.tokenizer, padding=True),
                )
                output = trainer.predict(self._training_rows(texts, targets)).predictions
            self._hits(torch.as_tensor(output), targets)
        else:
            self._score_causal(texts, targets, batch, longest)
        return time.perf_counter() - begun

    @torch.inference_mode()
    def _score_causal(self, texts: Sequence[str], targets: Sequence[str], batch: int, longest: int) -> None:
        self.tokenizer.padding_side = "left"
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), batch):
            mine = order[start : start + batch]
            inputs = self.tokenizer(
                [f"{texts[i]}\nlabel:" for i in mine],
                return_tensors="pt",
                truncation=True,
                max_length=PADDED,
                padding="max_length" if self.style == "authors" else True,
            ).to(self.model.device)
            inputs.pop("token_type_ids", None)
            output = self.peft.generate(
                **inputs, max_new_tokens=longest, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
            self._hits(output[:, -longest:], [targets[i] for i in mine])
        self.tokenizer.padding_side = "right"

    def _hits(self, output: Tensor, targets: Sequence[str]) -> int:
        output = output.masked_fill(output < 0, self.tokenizer.pad_token_id)
        said = self.tokenizer.batch_decode(output, skip_special_tokens=True)
        return sum(one.strip() == two for one, two in zip(said, targets, strict=True))

    def set_prompt(self, prompt: Tensor) -> None:
        """Read this prompt [P, H] from now on."""
        weight = self.peft.prompt_encoder["default"].embedding.weight
        with torch.no_grad():
            weight[: len(prompt)] = prompt.to(weight)

    def close(self) -> None:
        """Take PEFT's wrapper off the model."""
        self.peft = None
