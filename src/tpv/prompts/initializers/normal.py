"""Gaussian noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.prompts.embeddings import embedding_rms
from tpv.prompts.initializers.base import Initializer, check
from tpv.prompts.provenance import Init
from tpv.registry import register

if TYPE_CHECKING:
    from tpv.models import Backbone


@register.initializer("normal", order=20)
@dataclass(frozen=True)
class Normal(Initializer):
    """Independent Gaussian values.

    Args:
        std: standard deviation; by default the root mean square of the model's embeddings.

    Raises:
        TpvError: a deviation that is not positive and finite.
    """

    std: float | None = None

    def __post_init__(self) -> None:
        if self.std is not None and not (math.isfinite(self.std) and self.std > 0):
            raise TpvError("standard deviation of an initialization", expected="a positive number", got=self.std)

    def sample(self, backbone: Backbone, num_tokens: int, seed: int) -> tuple[Tensor, Init]:
        check(num_tokens, seed)
        std = self._std(backbone)
        rows = torch.randn(num_tokens, backbone.identity.hidden_size, generator=torch.Generator().manual_seed(seed))
        return rows * std, Init(kind="normal", seed=seed, detail=f"std {std:.6g}")  # spelled as in files of 0.1

    def draw(self, backbone: Backbone, num_tokens: int, count: int, generator: torch.Generator) -> Tensor:
        check(num_tokens)
        rows = torch.randn(count, num_tokens, backbone.identity.hidden_size, generator=generator)
        return rows * self._std(backbone)

    def _std(self, backbone: Backbone) -> float:
        std = embedding_rms(backbone) if self.std is None else self.std
        if not (math.isfinite(std) and std > 0):
            raise TpvError("root mean square of the embeddings", expected="a positive number", got=std, fix="pass std")
        return std
