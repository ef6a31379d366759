"""The files that the paper's authors released (quirk 15), read without running what a pickle may carry.

    origin_0/origin_0.bin    the initialization, {"prompt_embeddings": [P, H]}
    origin_0/<task>.bin      the prompt tuned from it, [P, H]
    origin_1/...

In these files the second half of the rows is dead: PEFT allocated it and never read it (quirk 1), so that training only
shrank it by weight decay.
"""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tpv.errors import DamagedFileError, IncompatibleError, TpvError, TpvWarning
from tpv.files import regular
from tpv.prompts import initializers
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.prompts.provenance import ModelIdentity

if TYPE_CHECKING:
    from tpv.models import Backbone

ORIGIN = re.compile(r"origin_(0|[1-9][0-9]*)")
KEY = "prompt_embeddings"
ZIP = b"PK\x03\x04"  # what torch.save has written since 1.6 begins with
FURTHEST = 2e-3  # from a multiple of its start: fp32 rounding in 120,000 decaying AdamW steps makes 4e-4 of it
SEPARATION = 20.0  # times further from a multiple of its start a trained half is


@dataclass(frozen=True)
class Released:
    """One released prompt with its initialization.

    Attributes:
        origin: the number of the initialization.
        task: the task's name, as the file is called.
        init: the initialization; the same for all tasks of an origin.
        tuned: the prompt tuned on the task.
        vector: `tuned - init`.
    """

    origin: int
    task: str
    init: SoftPrompt
    tuned: SoftPrompt

    @property
    def vector(self) -> TaskPromptVector:
        return self.tuned - self.init


def read_released(folder: str | PathLike[str], backbone: Backbone, keep_dead_rows: bool = False) -> list[Released]:
    """Read the authors' released prompts, by origin, then by task.

    If the second half of every prompt is dead (a multiple in (0, 1] of its initialization's, while the first half is
    not), it is dropped, with a `TpvWarning`. If one of them was trained there, all rows of all prompts stay: tpv cannot
    combine prompts of different shapes.

    Args:
        folder: holds the folders `origin_0`, `origin_1`, …
        backbone: the model they were tuned on; the authors' is T5-base.
        keep_dead_rows: keep all rows in any case.

    Raises:
        TpvError: no such folder, no origins in it, an origin without its initialization or without a tuned prompt.
        DamagedFileError: a file that is not a plain fp32 tensor (or, for an initialization, a dict that contains one),
            whatever else it contains; values that are not finite.
        IncompatibleError: prompts of another width than the model's, or of another shape than their initialization.
    """
    place = Path(folder)
    if not is_released(place):
        raise TpvError(f"{place} holds none of the authors' prompts", expected="folders origin_0, origin_1, …")
    origins = {number: _read_origin(path, number, backbone.identity) for number, path in _origins(place)}
    pairs = [
        (f"{place.name}/origin_{number}/{task}.bin", init, tuned)
        for number, (init, tuned_to) in origins.items()
        for task, tuned in tuned_to.items()
    ]
    rows = {number: len(init) for number, (init, _) in origins.items()}
    alive = [name for name, init, tuned in pairs if not second_half_is_dead(init, tuned)]
    if not keep_dead_rows and not alive:
        rows = {number: count // 2 for number, count in rows.items()}
        warnings.warn(
            f"{place}: dropped the second half of {len(pairs)} prompts and {len(origins)} initializations (the last "
            f"{_counts(rows)} rows of each), which PEFT allocated and training never reached; keep_dead_rows keeps it",
            TpvWarning,
            stacklevel=2,
        )
    elif not keep_dead_rows and len(alive) < len(pairs):
        warnings.warn(
            f"{place}: kept all rows, since in {len(alive)} of {len(pairs)} prompts the second half was trained, e.g. "
            f"{alive[0]}",
            TpvWarning,
            stacklevel=2,
        )
    return [
        record
        for number, (init, tuned_to) in origins.items()
        for record in _records(number, init[: rows[number]], tuned_to, backbone.identity)
    ]


def _counts(rows: dict[int, int]) -> str:
    return " or ".join(str(count) for count in sorted(set(rows.values())))


def _records(number: int, init: Tensor, tuned_to: dict[str, Tensor], model: ModelIdentity) -> list[Released]:
    given = initializers.given(init)
    start = SoftPrompt(init, model, given.model_copy(update={"detail": f"origin_{number} {given.detail}"}))
    return [Released(number, task, start, start.tuned_to(tuned[: len(init)], task)) for task, tuned in tuned_to.items()]


def second_half_is_dead(init: Tensor, tuned: Tensor) -> bool:
    """Is the second half of a tuned prompt [P, H] what decay alone made of its initialization, and the first half not?

    Decay multiplies every value by one factor: the half is a multiple in (0, 1] of its initialization, up to the
    rounding of many fp32 steps. A trained half is not. A prompt whose first half is as near to a multiple says
    nothing.
    """
    if len(init) % 2:
        return False
    half = len(init) // 2
    _, first = _distance_from_multiple(init[:half], tuned[:half])
    factor, second = _distance_from_multiple(init[half:], tuned[half:])
    return 0.0 < factor <= 1.0 + 1e-6 and second <= FURTHEST and second * SEPARATION <= first


def _distance_from_multiple(start: Tensor, end: Tensor) -> tuple[float, float]:
    """The factor s that brings s · start nearest to end, and how far away that is, relative to it; NaN for a start of
    zeros."""
    start, end = start.double(), end.double()
    factor = (end * start).sum() / start.square().sum()
    return float(factor), float((end - factor * start).norm() / (factor * start).norm())


def is_released(folder: Path) -> bool:
    """Does a folder hold folders called origin_0, origin_1, …?"""
    return bool(_origins(folder))


def _origins(place: Path) -> list[tuple[int, Path]]:
    """The folders origin_N, by number."""
    try:
        found = [
            (int(match[1]), path)
            for path in place.iterdir()
            if (match := ORIGIN.fullmatch(path.name)) and path.is_dir()
        ]
    except (OSError, ValueError) as error:
        raise TpvError(f"{place} cannot be read", got=getattr(error, "strerror", None) or str(error)) from None
    return sorted(found)


def _read_origin(folder: Path, number: int, model: ModelIdentity) -> tuple[Tensor, dict[str, Tensor]]:
    """The initialization [P, H] and the tuned prompts [P, H] by task name."""
    start = folder / f"{folder.name}.bin"
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".bin" and not path.name.startswith("."))
    except OSError as error:
        raise TpvError(f"{folder} cannot be read", got=error.strerror) from None
    if start not in files:
        raise TpvError(f"{folder} lacks its initialization", expected=start.name, got=f"{len(files)} other .bin files")
    if len(files) == 1:
        raise TpvError(
            f"{folder} holds no tuned prompt", expected="<task>.bin beside its initialization", got=start.name
        )
    content = _unpickle(start)
    if not isinstance(content, dict) or list(content) != [KEY]:
        got = f"a dict of {list(content)!r:.60}" if isinstance(content, dict) else type(content).__name__
        raise DamagedFileError(
            f"{start} is not a released initialization", expected=f"a dict of {KEY!r} alone", got=got
        )
    init = _check(start, content[KEY], model)
    tuned = {path.stem: _check(path, _unpickle(path), model) for path in files if path != start}
    for task, tensor in tuned.items():
        if tensor.shape != init.shape:
            raise IncompatibleError(
                f"{folder / task}.bin and its initialization have different shapes",
                expected=list(init.shape),
                got=list(tensor.shape),
            )
    return init, tuned


