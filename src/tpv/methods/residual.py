"""Residual prompt tuning (Razdaibiedina et al., 2023): a shallow network with a skip connection makes the prompt.

Row i of the prompt is p_i + Φ(p_i) with Φ(p) = gain ∘ norm(W_up relu(W_down p + b_down) + b_up) + shift, one network
for all rows; rows and network train together. `gain` and `shift` begin at 0, so that the prompt begins at the
initialization; in the paper the gain begins at 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import layer_norm, linear

from tpv.methods.reparameterized import Reparameterized
from tpv.models import Backbone
from tpv.prompts.algebra import SoftPrompt
from tpv.registry import register
from tpv.tasks import Task
from tpv.training.fit import Trainee
from tpv.training.recipe import Recipe


@register.method("residual", order=20)
@dataclass(frozen=True, kw_only=True)
class Residual:
    """A shallow network with a skip connection makes the prompt; training drops the network and keeps the prompt.

    Attributes:
        bottleneck: width of its hidden layer.
        speed: its learning rate, as a multiple of that of the prompt's rows, which are much larger than its weights.
        seed: seed of its initial weights.
    """

    kind: ClassVar[str] = "prompt"
    bottleneck: Annotated[int, Field(ge=1, le=100_000)] = 100
    speed: Annotated[float, Field(gt=0, le=1e6)] = 0.01
    seed: Annotated[int, Field(ge=0)] = 0

    def begin(self, backbone: Backbone, task: Task, init: SoftPrompt, recipe: Recipe) -> Trainee:
        """The rows and the network train."""
        rows, width, speed = Parameter(init.tensor), backbone.identity.hidden_size, self.speed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            down, up = nn.Linear(width, self.bottleneck), nn.Linear(self.bottleneck, width)
        begun = [down.weight, down.bias, up.weight, up.bias, torch.zeros(width), torch.zeros(width)]
        # divided by `speed`: a step of AdamW, whose length does not depend on the scale, moves them so much less far
        network = [Parameter(value.detach() / speed) for value in begun]

        def prompt() -> Tensor:
            down, below, up, above, gain, shift = (speed * value for value in network)
            hidden = linear(linear(rows, down, below).relu(), up, above)
            return rows + layer_norm(hidden, (width,), gain, shift)

        return Reparameterized(len(rows), [rows, *network], prompt)
