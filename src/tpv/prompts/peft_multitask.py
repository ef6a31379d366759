"""PEFT's files of multitask prompt tuning: a prompt that tasks share, and low-rank matrices of each task.

A task's prompt is the shared one times the product of its matrices, value by value (Wang et al., 2023, eq. 1). As in
`tpv.prompts.peft_format`, what is written here says `num_transformer_submodules = 1`, with which PEFT reads every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from tpv.errors import DamagedFileError, IncompatibleError, TpvError
from tpv.prompts import storage
from tpv.prompts.peft_format import KEY, METADATA, TASK_TYPES, WEIGHTS, read_config, write_adapter
from tpv.prompts.provenance import ModelIdentity

METHOD = "MULTITASK_PROMPT_TUNING"
COLS, ROWS = "prefix_task_cols", "prefix_task_rows"


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Prompts of several tasks: one that they share, and matrices of rank R of each.

    Attributes:
        shared: [P, H].
        cols: [K, P, R].
        rows: [K, R, H].

    Raises:
        TpvError: shapes that do not fit each other.
    """

    shared: Tensor
    cols: Tensor
    rows: Tensor

    def __post_init__(self) -> None:
        (count, width), tasks = self.shared.shape, self.cols.shape[0]
        rank = self.cols.shape[-1]
        got = [list(one.shape) for one in (self.shared, self.cols, self.rows)]
        if self.cols.shape != (tasks, count, rank) or self.rows.shape != (tasks, rank, width):
            raise TpvError("a decomposition of prompts", expected="[P, H], [K, P, R] and [K, R, H]", got=got)

    def prompt(self, task: int) -> Tensor:
        """A task's prompt, [P, H]."""
        if not 0 <= task < len(self.cols):
            raise TpvError("task of a decomposition", expected=f"0 to {len(self.cols) - 1}", got=task)
        return self.shared * (self.cols[task] @ self.rows[task])

    def average(self) -> Decomposition:
        """One task whose matrices are the means of all tasks' (PEFT's `AVERAGE_SOURCE_TASKS`)."""
        return Decomposition(self.shared, self.cols.mean(0, keepdim=True), self.rows.mean(0, keepdim=True))

    def state(self) -> dict[str, Tensor]:
        """The tensors by the names that PEFT gives them."""
        named = {KEY: self.shared, COLS: self.cols, ROWS: self.rows}
        return {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in named.items()}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Decomposition:
        """What `state` gave.

        Raises:
            TpvError: a tensor is missing, or shapes do not fit each other.
        """
        if not {KEY, COLS, ROWS} <= state.keys():
            got = ", ".join(sorted(state)) or "none"
            raise TpvError("tensors of a decomposition", expected=f"{KEY}, {COLS} and {ROWS}", got=got)
        return cls(state[KEY], state[COLS], state[ROWS])

    def to_peft(self, folder: str | PathLike[str], model: ModelIdentity) -> None:
        """Write an adapter that `peft.PeftModel.from_pretrained(model, folder)` loads; tasks are `task_ids` 0, 1, ...

        Raises:
            TpvError: the folder cannot be written, or holds an adapter that tpv did not write.
        """
        from peft import MultitaskPromptTuningConfig

        config = MultitaskPromptTuningConfig(
            task_type=TASK_TYPES[model.architecture],
            base_model_name_or_path=model.name,
            num_virtual_tokens=len(self.shared),
            token_dim=model.hidden_size,
            num_transformer_submodules=1,
            num_tasks=len(self.cols),
            num_ranks=self.cols.shape[-1],
            inference_mode=True,
        )
        write_adapter(Path(folder), config, safetensors_bytes(self.state(), METADATA))


def read_multitask(folder: str | PathLike[str], model: ModelIdentity) -> Decomposition:
    """Read an adapter of multitask prompt tuning; rows that PEFT allocates and never reads are dropped.

    Args:
        model: that it was trained on.

    Raises:
        TpvError: no such folder or file, or another method.
        IncompatibleError: another width or kind of model.
        DamagedFileError: config or weights that do not read, do not fit each other, or hold NaN.
    """
    place = Path(folder)
    config = read_config(place, METHOD)
    if config.task_type not in (None, TASK_TYPES[model.architecture]):
        raise IncompatibleError(
            f"the adapter in {place} is for another kind of model",
            expected=TASK_TYPES[model.architecture],
            got=config.task_type,
        )
    path = place / WEIGHTS
    tensors, _ = storage.read_safetensors(path)
    if sorted(tensors) != sorted((KEY, COLS, ROWS)):
        got = ", ".join(sorted(tensors)[:4]) or "no tensor"
        raise DamagedFileError(f"{path} holds no multitask prompt", expected=f"{KEY}, {COLS} and {ROWS}", got=got)
    shared, cols, rows = (tensors[name].float() for name in (KEY, COLS, ROWS))
    stored = config.live_rows * config.submodules
    if shared.ndim != 2 or cols.ndim != 3 or rows.ndim != 3 or len(shared) != stored or cols.shape[1] != stored:
        got = f"{list(shared.shape)}, {list(cols.shape)} and {list(rows.shape)}"
        raise DamagedFileError(f"{place}: weights and config do not fit each other", expected=f"{stored} rows", got=got)
    if not all(bool(one.isfinite().all()) for one in (shared, cols, rows)):
        raise DamagedFileError(f"{path}: values", expected="finite ones", got="some that are not")
    if shared.shape[1] != model.hidden_size:
        raise IncompatibleError(
            f"the adapter in {place} does not fit model {model}",
            expected=f"rows of width {model.hidden_size}",
            got=shared.shape[1],
        )
    try:
        return Decomposition(shared[: config.live_rows], cols[:, : config.live_rows], rows)
    except TpvError as error:
        raise DamagedFileError(f"{path}: {error.what}", expected=error.expected, got=error.got) from None
