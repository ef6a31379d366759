"""SPoT's targeted transfer (Vu et al., 2022, section 3): the sources whose early prompts are most like the target's.

The prompt of a task early in its training, averaged over tokens, is the task's embedding. Sources are ranked by the
cosine of their embeddings with the target's. The target's prompt then starts from the best source's tuned prompt
("best of top-k" with k = 1), or from the average of the k best, weighted by their cosines ("top-k weighted average").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import Parameter

from tpv.errors import TpvError
from tpv.methods.prompt_tuning import WholePrompt
from tpv.methods.sources import Prepared, SourceMethod, Target, TrainedSource, short
from tpv.models import Backbone
from tpv.progress import Callback, silent
from tpv.prompts.similarity import token_cosines
from tpv.registry import register
from tpv.training.fit import Trainee, fit
from tpv.training.recipe import Recipe


@register.method("spot_retrieval", order=10)
@dataclass(frozen=True, kw_only=True)
class SpotRetrieval(SourceMethod):
    """SPoT's retrieval: start from the average of the sources whose early prompts are most similar, and tune it.

    Attributes:
        top: how many sources to average; 1 takes the best one alone.
        early: optimizer steps after which a prompt counts as early.
    """

    prepares: ClassVar[bool] = True
    top: Annotated[int, Field(ge=1)] = 1
    early: Annotated[int, Field(ge=1)] = 20

    def check_fit(self, num_tokens: int, sources: int) -> None:
        """Refuse more sources than there are."""
        if self.top > sources:
            there = f"at most {sources}, the number of sources"
            raise TpvError("top of spot_retrieval", expected=there, got=self.top)

    def source_recipe(self, recipe: Recipe) -> Recipe:
        """The first steps of the sources' training."""
        return short(recipe, self.early)

    def prepare(
        self,
        backbone: Backbone,
        sources: Sequence[TrainedSource],
        recipe: Recipe,
        *,
        seed: int,
        callback: Callback | None = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Tensor]:
        """The early prompts [S, P, H] of the sources."""
        inits = [source.init for source in sources]
        tasks = [source.task for source in sources]
        early = fit(backbone, tasks, inits, recipe, callback=callback or silent, checkpoint=checkpoint)
        return {"early": torch.stack([prompt.tensor for prompt in early])}

    def first_recipe(self, recipe: Recipe) -> Recipe | None:
        """As many steps on the target."""
        return short(recipe, self.early)

    def begin(
        self, backbone: Backbone, target: Target, sources: Sequence[TrainedSource], prepared: Prepared, recipe: Recipe
    ) -> Trainee:
        """The whole prompt trains, from the average of the sources that the target's early prompt retrieves."""
        self.check_fit(target.init.num_tokens, len(sources))
        if target.own is None:
            raise TpvError("SPoT's retrieval", expected="an early prompt of the target", got="none")
        weights = retrieval_weights(token_cosines(target.own.tensor, prepared["early"]), self.top)
        prompts = torch.stack([source.prompt.tensor for source in sources])
        return WholePrompt(Parameter(torch.einsum("s,sph->ph", weights, prompts)))


def retrieval_weights(cosines: Tensor, top: int) -> Tensor:
    """Weights [S] of sources with these cosines [S]: the `top` largest, divided by their sum; 0 for all others.

    A cosine below 0 counts as 0, so that no prompt is subtracted; where none is above, the `top` best weigh the same.
    """
    best = cosines.topk(top).indices
    kept = torch.zeros_like(cosines)
    kept[best] = cosines[best].clamp(min=0.0)
    if float(kept.sum()) == 0.0:
        kept[best] = 1.0
    return kept / kept.sum()
