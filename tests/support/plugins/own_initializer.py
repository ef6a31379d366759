"""An initializer in one file, outside of tpv."""

import torch
from torch import Tensor

import tpv


@tpv.register.initializer("uniform")
def uniform(backbone: tpv.Backbone, num_tokens: int, seed: int, *, width: float = 0.5) -> Tensor:
    """Independent values, uniform between minus and plus `width`."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.rand(num_tokens, backbone.identity.hidden_size, generator=generator) - 1) * width
