"""Predict and score: exact match without a generation loop, for one prompt or a bank of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, overload

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from tpv.errors import CutWarning, IncompatibleError, TpvError
from tpv.metrics import families
from tpv.models import Backbone, Tokens
from tpv.prompts.algebra import PromptMatrix, SoftPrompt, stack
from tpv.tasks import Example, Task
from tpv.training.recipe import MAX_INPUT_LENGTH

SEPARATOR = "\x1f"  # between the label words in a table's metadata
ENDLESS = 2**30  # tokens: no text is cut at this
TOKEN_BUDGET = 16384  # prompt and text positions in one forward pass
PASS_WORTH = 512  # positions of padding that cost as much as another pass does


@dataclass(frozen=True)
class Scores:
    """How one prompt does on one task. All but `loss`, `n` and the correlations are shares in [0, 1].

    Attributes:
        exact_match: output is exactly the gold label word.
        macro_f1: unweighted mean F1 over classes.
        positive_f1: F1 of the positive class, binary tasks only.
        invalid_rate: output is no label word.
        majority: exact match of always saying the commonest gold label.
        loss: mean negative log-likelihood of the gold label per token, in nats.
        n: number of examples.
        predictions: one row an example: `example`, `gold`, `predicted` (null where invalid),
            `log_probs` (one a label word, in the order of the schema metadata's `labels`); where label words are
            numbers also `value`, the row's own. The schema metadata of what `evaluate` gives also says which prompt
            was scored on which task and split.
        pearson: correlation of the numbers said with the rows' own, in [-1, 1], only where label words are numbers.
            An output that is no label word counts as -1, as in T5.
        spearman: the same of their ranks.
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

    def metric(self, name: str) -> float:
        """A score by the name task files use: `exact_match`, `macro_f1`, `f1`, `pearson`, `spearman`, or `loss`.

        Raises:
            TpvError: no such score, or one that this task does not have.
        """
        value = self.positive_f1 if name == "f1" else getattr(self, name, None)
        if not isinstance(value, float):
            raise TpvError(
                f"metric {name!r} is not defined here",
                expected="exact_match, macro_f1, f1 (two labels), pearson or spearman (label words that are numbers)",
            )
        return value

    def defined(self, name: str) -> bool:
        """Whether this task has the score of this name."""
        return getattr(self, "positive_f1" if name == "f1" else name) is not None


class PromptReader(Protocol):
    """What says which prompt a row of input reads: one for all, or one made from the row's text."""

    @property
    def num_tokens(self) -> int:
        """P, the rows of a prompt."""
        ...

    def read(self, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        """A bank [M, P, H] and, for each of these N inputs, the index [N] of its prompt in the bank."""
        ...


class SharedPrompt:
    """One prompt [P, H] for every row."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    @property
    def num_tokens(self) -> int:
        return self.tensor.shape[0]

    def read(self, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        return self.tensor[None], torch.zeros(len(sources), dtype=torch.long)


def assemble(
    distinct: Sequence[PromptReader], readers: Sequence[PromptReader], sources: Sequence[Tokens]
) -> tuple[Tensor, Tensor]:
    """One bank [M, P, H] for rows that read different prompts, and the index [N] into it.

    Args:
        distinct: every reader that may occur, in the order of the bank.
        readers: the reader of each row.
        sources: the rows.
    """
    members: dict[int, list[int]] = {}
    for row, reader in enumerate(readers):
        members.setdefault(id(reader), []).append(row)
    index = torch.empty(len(readers), dtype=torch.long)
    banks: list[Tensor] = []
    size = 0
    for reader in distinct:
        rows = members.get(id(reader))
        if rows:
            bank, local = reader.read([sources[i] for i in rows])
            index[torch.tensor(rows)] = size + local
            banks.append(bank)
            size += len(bank)
    return torch.cat(banks), index


def encode_examples(
    backbone: Backbone, rows: Sequence[Example], max_input_length: int, about: str | None = None
) -> list[Tokens]:
    """Tokens of the inputs of examples, each with its cue.

    Args:
        about: what the rows are, in words: with it, a `CutWarning` says how many were cut.
    """
    texts, cues = [row.source for row in rows], [row.cue for row in rows]
    encoded = backbone.encode_sources(texts, max_input_length, cues)
    full = [i for i, tokens in enumerate(encoded) if len(tokens) >= max_input_length] if about else []
    if full:
        whole = backbone.encode_sources([texts[i] for i in full], ENDLESS, [cues[i] for i in full])
        cut = sum(len(tokens) > len(encoded[i]) for i, tokens in zip(full, whole, strict=True))
        if cut:
            warnings.warn(CutWarning.of(cut, len(rows), about or "", max_input_length), stacklevel=2)
    return encoded


def encode_texts(backbone: Backbone, texts: Sequence[str], task: Task, max_input_length: int) -> list[Tokens]:
    """Tokens of a user's texts, as they are, each with the task's cue.

    Raises:
        TpvError: no texts, an empty text, one that is not UTF-8.
    """
    _check_length(max_input_length)
    if isinstance(texts, str):
        raise TpvError("texts to label", expected="a sequence of texts", got="one text", fix="put it in a list")
    if not texts:
        raise TpvError("texts to label", expected="at least one", got="none")
    for number, text in enumerate(texts):
        if not text.strip():
            raise TpvError(f"text {number + 1} is empty", fix="fill it in or drop it")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise TpvError(f"text {number + 1} is not UTF-8", fix="convert it first")
    rows = [Example(str(number), text, "", 0, task.spec.cue) for number, text in enumerate(texts)]
    return encode_examples(backbone, rows, max_input_length, "the input")


def label_tokens(backbone: Backbone, task: Task) -> list[Tokens]:
    """Token ids of a task's label words.

    Raises:
        TpvError: two label words that the tokenizer writes the same way.
    """
    tokens = [backbone.encode_target(word) for word in task.labels]
    for i, row in enumerate(tokens):
        if row in tokens[:i]:
            raise TpvError(
                f"labels {task.labels[tokens.index(row)]!r} and {task.labels[i]!r} of task {task.name!r} are the "
                f"same tokens to {backbone.identity.name}",
                fix="choose label words that differ",
            )
    return tokens


def check_bank(backbone: Backbone, prompts: Sequence[SoftPrompt]) -> Tensor:
    """The bank [K, P, H] of these prompts, if they belong to this model.

    Raises:
        IncompatibleError: a prompt of another model, or of another shape than the first.
    """
    for prompt in prompts:
        if not isinstance(prompt, SoftPrompt):
            raise TpvError(
                "a model reads prompts",
                expected="SoftPrompt",
                got=type(prompt).__name__,
                fix="add a vector to a prompt first",
            )
        if prompt.model.fingerprint != backbone.identity.fingerprint:
            raise IncompatibleError(
                "this prompt belongs to another model",
                expected=backbone.identity,
                got=prompt.model,
                fix="load the model it was made for",
            )
    return stack(prompts)


def paired(tasks: Task | Sequence[Task], count: int) -> list[Task]:
    """One task for all of `count` prompts, or as many tasks as prompts.

    Raises:
        TpvError: another number of tasks.
    """
    if isinstance(tasks, Task):
        return [tasks] * count
    if isinstance(tasks, str) or not all(isinstance(task, Task) for task in tasks):
        raise TpvError("tasks", expected="a Task, or a sequence of them", got=f"{tasks!r:.60}", fix="use tpv.load_task")
    if len(tasks) != count:
        raise TpvError("number of tasks", expected=f"1, or {count} as there are prompts", got=len(tasks))
    return list(tasks)


def chunks(costs: Sequence[int], budget: int) -> list[list[int]]:
    """Indices sorted by cost and cut into passes of rows x largest cost, within `budget` (at least 1 row).

    A pass also ends where the padding that this saves its other rows is worth another pass.
    """
    order = sorted(range(len(costs)), key=lambda i: costs[i], reverse=True)
    result: list[list[int]] = []
    start = 0
    while start < len(order):
        longest = costs[order[start]]
        full = min(len(order), start + max(1, budget // max(1, longest)))
        end = start + 1
        while end < full and (longest - costs[order[end]]) * (full - end) <= PASS_WORTH:
            end += 1
        result.append(order[start:end])
        start = end
    return result


def _check_length(max_input_length: object) -> None:
    good = isinstance(max_input_length, int) and not isinstance(max_input_length, bool)
    if not good or not 1 <= max_input_length < 2**31:  # type: ignore[operator]
        raise TpvError("max_input_length", expected="a whole number from 1 to 2^31", got=f"{max_input_length!r:.40}")


def _score_rows(
    backbone: Backbone,
    readers: Sequence[PromptReader],
    index: Sequence[int],
    sources: Sequence[Tokens],
    labels: Sequence[Tokens],
    advance: Callable[[int], object] | None,
    cut: Sequence[Tokens] | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N, C] and greedy labels [N] of many rows, like lengths together.

    `cut` are the labels' first tokens, where those are enough for a match.
    """
    log_probs, greedy = torch.empty(len(sources), len(labels)), torch.empty(len(sources), dtype=torch.long)
    for part in chunks([readers[index[i]].num_tokens + len(row) for i, row in enumerate(sources)], TOKEN_BUDGET):
        mine = [sources[i] for i in part]
        bank, own = assemble(readers, [readers[index[i]] for i in part], mine)
        scores = backbone.score_labels(bank, own, mine, labels)
        rows = torch.tensor(part)
        log_probs[rows], greedy[rows] = scores.log_probs, scores.greedy
        if cut is not None:
            greedy[rows] = backbone.score_labels(bank, own, mine, cut).greedy
        if advance:
            advance(len(part))
    return log_probs, greedy


def greedy_labels(
    backbone: Backbone, prompts: Sequence[SoftPrompt], sources: Sequence[Tokens], labels: Sequence[Tokens]
) -> NDArray[np.int64]:
    """What each of K prompts says to each of N inputs, as label ids [K, N]; -1 where it is no label word.

    Raises:
        IncompatibleError: see `check_bank`.
    """
    readers = [SharedPrompt(tensor) for tensor in check_bank(backbone, prompts)]
    index = [k for k in range(len(readers)) for _ in sources]
    _, greedy = _score_rows(backbone, readers, index, [*sources] * len(readers), labels, None)
    return greedy.view(len(readers), len(sources)).numpy()


def _predictions(task: Task, rows: Sequence[Example], log_probs: Tensor, greedy: Tensor, lengths: Tensor) -> pa.Table:
    if not torch.isfinite(log_probs).all():
        raise TpvError(f"the model's scores on task {task.name!r} are not finite", fix="use precision fp32")
    columns = {
        "example": [row.id for row in rows],
        "gold": [row.target for row in rows],
        "predicted": pa.array(
            [None if p == families.INVALID else task.labels[p] for p in greedy.tolist()], pa.string()
        ),
        "log_probs": pa.FixedSizeListArray.from_arrays(log_probs.flatten().numpy(), log_probs.shape[1]),
    }
    if task.spec.numbers:
        columns["value"] = pa.array([row.value for row in rows], pa.float64())
    return pa.table(columns).replace_schema_metadata(
        {
            "task": task.name,
            "labels": SEPARATOR.join(task.labels),
            "label_tokens": SEPARATOR.join(str(length) for length in lengths.tolist()),
            "positive": str(task.spec.positive),
        }
    )


def score_predictions(table: pa.Table) -> Scores:
    """Scores of a table of predictions, as `Scores.predictions` gives it or as it was stored."""
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    labels = about["labels"].split(SEPARATOR)
    lengths = np.array([int(length) for length in about["label_tokens"].split(SEPARATOR)])
    number = {None: families.INVALID} | {word: i for i, word in enumerate(labels)}
    gold = [number[word] for word in table["gold"].to_pylist()]
    predicted = [number[word] for word in table["predicted"].to_pylist()]
    log_probs = np.asarray(table["log_probs"].combine_chunks().flatten()).reshape(len(gold), len(labels))
    values: list[float] | None = table["value"].to_pylist() if "value" in table.column_names else None
    if values is not None:
        if None in values:
            raise TpvError("predictions to correlate", expected="a value in every row", got="rows without one")
        numbers = [families.INVALID_NUMBER if p == families.INVALID else float(labels[p]) for p in predicted]
    said = log_probs[np.arange(len(gold)), gold].sum(dtype=np.float64)
    return Scores(
        exact_match=families.exact_match(gold, predicted),
        macro_f1=families.macro_f1(gold, predicted),
        positive_f1=families.positive_f1(gold, predicted, int(about["positive"])) if len(labels) == 2 else None,
        invalid_rate=families.invalid_rate(gold, predicted),
        majority=families.majority(gold, predicted),
        loss=float(-said / lengths[gold].sum()),
        n=len(gold),
        predictions=table,
        pearson=None if values is None else families.pearson(values, numbers),
        spearman=None if values is None else families.spearman(values, numbers),
    )


@overload
def evaluate(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    prompts: SoftPrompt,
    split: str = ...,
    *,
    max_input_length: int = ...,
    compare_characters: int | None = ...,
    advance: Callable[[int], object] | None = ...,
) -> Scores: ...
@overload
def evaluate(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    prompts: Sequence[SoftPrompt],
    split: str = ...,
    *,
    max_input_length: int = ...,
    compare_characters: int | None = ...,
    advance: Callable[[int], object] | None = ...,
) -> list[Scores]: ...
def evaluate(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    prompts: SoftPrompt | Sequence[SoftPrompt],
    split: str = "test",
    *,
    max_input_length: int = MAX_INPUT_LENGTH,
    compare_characters: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> Scores | list[Scores]:
    """Score one prompt, or a sequence of them together, on a split.

    An example counts as a match exactly when greedy decoding would emit its label word and stop;
    this is decided from one encoder pass and one short decoder pass over the label words.

    Args:
        tasks: one task for all prompts, or one a prompt.
        prompts: a prompt, or a sequence of prompts of one shape.
        split: `train`, `validation` or `test`.
        max_input_length: texts are cut at this many tokens.
        compare_characters: an output matches a label word if their first so many characters are the same (the
            authors' code compares 16: quirk 5); by default all of it.
        advance: called with the number of rows done, for a progress bar.

    Returns:
        `Scores` for one prompt, a list in the order of the prompts otherwise.

    Raises:
        TpvError: a prompt of another model or shape, an empty split, labels the model cannot tell apart.

    Warns:
        CutWarning: texts longer than `max_input_length`, with their number.
    """
    bank_of = [prompts] if isinstance(prompts, PromptMatrix) else list(prompts)
    bank = check_bank(backbone, bank_of)
    task_of = paired(tasks, len(bank_of))
    _check_length(max_input_length)
    parts = [(task, SharedPrompt(tensor)) for task, tensor in zip(task_of, bank, strict=True)]
    results = [
        _signed(score, prompt, split)
        for score, prompt in zip(
            evaluate_readers(backbone, parts, split, max_input_length, compare_characters, advance),
            bank_of,
            strict=True,
        )
    ]
    return results[0] if isinstance(prompts, SoftPrompt) else results


def _signed(scores: Scores, prompt: PromptMatrix, split: str) -> Scores:
    """Scores whose predictions say what was scored, so that nobody has to be believed about it later."""
    who = json.dumps({"digest": prompt.digest, "identity": prompt.identity()}, sort_keys=True)
    about = {**scores.predictions.schema.metadata, "split": split, "scored": who}
    return replace(scores, predictions=scores.predictions.replace_schema_metadata(about))


def evaluate_readers(
    backbone: Backbone,
    parts: Sequence[tuple[Task, PromptReader]],
    split: str,
    max_input_length: int,
    compare_characters: int | None = None,
    advance: Callable[[int], object] | None = None,
    tell: bool = True,
) -> list[Scores]:
    """Score what reads prompts, each on its task; see `evaluate`, which this does the work of.

    Args:
        tell: warn of texts that are cut.
    """
    results: dict[int, Scores] = {}
    members: dict[int, list[int]] = {}
    for k, (task, _) in enumerate(parts):
        members.setdefault(id(task), []).append(k)
    for group in members.values():
        task = parts[group[0]][0]
        rows = task.examples(split)
        labels = label_tokens(backbone, task)
        cut = None
        if compare_characters is not None and any(len(word) > compare_characters for word in task.labels):
            cut = [_first_tokens(backbone, word, compare_characters) for word in task.labels]
        about = f"task {task.name!r} ({split})" if tell else None
        sources = encode_examples(backbone, rows, max_input_length, about)
        index = [i for i in range(len(group)) for _ in rows]
        readers = [parts[k][1] for k in group]
        log_probs, greedy = _score_rows(backbone, readers, index, sources * len(group), labels, advance, cut)
        lengths = torch.tensor([len(row) for row in labels])
        for position, k in enumerate(group):
            block = slice(position * len(rows), (position + 1) * len(rows))
            results[k] = score_predictions(_predictions(task, rows, log_probs[block], greedy[block], lengths))
    return [results[k] for k in range(len(parts))]


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


def predict(
    backbone: Backbone,
    prompt: SoftPrompt,
    task: Task,
    texts: Sequence[str],
    *,
    max_input_length: int = MAX_INPUT_LENGTH,
) -> pa.Table:
    """Label new texts: a table `source`, `predicted` (null where greedy decoding says no label word),
    `log_probs` (one a label word, order in the schema metadata's `labels`).

    Args:
        task: gives the label words; its template is not applied, `texts` go in as they are.

    Raises:
        TpvError: no texts, an empty text, or a prompt of another model.
    """
    bank = check_bank(backbone, [prompt])
    sources = encode_texts(backbone, texts, task, max_input_length)
    labels = label_tokens(backbone, task)
    log_probs, greedy = _score_rows(backbone, [SharedPrompt(bank[0])], [0] * len(texts), sources, labels, None)
    return pa.table(
        {
            "source": list(texts),
            "predicted": pa.array([task.labels[p] if p >= 0 else None for p in greedy.tolist()], pa.string()),
            "log_probs": pa.FixedSizeListArray.from_arrays(log_probs.flatten().numpy(), log_probs.shape[1]),
        }
    ).replace_schema_metadata({"task": task.name, "labels": SEPARATOR.join(task.labels)})
