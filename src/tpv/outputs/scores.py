"""From predictions to scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tpv import metrics
from tpv.errors import TpvError
from tpv.outputs.ranking import Calibrator, checked_normalize, ranked
from tpv.registry import register

SEPARATOR = "\x1f"  # between the label words in a table's metadata
SHARES = ("exact_match", "accuracy", "invalid_rate")


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of so many."""
    from scipy.stats import binomtest

    found = binomtest(hits, count).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class Scores:
    """How one prompt does on one task. All but the losses, `n` and the correlations are shares in [0, 1].

    `exact_match`, `macro_f1`, `positive_f1` and `invalid_rate` are of what greedy decoding says, as in the paper;
    `accuracy`, `log_loss` and `ece` of the task's label words, ranked by their probabilities. A score that a
    task does not have is None: those of labels for text, those of text for labels.

    Attributes:
        exact_match: output is exactly the gold label word; for text, one of the gold answers after SQuAD's
            normalization.
        accuracy: the likeliest of the task's label words is the gold one.
        macro_f1: unweighted mean F1 over classes.
        positive_f1: F1 of the positive class, binary tasks only.
        invalid_rate: output is no label word.
        majority: exact match of always saying the most frequent gold label.
        log_loss: mean negative log-probability of the gold label among the label words, nats.
        ece: expected calibration error of the probability of the likeliest label word.
        loss: mean negative log-likelihood of the gold label per token, in nats.
        n: number of examples.
        predictions: one row per example: `example`, `gold`, `predicted` (the likeliest label word), `probability` (of
            it), `said` (by greedy decoding, null where that is no label word), `log_probs` (one per label word, in the
            order of the schema metadata's `labels`); where label words are numbers also `value`, the row's own. The
            schema metadata of what `evaluate` gives also says which prompt was scored on which task and split.
            For text: `example`, `gold`, `answers`, `predicted`, `nll` (of the gold text, nats) and `tokens` (of it).
        token_f1, rouge1, rouge2, rouge_l, bleu, chrf, final_answer: of text, see `tpv.metrics.text`.
        pearson: correlation of the numbers said with the rows' own, in [-1, 1], only where label words are numbers.
            An output that is no label word counts as -1, as in T5.
        spearman: the same of their ranks.
        further: values of metrics that plugins registered, by name.
    """

    exact_match: float
    majority: float
    loss: float
    n: int
    predictions: pa.Table = field(repr=False, compare=False)
    accuracy: float | None = None
    macro_f1: float | None = None
    positive_f1: float | None = None
    invalid_rate: float | None = None
    log_loss: float | None = None
    ece: float | None = None
    token_f1: float | None = None
    rouge1: float | None = None
    rouge2: float | None = None
    rouge_l: float | None = None
    bleu: float | None = None
    chrf: float | None = None
    final_answer: float | None = None
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
                fix="f1 needs two labels, pearson and spearman label words that are numbers, others a text task",
            )
        return value

    def defined(self, name: str) -> bool:
        """Whether this task has the score of this name."""
        return self._value(name) is not None

    def interval(self, name: str = "exact_match") -> tuple[float, float]:
        """Wilson's 95 % interval of a share of the examples, `exact_match`, `accuracy` or `invalid_rate`.

        Raises:
            TpvError: another score, or one that this task does not have.
        """
        if name not in SHARES:
            raise TpvError("interval of a score", expected=", ".join(SHARES), got=repr(name))
        return wilson(round(self.metric(name) * self.n), self.n)

    def _value(self, name: str) -> float | None:
        attribute = register.metric[name].about.get("field")
        value: float | None = self.further.get(name) if attribute is None else getattr(self, attribute)
        return value


def said_column(table: pa.Table) -> pa.ChunkedArray:
    """What greedy decoding says to each example, null where that is no label word; 0.1 called it `predicted`."""
    return table["said" if "said" in table.column_names else "predicted"]


class LabelTable(NamedTuple):
    """What a table of predictions of a label task holds, as arrays.

    Attributes:
        about: its metadata.
        labels: the label words, C of them.
        gold: label id of each example, [N].
        log_probs: of every label word, [N, C].
        label_tokens: number of tokens of every label word, [C].
        probabilities: of every label word, normalized and calibrated as the metadata says, [N, C].
    """

    about: dict[str, str]
    labels: list[str]
    gold: np.ndarray
    log_probs: np.ndarray
    label_tokens: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def of(cls, table: pa.Table) -> LabelTable:
        about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
        labels = about["labels"].split(SEPARATOR)
        number = {word: i for i, word in enumerate(labels)}
        gold = np.array([number[word] for word in table["gold"].to_pylist()])
        log_probs = np.asarray(table["log_probs"].combine_chunks().flatten()).reshape(len(gold), len(labels))
        tokens = np.array([int(length) for length in about["label_tokens"].split(SEPARATOR)])
        context = np.array(json.loads(about["context"])) if "context" in about else None
        calibrator = Calibrator.model_validate_json(about["calibrator"]) if "calibrator" in about else None
        normalize = checked_normalize(about.get("normalize"), calibrator)
        _, probabilities = ranked(log_probs, normalize, tokens, context, calibrator)
        return cls(about, labels, gold, log_probs, tokens, probabilities)


def score_predictions(table: pa.Table) -> Scores:
    """Scores of a table of predictions, as `Scores.predictions` gives it or as it was stored.

    Raises:
        TpvError: label words that are numbers, and rows without a number of their own.
    """
    if (table.schema.metadata or {}).get(b"output") == b"text":
        scores: Scores = register.output["text"].thing.scores(table)
        return scores
    about, labels, gold, log_probs, tokens, probabilities = LabelTable.of(table)
    number = {None: metrics.INVALID} | {word: i for i, word in enumerate(labels)}
    said = np.array([number[word] for word in said_column(table).to_pylist()])
    best = probabilities.argmax(axis=1)
    known: dict[str, Any] = {
        "positive": int(about["positive"]),
        "log_probs": log_probs,
        "label_tokens": tokens,
        "probabilities": probabilities,
    }
    of_labels = {"gold": gold, "said": said, "predicted": best}
    of_numbers: dict[str, Any] = {}
    if "value" in table.column_names:
        values = table["value"].to_pylist()
        if None in values:
            raise TpvError("predictions to correlate", expected="a value in every row", got="rows without one")
        numbers = [metrics.INVALID_NUMBER if p == metrics.INVALID else float(labels[p]) for p in said]
        of_numbers = {
            "gold": np.array(values),
            "said": np.array(numbers),
            "predicted": np.array([float(labels[p]) for p in best]),
        }
    found, further = metrics.measured(
        metrics.applicable(labels, numbers=bool(of_numbers)),
        lambda entry: known | (of_numbers if entry.about.get("scope") == "numbers" else of_labels),
    )
    return Scores(**found, n=len(gold), predictions=table, further=further)
