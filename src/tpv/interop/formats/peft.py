"""Soft prompts in and out of PEFT: folders that hold a prompt-tuning adapter.

PEFT gives an encoder-decoder model twice the rows asked for and reads the first half (quirk 1). What is written here
says `num_transformer_submodules = 1`, with which PEFT reads every row.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tpv.errors import DamagedFileError, IncompatibleError, TpvError, TpvWarning
from tpv.files import regular, staged_folder, writing
from tpv.prompts import initializers, storage
from tpv.prompts.algebra import SoftPrompt
from tpv.prompts.provenance import ModelIdentity
from tpv.registry import register

if TYPE_CHECKING:
    from tpv.models import Backbone

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
KEY = "prompt_embeddings"
METHOD = "PROMPT_TUNING"
MARK = "tpv"  # the metadata key that tells our adapters from others
TASK_TYPES = {"encoder-decoder": "SEQ_2_SEQ_LM", "decoder-only": "CAUSAL_LM"}


def save(prompt: SoftPrompt, folder: str | PathLike[str]) -> None:
    """Write a prompt as an adapter that `peft.PeftModel.from_pretrained(model, folder)` loads.

    The prompt's identity and hash travel in the metadata of the weights, which PEFT does not look at: `load` restores
    the prompt as it was. An adapter that tpv wrote before is replaced.

    Raises:
        TpvError: the folder cannot be written, or holds an adapter that tpv did not write.
    """
    place = Path(folder)
    _refuse_to_replace(place)
    from peft import PromptTuningConfig

    config = PromptTuningConfig(
        task_type=TASK_TYPES[prompt.model.architecture],
        base_model_name_or_path=prompt.model.name,
        num_virtual_tokens=prompt.num_tokens,
        token_dim=prompt.model.hidden_size,
        num_transformer_submodules=1,
        inference_mode=True,
    )
    with staged_folder(place) as stage, writing(place):
        config.save_pretrained(str(stage))
        (stage / WEIGHTS).write_bytes(storage.file_bytes(KEY, prompt, {"format": "pt", MARK: storage.FORMAT}))


def _refuse_to_replace(place: Path) -> None:
    found = [name for name in (CONFIG, WEIGHTS, PICKLE) if (place / name).exists()]
    if not found:
        return
    try:
        ours = MARK in storage.read_safetensors(place / WEIGHTS)[1]
    except TpvError:
        ours = False
    if not ours:
        raise TpvError(
            f"{place} holds an adapter that tpv did not write", got=", ".join(found), fix="choose another folder"
        )


def load(
    folder: str | PathLike[str],
    backbone: Backbone | None = None,
    keep_dead_rows: bool = False,
    *,
    start: SoftPrompt | None = None,
    task: str | None = None,
) -> SoftPrompt:
    """Read a prompt-tuning adapter.

    What `save` wrote comes back as it was, start and terms included, and no model is loaded. Of any other adapter the
    start is unknown (`initialise.given`) unless it is given.

    Args:
        folder: holds `adapter_config.json` and `adapter_model.safetensors`.
        backbone: the model it was trained on; without it and without `start`, the model that the adapter names is
            loaded to learn which one it is.
        keep_dead_rows: keep the rows that PEFT allocates for an encoder-decoder model and never reads. A backbone
            reads all rows of such a prompt; `tpv.compat.half.half_prompt(backbone, rows)` reads the live ones only.
        start: the prompt that training started from, as this same prompt before training.
        task: what it was trained on; with `start` only.

    Raises:
        TpvError: no such folder or file, another method than prompt tuning, a model that cannot be loaded.
        DamagedFileError: a config or weights that do not read, do not fit each other, or hold NaN.
        IncompatibleError: an adapter of another model, width or kind of model; a start of another shape.
    """
    if (start is None) != (task is None):
        raise TpvError(
            f"start of {folder}",
            expected="both start and task, or neither",
            got="only task" if start is None else "only start",
        )
    if task is not None and not task.strip():
        raise TpvError(f"task of {folder}", expected="a name", got=repr(task))
    place = Path(folder)
    config = _read_config(place)
    tensor, metadata = _read_weights(place, config)
    own = _restored(place, tensor, metadata) if MARK in metadata else None
    model = _model(place, config, own, start, backbone)
    _check_fit(place, config, tensor, model)
    dead = len(tensor) - config.live_rows
    if not keep_dead_rows:
        tensor = tensor[: config.live_rows]
    if start is not None and task is not None:
        _check_start(place, start, own, tensor, dead)
        prompt = start.tuned_to(tensor, task)
    else:
        prompt = own if own is not None and not dead else SoftPrompt(tensor, model, initializers.given(tensor))
    if dead and not keep_dead_rows:
        warnings.warn(
            f"{place}: dropped {dead} of {dead + len(tensor)} rows, which PEFT allocates for an encoder-decoder model "
            "and never reads; keep_dead_rows keeps them",
            TpvWarning,
            stacklevel=3,
        )
    return prompt


@dataclass(frozen=True)
class _Config:
    """What decides in an adapter_config.json."""

    live_rows: int
    submodules: int
    task_type: str | None
    base: str | None
    revision: str | None


def _read_config(place: Path) -> _Config:
    path = place / CONFIG
    if not place.is_dir():
        raise TpvError(f"adapter folder {place} does not exist", expected=f"a local folder with {CONFIG} and {WEIGHTS}")
    try:
        values: Any = json.loads(regular(path).read_bytes())
    except FileNotFoundError:
        raise TpvError(f"{place} is no PEFT adapter", expected=f"{CONFIG} and {WEIGHTS}", got=f"no {CONFIG}") from None
    except OSError as error:
        raise TpvError(f"{path} cannot be read", got=error.strerror) from None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged", got=str(error)) from None
    method = values.get("peft_type") if isinstance(values, dict) else None
    if not isinstance(method, str):
        raise DamagedFileError(f"{path} is no PEFT config", expected="an object with 'peft_type'")
    if method != METHOD:
        raise TpvError(
            f"the adapter in {place} is of another method",
            expected=METHOD,
            got=f"{method:.40}",
            fix="only prompt tuning trains a soft prompt and nothing else",
        )
    task_type = values.get("task_type")
    if task_type not in (None, *TASK_TYPES.values()):
        raise TpvError(
            f"the adapter in {place} is for another kind of task",
            expected=" or ".join(TASK_TYPES.values()),
            got=f"{task_type!r:.40}",
        )
    rows, submodules = values.get("num_virtual_tokens"), values.get("num_transformer_submodules")
    if submodules is None:  # PEFT's default
        submodules = 2 if task_type == "SEQ_2_SEQ_LM" else 1
    if type(rows) is not int or rows < 1:
        raise DamagedFileError(f"{path}: num_virtual_tokens", expected="a whole number from 1", got=f"{rows!r:.40}")
    most = 1 if task_type == "CAUSAL_LM" else 2
    if type(submodules) is not int or not 1 <= submodules <= most:
        raise DamagedFileError(
            f"{path}: num_transformer_submodules", expected="1" if most == 1 else "1 or 2", got=f"{submodules!r:.40}"
        )
    base, revision = (
        value if isinstance(value, str) and value else None
        for value in (values.get("base_model_name_or_path"), values.get("revision"))
    )
    return _Config(rows, submodules, task_type, base, revision)


def _read_weights(place: Path, config: _Config) -> tuple[Tensor, dict[str, Any]]:
    """The prompt's rows [P, H] as they were stored, dead ones included, and the file's metadata."""
    path = place / WEIGHTS
    if not path.exists():
        if (place / PICKLE).exists():
            raise TpvError(
                f"{place} holds its weights as a pickle, which is not read",
                expected=WEIGHTS,
                got=PICKLE,
                fix="load it with peft.PeftModel.from_pretrained(model, folder) and save_pretrained(folder) again",
            )
        raise TpvError(f"{place} holds no weights", expected=WEIGHTS, got=f"{CONFIG} only")
    tensors, metadata = storage.read_safetensors(path)
    if list(tensors) != [KEY]:
        raise DamagedFileError(
            f"{path} holds something else than a soft prompt",
            expected=f"one tensor named {KEY!r}",
            got=", ".join(sorted(tensors)[:3]) or "no tensor",
        )
    tensor = tensors[KEY]
    if tensor.ndim != 2 or not tensor.is_floating_point():
        raise DamagedFileError(
            f"{path}: {KEY}", expected="floating-point [P, H]", got=f"{tensor.dtype} {list(tensor.shape)}"
        )
    rows = config.live_rows * config.submodules
    if len(tensor) != rows:
        raise DamagedFileError(
            f"{place}: weights and config do not fit each other",
            expected=f"{rows} rows, num_virtual_tokens {config.live_rows} times {config.submodules}",
            got=len(tensor),
        )
    broken = int((~tensor.float().isfinite()).sum())
    if broken:
        raise DamagedFileError(f"{path}: {KEY}", expected="finite values", got=f"{broken} values that are not")
    return tensor, metadata


def _restored(place: Path, tensor: Tensor, metadata: dict[str, Any]) -> SoftPrompt:
    """The prompt that `save` wrote, if nobody changed it since."""
    path = place / WEIGHTS
    prompt = storage.unseal(
        path, tensor, metadata, fix="copy it again; if it was changed on purpose, drop its metadata"
    )
    if not isinstance(prompt, SoftPrompt):
        raise DamagedFileError(f"{path} holds another kind of thing", expected="SoftPrompt", got=type(prompt).__name__)
    return prompt


def _model(
    place: Path, config: _Config, own: SoftPrompt | None, start: SoftPrompt | None, backbone: Backbone | None
) -> ModelIdentity:
    """The model the adapter belongs to, by the first who knows; all who know must agree."""
    known = [prompt.model for prompt in (own, start) if prompt is not None]
    if backbone is not None:
        known.append(backbone.identity)
    first, *others = known or [_named_model(place, config)]
    for other in others:
        if other.fingerprint != first.fingerprint:
            raise IncompatibleError(
                f"{place} belongs to another model",
                expected=other,
                got=first,
                fix="a prompt works only on the model it was trained on",
            )
    return first


def _named_model(place: Path, config: _Config) -> ModelIdentity:
    from tpv.models import load_backbone

    fix = "pass the model it was trained on: backbone=..., or --model on the command line"
    if config.base is None:
        raise TpvError(f"{place} does not say which model it belongs to", fix=fix)
    if config.revision not in (None, "main"):
        raise TpvError(f"{place} belongs to revision {config.revision!r} of {config.base!r}", fix=fix)
    try:
        return load_backbone(config.base, device="cpu").identity
    except TpvError as error:
        raise TpvError(f"the model of {place} cannot be loaded: {error.what}", got=error.got, fix=fix) from None


def _check_fit(place: Path, config: _Config, tensor: Tensor, model: ModelIdentity) -> None:
    if tensor.shape[1] != model.hidden_size:
        raise IncompatibleError(
            f"the adapter in {place} does not fit model {model}",
            expected=f"rows of width {model.hidden_size}",
            got=tensor.shape[1],
            fix="a prompt works only on the model it was trained on",
        )
    task_type = TASK_TYPES[model.architecture]
    if config.task_type not in (None, task_type):
        raise IncompatibleError(
            f"the adapter in {place} is for another kind of model",
            expected=f"{task_type}, since {model} is {model.architecture}",
            got=config.task_type,
        )


def _check_start(place: Path, start: SoftPrompt, own: SoftPrompt | None, tensor: Tensor, dead: int) -> None:
    if own is not None and own.init != start.init:
        raise IncompatibleError(f"{place} had another start", expected=own.init, got=start.init)
    if tuple(tensor.shape) != tuple(start._tensor.shape):
        hint = "give the start as it was imported, with or without its dead rows; keep_dead_rows decides"
        raise IncompatibleError(
            f"{place} and its start have different shapes",
            expected=list(start._tensor.shape),
            got=list(tensor.shape),
            fix=hint if dead else "give the prompt that training started from",
        )


@register.format("peft")
class Peft:
    """A folder with a PEFT prompt-tuning adapter."""

    save = staticmethod(save)
    load = staticmethod(load)
