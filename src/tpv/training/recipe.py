"""How to tune a prompt: plain values, checked; `tpv.training.loop` does what they say."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from tpv.errors import TpvError
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.registry import register
from tpv.tasks.splits import JUDGES

FEW_ROWS = 1000  # below which `few_rows` is what to begin with
BATCH = 16  # rows a step, for few rows
TRAIN_ROW = 3.0  # a training row costs about so many scored ones: forward, and backward for activations only
EPOCHS = 10.0  # where neither steps nor epochs are given
Schedule = Literal["linear", "constant", "cosine"]
SELECTIONS = (  # and any registered metric
    "loss",
    "exact_match",
    "macro_f1",
    "f1",
    "pearson",
    "spearman",
    "token_f1",
    "last",
)


def fitting_lr(embedding_rms: float) -> float:
    """A learning rate for prompts of a model whose input embeddings have this root mean square.

    AdamW moves every value of a prompt by about the learning rate a step, so what a step means depends on how
    large those values are: 0.1 of their RMS where they are small, as in Llama's kin (0.014 on SmolLM2, where 0.01 to
    0.03 were measured to work), and the paper's 0.3 where they are 1 or more, as in T5; 0.3 of the square between.
    """
    return min(0.3, max(0.1 * embedding_rms, 0.3 * embedding_rms**2))


def fitting_vector_lr(embedding_rms: float, composable: bool) -> float:
    """A learning rate for vectors that train under initializations which change, or beside other vectors.

    Such a vector has to grow larger than what it is added to, and at `fitting_lr` it does not get there where
    embeddings are small: on SmolLM2-135M (RMS 0.14) 0.12 closed the gap to ordinary tuning that 0.015 to 0.06 left, and
    0.06 did so for sums of composable vectors, for which more was not tried (docs/portable.md). 0.86 and 0.43 of the
    RMS, up to 0.3, which is enough where embeddings are large.
    """
    return max(fitting_lr(embedding_rms), min(0.3, (0.43 if composable else 0.86) * embedding_rms))


def few_steps(rows: int) -> int:
    """Optimizer steps of up to 16 rows that suit a few training rows: 5 times the square root of their number.

    With 16 rows, 20 steps gave the lowest loss of held-out rows on SmolLM2 and on the embedded T5, with 64 rows 40 and
    with 256 rows 80 to 160; more fit the rows too well (docs/LOG.md, `benchmarks/few_rows.py`).
    """
    return max(5, round(5 * math.sqrt(rows)))


def few_rows(rows: int, validation: int) -> dict[str, Any]:
    """What of a recipe suits a label task with fewer than 1,000 training rows.

    Args:
        rows, validation: rows of these splits.

    Returns:
        `steps` (`few_steps`), `batch_size`, and a checkpoint chosen among five by validation loss, or the last one
        where fewer than 50 rows could choose it.
    """
    steps = few_steps(rows)
    select = "loss" if validation >= JUDGES else "last"
    return {"steps": steps, "batch_size": min(BATCH, rows), "eval_every": max(5, steps // 5), "select": select}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to tune. The defaults are the paper's (appendix A).

    Attributes:
        steps: optimizer steps; give these or `epochs`.
        epochs: passes over the training rows; 10 when neither is given.
        batch_size: rows per step, for each prompt.
        lr: peak learning rate of AdamW; `"auto"` fits it to the embeddings of the model at hand, which gives
            the paper's 0.3 on T5 (see `fitting_lr`).
        weight_decay: weight decay of AdamW, on the prompt itself, including its initialization.
        proximity: after each step, pulls each prompt back towards its start by this times the learning rate: L2-SP
            (Li et al., 2018), decoupled from the gradient as AdamW's weight decay is. 0 turns it off.
        warmup_steps: linear warm-up; a run no longer than this warms up over its first tenth instead.
        schedule: after warm-up, `linear` or `cosine` decay to 0, or `constant`.
        max_grad_norm: each prompt's gradient is clipped to this Euclidean norm.
        eval_every: steps between validations; there is always one at the end.
        select: keep the checkpoint with the lowest validation `loss` or the highest of a score
            (`exact_match`, `macro_f1`, `f1`, `pearson`, `spearman`, or any registered metric), or the `last` one
            without validating at all.
        patience: stop a prompt after this many validations without improvement.
        max_input_length: input texts are truncated to this many tokens.
        autocast: run the forward passes under bfloat16 autocast, whatever the model was loaded in. Prompts stay fp32.
        dropout: leave the frozen model's own dropout on (the authors' code does: quirk 16). Its masks
            are drawn for the whole bank from `seed`, so a bank then differs from separate runs.
        seed: seed of the data order, and of dropout.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 32
    lr: float | Literal["auto"] = "auto"
    weight_decay: float = 1e-5
    proximity: float = 0.0
    warmup_steps: int = 500
    schedule: Schedule = "linear"
    max_grad_norm: float = 1.0
    eval_every: int = 100
    select: str = "loss"
    patience: int | None = None
    max_input_length: int = MAX_INPUT_LENGTH
    autocast: bool = False
    dropout: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        mistakes: list[str] = []

        def whole(name: str, least: int, optional: bool = False) -> None:
            value = getattr(self, name)
            if optional and value is None:
                return
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                mistakes.append(f"{name} must be a whole number of at least {least}, is {value!r}")

        def positive(name: str, zero: bool = False, most: float = sys.float_info.max) -> None:
            value = getattr(self, name)
            good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most
            if not good or (value == 0 and not zero):
                kind = "a finite number of at least 0" if zero else "a positive finite number"
                mistakes.append(f"{name} must be {kind}, is {value!r}")

        def one_of(name: str, allowed: tuple[str, ...]) -> None:
            if getattr(self, name) not in allowed:
                mistakes.append(f"{name} must be one of {', '.join(allowed)}, is {getattr(self, name)!r}")

        whole("steps", 1, optional=True)
        whole("patience", 1, optional=True)
        for name in ("batch_size", "eval_every", "max_input_length"):
            whole(name, 1)
        for name in ("warmup_steps", "seed"):
            whole(name, 0)
        if self.epochs is not None:
            positive("epochs", most=1e9)
        if self.lr != "auto":
            positive("lr")
        positive("max_grad_norm")
        positive("weight_decay", zero=True)
        positive("proximity", zero=True)
        one_of("schedule", get_args(Schedule))
        if self.select not in SELECTIONS and self.select not in register.metric:  # the registry brings scikit-learn
            known = [*SELECTIONS, *(name for name in register.metric.names() if name not in SELECTIONS)]
            mistakes.append(f"select must be one of {', '.join(known)}, is {self.select!r}")
        for name in ("autocast", "dropout"):
            if not isinstance(getattr(self, name), bool):
                mistakes.append(f"{name} must be true or false, is {getattr(self, name)!r}")
        if self.steps is not None and self.epochs is not None:
            mistakes.append("give steps or epochs, not both")
        if mistakes:
            raise TpvError("invalid recipe", got="; ".join(mistakes))

    def fitted(self, embedding_rms: float) -> Recipe:
        """This recipe with a number for `lr`."""
        return replace(self, lr=fitting_lr(embedding_rms)) if self.lr == "auto" else self

    def total_steps(self, rows: int) -> int:
        """Optimizer steps of a run over `rows` training rows."""
        if self.steps is not None:
            return self.steps
        epochs = EPOCHS if self.epochs is None else self.epochs
        return max(1, math.ceil(epochs * math.ceil(rows / self.batch_size)))

    def effective_warmup(self, total: int) -> int:
        """Warm-up steps of a run of `total` steps: as asked, or a tenth of a run no longer than that."""
        return self.warmup_steps if total > self.warmup_steps else total // 10

    def lr_at(self, step: int, total: int) -> float:
        """Learning rate of optimizer step `step` (from 0), as `transformers.get_scheduler` has it."""
        if self.lr == "auto":
            raise TpvError("lr 'auto' has no value before it is fitted to a model", fix="use recipe.fitted(rms)")
        warmup = self.effective_warmup(total)
        if step < warmup:
            return self.lr * step / max(1, warmup)
        if self.schedule == "constant":
            return self.lr
        progress = (step - warmup) / max(1, total - warmup)
        if self.schedule == "linear":
            return self.lr * max(0.0, 1.0 - progress)
        return self.lr * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
