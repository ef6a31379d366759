"""The attention of bf16 on a CPU: as exact as torch's fused kernel, and only where it is meant to be."""

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from tpv.backbones import attention


class Layer(torch.nn.Module):
    def __init__(self, groups, causal):
        super().__init__()
        self.num_key_value_groups, self.is_causal = groups, causal


def inputs(groups, keys=12, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(1)
    shapes = ((3, 4, 8, 16), (3, 4 // groups, keys, 16), (3, 4 // groups, keys, 16))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def masks():
    generator = torch.Generator().manual_seed(2)
    seen = torch.rand(3, 1, 8, 12, generator=generator) < 0.6
    seen[..., 0] = True
    additive = torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill(~seen, torch.finfo(torch.bfloat16).min)
    bias = torch.randn(1, 4, 8, 12, generator=generator).bfloat16()
    return {"bool": (seen, None), "additive": (additive, None), "bias": (None, bias), "both": (seen, bias)}


def gradients(function, layer, tensors, mask, bias):
    output = function(layer, *tensors, mask, scaling=0.3, position_bias=bias)[0]
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape).to(output.dtype)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), tensors)]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", ["bool", "additive", "bias", "both", "causal"])
def test_it_is_as_exact_as_the_fused_kernel(groups, kind):
    mask, bias = (None, None) if kind == "causal" else masks()[kind]
    tensors = inputs(groups, keys=8 if kind == "causal" else 12)
    layer = Layer(groups, causal=kind == "causal")
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    wide = [None if part is None else part.double() if part.is_floating_point() else part for part in (mask, bias)]
    reference = gradients(sdpa_attention_forward, layer, exact, *wide)
    fused = gradients(sdpa_attention_forward, layer, tensors, mask, bias)
    mine = gradients(attention._attention, layer, tensors, mask, bias)
    for ours, theirs, true in zip(mine, fused, reference, strict=True):
        error, allowed = (float((part.double() - true).norm() / true.norm()) for part in (ours, theirs))
        assert error < max(0.01, 2 * allowed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_elsewhere_it_is_the_fused_kernel(dtype, monkeypatch):
    calls = []

    def counted(*arguments, **options):
        calls.append(1)
        return sdpa_attention_forward(*arguments, **options)

    monkeypatch.setattr(attention, "sdpa_attention_forward", counted)
    layer, mask = Layer(2, False), masks()["bool"][0]
    tensors = inputs(2, dtype=dtype)
    attention._attention(layer, *tensors, mask)
    assert len(calls) == (dtype == torch.float32)
    attention._attention(layer, *tensors, mask, dropout=0.1)
    assert len(calls) == 1 + (dtype == torch.float32)
    monkeypatch.setattr(attention, "MOST_SCORES", 8)
    attention._attention(layer, *tensors, mask)
    assert len(calls) == 2 + (dtype == torch.float32)


def test_models_that_do_not_use_the_fused_kernel_keep_their_own(random_causal):
    model = random_causal("llama").model
    assert model.config._attn_implementation == attention.NAME
    model.set_attn_implementation("eager")
    attention.set_attention(model)
    assert model.config._attn_implementation == "eager"
