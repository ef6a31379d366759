"""What a backbone's input embeddings say about the scale of its prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from tpv.models import Backbone

_known: WeakKeyDictionary[Backbone, float] = WeakKeyDictionary()  # a pass over the vocabulary is too much at every step


def embedding_rms(backbone: Backbone) -> float:
    """Root mean square of the input embeddings, over all V·H values."""
    if backbone not in _known:
        _known[backbone] = float(backbone.embeddings().float().square().mean().sqrt())
    return _known[backbone]
