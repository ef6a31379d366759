"""ATTEMPT (Asai et al., 2022), multi-task: attentional mixtures of frozen source prompts.

A row with text X of target task t reads the prompt

    P_t + sum_j a_j P_j,    a = softmax_j(maxpool(P_j) . LayerNorm(W_up SiLU(W_down maxpool(X))) / temperature)

where j runs over the source prompts and P_t itself. The source prompts are frozen; P_t, one a target, and the
attention (W_down, W_up and the layer norm), shared by all targets, train.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import layer_norm, silu

from tpv.errors import TpvError
from tpv.evaluation.bank import check_bank
from tpv.models import Backbone, Tokens
from tpv.progress import Callback
from tpv.prompts.algebra import SoftPrompt
from tpv.registry import register
from tpv.tasks import Task
from tpv.training.loop import train
from tpv.training.recipe import Recipe
from tpv.training.run import Run, Targets


class Attempt:
    """The attention and the target prompts of one ATTEMPT training.

    Args:
        sources: tuned prompts [P, H] of the source tasks, frozen; each target prompt is initialized with the first
            (quirk 12).
        targets: names of the target tasks, in the order of `reader`.
        seed: of the attention's initialization.
        temperature: of the softmax; by default e * H, which is the 2087 of the authors' code for H = 768.

    Raises:
        TpvError: no sources or targets, or prompts of another model or shape.
    """

    def __init__(
        self,
        backbone: Backbone,
        sources: Sequence[SoftPrompt],
        targets: Sequence[str],
        *,
        seed: int = 0,
        temperature: float | None = None,
    ) -> None:
        if not targets:
            raise TpvError("ATTEMPT", expected="at least one target task", got="none")
        self.sources = check_bank(backbone, sources)
        self.targets = tuple(targets)
        rows, width = self.sources.shape[1:]
        self.temperature = math.e * width if temperature is None else temperature
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            down, up = nn.Linear(width, rows, bias=False), nn.Linear(rows, width, bias=False)
        self.down, self.up = Parameter(down.weight.detach()), Parameter(up.weight.detach())
        self.scale, self.shift = Parameter(torch.ones(width)), Parameter(torch.zeros(width))
        self.prompts = [Parameter(self.sources[0].clone()) for _ in targets]
        self._embeddings = backbone.embeddings().float()

    @property
    def parameters(self) -> list[Parameter]:
        """What trains: the target prompts, then the attention."""
        return [*self.prompts, self.down, self.up, self.scale, self.shift]

    def state(self) -> dict[str, Tensor]:
        """What trains, as named tensors: enough to `restore` from."""
        names = [*(f"prompt.{i}" for i in range(len(self.prompts))), "down", "up", "scale", "shift"]
        return {name: value.detach().clone() for name, value in zip(names, self.parameters, strict=True)}

    def restore(self, state: dict[str, Tensor]) -> Attempt:
        """Set what trains to a `state`; the same object. Raises `KeyError` for a missing tensor."""
        with torch.no_grad():
            for name, mine in zip(self.state(), self.parameters, strict=True):
                mine.copy_(state[name])
        return self

    def attention(self, target: int, texts: Sequence[Tokens]) -> Tensor:
        """Weights [N, S + 1] of the sources and, last, the target prompt, for N inputs."""
        pooled = torch.stack([self._embeddings[torch.tensor(text)].amax(dim=0) for text in texts])
        hidden = silu(pooled @ self.down.T) @ self.up.T
        hidden = layer_norm(hidden, hidden.shape[-1:], self.scale, self.shift)
        keys = torch.cat([self.sources, self.prompts[target][None]]).amax(dim=1)
        return (hidden @ keys.T / self.temperature).softmax(dim=-1)

    def reader(self, target: int) -> _Mixture:
        """What gives each row of a target task its own prompt."""
        return _Mixture(self, target)


class _Mixture:
    """A `PromptReader`: every row reads its own mixture."""

    def __init__(self, model: Attempt, target: int) -> None:
        self.model, self.target = model, target

    @property
    def num_tokens(self) -> int:
        return self.model.sources.shape[1]

    def read(self, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        own = self.model.prompts[self.target]
        pool = torch.cat([self.model.sources, own[None]])
        weights = self.model.attention(self.target, sources)
        return own + torch.einsum("ns,sph->nph", weights, pool), torch.arange(len(sources))


def fit_attempt(
    backbone: Backbone,
    tasks: Sequence[Sequence[Task]],
    models: Sequence[Attempt],
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    targets: Targets | None = None,
    callback: Callback | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Train a bank of ATTEMPT models in place, the target tasks of each together.

    Args:
        tasks: for each model its target tasks, in the order of its `targets`.
        seeds: data-order seed of each model.
        targets, callback, checkpoint: see `tpv.fit`.

    Raises:
        TpvError: another number of tasks than targets; what `tpv.fit` raises.
    """
    runs = []
    for model, mine, seed in zip(models, tasks, seeds, strict=True):
        if len(mine) != len(model.targets):
            raise TpvError("tasks of an ATTEMPT model", expected=len(model.targets), got=len(mine))
        parts = [(task, model.reader(i)) for i, task in enumerate(mine)]
        runs.append(Run(parts, model.parameters, backbone, recipe, seed, targets=targets))
    train(backbone, runs, recipe, callback=callback, checkpoint=checkpoint)
    for run in runs:
        run.restore()


@register.method("attempt", order=5)
@dataclass(frozen=True, kw_only=True)
class AttemptMethod:
    """ATTEMPT: a prompt per target task and an attention over frozen source prompts, shared by the targets.

    Attributes:
        temperature: temperature of the attention; by default e times the model's width.
    """

    kind: ClassVar[str] = "mixture"
    temperature: float | None = None
