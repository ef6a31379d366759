"""What a model answers to rows of a task, whatever reads its prompts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tpv.errors import TpvError, TpvWarning
from tpv.evaluation.bank import PromptReader, assemble, chunks
from tpv.evaluation.encode import encode_examples
from tpv.models import Backbone, Tokens
from tpv.models.generation import Decoding
from tpv.outputs import output_of
from tpv.outputs.label import Answers, label_tokens
from tpv.outputs.ranking import Calibrator, checked_normalize
from tpv.outputs.text import Texts
from tpv.tasks import Example, Task
from tpv.tasks.spec import render

# what of each label word an output has to begin with to match it; None for all of it
MatchRule = Callable[[Backbone, Task], Sequence[Tokens] | None]


def score_rows(
    backbone: Backbone,
    readers: Sequence[PromptReader],
    index: Sequence[int],
    sources: Sequence[Tokens],
    labels: Sequence[Tokens],
    advance: Callable[[int], object] | None,
    prefixes: Sequence[Tokens] | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [N, C] and greedy labels [N] of many rows, like lengths together.

    `prefixes` are the labels' first tokens, where those are enough for a match.
    """
    log_probs, greedy = torch.empty(len(sources), len(labels)), torch.empty(len(sources), dtype=torch.long)
    for part in chunks(
        [readers[index[i]].num_tokens + len(row) for i, row in enumerate(sources)],
        backbone.scoring_positions,
        backbone.pass_worth,
    ):
        mine = [sources[i] for i in part]
        bank, own = assemble(readers, [readers[index[i]] for i in part], mine)
        scores = backbone.score_labels(bank, own, mine, labels)
        rows = torch.tensor(part)
        log_probs[rows], greedy[rows] = scores.log_probs, scores.greedy
        if prefixes is not None:
            greedy[rows] = backbone.score_labels(bank, own, mine, prefixes).greedy
        if advance:
            advance(len(part))
    return log_probs, greedy


def label_answers(
    backbone: Backbone,
    task: Task,
    readers: Sequence[PromptReader],
    sources: Sequence[Tokens],
    *,
    match: MatchRule | None = None,
    normalize: str | None = None,
    calibrator: Calibrator | None = None,
    advance: Callable[[int], object] | None = None,
) -> list[Answers]:
    """What each of K readers' prompts says to each of N inputs of a label task.

    Raises:
        TpvError: label words that the model cannot tell apart, or another calibrator's; an unknown `normalize`.
    """
    labels = label_tokens(backbone, task)
    if not labels:
        raise TpvError(f"task {task.name!r}", expected="label words", got="a text task", fix="use tpv.generate")
    if calibrator is not None:
        calibrator.check(task.labels)
    way = checked_normalize(normalize, calibrator)
    prefixes = None if match is None else match(backbone, task)
    index = [k for k in range(len(readers)) for _ in sources]
    log_probs, greedy = score_rows(backbone, readers, index, [*sources] * len(readers), labels, advance, prefixes)
    shared = Answers(log_probs, greedy, torch.tensor([len(row) for row in labels]), way, None, calibrator)
    parts = zip(log_probs.split(len(sources)), greedy.split(len(sources)), strict=True)
    answers = [replace(shared, log_probs=mine, greedy=said) for mine, said in parts]
    if way == "context":
        empty = blank_tokens(backbone, task)
        blank, _ = score_rows(backbone, readers, range(len(readers)), [empty] * len(readers), labels, None)
        answers = [replace(said, context=row) for said, row in zip(answers, blank, strict=True)]
    return answers


def text_answers(
    backbone: Backbone,
    task: Task,
    readers: Sequence[PromptReader],
    rows: Sequence[Example],
    sources: Sequence[Tokens],
    *,
    decoding: Decoding | None = None,
    advance: Callable[[int], object] | None = None,
) -> list[Texts]:
    """What each of K readers' prompts says to each of N inputs of a text task, and how likely the gold texts are.

    Args:
        decoding: how text is generated; by default greedily, up to the length of the longest gold text in training.
    """
    targets = output_of(task.spec).targets(backbone, task, rows)
    how = decoding or Decoding(max_new_tokens=longest_target(backbone, task, targets))
    texts = generate_rows(
        backbone, readers, [k for k in range(len(readers)) for _ in rows], [*sources] * len(readers), how, advance
    )
    answers = []
    for k, reader in enumerate(readers):
        nll = torch.empty(len(rows))
        for part in chunks(
            [reader.num_tokens + len(sources[i]) + len(targets[i]) for i in range(len(rows))],
            backbone.scoring_positions,
            backbone.pass_worth,
        ):
            mine = [sources[i] for i in part]
            with torch.inference_mode():
                bank, own = assemble([reader], [reader] * len(part), mine)
                nll[torch.tensor(part)] = backbone.nll(bank, own, mine, [targets[i] for i in part]).cpu()
        said = texts[k * len(rows) : (k + 1) * len(rows)]
        answers.append(Texts(said, nll, torch.tensor([len(target) for target in targets])))
    return answers


def generate_rows(
    backbone: Backbone,
    readers: Sequence[PromptReader],
    index: Sequence[int],
    sources: Sequence[Tokens],
    decoding: Decoding,
    advance: Callable[[int], object] | None = None,
    tell: Callable[[str], object] | None = None,
) -> list[str]:
    """The text that each of N rows is answered with; rows that read different prompts are generated together.

    Args:
        index: the reader of each row.
        tell: called with pieces of text as they come, where there is one row.
    """
    found = [""] * len(sources)
    more = decoding.max_new_tokens
    costs = [(readers[index[i]].num_tokens + len(row) + more) * decoding.num_beams for i, row in enumerate(sources)]
    for part in chunks(costs, backbone.scoring_positions, backbone.pass_worth):
        mine = [sources[i] for i in part]
        with torch.inference_mode():
            bank, own = assemble(readers, [readers[index[i]] for i in part], mine)
            rows = backbone.generate(bank, own, mine, decoding, tell if len(sources) == 1 else None)
        for i, row in zip(part, rows, strict=True):
            found[i] = backbone.decode(row).strip()
        if advance:
            advance(len(part))
    return found


def longest_target(backbone: Backbone, task: Task, targets: Sequence[Tokens] = ()) -> int:
    """Tokens of the longest gold text: of the training rows where there are any, else of these."""
    train = task.splits.get("train", ())
    if train:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TpvWarning)  # training says what is truncated
            targets = output_of(task.spec).targets(backbone, task, train)
    return max(map(len, targets), default=task.spec.max_target_length)


def blank_tokens(backbone: Backbone, task: Task) -> Tokens:
    """Tokens of the task's template with nothing put in.

    Raises:
        TpvError: there are none.
    """
    content = render(task.spec.template, dict.fromkeys(task.spec.fields, ""))
    (tokens,) = encode_examples(backbone, [Example("", content, "", 0, task.spec.cue)], 2**30)
    if not tokens:
        raise TpvError(
            f"normalize 'context' of task {task.name!r}",
            expected="a template or cue with words of its own",
            got="no tokens without a text",
        )
    return tokens
