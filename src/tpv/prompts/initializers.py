"""Where a prompt starts: sampled vocabulary (the paper's way), a text, or gaussian noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.prompts.provenance import Init, content_hash

if TYPE_CHECKING:
    from tpv.models import Backbone

MOST_TOKENS = 100_000  # far above any context; a slip of the finger must not fill the memory
VOCABULARY_LIMIT = 5000  # the authors' code samples ids below this (quirk 2)


def _check_count(num_tokens: object) -> int:
    if isinstance(num_tokens, bool) or not isinstance(num_tokens, int) or not 1 <= num_tokens <= MOST_TOKENS:
        raise TpvError(
            "number of prompt tokens", expected=f"a whole number from 1 to {MOST_TOKENS}", got=f"{num_tokens!r:.40}"
        )
    return num_tokens


def _generator(seed: object) -> torch.Generator:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise TpvError("seed of an initialisation", expected="a whole number from 0 to 2^63 - 1", got=repr(seed))
    return torch.Generator().manual_seed(seed)


def from_vocabulary(
    backbone: Backbone, num_tokens: int, seed: int, limit: int = VOCABULARY_LIMIT
) -> tuple[Tensor, Init]:
    """Embeddings of distinct token ids drawn from the first 5,000, or all if there are fewer.

    Args:
        limit: draw from the first so many ids instead; 0 for the whole vocabulary.

    Returns:
        The rows [P, H] and their identity, token ids included.

    Raises:
        TpvError: fewer than 1 token, or more than there are ids to draw from.
    """
    limit = min(limit or backbone.vocab_size, backbone.vocab_size)
    if _check_count(num_tokens) > limit:
        raise TpvError("number of prompt tokens", expected=f"at most {limit}, the ids to sample from", got=num_tokens)
    ids = torch.randperm(limit, generator=_generator(seed))[:num_tokens]
    init = Init(kind="vocabulary", seed=seed, token_ids=tuple(ids.tolist()))
    return backbone.embeddings()[ids].float(), init


def from_text(backbone: Backbone, text: str, num_tokens: int | None = None) -> tuple[Tensor, Init]:
    """Embeddings of a text's tokens; repeated, then cut, to `num_tokens` when given.

    Raises:
        TpvError: a text without tokens, or fewer than 1 token asked for.
    """
    ids = backbone.encode_text(text)
    if not ids:
        raise TpvError("text of an initialisation", expected="at least one token", got=repr(text))
    count = len(ids) if num_tokens is None else _check_count(num_tokens)
    ids = (ids * math.ceil(count / len(ids)))[:count]
    return backbone.embeddings()[torch.tensor(ids)].float(), Init(kind="text", token_ids=tuple(ids), detail=text)


def normal(backbone: Backbone, num_tokens: int, seed: int, std: float | None = None) -> tuple[Tensor, Init]:
    """Independent gaussian values; `std` defaults to the RMS of the model's embeddings.

    Raises:
        TpvError: fewer than 1 token, or a deviation that is not positive and finite.
    """
    count = _check_count(num_tokens)
    if std is None:
        std = float(backbone.embeddings().float().square().mean().sqrt())
    if not (math.isfinite(std) and std > 0):
        raise TpvError("standard deviation of an initialisation", expected="a positive number", got=std)
    rows = torch.randn(count, backbone.identity.hidden_size, generator=_generator(seed)) * std
    return rows, Init(kind="normal", seed=seed, detail=f"std {std:.6g}")


def zero(backbone: Backbone, num_tokens: int) -> tuple[Tensor, Init]:
    """Rows of zeros: a start that is none.

    Raises:
        TpvError: fewer than 1 token.
    """
    return torch.zeros(_check_count(num_tokens), backbone.identity.hidden_size), Init(kind="zero")


def given(tensor: Tensor) -> Init:
    """The identity of a tensor that came from elsewhere: its hash."""
    own = tensor.detach().to("cpu", torch.float32).contiguous()
    return Init(kind="given", detail=content_hash(own, {})[:16])


def parse(kind: str, num_tokens: int, seed: int) -> Callable[[Backbone], tuple[Tensor, Init]]:
    """An initialisation by its command-line name: `vocabulary`, `normal`, or `text:WORDS`.

    What can be refused without a model is refused here, before one is loaded.

    Raises:
        TpvError: another name, fewer than 1 token, a bad seed.
    """
    _check_count(num_tokens)
    _generator(seed)
    if kind == "vocabulary":
        return lambda backbone: from_vocabulary(backbone, num_tokens, seed)
    if kind == "normal":
        return lambda backbone: normal(backbone, num_tokens, seed)
    if kind.startswith("text:"):
        return lambda backbone: from_text(backbone, kind.removeprefix("text:"), num_tokens)
    raise TpvError("initialisation", expected="vocabulary, normal, or text:WORDS", got=repr(kind))
