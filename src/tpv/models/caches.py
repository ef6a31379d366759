"""By which keyword a model takes its cache: `past_key_values`, which transformers renamed to `cache` in 5.24."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

NAMES = ("cache", "past_key_values")


@lru_cache(maxsize=64)
def _name(kind: Any) -> str:
    return NAMES[0] if NAMES[0] in inspect.signature(kind.forward).parameters else NAMES[1]


def cached(model: Any, cache: Any) -> dict[str, Any]:
    """The cache as an argument of the model's `forward`, or of its `generate`."""
    kind: Any = type(model)
    return {_name(kind): cache}


def cache_of(outputs: Any) -> Any:
    """The cache that a model gave back."""
    return outputs[NAMES[0]] if NAMES[0] in outputs else outputs[NAMES[1]]
