"""Zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from tpv.prompts.initializers.base import Initializer, check
from tpv.prompts.provenance import Init
from tpv.registry import register

if TYPE_CHECKING:
    from tpv.models import Backbone


@register.initializer("zero", order=40)
@dataclass(frozen=True)
class Zero(Initializer):
    """Rows of zeros."""

    random: ClassVar[bool] = False

    def sample(self, backbone: Backbone, num_tokens: int, seed: int) -> tuple[Tensor, Init]:
        """Zeros [P, H] and their record. The seed changes nothing.

        Raises:
            TpvError: fewer than 1 token asked for.
        """
        check(num_tokens, seed)
        return torch.zeros(num_tokens, backbone.identity.hidden_size), self.record()
