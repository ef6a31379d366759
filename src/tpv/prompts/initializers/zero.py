"""Zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from tpv.prompts.initializers.base import Initializer, check_count
from tpv.prompts.provenance import Init
from tpv.registry import register

if TYPE_CHECKING:
    from tpv.models import Backbone


@register.initializer("zero", order=4)
@dataclass(frozen=True, kw_only=True)
class Zero(Initializer):
    """Rows of zeros."""

    name: ClassVar[str] = "zero"
    random: ClassVar[bool] = False

    def sample(self, backbone: Backbone, num_tokens: int, seed: int) -> tuple[Tensor, Init]:
        """The rows [P, H] and their identity; the seed changes nothing."""
        return torch.zeros(check_count(num_tokens), backbone.identity.hidden_size), Init(kind=self.name)
