"""Attention for short texts in bf16 on a CPU, where torch's fused kernel is slow, its backward pass above all."""

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "tpv"
MOST_SCORES = 2**15  # of one head and row: above this the fused kernel, which keeps no scores, is no slower


def _attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None,
    dropout: float = 0.0, scaling: float | None = None, is_causal: bool | None = None,
    position_bias: Tensor | None = None, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention as transformers asks for it: query [N, H, Q, D], key and value [N, H / G, K, D] to [N, Q, H, D]."""
    plain = query.device.type == "cpu" and query.dtype == torch.bfloat16 and not dropout
    if not plain or query.shape[2] * key.shape[2] > MOST_SCORES:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, is_causal=is_causal,
            position_bias=position_bias, **kwargs,
        )  # fmt: skip
        return result
    rows, heads, length, width = query.shape
    groups = heads // key.shape[1]
    scaled = query * (width**-0.5 if scaling is None else scaling)
    # heads that share keys are one matrix product
    scores = (scaled.reshape(rows, -1, groups * length, width) @ key.transpose(2, 3)).view(rows, heads, length, -1)
    if position_bias is not None:
        scores = scores + position_bias
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if attention_mask is None and causal:
        attention_mask = torch.ones(length, scores.shape[3], dtype=torch.bool).tril()
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    mixed = (weights.view(rows, -1, groups * length, weights.shape[3]) @ value).view(rows, heads, length, -1)
    return mixed.transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def set_attention(model: Any) -> None:
    """Let a model that calculates its attention by torch's fused kernels take what is here where that is faster."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(NAME)
