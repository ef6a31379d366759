"""Anchors: tokens or texts that two models share, with their embeddings in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.models import Backbone

Scale = Literal["match", "fit"]
TINY = 1e-12  # instead of a norm of 0


@dataclass(frozen=True)
class Affine:
    """A map of rows from one embedding space to another: `(x - center) @ matrix + offset`; fp32.

    Vectors are differences of rows, so for them `center` and `offset` cancel.

    Attributes:
        matrix: [H_A, H_B].
        center: [H_A]. offset: [H_B].
    """

    matrix: Tensor
    center: Tensor
    offset: Tensor

    def prompt(self, rows: Tensor) -> Tensor:
        """Rows of a prompt, [P, H_A], on the other model, [P, H_B]."""
        return (rows - self.center) @ self.matrix + self.offset

    def vector(self, rows: Tensor) -> Tensor:
        """Rows of a vector, [P, H_A], on the other model, [P, H_B]."""
        return rows @ self.matrix


@dataclass(frozen=True)
class Anchors:
    """What a map is fitted on: embeddings of the same N texts in two models, fp32.

    Attributes:
        source: [N, H_A]. target: [N, H_B].
    """

    source: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.source)

    def standard(self, *, center: bool = True) -> tuple[Tensor, Tensor]:
        """Both sides with mean 0 and a root mean square norm of 1 over rows, fp64.

        So the scale of either model, which differs by a factor of ten and more, does not decide the fit.

        Args:
            center: False leaves the mean in.
        """
        return _standard(self.source, center)[0], _standard(self.target, center)[0]

    def affine(self, matrix: Tensor, scale: Scale, *, center: bool = True) -> Affine:
        """The map that a matrix [H_A, H_B] between the `standard` sides stands for.

        Args:
            scale: `match` gives mapped anchors the root mean square norm that they have in the target, since a fit
                shrinks what it cannot explain; `fit` leaves the matrix as it is.
            center: as for `standard`.
        """
        (x, mean, size), (_, offset, other) = _standard(self.source, center), _standard(self.target, center)
        if scale == "match":
            matrix = matrix / (x @ matrix).square().sum(1).mean().sqrt().clamp(min=TINY)
        return Affine((matrix * (other / size)).float(), mean.float(), offset.float())


def _standard(rows: Tensor, center: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Rows with mean 0 and a root mean square norm of 1; the mean and the norm that they had; all fp64."""
    rows = rows.double()
    mean = rows.mean(0) * center
    size = (rows - mean).square().sum(1).mean().sqrt().clamp(min=TINY)
    return (rows - mean) / size, mean, size


def anchors_of(source: Backbone, target: Backbone, wanted: int | Sequence[str] | None) -> Anchors:
    """The anchors of two models.

    Args:
        wanted: None for all tokens that both vocabularies have; a number for the first so many of them in the order of
            the target's ids, which in most vocabularies puts frequent ones first; or texts, whose anchors are the mean
            embeddings of their tokens in each model.

    Raises:
        TpvError: fewer than two anchors, or a text that one of the models has no tokens for.
    """
    if wanted is not None and not isinstance(wanted, int):
        return _of_texts(source, target, wanted)
    if isinstance(wanted, bool) or (wanted is not None and wanted < 2):
        raise TpvError("anchors", expected="at least 2, or a list of texts", got=wanted)
    here, there = source.pieces(), target.pieces()
    shared = sorted(here.keys() & there.keys(), key=lambda piece: there[piece])[:wanted]
    if len(shared) < 2:
        raise TpvError(
            f"{source.identity.name} and {target.identity.name} share no tokens",
            expected="at least 2 to fit a map on",
            got=len(shared),
            fix="give texts as anchors",
        )
    rows = torch.tensor([here[piece] for piece in shared]), torch.tensor([there[piece] for piece in shared])
    return Anchors(source.embeddings()[rows[0]].float(), target.embeddings()[rows[1]].float())


def _of_texts(source: Backbone, target: Backbone, texts: Sequence[str]) -> Anchors:
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts) or len(texts) < 2:
        raise TpvError("anchors", expected="a number, or at least 2 texts", got=f"{texts!r:.60}")
    return Anchors(*(torch.stack([_mean(backbone, text) for text in texts]) for backbone in (source, target)))


def _mean(backbone: Backbone, text: str) -> Tensor:
    """The mean embedding of a text's tokens, [H]."""
    ids = backbone.encode_text(text)
    if not ids:
        raise TpvError(f"anchor {text!r:.60} has no tokens on {backbone.identity.name}", fix="drop it")
    return backbone.embeddings()[torch.tensor(ids)].float().mean(0)
