"""Several answers averaged: prompts and probes on hidden states, as `tpv.transfer` may choose them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tpv.errors import DamagedFileError, TpvError
from tpv.evaluation.answers import label_answers
from tpv.evaluation.bank import SharedPrompt, check_bank
from tpv.evaluation.probe import DEPTHS, Probe
from tpv.files import regular
from tpv.models import Backbone, Tokens
from tpv.outputs.label import Answers
from tpv.outputs.ranking import Calibrator, log_mean, log_of, softmax
from tpv.prompts.algebra import SoftPrompt
from tpv.prompts.provenance import tensor_bytes
from tpv.tasks import Task

PLACE = r"[0-9]+\.(prompt|probe)\.safetensors"


class PartRecord(BaseModel):
    """A part of an ensemble, in `task.toml`.

    Attributes:
        kind: `prompt` or `probe`.
        file: of it, beside the task file.
        after: of a probe, the file of the prompt that texts are read after, if there is one.
        calibrator: of a prompt's own probabilities, before they are averaged.
        weight: in the average, relative to the other parts'.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["prompt", "probe"]
    file: Annotated[str, Field(pattern=f"^{PLACE}$")]
    after: Annotated[str, Field(pattern=f"^{PLACE}$")] | None = None
    calibrator: Calibrator | None = None
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0


@dataclass(frozen=True, eq=False)
class PromptPart:
    """A prompt, and a calibrator of its own probabilities where it has one."""

    prompt: SoftPrompt
    calibrator: Calibrator | None = None


@dataclass(frozen=True, eq=False)
class ProbePart:
    """A probe of hidden states, read after a prompt or after none."""

    probe: Probe
    prompt: SoftPrompt | None = None


Part = PromptPart | ProbePart


@dataclass(frozen=True, eq=False)
class Ensemble:
    """What answers with the average of its parts' probabilities.

    Attributes:
        weights: of the parts in the average, relative to each other; None for equal ones.
    """

    parts: tuple[Part, ...]
    weights: tuple[float, ...] | None = None

    @property
    def digest(self) -> str:
        """A hash of all that decides its answers."""
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update((part.prompt.digest if part.prompt is not None else "-").encode())
            if isinstance(part, PromptPart):
                digest.update((part.calibrator.model_dump_json() if part.calibrator else "-").encode())
            else:
                for name, tensor in sorted(part.probe.tensors().items()):
                    digest.update(name.encode() + tensor_bytes(tensor))
        if self.weights is not None:
            digest.update(repr(self.weights).encode())
        return digest.hexdigest()

    def answers(
        self,
        backbone: Backbone,
        task: Task,
        sources: Sequence[Tokens],
        calibrator: Calibrator | None = None,
        normalize: str | None = None,
    ) -> Answers:
        """What it says to N inputs: the log of its average probabilities; greedy decoding says nothing for it.

        Args:
            calibrator: of the average.

        Raises:
            TpvError: `normalize`, which is for the scores of one prompt.
        """
        if normalize is not None:
            raise TpvError("normalize", expected="one prompt", got="an ensemble, which averages probabilities")
        said = [self._of(part, backbone, task, sources) for part in self.parts]
        return averaged(said, calibrator, self.weights)

    @staticmethod
    def _of(part: Part, backbone: Backbone, task: Task, sources: Sequence[Tokens]) -> np.ndarray:
        """Log-probabilities [N, C] of one part."""
        if isinstance(part, ProbePart):
            return part.probe.log_probs(hidden_after(backbone, part.prompt, sources))
        reader = SharedPrompt(check_bank(backbone, [part.prompt])[0])
        (said,) = label_answers(backbone, task, [reader], sources)
        scores = said.log_probs.double().numpy()
        probabilities = softmax(scores) if part.calibrator is None else part.calibrator.probabilities(scores)
        return log_of(probabilities)

    def save(self, folder: Path) -> tuple[PartRecord, ...]:
        """Write a file for each part, and for prompts that probes read after; the records that name them."""
        records = []
        weights = self.weights or (1.0,) * len(self.parts)
        for number, (part, weight) in enumerate(zip(self.parts, weights, strict=True)):
            prompt_file = f"{number}.prompt.safetensors"
            if part.prompt is not None:
                part.prompt.save(folder / prompt_file)
            if isinstance(part, PromptPart):
                records.append(PartRecord(kind="prompt", file=prompt_file, calibrator=part.calibrator, weight=weight))
                continue
            file = f"{number}.probe.safetensors"
            save_file(part.probe.tensors(), folder / file)
            after = prompt_file if part.prompt else None
            records.append(PartRecord(kind="probe", file=file, after=after, weight=weight))
        return tuple(records)

    @classmethod
    def load(cls, folder: Path, records: Sequence[PartRecord], labels: int) -> Ensemble:
        """Read what `save` wrote.

        Raises:
            DamagedFileError: a file that does not read, or does not fit the labels.
        """
        parts: list[Part] = []
        for record in records:
            path = folder / record.file
            if record.kind == "prompt":
                parts.append(PromptPart(SoftPrompt.load(path), record.calibrator))
                continue
            try:
                tensors = load_file(regular(path))
            except (SafetensorError, OSError) as error:
                raise DamagedFileError(f"probe {path} does not read", got=str(error).splitlines()[0]) from None
            probe = Probe.of_tensors(tensors, str(path))
            if len(probe.bias) != labels:
                raise DamagedFileError(f"probe {path}", expected=f"{labels} labels", got=len(probe.bias))
            parts.append(ProbePart(probe, SoftPrompt.load(folder / record.after) if record.after else None))
        weights = tuple(record.weight for record in records)
        return cls(tuple(parts), None if len(set(weights)) == 1 else weights)


def averaged(
    log_probs: Sequence[NDArray[np.float64]],
    calibrator: Calibrator | None = None,
    weights: Sequence[float] | None = None,
) -> Answers:
    """The answers of several parts' average probabilities; greedy decoding says nothing for it.

    Args:
        log_probs: of each part, [N, C].
        calibrator: of the average.
        weights: of the parts, relative to each other; None for equal ones.
    """
    total = torch.from_numpy(log_mean(log_probs, weights)).float()
    rows, labels = total.shape
    return Answers(total, torch.full((rows,), -1), torch.ones(labels, dtype=torch.long), calibrator=calibrator)


def hidden_after(backbone: Backbone, prompt: SoftPrompt | None, sources: Sequence[Tokens]) -> Tensor:
    """Hidden states [N, D, 2, H] that a probe reads, after a prompt or none."""
    bank = torch.zeros(1, 0, backbone.identity.hidden_size) if prompt is None else check_bank(backbone, [prompt])
    return backbone.hidden(bank, torch.zeros(len(sources), dtype=torch.long), sources, DEPTHS)
