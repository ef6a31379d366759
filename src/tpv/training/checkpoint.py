"""The state of a training on disk: enough to resume as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tpv.errors import CheckpointError, TpvError, TpvWarning
from tpv.files import atomic_write, regular
from tpv.prompts.provenance import tensor_bytes
from tpv.training.recipe import Recipe
from tpv.training.run import Run

CHECKPOINT_SECONDS = 60.0  # between two saved states of a training
STATE = ("losses", "validations", "best_score", "best_step", "stale", "done", "said")  # of a run, beside its tensors


class Checkpoint:
    """The state of a bank on disk: enough to resume as if nothing had happened."""

    def __init__(self, path: Path, runs: Sequence[Run], recipe: Recipe) -> None:
        self.path, self.runs, self.saved = path, runs, time.monotonic()
        digest = hashlib.sha256(json.dumps(asdict(recipe)).encode())
        for run in runs:
            digest.update(json.dumps([run.seed, [task.fingerprint for task, _ in run.parts], run.about]).encode())
            for parameter in run.parameters:
                digest.update(parameter.detach().numpy().tobytes())
        self.signature = digest.hexdigest()  # before training: of what the parameters start from

    def due(self) -> bool:
        return time.monotonic() - self.saved >= CHECKPOINT_SECONDS

    def save(self, optimizer: torch.optim.Optimizer, step: int, score: float | None, dropout: bool) -> None:
        tensors = {"rng": torch.random.get_rng_state()} if dropout else {}
        if dropout and torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        state: list[dict[str, Any]] = []
        for k, run in enumerate(self.runs):
            for i, parameter in enumerate(run.parameters):
                tensors[f"{k}.{i}.value"] = parameter.detach()
                for name, value in optimizer.state[parameter].items():
                    tensors[f"{k}.{i}.adam.{name}"] = value
                if run.best is not None:
                    tensors[f"{k}.{i}.best"] = run.best[i]
            state.append({name: getattr(run, name) for name in STATE})
        tensors = {name: value.contiguous() for name, value in tensors.items()}
        words = json.dumps({"step": step, "score": score, "runs": state})
        metadata = {"signature": self.signature, "state": words, "sha256": self._seal(words, tensors)}
        self.saved = time.monotonic()
        try:
            with atomic_write(self.path) as part:
                save_file(tensors, part, metadata)
        except (TpvError, SafetensorError, OSError) as error:  # training itself continues
            warnings.warn(f"no checkpoint could be written: {error}", TpvWarning, stacklevel=2)

    def _seal(self, words: str, tensors: Mapping[str, Tensor]) -> str:
        """sha256 of the content of a checkpoint; without it, a flipped bit would go unnoticed."""
        digest = hashlib.sha256(f"{self.signature}{words}".encode())
        for name in sorted(tensors):
            value = tensors[name]
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(tensor_bytes(value.detach().cpu().reshape(-1)))
        return digest.hexdigest()

    def load(self, optimizer: torch.optim.Optimizer, dropout: bool) -> tuple[int, float | None]:
        """Set the runs and the optimizer to the saved state; the step to resume at and the last score.

        Raises:
            CheckpointError: it does not read, was altered, or belongs to another training.
        """
        if not self.path.exists():
            return 0, None
        try:
            with safe_open(regular(self.path), "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            whole = self._seal(metadata.get("state", ""), tensors) == metadata.get("sha256")
        except (SafetensorError, OSError, RuntimeError) as error:
            raise CheckpointError(f"checkpoint {self.path} does not read", got=str(error), fix="delete it") from None
        if metadata.get("signature") != self.signature:
            raise CheckpointError(f"checkpoint {self.path} belongs to another training", fix="delete it")
        if not whole:
            raise CheckpointError(f"checkpoint {self.path} is damaged", fix="delete it")
        state = json.loads(metadata["state"])
        for k, (run, fields) in enumerate(zip(self.runs, state["runs"], strict=True)):
            for name, value in fields.items():
                setattr(run, name, tuple(value) if isinstance(value, list) and name == "said" else value)
            for i, parameter in enumerate(run.parameters):
                parameter.data.copy_(tensors[f"{k}.{i}.value"])
                prefix = f"{k}.{i}.adam."
                optimizer.state[parameter] = {
                    name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
                }
            if f"{k}.0.best" in tensors:
                run.best = [tensors[f"{k}.{i}.best"] for i in range(len(run.parameters))]
            for _ in run.losses:
                next(run.order)
        if dropout:
            torch.random.set_rng_state(tensors["rng"])
            if "rng.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["rng.cuda"])
        return state["step"], state["score"]
