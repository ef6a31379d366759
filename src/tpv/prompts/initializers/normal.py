"""Gaussian noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.prompts.initializers.base import Initializer, check_count, generator_of
from tpv.prompts.provenance import Init
from tpv.registry import register

if TYPE_CHECKING:
    from tpv.models import Backbone


def embedding_rms(backbone: Backbone) -> float:
    """Root mean square of a model's input embeddings."""
    return float(backbone.embeddings().float().square().mean().sqrt())


@register.initializer("normal", order=2)
@dataclass(frozen=True, kw_only=True)
class Normal(Initializer):
    """Independent Gaussian values; `std` defaults to the root mean square of the model's embeddings."""

    name: ClassVar[str] = "normal"
    std: float | None = None

    def _std(self, backbone: Backbone) -> float:
        std = embedding_rms(backbone) if self.std is None else self.std
        if not (math.isfinite(std) and std > 0):
            raise TpvError("standard deviation of an initialization", expected="a positive number", got=std)
        return std

    def sample(self, backbone: Backbone, num_tokens: int, seed: int) -> tuple[Tensor, Init]:
        """Values [P, H] and their identity."""
        count, std = check_count(num_tokens), self._std(backbone)
        rows = torch.randn(count, backbone.identity.hidden_size, generator=generator_of(seed)) * std
        return rows, Init(kind=self.name, seed=seed, detail=f"std {std:.6g}")

    def draw(self, backbone: Backbone, num_tokens: int, count: int, generator: torch.Generator) -> Tensor:
        """Values [count, P, H]."""
        shape = (count, check_count(num_tokens), backbone.identity.hidden_size)
        return torch.randn(shape, generator=generator) * self._std(backbone)
