"""What is odd about labelled rows and would quietly spoil a score: said as warnings, with counts."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import combinations

from tpv.errors import TpvWarning
from tpv.tasks.task import Example

SHOWN = 3  # pairs or splits that a warning names
RARE, FREQUENT, ALMOST = 2, 3, 0.85  # rows of a typo at most; how many times as many the right word has; likeness


def warn_of_labels(labels: Sequence[str], where: str) -> None:
    """Warn of label words that differ only in case or spaces, which are most likely one label."""
    groups: dict[str, list[str]] = {}
    for word in labels:
        groups.setdefault("".join(word.split()).casefold(), []).append(word)
    alike = [group for group in groups.values() if len(group) > 1]
    if alike:
        named = "; ".join(" and ".join(map(repr, group)) for group in alike[:SHOWN])
        more = f" and {len(alike) - SHOWN} more" if len(alike) > SHOWN else ""
        _warn(f"label words of {where} differ only in case or spaces: {named}{more}; if they are one label, merge them")


def warn_of_rare_labels(splits: Mapping[str, Sequence[Example]], where: str) -> None:
    """Warn of label words of a row or two that are spelled almost like a frequent one."""
    counts = Counter(row.target for rows in splits.values() for row in rows)
    frequent = [word for word, count in counts.items() if count >= FREQUENT * RARE]
    for word, count in counts.items():
        near = get_close_matches(word, frequent, n=1, cutoff=ALMOST) if count <= RARE and len(word) > 3 else []
        if near:
            rows = "1 row" if count == 1 else f"{count} rows"
            _warn(f"label word {word!r} of {where} ({rows}) is spelled almost like {near[0]!r}; is it a typo?")


def warn_of_two_labels(splits: Mapping[str, Sequence[Example]], where: str) -> None:
    """Warn of texts with two labels within a split, counted."""
    for split, rows in splits.items():
        seen: dict[str, set[str]] = {}
        for row in rows:
            seen.setdefault(row.source, set()).add(row.target)
        torn = sum(len(targets) > 1 for targets in seen.values())
        if torn:
            _warn(f"{torn} of {len(seen)} texts of {where} ({split}) have two labels or more; at most one can be right")


def warn_of_shared_texts(splits: Mapping[str, Sequence[Example]], where: str) -> None:
    """Warn of texts that stand in two splits, counted."""
    texts = {split: {row.source for row in rows} for split, rows in splits.items()}
    for one, other in combinations(texts, 2):
        both = len(texts[one] & texts[other])
        if both:
            _warn(
                f"{both} of {len(texts[other])} texts of {where} ({other}) are also in {one}; "
                "scores on them say less about new texts"
            )


def _warn(message: str) -> None:
    warnings.warn(message, TpvWarning, stacklevel=4)
