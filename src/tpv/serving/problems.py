"""Refusals that a client sees, each with its HTTP status."""

from __future__ import annotations

import math
from collections.abc import Collection

from tpv.errors import TpvError, did_you_mean

MOST_HINTS = 200  # names that are compared to find the nearest one


class Refusal(TpvError):
    """A refusal with an HTTP status; any other `TpvError` is a 422.

    Args:
        status: of the answer.
        retry_after: seconds after which to try again, for a 429 or 503.
    """

    def __init__(
        self,
        status: int,
        what: str,
        *,
        expected: object = None,
        got: object = None,
        fix: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(what, expected=expected, got=got, fix=fix)
        self.status = status
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))


def unknown_prompt(name: str, names: Collection[str]) -> Refusal:
    """That there is no prompt or vector of this name."""
    few = names and len(names) <= MOST_HINTS
    fix = did_you_mean(name, names) if few else "GET /v1/prompts lists them"
    return Refusal(404, f"no prompt {name!r:.200}", fix=fix)
