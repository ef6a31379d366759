"""A training method in one file, outside of tpv: all rows of the prompt share one offset."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Parameter

import tpv
from tpv.training.fit import Current


@tpv.register.method("shared_offset")
@dataclass(frozen=True)
class SharedOffset:
    """One offset [H] trains, times `gain`, and is added to every row of the initialization."""

    kind: ClassVar[str] = "prompt"
    gain: float = 1.0

    def begin(self, backbone, task, init, recipe):
        return Offset(init.tensor, self.gain)


class Offset:
    """What trains of one prompt."""

    def __init__(self, init: Tensor, gain: float) -> None:
        self.init, self.gain = init, gain
        self.parameters = [Parameter(torch.zeros(init.shape[1]))]

    def reader(self) -> Current:
        return Current(self, len(self.init))

    def prompt(self) -> Tensor:
        return self.init + self.gain * self.parameters[0]
