"""Text tasks: say one word of the input. The rows are those of source tasks, split by split, with another answer.

The embedded model was pretrained to point at words of such inputs, and on none of the validation and test texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

COMMON = frozenset(("a", "an", "the", "is", "in", "to", "of", "it", "be", "no", "not", "there"))
NOTHING = "nothing"  # where there is no such word


def _words(fields: Mapping[str, str]) -> list[list[str]]:
    return [re.findall(r"\w+", text) for text in fields.values()]


def shared_word(fields: Mapping[str, str]) -> str:
    """The first word of the second text, common ones aside, that the first has too."""
    before, after = _words(fields)
    return next((word for word in after if word not in COMMON and word in before), NOTHING)


def new_word(fields: Mapping[str, str]) -> str:
    """The first word of the second text, common ones aside, that the first does not have."""
    before, after = _words(fields)
    return next((word for word in after if word not in COMMON and word not in before), NOTHING)


def last_word(fields: Mapping[str, str]) -> str:
    """The last word."""
    return _words(fields)[-1][-1]


# name: the source task whose rows are used, and the answer
TEXTS: dict[str, tuple[str, Callable[[Mapping[str, str]], str]]] = {
    "shared_word": ("mnli", shared_word),
    "new_word": ("mnli", new_word),
    "last_word": ("qnli", last_word),
}
