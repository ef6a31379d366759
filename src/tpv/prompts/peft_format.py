"""PEFT's files of a prompt-tuning adapter: a folder of a config and a safetensors file of one tensor.

PEFT gives an encoder-decoder model twice the rows asked for and reads only the first half (quirk 1). What is written
here says `num_transformer_submodules = 1`, with which PEFT reads every row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Generic

from torch import Tensor

from tpv.errors import DamagedFileError, IncompatibleError, TpvError
from tpv.files import regular, staged_folder, writing
from tpv.prompts import storage
from tpv.prompts.provenance import Init, ModelIdentity
from tpv.prompts.storage import Restore, Storable, Stored

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
KEY = "prompt_embeddings"
METHOD = "PROMPT_TUNING"
MARK = "tpv"  # the metadata key that tells adapters written by tpv from others
METADATA = {"format": "pt", MARK: storage.FORMAT}
TASK_TYPES = {"encoder-decoder": "SEQ_2_SEQ_LM", "decoder-only": "CAUSAL_LM"}


def is_adapter(folder: Path) -> bool:
    """Whether a folder contains a PEFT adapter of any method, or part of one."""
    return any((folder / name).exists() for name in (CONFIG, WEIGHTS, PICKLE))


def write(folder: str | PathLike[str], prompt: Storable, model: ModelIdentity, num_tokens: int) -> None:
    """Write an adapter with the prompt's identity and hash in the metadata of the weights, which PEFT ignores.

    Raises:
        TpvError: the folder cannot be written, or holds an adapter that tpv did not write.
    """
    from peft import PromptTuningConfig

    config = PromptTuningConfig(
        task_type=TASK_TYPES[model.architecture],
        base_model_name_or_path=model.name,
        num_virtual_tokens=num_tokens,
        token_dim=model.hidden_size,
        num_transformer_submodules=1,
        inference_mode=True,
    )
    write_adapter(Path(folder), config, storage.file_bytes(KEY, prompt, METADATA))


def write_adapter(place: Path, config: Any, weights: bytes) -> None:
    """Write the config of a PEFT method and the file of its weights.

    Raises:
        TpvError: the folder cannot be written, or holds an adapter that tpv did not write.
    """
    _refuse_to_replace(place)
    with staged_folder(place) as stage, writing(place):
        config.save_pretrained(str(stage))
        (stage / WEIGHTS).write_bytes(weights)


def _refuse_to_replace(place: Path) -> None:
    """Refuse a folder that holds an adapter of another program."""
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


@dataclass(frozen=True)
class AdapterConfig:
    """What decides in an adapter_config.json."""

    live_rows: int
    submodules: int
    task_type: str | None
    base: str | None
    revision: str | None


@dataclass(frozen=True)
class Adapter(Generic[Stored]):
    """An adapter as it was read.

    Attributes:
        place: its folder.
        tensor: all rows that were stored [P, H], dead ones included.
        own: what tpv wrote, restored; None for an adapter of another program.
    """

    place: Path
    tensor: Tensor
    own: Stored | None
    config: AdapterConfig

    @property
    def dead_rows(self) -> int:
        """How many rows PEFT allocated and never reads."""
        return len(self.tensor) - self.config.live_rows

    def rows(self, keep_dead_rows: bool) -> Tensor:
        """The rows that PEFT reads, or all of them."""
        return self.tensor if keep_dead_rows else self.tensor[: self.config.live_rows]

    def dropped(self) -> str:
        """That the dead rows were dropped."""
        return (
            f"{self.place}: dropped {self.dead_rows} of {len(self.tensor)} rows, which PEFT allocates for an "
            "encoder-decoder model and never reads; keep_dead_rows keeps them"
        )

    def model_of(self, known: Sequence[ModelIdentity], identify: Callable[[str], ModelIdentity]) -> ModelIdentity:
        """The model it belongs to: the first of the known ones, which must all agree, or else the one it names.

        Args:
            identify: the identity of a model that is known by name.

        Raises:
            IncompatibleError: the known ones differ, or the adapter does not fit. TpvError: no model can be found.
        """
        first, *others = known or [self._named_model(identify)]
        for other in others:
            if other.fingerprint != first.fingerprint:
                raise IncompatibleError(
                    f"{self.place} belongs to another model",
                    expected=other,
                    got=first,
                    fix="a prompt works only on the model it was trained on",
                )
        self._check_fit(first)
        return first

    def _named_model(self, identify: Callable[[str], ModelIdentity]) -> ModelIdentity:
        place, config = self.place, self.config
        fix = "pass the model it was trained on: backbone=..., or --model on the command line"
        if config.base is None:
            raise TpvError(f"{place} does not say which model it belongs to", fix=fix)
        if config.revision not in (None, "main"):
            raise TpvError(f"{place} belongs to revision {config.revision!r} of {config.base!r}", fix=fix)
        try:
            return identify(config.base)
        except TpvError as error:
            raise TpvError(f"the model of {place} cannot be loaded: {error.what}", got=error.got, fix=fix) from None

    def _check_fit(self, model: ModelIdentity) -> None:
        if self.tensor.shape[1] != model.hidden_size:
            raise IncompatibleError(
                f"the adapter in {self.place} does not fit model {model}",
                expected=f"rows of width {model.hidden_size}",
                got=self.tensor.shape[1],
                fix="a prompt works only on the model it was trained on",
            )
        task_type = TASK_TYPES[model.architecture]
        if self.config.task_type not in (None, task_type):
            raise IncompatibleError(
                f"the adapter in {self.place} is for another kind of model",
                expected=f"{task_type}, since {model} is {model.architecture}",
                got=self.config.task_type,
            )

    def check_init(self, tensor: Tensor, init_tensor: Tensor, own_init: Init | None, init: Init) -> None:
        """Refuse an initialization that training cannot have started from.

        Args:
            tensor: the rows that are used [P, H], and `init_tensor` those of the initialization.
            own_init: what the adapter says about its initialization, if tpv wrote it.

        Raises:
            IncompatibleError: another initialization, or another shape.
        """
        if own_init is not None and not own_init.matches(init):
            raise IncompatibleError(f"{self.place} had another initialization", expected=own_init, got=init)
        if tensor.shape != init_tensor.shape:
            hint = "pass the initialization as it was imported, with or without dead rows; keep_dead_rows decides"
            raise IncompatibleError(
                f"{self.place} and its initialization have different shapes",
                expected=list(init_tensor.shape),
                got=list(tensor.shape),
                fix=hint if self.dead_rows else "pass the prompt that training started from",
            )


def read(folder: str | PathLike[str], restore: Restore[Stored]) -> Adapter[Stored]:
    """Read an adapter folder.

    Args:
        restore: makes the object of the tensor and identity that `write` stored.

    Raises:
        TpvError: no such folder or file, or another method than prompt tuning.
        DamagedFileError: config or weights that cannot be read, do not fit each other, hold NaN, or were altered.
    """
    place = Path(folder)
    config = read_config(place)
    tensor, metadata = _read_weights(place, config)
    own = None
    if MARK in metadata:
        fix = "copy it again; if you changed it on purpose, remove its metadata"
        own = storage.unseal(place / WEIGHTS, tensor, metadata, restore, fix)
    return Adapter(place, tensor, own, config)


def read_config(place: Path, wanted: str = METHOD) -> AdapterConfig:
    """What decides in the config of an adapter of the wanted method; see `read` for what is raised."""
    path = place / CONFIG
    if not place.is_dir():
        raise TpvError(f"adapter folder {place} does not exist", expected=f"a local folder with {CONFIG} and {WEIGHTS}")
    try:
        values: Any = json.loads(regular(path).read_bytes())
    except FileNotFoundError:
        got = f"no {CONFIG}"
        raise TpvError(f"{place} is not a PEFT adapter", expected=f"{CONFIG} and {WEIGHTS}", got=got) from None
    except OSError as error:
        raise TpvError(f"{path} cannot be read", got=error.strerror) from None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged", got=str(error)) from None
    method = values.get("peft_type") if isinstance(values, dict) else None
    if not isinstance(method, str):
        raise DamagedFileError(f"{path} is not a PEFT config", expected="an object with 'peft_type'")
    if method != wanted:
        why = "only prompt tuning trains a soft prompt and nothing else" if wanted == METHOD else None
        raise TpvError(f"the adapter in {place} is of another method", expected=wanted, got=f"{method:.40}", fix=why)
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
    return AdapterConfig(rows, submodules, task_type, base, revision)


def _read_weights(place: Path, config: AdapterConfig) -> tuple[Tensor, dict[str, Any]]:
    """The prompt's rows [P, H] as stored, dead ones included, and the file's metadata."""
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
            f"{path} does not contain a soft prompt",
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
