"""Options of `tpv tune`, and what it says before it trains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from tpv.cli.options import DataOptions, SetOption
from tpv.errors import TpvError

if TYPE_CHECKING:
    from tpv.models import Backbone
    from tpv.prompts.algebra import SoftPrompt
    from tpv.tasks import Task
    from tpv.training.cross_validate import CrossValidation
    from tpv.training.fit import PromptMethod
    from tpv.training.recipe import Recipe


class Calibrate(StrEnum):
    """The rows that probabilities are calibrated on."""

    validation = "validation"
    cross = "cross"
    none = "none"


@dataclass
class PromptOptions:
    """The prompt and its initialization."""

    title: ClassVar[str] = "Prompt"
    start: Annotated[Path | None, typer.Option("--from", help="Initialize with this prompt file.")] = None
    tokens: Annotated[int | None, typer.Option("--tokens", "-p", help="P, rows of the prompt.  [default: 100]")] = None
    init: Annotated[
        str,
        typer.Option(
            help="Initialization: `vocabulary`, `normal`, `text:WORDS`, or another initializer, NAME:key=value,…"
        ),
    ] = "vocabulary"
    init_seed: Annotated[int, typer.Option(help="Seed of the initialization.")] = 0
    method: Annotated[str, typer.Option(help="Training method, see `tpv registry method`.")] = "prompt_tuning"
    set_: SetOption = None


@dataclass
class ShotOptions:
    """Training on a few rows."""

    title: ClassVar[str] = "Few shots"
    shots: Annotated[
        int | None, typer.Option(help="Train on this many rows in total, sampled with the class distribution kept.")
    ] = None
    sample_seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0


@dataclass
class VectorOptions:
    """Training vectors themselves instead of a prompt."""

    title: ClassVar[str] = "Vectors"
    portable: Annotated[
        bool, typer.Option("--portable", help="Train the vector itself, under a fresh initialization at every step.")
    ] = False
    composable: Annotated[
        bool, typer.Option("--composable", help="Portable, and beside the vectors of every other --task and of --pool.")
    ] = False
    pool: Annotated[list[Path] | None, typer.Option("--pool", help="Existing vector to keep frozen (repeatable).")] = (
        None
    )
    replay: Annotated[
        bool, typer.Option("--replay", help="Also train on rows of the pool's tasks, so that they are not harmed.")
    ] = False


@dataclass
class JudgeOptions:
    """What comes before and after the training."""

    title: ClassVar[str] = "Before and after"
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print rows, truncated texts, steps and estimated time; train and write nothing."
        ),
    ] = False
    search: Annotated[
        bool, typer.Option("--find-lr", help="Try twelve rates for 40 steps each, show the curve, take the best.")
    ] = False
    folds: Annotated[
        int | None,
        typer.Option(
            help="For few rows: judge by cross-validation in this many folds, then train on all. No rows are held out."
        ),
    ] = None
    calibrate: Annotated[
        Calibrate,
        typer.Option(
            help="Rows to calibrate probabilities on: the validation split, the training rows by cross-fitting"
            " (five trainings more, for few rows), or none. With --folds, those of the folds."
        ),
    ] = Calibrate.validation


def folded(recipe: Recipe, folds: int, data: DataOptions) -> Recipe:
    """The recipe for cross-validation, which leaves no rows to choose a checkpoint by."""
    if data.validation is not None or recipe.select not in ("loss", "last") or recipe.patience is not None:
        raise TpvError(
            "--folds", expected="no --validation, --select or --patience: all rows train, and the last step counts"
        )
    if folds < 2:
        raise TpvError("--folds", expected="at least 2", got=folds)
    return replace(recipe, select="last")


def say_plan(
    backbone: Backbone, data: Task, init: SoftPrompt, recipe: Recipe, method: PromptMethod, judge: JudgeOptions
) -> None:
    """Print what will be done: the answer of a dry run, else on standard error."""
    from tpv.training.learning_rate import RATES, STEPS
    from tpv.training.preview import MEASURED, preview

    steps = recipe.total_steps(len(data.examples("train")))
    folds = judge.folds or (min(5, len(data.examples("train"))) if judge.calibrate is Calibrate.cross else 0)
    plan = preview(
        backbone,
        data,
        init,
        recipe,
        method=method,
        folds=folds,
        trial_steps=STEPS * len(RATES) if judge.search else 0,
        measure=judge.dry_run or steps > 10 * MEASURED,
    )
    for line in plan.lines():
        typer.echo(line, err=not judge.dry_run)


def cross_validated(
    backbone: Backbone, data: Task, init: SoftPrompt, recipe: Recipe, method: PromptMethod, judge: JudgeOptions
) -> CrossValidation | None:
    """What cross-validation says of the rows, printed; None where none is asked for."""
    from tpv.training.cross_validate import cross_validate

    if judge.folds is None:
        return None
    found = cross_validate(backbone, data, init, recipe, folds=judge.folds, method=method)
    name = "accuracy" if data.labels else "exact_match"
    low, high = found.scores.interval(name)
    each = ", ".join(f"{part.metric(name):.2f}" for part in found.folds)
    share = f"{name.replace('_', ' ')} {found.scores.metric(name):.3f} on {found.scores.n} rows"
    typer.echo(f"{judge.folds}-fold cross-validation: {share}, 95 % interval {low:.2f} to {high:.2f} (folds {each})")
    if data.labels and low <= found.scores.majority:
        most = f"{found.scores.majority:.3f}"
        typer.echo(f"that is not clearly better than always saying the most frequent label ({most})")
    return found
