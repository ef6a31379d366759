"""Metrics: from gold answers and predictions to one number. A file a family; each metric registers itself.

    @tpv.register.metric("balanced_accuracy")
    def balanced_accuracy(gold, predicted):
        "Mean recall over classes."
        ...

A metric is a function of what it names among its arguments; those with a shape are numpy arrays:

| argument | what it is |
|---|---|
| `gold` | label id of each example, [N]; its number where `scope="numbers"` |
| `predicted` | id of the likeliest label word, [N]; its number where `scope="numbers"` |
| `said` | id of the label word that greedy decoding says, `INVALID` for any other output, [N]; the number said, or \
`INVALID_NUMBER`, where `scope="numbers"` |
| `probabilities` | probability of every label word among the task's, [N, C] |
| `positive` | label id of the positive class |
| `log_probs` | log-probability of every label word, [N, C] |
| `label_tokens` | number of tokens of every label word, [C] |

Of `scope="text"`, `gold` is the acceptable answers of each example and `said` what was generated.

Options of the decorator: `scope` is `labels` (the default: any label task), `two labels`, `numbers` or `text`; `title`
is what tables call it; `higher=False` says that less is better; `field` is the attribute of `tpv.Scores` that holds it;
for text, `per_example` is the function of one example that it is the mean of, and `applies` says of the gold texts
whether it has a meaning there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tpv.metrics import text as _text  # noqa: F401 - registers its metrics
from tpv.metrics.classification import INVALID, accuracy, exact_match, invalid_rate, macro_f1, majority, positive_f1
from tpv.metrics.correlation import INVALID_NUMBER, pearson, spearman
from tpv.metrics.probability import ece, log_loss
from tpv.registry import Entry, register

__all__ = [
    "INVALID",
    "INVALID_NUMBER",
    "accuracy",
    "applicable",
    "calculate",
    "ece",
    "exact_match",
    "invalid_rate",
    "log_loss",
    "macro_f1",
    "majority",
    "measured",
    "names",
    "of_text",
    "pearson",
    "positive_f1",
    "spearman",
    "title",
]


def names() -> list[str]:
    """Every registered metric, in the order of tables."""
    return register.metric.names()


def title(name: str) -> str:
    """What tables call a metric."""
    return str(register.metric[name].about.get("title", name.replace("_", " ")))


def applicable(labels: Sequence[str], numbers: bool) -> list[Entry[Callable[..., float]]]:
    """The metrics that a task with these label words has.

    Args:
        numbers: whether the label words are numbers.
    """
    scopes = {"labels"} | ({"two labels"} if len(labels) == 2 else set()) | ({"numbers"} if numbers else set())
    return [entry for entry in register.metric if entry.about.get("scope", "labels") in scopes]


def of_text(gold: Sequence[Sequence[str]]) -> list[Entry[Callable[..., float]]]:
    """The metrics that a text task with these gold answers has, but for those that every task has."""
    entries = [entry for entry in register.metric if entry.about.get("scope") == "text"]
    return [entry for entry in entries if entry.about.get("applies", lambda _: True)(gold)]


def measured(
    entries: Iterable[Entry[Callable[..., float]]], known: Callable[[Entry[Callable[..., float]]], Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, float]]:
    """The values of metrics: those that `tpv.Scores` has a field for by field, the others by name.

    Args:
        known: the arguments that there are for a metric.
    """
    found: dict[str, Any] = {}
    further: dict[str, float] = {}
    for entry in entries:
        attribute = entry.about.get("field")
        place, name = (further, entry.name) if attribute is None else (found, attribute)
        place[name] = calculate(entry, known(entry))
    return found, further


def calculate(entry: Entry[Callable[..., float]], known: Mapping[str, Any]) -> float:
    """The value of a metric from whatever it asks for by name."""
    return float(entry.thing(**{name: known[name] for name in inspect.signature(entry.thing).parameters}))
