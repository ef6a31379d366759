"""What rows read while vectors train as vectors (see `tpv.methods.vectors`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.evaluation.bank import SharedPrompt, check_bank
from tpv.models import Backbone, Tokens
from tpv.prompts import initializers
from tpv.prompts.algebra import SoftPrompt
from tpv.prompts.initializers import Initializer
from tpv.prompts.provenance import Init, Parameters

VALIDATION_SEED = 2**62  # of the initialization that checkpoints are chosen on: none that a user is likely to draw


class Inits:
    """The initializations that rows read: fresh draws [M, P, H], or one that is fixed.

    Attributes:
        kind: the initializer's name, or `given` for prompts to draw from.
        parameters: of the initializer.
        fixed: the one that serves validation, and training where none are drawn, [P, H].
        home: its identity, where it serves training.
    """

    def __init__(
        self,
        backbone: Backbone,
        init: str | Initializer | Sequence[SoftPrompt],
        num_tokens: int,
        fresh: bool,
        seed: int,
    ) -> None:
        self.count, self.fresh, self._backbone = num_tokens, fresh, backbone
        self._initializer: Initializer | None = None
        self.home: Init | None
        self.parameters: Parameters | None = None
        if isinstance(init, str | Initializer):
            self._initializer = initializers.make(init)
            self.kind, self.parameters = self._initializer.kind, self._initializer.parameters
            if fresh and not self._initializer.random:
                raise TpvError(
                    "portable vectors",
                    expected="an initializer with many initializations to draw",
                    got=f"{self.kind!r}, which has one",
                    fix="pass portable=False",
                )
            self.fixed, drawn = self._initializer.sample(backbone, num_tokens, VALIDATION_SEED if fresh else seed)
            self.home = None if fresh else drawn
            return
        prompts = list(init)
        self.kind, self._given = "given", check_bank(backbone, prompts)
        if self._given.shape[1] != num_tokens:
            raise TpvError("prompts to draw from", expected=f"{num_tokens} tokens", got=self._given.shape[1])
        self.fixed, self.home = self._given[0], None if fresh else prompts[0].init

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Initializations [count, P, H]."""
        if not self.fresh:
            return self.fixed.expand(count, -1, -1)
        if self._initializer is not None:
            return self._initializer.draw(self._backbone, self.count, count, generator)
        return self._given[torch.randint(len(self._given), (count,), generator=generator)]


class Mixture:
    """A `PromptReader` of prompts drawn at each step: init + own vector + a random subset of the others.

    Args:
        own: the vector of the rows' task; `own_trains` says whether its factor is drawn from `scales` or 1.
        together: vectors that train beside it.
        frozen: a pool [J, P, H] of vectors that do not.
        draws: how many prompts are drawn a step; rows take them in turn.
    """

    def __init__(
        self,
        inits: Inits,
        own: Tensor,
        together: Sequence[Tensor],
        frozen: Tensor,
        *,
        scales: tuple[float, float],
        chance: float,
        draws: int,
        seed: str,
    ) -> None:
        self.inits, self.own, self.together, self.frozen = inits, own, list(together), frozen
        self.scales, self.chance, self.draws, self.seed = scales, chance, draws, seed
        self.begin(0)

    @property
    def num_tokens(self) -> int:
        return self.own.shape[0]

    def begin(self, step: int) -> None:
        """Draw the prompts of a step; decided by seed and step alone, so that a resumed training draws the same."""
        digest = hashlib.sha256(f"{self.seed} {step}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        self._taken = 0
        self._base = self.inits.draw(self.draws, generator)
        low, high = self.scales

        def scale(columns: int) -> Tensor:
            return low + (high - low) * torch.rand(self.draws, columns, generator=generator)

        def there(columns: int) -> Tensor:
            return (torch.rand(self.draws, columns, generator=generator) < self.chance).float()

        self._factors = torch.cat(
            [scale(1), there(len(self.together)), there(len(self.frozen)) * scale(len(self.frozen))], dim=1
        )

    def read(self, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        index = (torch.arange(len(sources)) + self._taken) % self.draws
        self._taken += len(sources)
        used, local = index.unique(return_inverse=True)
        vectors = torch.cat([torch.stack([self.own, *self.together]), self.frozen])
        return self._base[used] + torch.einsum("mk,kph->mph", self._factors[used], vectors), local


class FixedSum:
    """A `PromptReader`: a fixed initialization plus vectors as they are now."""

    def __init__(self, init: Tensor, vectors: Sequence[Tensor], frozen: Tensor) -> None:
        self.init, self.vectors, self.frozen = init, list(vectors), frozen

    @property
    def num_tokens(self) -> int:
        return self.init.shape[0]

    def read(self, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        total = self.init + torch.stack(self.vectors).sum(0) + self.frozen.sum(0)
        return SharedPrompt(total).read(sources)
