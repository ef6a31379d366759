"""Rows of the model's vocabulary, the paper's initialization (Lester et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.prompts.initializers.base import Initializer, check
from tpv.prompts.provenance import Init
from tpv.registry import register

if TYPE_CHECKING:
    from tpv.models import Backbone

LIMIT = 5000  # Lester et al. sample the 5,000 most common tokens; in a T5's vocabulary these are the first


@register.initializer("vocabulary", order=10)
@dataclass(frozen=True)
class Vocabulary(Initializer):
    """Embeddings of distinct token ids, drawn uniformly from the first `limit`.

    Args:
        limit: how many ids to draw from, all where the model has fewer; 0 for the whole vocabulary.

    Raises:
        TpvError: a limit that is not a whole number of at least 0.
    """

    limit: int = LIMIT

    def __post_init__(self) -> None:
        if isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 0:
            raise TpvError(
                "limit of a vocabulary initialization",
                expected="a whole number: how many token ids to draw from, 0 for all",
                got=f"{self.limit!r:.40}",
            )

    def sample(self, backbone: Backbone, num_tokens: int, seed: int) -> tuple[Tensor, Init]:
        check(num_tokens, seed)
        limit = self._ids(backbone, num_tokens)
        ids = torch.randperm(limit, generator=torch.Generator().manual_seed(seed))[:num_tokens]
        return backbone.embeddings()[ids].float(), self.record(seed, tuple(ids.tolist()))

    def draw(self, backbone: Backbone, num_tokens: int, count: int, generator: torch.Generator) -> Tensor:
        check(num_tokens)
        limit = self._ids(backbone, num_tokens)
        # the places of the largest of random numbers: distinct ids in random order
        ids = torch.rand(count, limit, generator=generator).topk(num_tokens, dim=1).indices
        return backbone.embeddings()[ids].float()

    def _ids(self, backbone: Backbone, num_tokens: int) -> int:
        """How many ids there are to draw from."""
        limit = min(self.limit or backbone.vocab_size, backbone.vocab_size)
        if num_tokens > limit:
            raise TpvError(
                "number of prompt tokens", expected=f"at most {limit}, the ids to sample from", got=num_tokens
            )
        return limit
