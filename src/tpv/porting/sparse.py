"""Each row as a sum of few token embeddings, with the same tokens on the other model."""

from __future__ import annotations

import warnings
from typing import Annotated

import torch
from pydantic import Field
from sklearn.linear_model import orthogonal_mp
from torch import Tensor

from tpv.errors import TpvError
from tpv.porting.anchors import TINY, Affine, Anchors
from tpv.porting.ridge import ridge
from tpv.registry import register


class SparseCode:
    """A map of rows by the few anchors that explain them.

    Args:
        terms: anchors of a row.
        rest: maps what these leave over.
    """

    def __init__(self, anchors: Anchors, terms: int, rest: Affine) -> None:
        self._anchors, self._terms, self._rest = anchors, terms, rest

    def vector(self, rows: Tensor) -> Tensor:
        """Rows [P, H_A] on the other model, [P, H_B]."""
        atoms = self._anchors.source.double()
        sizes = atoms.norm(dim=1, keepdim=True).clamp(min=TINY)
        signal = rows.double().T.numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a row that fewer tokens explain: nothing is wrong
            found = orthogonal_mp((atoms / sizes).T.numpy(), signal, n_nonzero_coefs=self._terms)
        code = torch.from_numpy(found.reshape(len(atoms), len(rows))).T / sizes.T
        left = (rows - code @ atoms).float()
        made: Tensor = (code @ self._anchors.target.double()).float()
        return made + self._rest.vector(left)

    prompt = vector  # tokens stand for themselves, so nothing is centered


@register.port("sparse", order=5)
def sparse(anchors: Anchors, *, terms: Annotated[int, Field(ge=1)] = 2) -> SparseCode:
    """Each row as a sum of a few of the source's token embeddings, then the same sum of the target's.

    Orthogonal matching pursuit (Pati et al., 1993; scikit-learn's) finds the tokens and their factors. Unlike a linear
    map, it needs no likeness between the two spaces: tokens are looked up. What they leave over goes through `ridge`
    with `scale="fit"`, which shrinks it to what the anchors say of the target's space, in the limit to nothing.

    Args:
        terms: tokens of a row, at most as many as the source's width.
    """
    most = min(anchors.source.shape)
    if terms > most:
        raise TpvError("terms of map 'sparse'", expected=f"at most {most}", got=terms)
    return SparseCode(anchors, terms, ridge(anchors, scale="fit"))
