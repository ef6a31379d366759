"""`tpv tune`."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tpv.cli.options import DataOptions, ModelOptions, RecipeOptions, TaskOptions, pairs, task_names
from tpv.cli.show import cell, console, load_prompt, load_vector, print_scores
from tpv.cli.tuning import (
    Calibrate,
    JudgeOptions,
    PromptOptions,
    ShotOptions,
    VectorOptions,
    cross_validated,
    folded,
    say_plan,
)
from tpv.errors import CutWarning, TpvError

if TYPE_CHECKING:
    from tpv.evaluation.tuned import About
    from tpv.models import Backbone
    from tpv.outputs.ranking import Calibrator
    from tpv.prompts.algebra import SoftPrompt
    from tpv.tasks import Task
    from tpv.training.cross_validate import CrossValidation
    from tpv.training.learning_rate import LrTrial
    from tpv.training.recipe import Recipe

ORDER = 20


def command(
    model: ModelOptions,
    source: TaskOptions,
    data: DataOptions,
    prompt: PromptOptions,
    few: ShotOptions,
    training: RecipeOptions,
    vectors: VectorOptions,
    judge: JudgeOptions,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for init, prompt and vector; required unless --dry-run.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            "-t",
            help="A name from `tpv tasks`, or a task file; repeatable with --composable.",
            autocompletion=task_names,
        ),
    ] = None,
    recompute: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory for more time, with the same result.")
    ] = False,
) -> None:
    """Tune a soft prompt on a task; write its initialization, the tuned prompt, and their difference, the vector.

    The folder also gets `task.toml`, with the template, labels, model and calibrator: `tpv predict FOLDER TEXT` needs
    nothing else; and `history.csv`, with the loss and the rate of every step. With `--portable` or `--composable` it
    gets the vectors alone.

    Before training it prints the rows, labels, truncated texts, steps, rate and estimated time; with `--dry-run` it
    stops there. With few rows, `--folds 5` judges by cross-validation and then trains on all of them.

    Examples: `tpv tune --task mini/sst2 --tokens 20 --steps 150 --out runs/sst2`

    `tpv tune --model ./my-t5 --train reviews.csv --text review --label stars --out runs/stars`

    `tpv tune --train few.csv --text review --label stars --tokens 20 --folds 5 --out runs/few`

    `tpv tune --composable --task mini/sst2 --task mini/trec --tokens 20 --steps 300 --out runs/both`
    """
    _check(task, prompt, few, vectors, judge)
    if judge.search and training.lr != "auto":
        raise TpvError("learning rate", expected="--lr or --find-lr", got="both")
    if out is None and not judge.dry_run:
        raise TpvError("--out", expected="a folder for what is trained", got="none", fix="or --dry-run")

    def planned(rows: Task | None = None) -> Recipe:
        recipe = training.recipe(rows)
        return recipe if judge.folds is None else folded(recipe, judge.folds, data)

    recipe = planned()  # refuses what does not fit before any data is read
    named: list[str | None] = [*task] if task else [None]
    chosen = [data.load(each, source, hold_out=judge.folds is None) for each in named]
    if vectors.portable or vectors.composable:
        assert out is not None
        _tune_vectors(out, chosen, recipe, model, source, prompt, vectors, recompute)
    else:
        rows = chosen[0] if few.shots is None else chosen[0].few_shot(few.shots, few.sample_seed)
        _tune_prompt(out, rows, planned(rows), model, prompt, judge, recompute)


def _check(
    task: list[str] | None, prompt: PromptOptions, few: ShotOptions, vectors: VectorOptions, judge: JudgeOptions
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
        "--find-lr": judge.search,
        "--folds": judge.folds is not None,
        "--dry-run": judge.dry_run,
        "--method": prompt.method != "prompt_tuning",
        "neither": not trained,
    }
    if any(others.values()):
        raise TpvError(
            "training vectors",
            expected="--portable or --composable, without --from, --shots, --find-lr, --folds, --dry-run and --method",
            got=", ".join(name for name, given in others.items() if given),
        )


def _tune_prompt(
    out: Path | None,
    data: Task,
    recipe: Recipe,
    model: ModelOptions,
    prompt: PromptOptions,
    judge: JudgeOptions,
    recompute: bool,
) -> None:
    from tpv.evaluation.tuned import RESULT_FILES, About, Tuned
    from tpv.files import staged_folder
    from tpv.prompts.algebra import SoftPrompt
    from tpv.prompts.initializers import check, parse
    from tpv.training.fit import fit, method_of
    from tpv.training.history import write_history
    from tpv.training.learning_rate import find_lr

    method = method_of(prompt.method, pairs(prompt.set_))
    init = load_prompt(prompt.start) if prompt.start else None
    if init and prompt.tokens not in (None, init.num_tokens):
        raise TpvError("--tokens does not fit the prompt of --from", expected=init.num_tokens, got=prompt.tokens)
    tokens = 100 if prompt.tokens is None else prompt.tokens
    check(tokens, prompt.init_seed)
    initializer = parse(prompt.init)
    if out is None or judge.dry_run:
        backbone = model.load(recompute=recompute)
        init = init or SoftPrompt.sample(backbone, tokens, prompt.init_seed, initializer)
        say_plan(backbone, data, init, recipe, method, judge)
        return
    with staged_folder(out, replaces=RESULT_FILES) as folder:
        backbone = model.load(recompute=recompute)
        init = init or SoftPrompt.sample(backbone, tokens, prompt.init_seed, initializer)
        say_plan(backbone, data, init, recipe, method, judge)
        if judge.search:
            recipe = replace(recipe, lr=_print_trials(find_lr(backbone, data, init, recipe)))
        crossed = cross_validated(backbone, data, init, recipe, method, judge)
        tuned = fit(backbone, data, init, recipe, method=method)
        items = {"init": init, "prompt": tuned, "vector": tuned - init}
        for name, item in items.items():
            item.save(folder / f"{name}.safetensors")
        write_history(tuned.history, folder / "history.csv")
        calibrator = _calibrator(backbone, data, init, tuned, recipe, judge.calibrate, crossed)
        about = About(model=model.choice(), max_input_length=recipe.max_input_length, calibrator=calibrator)
        Tuned(data, tuned, about).save(folder)
    for name, item in items.items():
        typer.echo(f"wrote {out / name}.safetensors: {item!r}")
    use = "predict" if data.labels else "generate"
    typer.echo(f"wrote {out / 'task.toml'}: use the folder with tpv {use} {out} TEXT")
    if data.splits.get("test"):
        _score(out, backbone, data, init, tuned, about)


def _score(out: Path, backbone: Backbone, data: Task, init: SoftPrompt, tuned: SoftPrompt, about: About) -> None:
    """Score both prompts on the test split; the folder keeps those of the tuned one."""
    from tpv.evaluation.score import evaluate
    from tpv.evaluation.tuned import Tuned, TunedScore
    from tpv.files import staged_folder

    length = about.max_input_length
    scores = evaluate(backbone, data, [init], "test", max_input_length=length)
    with warnings.catch_warnings():  # what is truncated was said already
        warnings.simplefilter("ignore", CutWarning)
        scores += evaluate(backbone, data, [tuned], "test", max_input_length=length, calibrator=about.calibrator)
    kept = TunedScore.of(scores[1], data.name, "test", str(init.init))
    with staged_folder(out) as folder:  # what took long is there already, whatever becomes of the scoring
        Tuned(data, tuned, about.model_copy(update={"scores": (kept,)})).save(folder)
    print_scores(["init", "tuned"], [data, data], scores, "test")


def _calibrator(
    backbone: Backbone,
    data: Task,
    init: SoftPrompt,
    tuned: SoftPrompt,
    recipe: Recipe,
    on: Calibrate,
    crossed: CrossValidation | None,
) -> Calibrator | None:
    """A calibrator of the tuned prompt, where there are rows to fit one to."""
    from tpv.evaluation.calibrate import calibrate
    from tpv.training.cross_calibrate import cross_calibrate

    if on is Calibrate.none or not data.labels:
        return None
    if crossed is not None:
        return crossed.calibrator
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
