"""Embeddings of a text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.prompts.initializers.base import Initializer, check_count
from tpv.prompts.provenance import Init
from tpv.registry import register

if TYPE_CHECKING:
    from tpv.models import Backbone


@register.initializer("text", order=3)
@dataclass(frozen=True, kw_only=True)
class Text(Initializer):
    """Embeddings of the tokens of `text`, repeated or truncated to the number of tokens."""

    name: ClassVar[str] = "text"
    random: ClassVar[bool] = False
    text: str

    def sample(self, backbone: Backbone, num_tokens: int, seed: int) -> tuple[Tensor, Init]:
        """The rows [P, H] and their identity; the seed changes nothing."""
        return self.embed(backbone, num_tokens)

    def embed(self, backbone: Backbone, num_tokens: int | None = None) -> tuple[Tensor, Init]:
        """The rows [P, H] and their identity; as many as the text has tokens unless told otherwise.

        Raises:
            TpvError: a text without tokens, or fewer than 1 token asked for.
        """
        ids = backbone.encode_text(self.text)
        if not ids:
            raise TpvError("text of an initialization", expected="at least one token", got=repr(self.text))
        count = len(ids) if num_tokens is None else check_count(num_tokens)
        ids = (ids * math.ceil(count / len(ids)))[:count]
        init = Init(kind=self.name, token_ids=tuple(ids), detail=self.text)
        return backbone.embeddings()[torch.tensor(ids)].float(), init
