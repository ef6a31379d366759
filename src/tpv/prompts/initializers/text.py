"""The embeddings of a text, such as the words of a task (Lester et al., 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.prompts.initializers.base import Initializer, check
from tpv.prompts.provenance import Init
from tpv.registry import register

if TYPE_CHECKING:
    from tpv.models import Backbone


@register.initializer("text", order=30)
@dataclass(frozen=True)
class Text(Initializer):
    """Embeddings of the tokens of a text, repeated or truncated to the number of prompt tokens.

    Args:
        text: the text; it needs at least one token.
    """

    random: ClassVar[bool] = False
    text: str

    def length(self, backbone: Backbone) -> int:
        """How many tokens the text has.

        Raises:
            TpvError: it has none.
        """
        return len(self._ids(backbone))

    def sample(self, backbone: Backbone, num_tokens: int, seed: int) -> tuple[Tensor, Init]:
        """The values, fp32 [P, H], and their record. The seed changes nothing.

        Raises:
            TpvError: a text without tokens, or fewer than 1 token asked for.
        """
        check(num_tokens, seed)
        ids = self._ids(backbone)
        ids = (ids * math.ceil(num_tokens / len(ids)))[:num_tokens]
        # spelled as in files of 0.1
        return backbone.embeddings()[torch.tensor(ids)].float(), Init(
            kind="text", token_ids=tuple(ids), detail=self.text
        )

    def _ids(self, backbone: Backbone) -> list[int]:
        ids = backbone.encode_text(self.text)
        if not ids:
            raise TpvError("text of an initialization", expected="at least one token", got=repr(self.text))
        return ids
