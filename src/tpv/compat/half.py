"""Quirk 1: PEFT doubles the rows of an encoder-decoder's prompt and reads the first half."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor

from tpv.errors import TpvError
from tpv.models import Backbone, Tokens
from tpv.models.protocol import LabelScores, TargetStates


class _HalfPrompt:
    """A backbone that reads the first rows of a prompt only; all else is the backbone's own."""

    def __init__(self, backbone: Backbone, live_rows: int) -> None:
        self._backbone, self._live = backbone, live_rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def nll(self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]) -> Tensor:
        return self._backbone.nll(bank[:, : self._live], index, sources, targets)

    def target_states(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]
    ) -> TargetStates:
        return self._backbone.target_states(bank[:, : self._live], index, sources, targets)

    def score_labels(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], labels: Sequence[Tokens]
    ) -> LabelScores:
        return self._backbone.score_labels(bank[:, : self._live], index, sources, labels)


def half_prompt(backbone: Backbone, live_rows: int) -> Backbone:
    """The backbone, reading only the first `live_rows` rows of every prompt.

    Raises:
        TpvError: no rows.
    """
    if live_rows < 1:
        raise TpvError("rows that are read", expected="at least 1", got=live_rows)
    return cast(Backbone, _HalfPrompt(backbone, live_rows))
