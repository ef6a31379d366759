"""Attention where that of `transformers` does more than it has to.

In bf16 on a CPU torch's fused kernel is slow for short texts, its backward pass above all. And T5's decoder, which says
no more than a label, has keys and values made of every position of every text.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout as drop
from transformers import AttentionInterface, AttentionMaskInterface, EncoderDecoderCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.mt5.modeling_mt5 import MT5Attention
from transformers.models.t5.modeling_t5 import T5Attention

from tpv.models.caches import NAMES
from tpv.models.quiet import quiet

NAME = "tpv"
MOST_SCORES = 2**15  # of one head and row: above this the fused kernel, which keeps no scores, is no slower


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers asks for it: query [N, H, Q, D], key and value [N, H / G, K, D] to [N, Q, H, D]."""
    plain = query.device.type == "cpu" and query.dtype == torch.bfloat16 and not dropout
    if not plain or query.shape[2] * key.shape[2] > MOST_SCORES:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            position_bias=position_bias,
            **kwargs,
        )
        return result
    rows, heads, length, width = query.shape
    groups = heads // key.shape[1]
    scaled = query * (width**-0.5 if scaling is None else scaling)
    # heads that share keys are one matrix product
    scores = (scaled.reshape(rows, -1, groups * length, width) @ key.transpose(2, 3)).view(rows, heads, length, -1)
    if position_bias is not None:
        scores = scores + position_bias
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if attention_mask is None and causal and length > 1:  # one position, the next after a cache, sees all of it
        attention_mask = torch.ones(length, scores.shape[3], dtype=torch.bool).tril()
    weights = _weights(scores, attention_mask)
    mixed = (weights.view(rows, -1, groups * length, weights.shape[3]) @ value).view(rows, heads, length, -1)
    return mixed.transpose(1, 2).contiguous(), None


def _weights(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Attention weights of scores, of the same shape; the mask says what may be read, or is added."""
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def set_attention(model: Any) -> None:
    """Let a model that uses torch's fused attention kernels use this module's attention where it is faster.

    BigBird's sparse attention is set to the full one. It does so itself, for good, at the first text that is too short
    for it, so that scores depended on the texts before; and its blocks depend on padding.
    """
    for module in list(model.modules()):
        if hasattr(module, "set_attention_type"):
            module.set_attention_type("original_full")
    choose_attention(model, own=True)
    for module in model.modules():
        if reads_encoder(module):
            module.forward = partial(_cross_attention, module, module.forward)


def choose_attention(model: Any, *, own: bool) -> None:
    """Switch a model that uses torch's fused attention kernels to this module's attention, or back."""
    if model.config._attn_implementation in ("sdpa", NAME):
        with quiet(bars=True):  # Falcon, which has only its own, says so
            model.set_attn_implementation(NAME if own else "sdpa")


def reads_encoder(module: nn.Module) -> bool:
    """Whether this may be T5's cross-attention, with weights to calculate with as they are."""
    return (
        isinstance(module, T5Attention | MT5Attention)
        and module.is_decoder
        and not module.is_causal
        and type(module.k) is nn.Linear
        and type(module.v) is nn.Linear
        and module.k.weight.device.type != "meta"  # kept elsewhere until the layer is called
        and module.v.weight.device.type != "meta"
    )


def cheaper_unprojected(queries: int, positions: int, width: int) -> bool:
    """Whether so many queries of a text with so many positions are read with fewer operations by `_unprojected`.

    Args:
        width: of a head. Of H of them and a model of width D, projecting keys and values takes 2 K D H W products, the
            other way 2 Q D H (W + K).
    """
    return queries * (width + positions) < positions * width


def _cross_attention(
    module: Any,
    forward: Callable[..., Any],
    hidden_states: Tensor,
    mask: Tensor | None = None,
    key_value_states: Tensor | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> Any:
    """T5's cross-attention, by its own `forward` where keys and values are kept for later, or pay."""
    cache = next((kwargs[name] for name in NAMES if kwargs.get(name) is not None), None)
    if (
        key_value_states is None
        or isinstance(cache, EncoderDecoderCache)
        or (
            cache is None
            and not cheaper_unprojected(hidden_states.shape[1], key_value_states.shape[1], module.key_value_proj_dim)
        )
    ):
        return forward(
            hidden_states, mask=mask, key_value_states=key_value_states, position_bias=position_bias, **kwargs
        )
    return _unprojected(module, hidden_states, key_value_states, mask), position_bias, None


def _unprojected(module: Any, hidden: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
    """Cross-attention of hidden [N, Q, D] over states [N, K, D] without keys and values of every state.

    A score is q . (W_k x) = (W_k' q) . x, and what is read is W_v (sum of weight * x): the few queries go through the
    projections instead of the many states.
    """
    (rows, length, width), heads = hidden.shape, module.n_heads
    key, value = (layer.weight.view(heads, -1, width) for layer in (module.k, module.v))  # [H, W, D]
    query = module.q(hidden).view(rows * length, heads, -1).transpose(0, 1)  # [H, N Q, W]
    toward = (query @ key).view(heads, rows, length, width).transpose(0, 1).reshape(rows, heads * length, width)
    scores = (toward @ states.transpose(1, 2)).view(rows, heads, length, -1)
    weights = drop(_weights(scores, mask), module.dropout, module.training)
    read = (weights.view(rows, heads * length, -1) @ states).view(rows, heads, length, width).transpose(0, 1)
    mixed = read.reshape(heads, rows * length, width) @ value.transpose(1, 2)  # [H, N Q, W]
    result: Tensor = module.o(mixed.transpose(0, 1).reshape(rows, length, -1))
    return result
