"""`tpv tune`."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from tpv.cli.options import DataOptions, ModelOptions, RecipeOptions, SetOption, TaskOptions, pairs
from tpv.cli.show import cell, console, load_prompt, load_vector, print_scores
from tpv.errors import CutWarning, TpvError

if TYPE_CHECKING:
    from tpv.models import Backbone
    from tpv.outputs.ranking import Calibrator
    from tpv.prompts.algebra import SoftPrompt
    from tpv.tasks import Task
    from tpv.training.learning_rate import LrTrial
    from tpv.training.recipe import Recipe

ORDER = 20


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


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for init, prompt and vector.")],
    model: ModelOptions,
    source: TaskOptions,
    data: DataOptions,
    prompt: PromptOptions,
    few: ShotOptions,
    training: RecipeOptions,
    vectors: VectorOptions,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="A name from `tpv tasks`, or a task file; repeatable with --composable."),
    ] = None,
    search: Annotated[
        bool, typer.Option("--find-lr", help="Try twelve rates for 40 steps each, show the curve, take the best.")
    ] = False,
    recompute: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory for more time, with the same result.")
    ] = False,
    calibrate: Annotated[
        Calibrate,
        typer.Option(
            help="Rows to calibrate probabilities on: the validation split, the training rows by cross-fitting"
            " (five trainings more, for few rows), or none."
        ),
    ] = Calibrate.validation,
) -> None:
    """Tune a soft prompt on a task; write its initialization, the tuned prompt, and their difference, the vector.

    The folder also gets `task.toml`, with the template, labels, model and calibrator: `tpv predict FOLDER TEXT` needs
    nothing else. With `--portable` or `--composable` it gets the vectors alone.

    Examples: `tpv tune --task mini/sst2 --tokens 20 --steps 150 --out runs/sst2`

    `tpv tune --model ./my-t5 --train reviews.csv --text review --label stars --out runs/stars`

    `tpv tune --composable --task mini/sst2 --task mini/trec --tokens 20 --steps 300 --out runs/both`
    """
    _check(task, prompt, few, vectors, search)
    if search and training.lr != "auto":
        raise TpvError("learning rate", expected="--lr or --find-lr", got="both")
    recipe = training.recipe()
    named: list[str | None] = [*task] if task else [None]
    chosen = [data.load(each, source) for each in named]
    if vectors.portable or vectors.composable:
        _tune_vectors(out, chosen, recipe, model, source, prompt, vectors, recompute)
    else:
        rows = chosen[0]
        if few.shots is not None:
            rows = rows.few_shot(few.shots, few.sample_seed)
        _tune_prompt(out, rows, _told(training, rows), model, prompt, search, recompute, calibrate)


def _check(
    task: list[str] | None, prompt: PromptOptions, few: ShotOptions, vectors: VectorOptions, search: bool
) -> None:
    """Refuse options that do not go together."""
    trained = vectors.portable or vectors.composable
    if not (trained or vectors.pool or vectors.replay):
        if task and len(task) > 1:
            raise TpvError("tasks to tune on", expected="one; several with --portable or --composable", got=len(task))
        return
    others = {
        "--from": prompt.start,
        "--shots": few.shots,
        "--find-lr": search,
        "--method": prompt.method != "prompt_tuning",
        "neither": not trained,
    }
    if any(others.values()):
        raise TpvError(
            "training vectors",
            expected="--portable or --composable, without --from, --shots, --find-lr and --method",
            got=", ".join(name for name, given in others.items() if given),
        )


def _told(training: RecipeOptions, task: Task) -> Recipe:
    """The recipe for a task, said where few rows decide it."""
    recipe, plain = training.recipe(task), training.recipe()
    if recipe != plain:
        kept = "its last checkpoint" if recipe.select == "last" else f"the checkpoint of the best {recipe.select}"
        typer.echo(
            f"{len(task.examples('train'))} training rows: {recipe.steps} steps of {recipe.batch_size} rows, and {kept}"
            " (--steps, --batch-size and --select set others)",
            err=True,
        )
    return recipe


def _tune_prompt(
    out: Path,
    data: Task,
    recipe: Recipe,
    model: ModelOptions,
    prompt: PromptOptions,
    search: bool,
    recompute: bool,
    calibrate: Calibrate,
) -> None:
    from tpv.evaluation.score import evaluate
    from tpv.evaluation.tuned import RESULT_FILES, About, Tuned, TunedScore
    from tpv.files import staged_folder
    from tpv.prompts.algebra import SoftPrompt
    from tpv.prompts.initializers import check, parse
    from tpv.training.fit import fit, method_of
    from tpv.training.learning_rate import find_lr

    method = method_of(prompt.method, pairs(prompt.set_))
    init = load_prompt(prompt.start) if prompt.start else None
    if init and prompt.tokens not in (None, init.num_tokens):
        raise TpvError("--tokens does not fit the prompt of --from", expected=init.num_tokens, got=prompt.tokens)
    tokens = 100 if prompt.tokens is None else prompt.tokens
    check(tokens, prompt.init_seed)
    initializer = parse(prompt.init)
    with staged_folder(out, replaces=RESULT_FILES) as folder:
        backbone = model.load(recompute=recompute)
        init = init or SoftPrompt.sample(backbone, tokens, prompt.init_seed, initializer)
        if search:
            recipe = replace(recipe, lr=_print_trials(find_lr(backbone, data, init, recipe)))
        tuned = fit(backbone, data, init, recipe, method=method)
        items = {"init": init, "prompt": tuned, "vector": tuned - init}
        for name, item in items.items():
            item.save(folder / f"{name}.safetensors")
        calibrator = _calibrator(backbone, data, init, tuned, recipe, calibrate)
        about = About(model=model.choice(), max_input_length=recipe.max_input_length, calibrator=calibrator)
        Tuned(data, tuned, about).save(folder)
    for name, item in items.items():
        typer.echo(f"wrote {out / name}.safetensors: {item!r}")
    use = "predict" if data.labels else "generate"
    typer.echo(f"wrote {out / 'task.toml'}: use the folder with tpv {use} {out} TEXT")
    if data.splits.get("test"):
        length = recipe.max_input_length
        scores = evaluate(backbone, data, [init], "test", max_input_length=length)
        with warnings.catch_warnings():  # what is truncated was said already
            warnings.simplefilter("ignore", CutWarning)
            scores += evaluate(backbone, data, [tuned], "test", max_input_length=length, calibrator=calibrator)
        kept = TunedScore.of(scores[1], data.name, "test", str(init.init))
        with staged_folder(out) as folder:  # what took long is there already, whatever becomes of the scoring
            Tuned(data, tuned, about.model_copy(update={"scores": (kept,)})).save(folder)
        print_scores(["init", "tuned"], [data, data], scores, "test")


def _calibrator(
    backbone: Backbone, data: Task, init: SoftPrompt, tuned: SoftPrompt, recipe: Recipe, on: Calibrate
) -> Calibrator | None:
    """A calibrator of the tuned prompt, where there are rows to fit one to."""
    from tpv.evaluation.calibrate import calibrate
    from tpv.training.cross_calibrate import cross_calibrate

    if on is Calibrate.none or not data.labels:
        return None
    if on is Calibrate.cross:
        folds = min(5, len(data.examples("train")))
        return cross_calibrate(backbone, data, init, recipe, folds=folds)
    if not data.splits.get("validation"):
        return None
    return calibrate(backbone, data, tuned, max_input_length=recipe.max_input_length)


def _tune_vectors(
    out: Path,
    tasks: list[Task],
    recipe: Recipe,
    model: ModelOptions,
    source: TaskOptions,
    prompt: PromptOptions,
    options: VectorOptions,
    recompute: bool,
) -> None:
    """Train vectors, write one file per task, and score them on an initialization they did not see."""
    from tpv.evaluation.portability import unseen_inits
    from tpv.evaluation.score import evaluate
    from tpv.files import staged_folder
    from tpv.methods.vectors import fit_vectors
    from tpv.prompts.initializers import check, parse

    tokens = 100 if prompt.tokens is None else prompt.tokens
    check(tokens, prompt.init_seed)
    initializer = parse(prompt.init)
    if not initializer.random:
        raise TpvError("--init of vectors", expected="one to draw from, such as vocabulary or normal", got=prompt.init)
    pool = [load_vector(path) for path in options.pool or []]
    old = [source.named(name) for vector in pool for name in vector.terms] if options.replay else []
    files = _file_names(tasks)
    with staged_folder(out) as folder:
        backbone = model.load(recompute=recompute)
        vectors = fit_vectors(
            backbone,
            tasks,
            recipe,
            composable=options.composable,
            num_tokens=tokens,
            init=initializer,
            seed=prompt.init_seed,
            pool=pool,
            replay=old,
        )
        for name, vector in zip(files, vectors, strict=True):
            vector.save(folder / f"{name}.safetensors")
    for name, vector in zip(files, vectors, strict=True):
        typer.echo(f"wrote {out / name}.safetensors: {vector!r}")
    (init,) = unseen_inits(backbone, tokens, 1, initializer)
    rows = [("init + vector", task, init + vector) for task, vector in zip(tasks, vectors, strict=True)]
    if options.composable:
        total = sum([*vectors[1:], *pool], vectors[0])
        rows += [("init + all vectors", task, init + total) for task in (*tasks, *old)]
    rows = [row for row in rows if row[1].splits.get("test")]
    if rows:
        names, judged, prompts = map(list, zip(*rows, strict=True))
        scores = evaluate(backbone, judged, prompts, "test", max_input_length=recipe.max_input_length)
        print_scores(names, judged, scores, "test")


def _file_names(tasks: list[Task]) -> list[str]:
    """A file name for each task's vector, refused before hours are spent."""
    files = ["vector"] if len(tasks) == 1 else [task.name.replace("/", "-") for task in tasks]
    if len(set(files)) < len(files):
        raise TpvError("tasks", expected="names that differ", got=files)
    for name in files:
        if not name.isprintable() or len(os.fsencode(f"{name}.safetensors")) > 255:
            raise TpvError(f"task {name!r} cannot be the name of a file", fix="give the task another name")
    return files


def _print_trials(trials: list[LrTrial]) -> float:
    """The curve of a search for the learning rate; its best rate."""
    from rich.table import Table

    ended = [trial.last for trial in trials if math.isfinite(trial.last)]
    if not ended:
        raise TpvError(
            "every learning rate broke the training",
            got=f"{trials[0].lr:.3g} to {trials[-1].lr:.3g}",
            fix="use precision fp32, or give --lr",
        )
    best = min(trials, key=lambda trial: trial.last)
    table = Table("lr", "loss at first", "loss at last", "", title="training loss by learning rate")
    for trial in trials:
        if math.isfinite(trial.last):
            bar = "█" * max(1, round(30 * trial.last / max(ended)))
            cells = (f"{trial.lr:.3g}", f"{trial.first:.3f}", f"{trial.last:.3f}", bar)
        else:
            cells = (f"{trial.lr:.3g}", f"{trial.first:.3f}", "broke", "")
        table.add_row(*map(cell, cells), style="bold" if trial is best else None)
    console().print(table)
    typer.echo(f"taking lr {best.lr:.3g}")
    return best.lr
