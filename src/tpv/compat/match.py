"""Quirk 5: the authors' code compares the first 16 characters of an output and a label word."""

from __future__ import annotations

from collections.abc import Sequence

from tpv.evaluation.answers import MatchRule
from tpv.models import Backbone, Tokens
from tpv.tasks import Task


def prefix_match(characters: int) -> MatchRule:
    """An output matches a label word if their first `characters` characters are the same."""

    def rule(backbone: Backbone, task: Task) -> Sequence[Tokens] | None:
        if all(len(word) <= characters for word in task.labels):
            return None
        return [_first_tokens(backbone, word, characters) for word in task.labels]

    return rule


def _first_tokens(backbone: Backbone, word: str, characters: int) -> Tokens:
    """The shortest start of a label's tokens that says its first `characters`, or all of them."""
    tokens = backbone.encode_target(word)
    if len(word) <= characters:
        return tokens
    return next(
        tokens[:count]
        for count in range(1, len(tokens) + 1)
        if count == len(tokens) or len(backbone.decode(tokens[:count])) >= characters
    )
