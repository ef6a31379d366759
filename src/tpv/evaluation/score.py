"""Score prompts: exact match without a generation loop, for one prompt or a bank of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from tpv.errors import TpvError
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.evaluation.answers import MatchRule, label_answers, score_rows, text_answers
from tpv.evaluation.bank import PromptReader, SharedPrompt, check_bank, paired
from tpv.evaluation.encode import check_length, encode_examples
from tpv.evaluation.ensemble import Ensemble
from tpv.models import Backbone, Tokens
from tpv.models.generation import Decoding
from tpv.outputs import output_of
from tpv.outputs.label import Answers
from tpv.outputs.ranking import Calibrator
from tpv.outputs.scores import Scores
from tpv.outputs.text import Texts
from tpv.prompts.algebra import SoftPrompt
from tpv.prompts.matrix import PromptMatrix
from tpv.tasks import Task


def greedy_labels(
    backbone: Backbone, prompts: Sequence[SoftPrompt], sources: Sequence[Tokens], labels: Sequence[Tokens]
) -> NDArray[np.int64]:
    """What each of K prompts says to each of N inputs, as label ids [K, N]; -1 where it is no label word.

    Raises:
        IncompatibleError: see `check_bank`.
    """
    readers = [SharedPrompt(tensor) for tensor in check_bank(backbone, prompts)]
    index = [k for k in range(len(readers)) for _ in sources]
    _, greedy = score_rows(backbone, readers, index, [*sources] * len(readers), labels, None)
    return greedy.view(len(readers), len(sources)).numpy()


@overload
def evaluate(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    prompts: SoftPrompt | Ensemble,
    split: str = ...,
    *,
    max_input_length: int = ...,
    match: MatchRule | None = ...,
    normalize: str | None = ...,
    calibrator: Calibrator | None = ...,
    decoding: Decoding | None = ...,
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
    match: MatchRule | None = ...,
    normalize: str | None = ...,
    calibrator: Calibrator | None = ...,
    decoding: Decoding | None = ...,
    advance: Callable[[int], object] | None = ...,
) -> list[Scores]: ...


def evaluate(
    backbone: Backbone,
    tasks: Task | Sequence[Task],
    prompts: SoftPrompt | Ensemble | Sequence[SoftPrompt],
    split: str = "test",
    *,
    max_input_length: int = MAX_INPUT_LENGTH,
    match: MatchRule | None = None,
    normalize: str | None = None,
    calibrator: Calibrator | None = None,
    decoding: Decoding | None = None,
    advance: Callable[[int], object] | None = None,
) -> Scores | list[Scores]:
    """Score one prompt, or a sequence of them together, on a split.

    An example counts as a match exactly when greedy decoding would emit its label word and stop;
    this is decided from one encoder pass and one short decoder pass over the label words. Text is generated.

    Args:
        tasks: one task for all prompts, or one a prompt.
        prompts: a prompt, a sequence of prompts of one shape, or an ensemble that `tpv.transfer` chose, of which exact
            match is 0, since it says nothing.
        split: `train`, `validation` or `test`.
        max_input_length: texts are truncated to this many tokens.
        match: which tokens of a label word an output has to begin with to match it; by default all of them.
        normalize: how the label words' log-probabilities are normalized before they are ranked: `none`; `tokens`, by
            the number of a word's tokens; `context`, less the word's log-probability without a text (Zhao et al.,
            2021). By default as the calibrator was fitted, or `none`. Exact match does not depend on it.
        calibrator: makes the probabilities, see `tpv.calibrate`.
        decoding: how a text task's answers are generated; by default greedily, up to the length of the longest gold
            text in training.
        advance: called with the number of rows done, for a progress bar.

    Returns:
        `Scores` for one prompt, a list in the order of the prompts otherwise.

    Raises:
        TpvError: a prompt of another model or shape, an empty split, labels the model cannot tell apart.

    Warns:
        CutWarning: texts longer than `max_input_length`, with their number.
    """
    if isinstance(prompts, Ensemble):
        return _of_ensemble(backbone, tasks, prompts, split, max_input_length, calibrator, normalize)
    bank_of = [prompts] if isinstance(prompts, PromptMatrix) else list(prompts)
    bank = check_bank(backbone, bank_of)
    task_of = paired(tasks, len(bank_of))
    check_length(max_input_length)
    parts = [(task, SharedPrompt(tensor)) for task, tensor in zip(task_of, bank, strict=True)]
    found = evaluate_readers(
        backbone,
        parts,
        split,
        max_input_length,
        match,
        advance,
        normalize=normalize,
        calibrator=calibrator,
        decoding=decoding,
    )
    results = [_signed(score, prompt, split) for score, prompt in zip(found, bank_of, strict=True)]
    return results[0] if isinstance(prompts, SoftPrompt) else results


def _of_ensemble(
    backbone: Backbone,
    task: Task | Sequence[Task],
    ensemble: Ensemble,
    split: str,
    max_input_length: int,
    calibrator: Calibrator | None,
    normalize: str | None,
) -> Scores:
    """The scores of an ensemble on one task."""
    if not isinstance(task, Task):
        raise TpvError("tasks of an ensemble", expected="one Task", got=type(task).__name__)
    check_length(max_input_length)
    rows, output = task.examples(split), output_of(task.spec)
    sources = encode_examples(backbone, rows, max_input_length, f"task {task.name!r} ({split})")
    said = ensemble.answers(backbone, task, sources, calibrator, normalize)
    return output.scores(output.predictions(said, task, rows))


def _signed(scores: Scores, prompt: PromptMatrix, split: str) -> Scores:
    """Scores whose predictions record what was scored, so that it can be checked later."""
    who = json.dumps({"digest": prompt.digest, "identity": prompt.identity()}, sort_keys=True)
    about = {**scores.predictions.schema.metadata, "split": split, "scored": who}
    return replace(scores, predictions=scores.predictions.replace_schema_metadata(about))


def evaluate_readers(
    backbone: Backbone,
    parts: Sequence[tuple[Task, PromptReader]],
    split: str,
    max_input_length: int,
    match: MatchRule | None = None,
    advance: Callable[[int], object] | None = None,
    tell: bool = True,
    *,
    normalize: str | None = None,
    calibrator: Calibrator | None = None,
    decoding: Decoding | None = None,
) -> list[Scores]:
    """Score what reads prompts, each on its task; see `evaluate`, which this does the work of.

    Args:
        tell: warn of texts that are truncated.
    """
    results: dict[int, Scores] = {}
    members: dict[int, list[int]] = {}
    for k, (task, _) in enumerate(parts):
        members.setdefault(id(task), []).append(k)
    for group in members.values():
        task = parts[group[0]][0]
        rows = task.examples(split)
        output = output_of(task.spec)
        about = f"task {task.name!r} ({split})" if tell else None
        sources = encode_examples(backbone, rows, max_input_length, about)
        readers = [parts[k][1] for k in group]
        answers: Sequence[Answers] | Sequence[Texts]
        if output.generated:
            answers = text_answers(backbone, task, readers, rows, sources, decoding=decoding, advance=advance)
        else:
            answers = label_answers(
                backbone,
                task,
                readers,
                sources,
                match=match,
                normalize=normalize,
                calibrator=calibrator,
                advance=advance,
            )
        for k, said in zip(group, answers, strict=True):
            results[k] = output.scores(output.predictions(said, task, rows))
    return [results[k] for k in range(len(parts))]
