"""Embeddings sampled from the vocabulary, the paper's way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from tpv.errors import TpvError
from tpv.prompts.initializers.base import Initializer, check_count, generator_of
from tpv.prompts.provenance import Init
from tpv.registry import register

if TYPE_CHECKING:
    from tpv.models import Backbone

VOCABULARY_LIMIT = 5000  # the most common tokens, as Lester et al. (2021) sample them, and the authors (quirk 2)


@register.initializer("vocabulary", order=1)
@dataclass(frozen=True, kw_only=True)
class Vocabulary(Initializer):
    """Embeddings of distinct token ids drawn from the first `limit`; 0 draws from the whole vocabulary."""

    name: ClassVar[str] = "vocabulary"
    limit: Annotated[int, Field(ge=0)] = VOCABULARY_LIMIT

    def _limit(self, backbone: Backbone, num_tokens: int) -> int:
        limit = min(self.limit or backbone.vocab_size, backbone.vocab_size)
        if check_count(num_tokens) > limit:
            raise TpvError(
                "number of prompt tokens", expected=f"at most {limit}, the token ids to sample from", got=num_tokens
            )
        return limit

    def sample(self, backbone: Backbone, num_tokens: int, seed: int) -> tuple[Tensor, Init]:
        """Rows [P, H] and their identity, token ids included."""
        limit = self._limit(backbone, num_tokens)
        ids = torch.randperm(limit, generator=generator_of(seed))[:num_tokens]
        init = Init(kind=self.name, seed=seed, token_ids=tuple(ids.tolist()))
        return backbone.embeddings()[ids].float(), init

    def draw(self, backbone: Backbone, num_tokens: int, count: int, generator: torch.Generator) -> Tensor:
        """Distinct ids in random order for each: those of the largest of random numbers."""
        limit = self._limit(backbone, num_tokens)
        ids = torch.rand(count, limit, generator=generator).topk(num_tokens, dim=1).indices
        return backbone.embeddings()[ids].float()
