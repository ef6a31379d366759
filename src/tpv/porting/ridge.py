"""Ridge regression from one embedding space to the other."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from sklearn.linear_model import Ridge, RidgeCV

from tpv.porting.anchors import Affine, Anchors, Scale
from tpv.registry import register

ALPHAS = tuple(10.0**exponent for exponent in range(-8, 4))


@register.port("ridge", order=20)
def ridge(anchors: Anchors, *, alpha: Annotated[float, Field(ge=0)] | None = None, scale: Scale = "match") -> Affine:
    """The linear map with the least squared error on the anchors, with a penalty on its size.

    Args:
        alpha: of scikit-learn's `Ridge`, on anchors with mean 0 and a root mean square norm of 1; by default the power
            of ten from 1e-8 to 1e3 with the least leave-one-out error.
        scale: `match` or `fit`, see `Anchors.affine`.
    """
    x, y = (side.numpy() for side in anchors.standard())
    model = RidgeCV(ALPHAS, fit_intercept=False) if alpha is None else Ridge(alpha, fit_intercept=False)
    fitted = model.fit(x, y)
    return anchors.affine(torch.from_numpy(fitted.coef_.T.copy()), scale)