def _unpickle(path: Path) -> Any:
    """What torch.save wrote, as long as it is tensors and plain containers: nothing in the file is called."""
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        raise TpvError(f"{path} cannot be read", got=error.strerror) from None
    if not content.startswith(ZIP):
        raise DamagedFileError(
            f"{path} is not a file of torch.save",
            expected="the zip format it has written since torch 1.6",
            got="an old pickle, or something else",
            fix="if you trust it, load it and save it again with torch.save",
        )
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a crafted pickle makes the reader fail in any way there is
        # torch's own words go on to advise reading it without this protection
        asked = re.search(r"Unsupported (?:global|operand)[^\n]*?([\w.]+\.\w+)|(?:GLOBAL|global) ([\w.]+)", str(error))
        raise DamagedFileError(
            f"{path} is damaged or holds more than tensors, and was not read",
            expected="tensors in plain containers",
            got=f"a pickle that asks for {asked[1] or asked[2]}" if asked else type(error).__name__,
        ) from None


def _check(path: Path, value: object, model: ModelIdentity) -> Tensor:
    """A plain fp32 matrix [P, H] of the model's width, and nothing that only looks like one."""
    plain = type(value) is Tensor and value.device.type == "cpu" and value.layout == torch.strided
    if not isinstance(value, Tensor) or not plain or value.dtype != torch.float32 or value.ndim != 2:
        got = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise DamagedFileError(f"{path} is not a released prompt", expected="a bare fp32 tensor [P, H]", got=got)
    if value.shape[1] != model.hidden_size:
        raise IncompatibleError(
            f"{path} does not fit model {model}",
            expected=f"rows of width {model.hidden_size}",
            got=value.shape[1],
            fix="a prompt works only on the model it was trained on",
        )
    if not 1 <= len(value) <= initializers.MOST_TOKENS:  # a few bytes can claim to be a tensor of any size
        raise DamagedFileError(f"{path}: rows", expected=f"from 1 to {initializers.MOST_TOKENS}", got=len(value))
    broken = int((~value.isfinite()).sum())
    if broken:
        raise DamagedFileError(f"{path}", expected="finite values", got=f"{broken} values that are not")
    return value.detach()
