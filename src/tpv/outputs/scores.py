"""From predictions to scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tpv import metrics
from tpv.errors import TpvError
from tpv.registry import register

SEPARATOR = "\x1f"  # between the label words in a table's metadata


@dataclass(frozen=True)
class Scores:
    """How one prompt does on one task. All but `loss`, `n` and the correlations are shares in [0, 1].

    Attributes:
        exact_match: output is exactly the gold label word.
        macro_f1: unweighted mean F1 over classes.
        positive_f1: F1 of the positive class, binary tasks only.
        invalid_rate: output is no label word.
        majority: exact match of always saying the most frequent gold label.
        loss: mean negative log-likelihood of the gold label per token, in nats.
        n: number of examples.
        predictions: one row per example: `example`, `gold`, `predicted` (null where invalid),
            `log_probs` (one per label word, in the order of the schema metadata's `labels`); where label words are
            numbers also `value`, the row's own. The schema metadata of what `evaluate` gives also says which prompt
            was scored on which task and split.
        pearson: correlation of the numbers said with the rows' own, in [-1, 1], only where label words are numbers.
            An output that is no label word counts as -1, as in T5.
        spearman: the same of their ranks.
        further: values of metrics that plugins registered, by name.
    """

    exact_match: float
    macro_f1: float
    positive_f1: float | None
    invalid_rate: float
    majority: float
    loss: float
    n: int
    predictions: pa.Table = field(repr=False, compare=False)
    pearson: float | None = None
    spearman: float | None = None
    further: Mapping[str, float] = field(default_factory=dict)

    def metric(self, name: str) -> float:
        """A score by the name of its metric: `exact_match`, `macro_f1`, `f1`, `pearson`, a plugin's, ...

        Raises:
            TpvError: no such metric, or one that this task does not have.
        """
        value = self._value(name)
        if value is None:
            raise TpvError(
                f"metric {name!r} is not defined for this task",
                expected=", ".join(metric for metric in metrics.names() if self.defined(metric)),
                fix="f1 needs two labels; pearson and spearman need label words that are numbers",
            )
        return value

    def defined(self, name: str) -> bool:
        """Whether this task has the score of this name."""
        return self._value(name) is not None

    def _value(self, name: str) -> float | None:
        attribute = register.metric[name].about.get("field")
        value: float | None = self.further.get(name) if attribute is None else getattr(self, attribute)
        return value


def score_predictions(table: pa.Table) -> Scores:
    """Scores of a table of predictions, as `Scores.predictions` gives it or as it was stored.

    Raises:
        TpvError: label words that are numbers, and rows without a number of their own.
    """
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    labels = about["labels"].split(SEPARATOR)
    number = {None: metrics.INVALID} | {word: i for i, word in enumerate(labels)}
    gold = np.array([number[word] for word in table["gold"].to_pylist()])
    predicted = np.array([number[word] for word in table["predicted"].to_pylist()])
    known: dict[str, Any] = {
        "positive": int(about["positive"]),
        "log_probs": np.asarray(table["log_probs"].combine_chunks().flatten()).reshape(len(gold), len(labels)),
        "label_tokens": np.array([int(length) for length in about["label_tokens"].split(SEPARATOR)]),
    }
    of_labels = {"gold": gold, "predicted": predicted}
    of_numbers: dict[str, Any] = {}
    if "value" in table.column_names:
        values = table["value"].to_pylist()
        if None in values:
            raise TpvError("predictions to correlate", expected="a value in every row", got="rows without one")
        said = [metrics.INVALID_NUMBER if p == metrics.INVALID else float(labels[p]) for p in predicted]
        of_numbers = {"gold": np.array(values), "predicted": np.array(said)}
    found: dict[str, Any] = {"positive_f1": None}
    further: dict[str, float] = {}
    for entry in metrics.applicable(labels, numbers=bool(of_numbers)):
        answers = of_numbers if entry.about.get("scope") == "numbers" else of_labels
        value = metrics.calculate(entry, known | answers)
        attribute = entry.about.get("field")
        if attribute is None:
            further[entry.name] = value
        else:
            found[attribute] = value
    return Scores(**found, n=len(gold), predictions=table, further=further)
