"""Ultra-low-dimensional prompt tuning (ULPT; Wu et al., 2025): a few numbers a token, and a random projection.

The prompt is init + scale ∘ (Z R) + shift. Z [P, r] trains; R [r, H] is drawn once from a seed and never trains.
`scale` and `shift`, both [H], are shared by all tokens and align the projection with the model's embeddings. Z and
`shift` begin at 0 and `scale` at 1, so that the prompt begins at the initialization; in the paper there is none beside.

Without alignment (`align = false`) a vector is Z R: P times r numbers, its *codes*, and a sum of vectors is the sum of
their codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import Parameter

from tpv.errors import TpvError
from tpv.methods.low_rank import random_matrix
from tpv.methods.reparameterized import Reparameterized
from tpv.models import Backbone
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.registry import register
from tpv.tasks import Task
from tpv.training.fit import Trainee
from tpv.training.recipe import Recipe

APART = 1e-3  # of a vector's size: how far it may lie from the projection's space


@register.method("ultra_low", order=22)
@dataclass(frozen=True, kw_only=True)
class UltraLow:
    """A few numbers per token train, and a fixed random projection turns them into a prompt (ULPT).

    Attributes:
        dimensions: numbers per token, r.
        align: also train a scale and a shift for each dimension of the model, shared by all tokens.
        seed: seed of the projection. Vectors with the same projection can be added in the low-dimensional space.
    """

    kind: ClassVar[str] = "prompt"
    dimensions: Annotated[int, Field(ge=1)] = 2
    align: bool = True
    seed: Annotated[int, Field(ge=0)] = 0

    def begin(self, backbone: Backbone, task: Task, init: SoftPrompt, recipe: Recipe) -> Trainee:
        """The codes train, and what aligns them."""
        start = init.tensor
        projection = self.projection(start.shape[1])
        codes = Parameter(torch.zeros(len(start), self.dimensions))
        scale, shift = Parameter(torch.ones(start.shape[1])), Parameter(torch.zeros(start.shape[1]))
        if not self.align:
            return Reparameterized(len(start), [codes], lambda: start + codes @ projection)
        return Reparameterized(len(start), [codes, scale, shift], lambda: start + scale * (codes @ projection) + shift)

    def projection(self, width: int) -> Tensor:
        """R, [r, H]."""
        if self.dimensions > width:
            raise TpvError(
                "dimensions of ultra_low", expected=f"at most {width}, the model's width", got=self.dimensions
            )
        return random_matrix(self.dimensions, width, self.seed)

    def codes(self, vector: TaskPromptVector) -> Tensor:
        """The few numbers for each token, [P, r], that a vector is the projection of.

        Raises:
            TpvError: it is not one of this projection: aligned, of another seed, or trained otherwise.
        """
        tensor = vector.tensor
        projection = self.projection(tensor.shape[1])
        found: Tensor = torch.linalg.lstsq(projection.T, tensor.T).solution.T
        if float((found @ projection - tensor).norm()) > APART * float(tensor.norm()):
            raise TpvError(
                f"the vector of {' + '.join(vector.terms)} has no codes",
                expected=f"one of ultra_low with align false, dimensions {self.dimensions}, seed {self.seed}",
                got="another one",
            )
        return found
