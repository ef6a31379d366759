"""The command `tpv`: parsing and printing only; torch is imported when a command needs it."""

from __future__ import annotations

import io
import math
import os
import shlex
import signal
import sys
import traceback
import warnings
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tpv.errors import TpvError, cut_summary, plain, scrub
from tpv.memory import keep_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from tpv.models import Backbone
    from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
    from tpv.tasks import Task
    from tpv.training.learning_rate import LrTrial
    from tpv.training.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Task prompt vectors: tune a soft prompt on a frozen language model, subtract its start, "
    "and move, add, scale and negate what is left.\n\nStart with `tpv quickstart`: two minutes, no network.",
)
vector_app = typer.Typer(no_args_is_help=True, help="Make vectors and calculate with them.")
app.add_typer(vector_app, name="vector")

ModelOption = Annotated[
    str,
    typer.Option("--model", "-m", help="`mini`, `smollm2`, a local folder, a .gguf file, or a Hugging Face hub name."),
]
RevisionOption = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
ChatOption = Annotated[bool, typer.Option("--chat", help="Put texts into the chat template (causal models).")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the best there is.")]
PrecisionOption = Annotated[str, typer.Option(help="What the model runs in: fp32 or bf16.")]
TaskOption = Annotated[
    str | None, typer.Option("--task", "-t", help="A name from `tpv tasks`, or a task file (.toml).")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(help="Local copies of hub data: DIR/TASK/{train,validation,test}.*  [default: $TPV_DATA_DIR]"),
]
StyleOption = Annotated[
    str, typer.Option("--style", help="The task's template: text, or instruct, an instruction in plain words.")
]
TrainOption = Annotated[
    Path | None,
    typer.Option("--train", help="Own data instead of --task: .csv .tsv .jsonl[.gz] .parquet, or a folder."),
]
TextOption = Annotated[list[str] | None, typer.Option("--text", help="Text column of own data; repeat for several.")]
LabelOption = Annotated[str, typer.Option("--label", help="Label column of own data, ids or words.")]
LabelsOption = Annotated[str | None, typer.Option("--labels", help="Label words in id order, comma-separated.")]
TemplateOption = Annotated[str | None, typer.Option(help="Input text, columns in braces: 'review: {text}'.")]
NameOption = Annotated[str | None, typer.Option("--name", help="What to call own data; else the file's name.")]
ValidationOption = Annotated[Path | None, typer.Option("--validation", help="Own data's validation file.")]
TestOption = Annotated[Path | None, typer.Option("--test", help="Own data's test file.")]
LengthOption = Annotated[int, typer.Option("--max-input-length", help="Texts are cut at this many tokens.")]
OutFile = Annotated[Path, typer.Option("--out", "-o", help="Where to write the result (.safetensors).")]


def _console() -> Console:
    from rich.console import Console

    # into a file or a pipe, wide enough that nothing is shortened
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200)


def _cell(text: str) -> str:
    """Text of somebody else as a cell of a table: no markup, and nothing that a terminal obeys."""
    from rich.markup import escape

    return escape(plain(text))


def _load_task(
    task: str | None,
    train: Path | None,
    text: list[str] | None,
    label: str,
    labels: str | None,
    template: str | None,
    name: str | None,
    validation: Path | None,
    test: Path | None,
    data_dir: Path | None,
    style: str,
) -> Task:
    from tpv.tasks import load_task

    if (task is None) == (train is None):
        raise TpvError("which task", expected="either --task NAME or --train FILE", got="both" if task else "neither")
    source = train if task is None else task
    assert source is not None
    return load_task(
        source,
        text=text or None,
        label=label,
        template=template,
        task_name=name,
        validation=validation,
        test=test,
        data_dir=data_dir,
        style=style,
        labels=[word.strip() for word in labels.split(",")] if labels else None,
    )


def _load_model(
    name: str, device: str | None, precision: str, revision: str | None, chat: bool, recompute: bool = False
) -> Backbone:
    from tpv.models import load_backbone

    return load_backbone(
        name,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        revision=revision,
        chat=chat,
        gradient_checkpointing=recompute,
    )


def _load_prompt(path: Path) -> SoftPrompt:
    from tpv.prompts.algebra import SoftPrompt

    return SoftPrompt.load(path)


def _load_vector(path: Path) -> TaskPromptVector:
    from tpv.prompts.algebra import TaskPromptVector

    return TaskPromptVector.load(path)


def _save(item: SoftPrompt | TaskPromptVector, path: Path) -> None:
    item.save(path)
    typer.echo(f"wrote {path}: {item!r}")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from tpv import __version__

        typer.echo(f"tpv {__version__}")
        raise typer.Exit


# --- quickstart -----------------------------------------------------------------------------------
@app.command()
def quickstart(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(help="Of the initialisations, samples and data orders.")] = 0,
) -> None:
    """Watch the method work on the embedded model, in about two minutes and with no network.

    Tunes six tasks from two starts each, turns the prompts into vectors, moves them to the other start,
    compares, adds and transfers them, and writes `report.html`, `results.parquet` and `vectors/`.

    Example: `tpv quickstart --out runs/quickstart`
    """
    from tpv import quickstart as demo
    from tpv.files import staged_folder

    with staged_folder(out) as folder:
        demo.run(folder, seed=seed, console=_console())
    typer.echo(f"wrote {out / 'report.html'}, {out / 'results.parquet'}, {out / 'vectors'}/ and {out / 'inits'}/")


# --- tune -----------------------------------------------------------------------------------------
@app.command()
def tune(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for init, prompt and vector.")],
    model: ModelOption = "mini",
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="A name from `tpv tasks`, or a task file; several with --composable."),
    ] = None,
    train: TrainOption = None,
    text: TextOption = None,
    label: LabelOption = "label",
    labels: LabelsOption = None,
    template: TemplateOption = None,
    name: NameOption = None,
    validation: ValidationOption = None,
    test: TestOption = None,
    data_dir: DataDirOption = None,
    style: StyleOption = "text",
    start: Annotated[Path | None, typer.Option("--from", help="Start from this prompt file.")] = None,
    tokens: Annotated[int | None, typer.Option("--tokens", "-p", help="Rows of the prompt, P.  [default: 100]")] = None,
    init: Annotated[str, typer.Option(help="Start: `vocabulary`, `normal`, or `text:WORDS`.")] = "vocabulary",
    init_seed: Annotated[int, typer.Option(help="Seed of the initialisation.")] = 0,
    shots: Annotated[int | None, typer.Option(help="Train on this many examples in total, classes kept.")] = None,
    sample_seed: Annotated[int, typer.Option(help="Seed of the few-shot sample.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the data order.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data; 10 without --steps.")] = None,
    batch_size: Annotated[int, typer.Option(help="Examples a step.")] = 32,
    lr: Annotated[str, typer.Option(help="Peak learning rate; auto fits it to the model: 0.3 for T5.")] = "auto",
    search: Annotated[
        bool, typer.Option("--find-lr", help="Try twelve rates for 40 steps each, show the curve, take the best.")
    ] = False,
    weight_decay: Annotated[float, typer.Option(help="AdamW's, on the prompt.")] = 1e-5,
    warmup: Annotated[int, typer.Option(help="Warm-up steps; a short run warms up over its first tenth.")] = 500,
    schedule: Annotated[str, typer.Option(help="linear, cosine or constant.")] = "linear",
    eval_every: Annotated[int, typer.Option(help="Steps between validations.")] = 100,
    select: Annotated[
        str, typer.Option(help="Best by: loss, exact_match, macro_f1, f1, pearson, spearman, last.")
    ] = "loss",
    patience: Annotated[int | None, typer.Option(help="Stop after this many validations without gain.")] = None,
    max_input_length: LengthOption = 256,
    portable: Annotated[
        bool, typer.Option("--portable", help="Train the vector itself, for any start: a fresh one every step.")
    ] = False,
    composable: Annotated[
        bool,
        typer.Option("--composable", help="Portable, and beside others: every --task's vector and those of --pool."),
    ] = False,
    pool: Annotated[
        list[Path] | None, typer.Option("--pool", help="A vector that is there before and stays; repeat for several.")
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Read rows of the pool's tasks, too, so that it is not harmed.")
    ] = False,
    dropout: Annotated[bool, typer.Option("--dropout", help="Leave the model's own dropout on.")] = False,
    recompute: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory for more time; the same result.")
    ] = False,
    precision: PrecisionOption = "fp32",
    device: DeviceOption = None,
    revision: RevisionOption = None,
    chat: ChatOption = False,
) -> None:
    """Tune a soft prompt on a task; write its start, the tuned prompt, and their difference, the vector.

    Examples: `tpv tune --task mini/sst2 --tokens 20 --steps 150 --out runs/sst2`

    `tpv tune --model ./my-t5 --train reviews.csv --text review --label stars --out runs/stars`

    `tpv tune --composable --task mini/sst2 --task mini/trec --tokens 20 --steps 300 --out runs/both`
    """
    if portable or composable or pool or replay:
        if start or shots or search or not (portable or composable):
            raise TpvError(
                "training vectors",
                expected="--portable or --composable, without --from, --shots and --find-lr",
                got=", ".join(
                    name
                    for name, given in {
                        "--from": start,
                        "--shots": shots,
                        "--find-lr": search,
                        "neither": not (portable or composable),
                    }.items()
                    if given
                ),
            )
    elif task and len(task) > 1:
        raise TpvError("tasks to tune on", expected="one; several with --portable or --composable", got=len(task))
    from tpv.evaluation.score import evaluate
    from tpv.files import staged_folder
    from tpv.prompts.algebra import SoftPrompt
    from tpv.prompts.initializers import parse
    from tpv.tasks import load_task
    from tpv.training.learning_rate import find_lr
    from tpv.training.loop import fit
    from tpv.training.recipe import Recipe

    recipe = Recipe(
        steps=steps,
        epochs=epochs,
        batch_size=batch_size,
        lr=_rate(lr, search),
        weight_decay=weight_decay,
        warmup_steps=warmup,
        schedule=schedule,  # type: ignore[arg-type]
        eval_every=eval_every,
        select=select,  # type: ignore[arg-type]
        patience=patience,
        max_input_length=max_input_length,
        dropout=dropout,
        seed=seed,
    )
    named: list[str | None] = [*task] if task else [None]
    chosen = [
        _load_task(each, train, text, label, labels, template, name, validation, test, data_dir, style)
        for each in named
    ]
    if portable or composable:
        _tune_vectors(
            out,
            chosen,
            recipe,
            lambda: _load_model(model, device, precision, revision, chat, recompute),
            composable=composable,
            num_tokens=100 if tokens is None else tokens,
            starts=init,
            seed=init_seed,
            pool=[_load_vector(path) for path in pool or []],
            replay=lambda name: load_task(name, data_dir=data_dir, style=style) if replay else None,
        )
        return
    (data,) = chosen
    if shots is not None:
        data = data.few_shot(shots, sample_seed)
    begin = _load_prompt(start) if start else None
    if begin and tokens not in (None, begin.num_tokens):
        raise TpvError("--tokens does not fit the prompt of --from", expected=begin.num_tokens, got=tokens)
    make = parse(init, 100 if tokens is None else tokens, init_seed)
    with staged_folder(out) as folder:
        backbone = _load_model(model, device, precision, revision, chat, recompute)
        if begin is None:
            tensor, identity = make(backbone)
            begin = SoftPrompt(tensor, backbone.identity, identity)
        if search:
            trials = find_lr(backbone, data, begin, recipe)
            recipe = replace(recipe, lr=_print_trials(trials))
        tuned = fit(backbone, data, begin, recipe)
        items = {"init": begin, "prompt": tuned, "vector": tuned - begin}
        for name, item in items.items():
            item.save(folder / f"{name}.safetensors")
    for name, item in items.items():
        typer.echo(f"wrote {out / name}.safetensors: {item!r}")
    if data.splits.get("test"):
        rows = evaluate(backbone, data, [begin, tuned], "test", max_input_length=max_input_length)
        _print_scores(["start", "tuned"], [data, data], rows, "test")


def _tune_vectors(
    out: Path,
    tasks: list[Task],
    recipe: Recipe,
    load: Callable[[], Backbone],
    *,
    composable: bool,
    num_tokens: int,
    starts: str,
    seed: int,
    pool: list[TaskPromptVector],
    replay: Callable[[str], Task | None],
) -> None:
    """`tpv tune --portable`: train vectors, write one file a task, and score them on a start they did not see."""
    from tpv.evaluation.portability import unseen_starts
    from tpv.evaluation.score import evaluate
    from tpv.files import staged_folder
    from tpv.methods.portable import fit_vectors

    if starts not in ("vocabulary", "normal"):
        raise TpvError("--init of vectors", expected="vocabulary or normal, to draw fresh starts from", got=starts)
    old = [task for vector in pool for name in vector.terms if (task := replay(name)) is not None]
    files = ["vector"] if len(tasks) == 1 else [task.name.replace("/", "-") for task in tasks]
    if len(set(files)) < len(files):
        raise TpvError("tasks", expected="names that differ", got=files)
    for name in files:  # before hours are spent
        if not name.isprintable() or len(os.fsencode(f"{name}.safetensors")) > 255:
            raise TpvError(f"task {name!r} cannot be the name of a file", fix="give the task another name")
    with staged_folder(out) as folder:
        backbone = load()
        vectors = fit_vectors(
            backbone,
            tasks,
            recipe,
            composable=composable,
            num_tokens=num_tokens,
            starts=starts,  # type: ignore[arg-type]
            seed=seed,
            pool=pool,
            replay=old,
        )
        for name, vector in zip(files, vectors, strict=True):
            vector.save(folder / f"{name}.safetensors")
    for name, vector in zip(files, vectors, strict=True):
        typer.echo(f"wrote {out / name}.safetensors: {vector!r}")
    (start,) = unseen_starts(backbone, num_tokens, 1)
    rows = [("start + vector", task, start + vector) for task, vector in zip(tasks, vectors, strict=True)]
    if composable:
        total = sum([*vectors[1:], *pool], vectors[0])
        rows += [("start + all vectors", task, start + total) for task in (*tasks, *old)]
    rows = [row for row in rows if row[1].splits.get("test")]
    if rows:
        names, judged, prompts = map(list, zip(*rows, strict=True))
        scores = evaluate(backbone, judged, prompts, "test", max_input_length=recipe.max_input_length)
        _print_scores(names, judged, scores, "test")


def _rate(lr: str, search: bool) -> float | Literal["auto"]:
    if lr == "auto":
        return "auto"
    if search:
        raise TpvError("learning rate", expected="--lr or --find-lr", got="both")
    try:
        return float(lr)
    except ValueError:
        raise TpvError("--lr", expected="a number, or auto", got=repr(lr)) from None


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
        table.add_row(*cells, style="bold" if trial is best else None)
    _console().print(table)
    typer.echo(f"taking lr {best.lr:.3g}")
    return best.lr


def _print_scores(names: list[str], tasks: list[Task], scores: list[Any], split: str) -> None:
    from rich.table import Table

    columns = {"exact_match": "exact match", "f1": "F1", "macro_f1": "macro-F1"}
    if any(task.spec.numbers for task in tasks):
        columns |= {"pearson": "Pearson", "spearman": "Spearman"}
    table = Table("prompt", "task", *columns.values(), "invalid", "majority", "n", title=f"split {split}")
    for name, task, score in zip(names, tasks, scores, strict=True):
        shown = {metric: f"{score.metric(metric):.3f}" if score.defined(metric) else "" for metric in columns}
        shown[task.spec.metric] = f"[bold]{shown[task.spec.metric]}[/bold]"  # what the task is usually reported by
        table.add_row(
            _cell(name),
            _cell(task.name),
            *shown.values(),
            f"{score.invalid_rate:.3f}",
            f"{score.majority:.3f}",
            str(score.n),
        )
    _console().print(table)


# --- evaluate and predict -------------------------------------------------------------------------
@app.command()
def evaluate(
    prompts: Annotated[list[Path], typer.Argument(help="Prompt files.")],
    model: ModelOption = "mini",
    task: TaskOption = None,
    train: TrainOption = None,
    text: TextOption = None,
    label: LabelOption = "label",
    labels: LabelsOption = None,
    template: TemplateOption = None,
    name: NameOption = None,
    validation: ValidationOption = None,
    test: TestOption = None,
    data_dir: DataDirOption = None,
    style: StyleOption = "text",
    vector: Annotated[Path | None, typer.Option(help="Add this vector to every prompt first.")] = None,
    scale: Annotated[float, typer.Option(help="Times this factor (lambda).")] = 1.0,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    predictions: Annotated[Path | None, typer.Option(help="Write one row an example here (.parquet).")] = None,
    max_input_length: LengthOption = 256,
    precision: PrecisionOption = "fp32",
    device: DeviceOption = None,
    revision: RevisionOption = None,
    chat: ChatOption = False,
) -> None:
    """Score prompts on a task, all of them together.

    Example: `tpv evaluate runs/other/init.safetensors --vector runs/sst2/vector.safetensors --task mini/sst2`
    """
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    from tpv.evaluation.score import evaluate as score
    from tpv.files import atomic_write
    from tpv.progress import counting_bar

    data = _load_task(task, train, text, label, labels, template, name, validation, test, data_dir, style)
    data.examples(split)
    loaded = [_load_prompt(path) for path in prompts]
    if vector is not None:
        tau = _load_vector(vector)
        loaded = [tau.apply(prompt, scale) for prompt in loaded]
    if predictions is not None and predictions.suffix != ".parquet":
        raise TpvError(f"predictions file {predictions}", expected="a name ending in .parquet")
    with atomic_write(predictions) if predictions else nullcontext() as part:  # refuses a bad place at once
        backbone = _load_model(model, device, precision, revision, chat)
        with counting_bar("scoring", len(loaded) * len(data.examples(split))) as advance:
            rows = score(backbone, data, loaded, split, max_input_length=max_input_length, advance=advance)
        if part is not None:
            tables = [
                row.predictions.add_column(0, "prompt", pa.array([str(path)] * row.n))
                for path, row in zip(prompts, rows, strict=True)
            ]
            about = dict(tables[0].schema.metadata)
            about[b"scored"] = json.dumps(  # of each prompt: `tpv push --scores` reads it
                {
                    str(p): json.loads(row.predictions.schema.metadata[b"scored"])
                    for p, row in zip(prompts, rows, strict=True)
                }
            ).encode()
            pq.write_table(pa.concat_tables(tables).replace_schema_metadata(about), part)
    _print_scores([str(path) for path in prompts], [data] * len(rows), rows, split)
    if predictions is not None:
        typer.echo(f"wrote {predictions}")


@app.command()
def predict(
    prompt: Annotated[Path, typer.Argument(help="Prompt file.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to label; without any, lines of standard input.")
    ] = None,
    model: ModelOption = "mini",
    task: TaskOption = None,
    style: StyleOption = "text",
    labels: LabelsOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, log-probabilities included.")
    ] = False,
    max_input_length: LengthOption = 256,
    precision: PrecisionOption = "fp32",
    device: DeviceOption = None,
    revision: RevisionOption = None,
    chat: ChatOption = False,
) -> None:
    """Label new texts with a prompt.

    With `--task` a text goes through the task's template, the parts of a pair separated by a tab; with `--labels`
    it goes in as it is.

    Example: `tpv predict runs/sst2/prompt.safetensors --task mini/sst2 "the plot is never dull."`
    """
    import json

    from tpv.evaluation.score import predict as label_texts

    if (task is None) == (labels is None):
        raise TpvError("which labels", expected="either --task or --labels", got="both" if task else "neither")
    data = _words(task, style, [word.strip() for word in str(labels).split(",")])
    rows = _rendered(data, task, texts)
    loaded = _load_prompt(prompt)
    backbone = _load_model(model, device, precision, revision, chat)
    table = label_texts(backbone, loaded, data, rows, max_input_length=max_input_length)
    for row in table.to_pylist():
        if as_json:
            scores = dict(zip(data.labels, row.pop("log_probs"), strict=True))
            typer.echo(json.dumps(row | {"log_probs": scores}, ensure_ascii=False))
        else:
            typer.echo(f"{row['predicted'] or '(invalid)'}\t{row['source']}")


def _words(task: str | None, style: str, labels: list[str]) -> Task:
    """A task without its rows, or one of these label words where none is named."""
    from tpv.tasks import labels_only, without_rows

    if task is None and style != "text":
        raise TpvError("--style", expected="with --task, whose template it chooses", got="no --task")
    return without_rows(task, style=style) if task else labels_only(labels)


def _rendered(data: Task, task: str | None, texts: list[str] | None) -> list[str]:
    """Texts, or lines of standard input, put into the template of a task that was named."""
    from tpv.tasks.spec import render

    rows = list(texts) if texts else [line.rstrip("\n") for line in sys.stdin]
    if task is None:
        return rows
    fields = data.spec.fields
    whole = []
    for number, row in enumerate(rows):
        pieces = row.split("\t") if len(fields) > 1 else [row]
        if len(pieces) != len(fields):
            raise TpvError(
                f"text {number + 1} for task {data.name!r}",
                expected=f"{', '.join(fields)}, separated by tabs",
                got=f"{len(pieces)} part{'s' * (len(pieces) != 1)}",
            )
        whole.append(render(data.spec.template, dict(zip(fields, pieces, strict=True))) if row.strip() else row)
    return whole


# --- tasks ----------------------------------------------------------------------------------------
@app.command()
def tasks(
    name: Annotated[str | None, typer.Argument(help="A task to look at.")] = None,
    examples: Annotated[int, typer.Option("--examples", "-n", help="How many test examples to print.", min=0)] = 3,
    data_dir: DataDirOption = None,
    style: StyleOption = "text",
) -> None:
    """List the tasks that come with tpv, or show one with examples.

    Example: `tpv tasks mini/sst2`
    """
    from rich.table import Table

    from tpv.tasks import load_task, task_specs

    if name is None:
        table = Table("task", "family", "role", "labels")
        for spec in task_specs().values():
            table.add_row(spec.name, spec.family, spec.role, ", ".join(spec.labels))
        _console().print(table)
        return
    task = load_task(name, data_dir=data_dir, style=style)
    typer.echo(f"{task!r}\nfamily {task.spec.family}, template {task.spec.template!r}\nlabels {', '.join(task.labels)}")
    for example in task.examples("test")[:examples]:
        typer.echo(f"  {example.source}  ->  {example.target}")


# --- vector ---------------------------------------------------------------------------------------
@vector_app.command("make")
def vector_make(
    tuned: Annotated[Path, typer.Argument(help="The tuned prompt.")],
    init: Annotated[Path, typer.Argument(help="The prompt its training started from.")],
    out: OutFile,
) -> None:
    """Tuned minus start: the task prompt vector (eq. 2).

    Example: `tpv vector make runs/sst2/prompt.safetensors runs/sst2/init.safetensors -o sst2.safetensors`
    """
    _save(_load_prompt(tuned) - _load_prompt(init), out)


@vector_app.command("add")
def vector_add(
    vectors: Annotated[list[Path], typer.Argument(help="Vectors to add up.")],
    out: OutFile,
    weights: Annotated[str | None, typer.Option(help="A factor for each, comma-separated: '1,0.5,-1'.")] = None,
) -> None:
    """Add vectors, each times its weight (eq. 4).

    Example: `tpv vector add a.safetensors b.safetensors --weights 1,0.5 -o sum.safetensors`
    """
    loaded = [_load_vector(path) for path in vectors]
    if weights is not None:
        try:
            factors = [float(weight) for weight in weights.split(",")]
        except ValueError:
            raise TpvError("--weights", expected="numbers separated by commas", got=repr(weights)) from None
        if len(factors) != len(loaded):
            raise TpvError("--weights", expected=f"{len(loaded)} numbers, one a vector", got=len(factors))
        loaded = [factor * vector for factor, vector in zip(factors, loaded, strict=True)]
    _save(sum(loaded[1:], loaded[0]), out)


@vector_app.command("scale")
def vector_scale(
    vector: Annotated[Path, typer.Argument(help="A vector.")],
    out: OutFile,
    by: Annotated[float, typer.Option(help="The factor, lambda.")],
) -> None:
    """Multiply a vector by a number (lambda in eq. 3 and 6).

    Example: `tpv vector scale sst2.safetensors --by 0.5 -o half.safetensors`
    """
    _save(_load_vector(vector) * by, out)


@vector_app.command("negate")
def vector_negate(vector: Annotated[Path, typer.Argument(help="A vector.")], out: OutFile) -> None:
    """Turn a vector around.

    Example: `tpv vector negate sst2.safetensors -o unlearn-sst2.safetensors`
    """
    _save(-_load_vector(vector), out)


@vector_app.command("apply")
def vector_apply(
    vector: Annotated[Path, typer.Argument(help="A vector.")],
    prompt: Annotated[Path, typer.Argument(help="The prompt to add it to.")],
    out: OutFile,
    scale: Annotated[float, typer.Option(help="Times this factor, lambda.")] = 1.0,
) -> None:
    """Add a vector to a prompt: move a task to another start (eq. 3, 6).

    Example: `tpv vector apply sst2.safetensors other.safetensors --scale 0.8 -o moved.safetensors`
    """
    _save(_load_vector(vector).apply(_load_prompt(prompt), scale), out)


def _named_tasks(names: list[str], data_dir: Path | None, style: str) -> list[Task]:
    """Tasks given by name alone."""
    return [_load_task(name, None, None, "label", None, None, None, None, None, data_dir, style) for name in names]


@vector_app.command("show")
def vector_show(
    files: Annotated[list[Path], typer.Argument(help="Vector or prompt files.")],
    on: Annotated[
        str | None, typer.Option("--on", help="Try vectors on this model: what to expect of them elsewhere.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option("--task", "-t", help="With --on: the task of each vector, in order.")
    ] = None,
    unseen: Annotated[int, typer.Option("--starts", help="With --on: how many starts that no vector saw.", min=1)] = 5,
    split: Annotated[str, typer.Option(help="With --on: train, validation or test.")] = "validation",
    data_dir: DataDirOption = None,
    style: StyleOption = "text",
    max_input_length: LengthOption = 256,
    precision: PrecisionOption = "fp32",
    device: DeviceOption = None,
    revision: RevisionOption = None,
    chat: ChatOption = False,
) -> None:
    """Say what files hold: terms, shape, norm, model, starts; with --on, how vectors do on unseen starts and in pairs.

    Examples: `tpv vector show runs/quickstart/vectors/*.safetensors`

    `tpv vector show a.safetensors b.safetensors --on mini --task mini/sst2 --task mini/trec`
    """
    from rich.table import Table

    from tpv.prompts.algebra import SoftPrompt, expression
    from tpv.prompts.storage import load_any

    if (on is None) != (not task):
        raise TpvError("trying vectors", expected="--on MODEL and a --task for each", got="one of them")
    if task and len(task) != len(files):
        raise TpvError("--task", expected=f"{len(files)}, one a vector", got=len(task))

    table = Table("file", "kind", "terms", "P", "H", "norm", "model", "trained from")
    for path in files:
        item = load_any(path)
        origins = sorted({part.home for part in item.components})
        starts = [str(item.init)] if isinstance(item, SoftPrompt) else origins
        table.add_row(
            _cell(str(path)),
            type(item).__name__,
            _cell(expression(item.terms)),
            str(item.num_tokens),
            str(item.model.hidden_size),
            f"{item.norm():.3f}",
            _cell(f"{item.model.name} {item.model.fingerprint[:8]}"),
            _cell("; ".join(starts)),
        )
    _console().print(table)
    if on is not None and task:
        _try_vectors(
            [_load_vector(path) for path in files],
            [path.stem for path in files],
            unseen,
            split,
            max_input_length,
            lambda: _load_model(on, device, precision, revision, chat),
            _named_tasks(task, data_dir, style),
        )


def _try_vectors(
    vectors: list[TaskPromptVector],
    names: list[str],
    starts: int,
    split: str,
    max_input_length: int,
    load: Callable[[], Backbone],
    tasks: list[Task],
) -> None:
    """What `tpv vector show --on` prints beside what files hold."""
    from rich.table import Table

    from tpv.evaluation.portability import interference, portability

    for data in tasks:
        data.examples(split)
    backbone = load()
    table = Table(
        "vector",
        "task",
        "norm / start's",
        f"exact match on {starts} unseen starts",
        "lowest",
        "highest",
        "majority",
        "n",
        title=f"on starts that no vector saw, split {split}",
    )
    for name, vector, data in zip(names, vectors, tasks, strict=True):
        found = portability(backbone, vector, data, starts=starts, split=split, max_input_length=max_input_length)
        mean = sum(found.scores) / len(found.scores)
        cells = (f"{found.norm_ratio:.2f}", f"{mean:.3f}", f"{min(found.scores):.3f}", f"{max(found.scores):.3f}")
        rows = str(len(data.examples(split)))
        table.add_row(_cell(name), _cell(data.name), *cells, f"{found.majority:.3f}", rows)
    _console().print(table)
    if len(vectors) > 1:
        matrix = interference(backbone, vectors, tasks, starts=starts, split=split, max_input_length=max_input_length)
        table = Table(
            "exact match on",
            *(f"+ {_cell(name)}" for name in names),
            title="each task under its own vector plus another (alone on the diagonal)",
        )
        for data, scores in zip(tasks, matrix.tolist(), strict=True):
            table.add_row(_cell(data.name), *(f"{score:.3f}" for score in scores))
        _console().print(table)


@vector_app.command("search")
def vector_search(
    vectors: Annotated[list[Path], typer.Argument(help="Vectors to add up.")],
    prompt: Annotated[Path, typer.Option("--prompt", help="The start to add their sum to.")],
    on: Annotated[str, typer.Option("--on", help="The model they were trained on.")],
    task: Annotated[list[str], typer.Option("--task", "-t", help="What the sum has to do: one or more tasks.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the best prompt here.")] = None,
    step: Annotated[float, typer.Option(help="Of the grid of lambdas from 0 to 1.", min=0.001, max=1)] = 0.05,
    race: Annotated[bool, typer.Option("--race/--no-race", help="Drop early what is clearly behind.")] = True,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "validation",
    data_dir: DataDirOption = None,
    style: StyleOption = "text",
    max_input_length: LengthOption = 256,
    precision: PrecisionOption = "fp32",
    device: DeviceOption = None,
    revision: RevisionOption = None,
    chat: ChatOption = False,
) -> None:
    """Find the lambda at which start + lambda * (sum of vectors) does best on all the tasks (eq. 4, section 4.3).

    Example: `tpv vector search a.safetensors b.safetensors --prompt i.safetensors --on mini -t mini/sst2 -t mini/trec`
    """
    from rich.table import Table

    from tpv.evaluation.search import search_scale

    if abs(round(1 / step) * step - 1) > 1e-9:
        raise TpvError("--step", expected="a number that divides 1", got=step)
    loaded, start = [_load_vector(path) for path in vectors], _load_prompt(prompt)
    tasks = _named_tasks(task, data_dir, style)
    for data in tasks:
        data.examples(split)
    total = sum(loaded[1:], loaded[0])
    scales = [round(i / round(1 / step), 6) for i in range(round(1 / step) + 1)]
    backbone = _load_model(on, device, precision, revision, chat)
    found = search_scale(
        backbone, start, total, tasks, scales, split=split, race=race, max_input_length=max_input_length
    )
    table = Table("lambda", "mean exact match", "rows a task", "")
    for scale, match, rows in zip(found.scales, found.exact_match, found.rows, strict=True):
        table.add_row(f"{scale:g}", f"{match:.3f}", str(rows), "best" if scale == found.scale else "")
    _console().print(table)
    if out is not None:
        _save(total.apply(start, found.scale), out)


@vector_app.command("similarity")
def vector_similarity(
    files: Annotated[list[Path], typer.Argument(help="Two or more vector files, or prompt files.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the matrix here too (.csv).")] = None,
) -> None:
    """Cosine of every pair.

    Example: `tpv vector similarity runs/quickstart/vectors/*.safetensors`
    """
    import csv

    from rich.table import Table

    from tpv.files import atomic_write
    from tpv.prompts.similarity import cosine_matrix
    from tpv.prompts.storage import load_any

    items = [load_any(path) for path in files]
    kinds = sorted({type(item).__name__ for item in items})
    if len(kinds) > 1:
        raise TpvError("similarity", expected="only vectors, or only prompts", got=" and ".join(kinds))
    matrix = cosine_matrix(items)
    names = [path.stem for path in files]
    if out is not None:
        with atomic_write(out) as part, part.open("w", newline="") as file:
            csv.writer(file).writerows(
                [["", *names], *([n, *row] for n, row in zip(names, matrix.tolist(), strict=True))]
            )
    table = Table("", *map(_cell, names))
    for name, row in zip(names, matrix.tolist(), strict=True):
        table.add_row(_cell(name), *(f"{value:.3f}" for value in row))
    _console().print(table)


# --- in and out -----------------------------------------------------------------------------------
@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="A PEFT adapter, or the authors' origin_0, origin_1, …")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for what comes of it.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The model it belongs to.  [default: the one a PEFT adapter names]"),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option("--start", help="What training started from, a prompt file or an adapter: gives the vector too."),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="With --start: the task it was trained on.")] = None,
    keep_dead_rows: Annotated[
        bool, typer.Option("--keep-dead-rows", help="Keep the half of the rows that PEFT never reads on a T5.")
    ] = False,
) -> None:
    """Read prompts that PEFT trained, or the paper's authors released; write prompts and vectors.

    A PEFT adapter becomes `prompt.safetensors`, and `vector.safetensors` where its start is given. The authors' folder
    becomes `origin_N/init.safetensors`, `origin_N/TASK.prompt.safetensors` and `origin_N/TASK.vector.safetensors`.

    Examples: `tpv import my-adapter --start my-adapter-untrained --task sst2 --out runs/mine`

    `tpv import released --model google-t5/t5-base --out runs/released`
    """
    from tpv.files import staged_folder
    from tpv.interop import peft, released

    adapter = any((folder / name).exists() for name in (peft.CONFIG, peft.WEIGHTS, peft.PICKLE))
    if not adapter and not released.is_released(folder):
        raise TpvError(
            f"{folder} holds nothing to import",
            expected=f"a PEFT adapter ({peft.CONFIG}), or folders origin_0, origin_1, …",
        )
    if not adapter and (start or task):
        raise TpvError("the authors' files hold their starts and tasks", got="--start or --task", fix="leave it out")
    with staged_folder(out) as stage:
        items = (_from_peft if adapter else _from_released)(folder, model, keep_dead_rows, start, task)
        for name, item in items.items():
            (stage / name).parent.mkdir(exist_ok=True)
            item.save(stage / name)
    for name, item in items.items():
        typer.echo(f"wrote {out / name}: {item!r}")


def _from_peft(
    folder: Path, model: str | None, keep_dead_rows: bool, start: Path | None, task: str | None
) -> dict[str, SoftPrompt | TaskPromptVector]:
    from tpv.interop import peft
    from tpv.models import load_backbone

    if (start is None) != (task is None):
        raise TpvError("the vector of an adapter", expected="--start and --task, or neither", got="one of them")
    backbone = load_backbone(model, device="cpu") if model else None
    if start is None:
        return {"prompt.safetensors": peft.load(folder, backbone, keep_dead_rows)}
    begin = peft.load(start, backbone, keep_dead_rows) if start.is_dir() else _load_prompt(start)
    prompt = peft.load(folder, backbone, keep_dead_rows, start=begin, task=task)
    return {"prompt.safetensors": prompt, "vector.safetensors": prompt - begin}


def _from_released(
    folder: Path, model: str | None, keep_dead_rows: bool, *_: object
) -> dict[str, SoftPrompt | TaskPromptVector]:
    from tpv.interop.released import read_released
    from tpv.models import load_backbone

    if model is None:
        raise TpvError(f"{folder} does not say which model it belongs to", fix="pass --model; the authors' is T5-base")
    items: dict[str, SoftPrompt | TaskPromptVector] = {}
    for record in read_released(folder, load_backbone(model, device="cpu"), keep_dead_rows):
        place = f"origin_{record.origin}"
        items[f"{place}/init.safetensors"] = record.init
        items[f"{place}/{record.task}.prompt.safetensors"] = record.tuned
        items[f"{place}/{record.task}.vector.safetensors"] = record.vector
    return items


@app.command()
def export(
    prompt: Annotated[Path, typer.Argument(help="Prompt file.")],
    texts: Annotated[
        list[str] | None, typer.Argument(help="For --prompt-embeds, texts; without any, lines of standard input.")
    ] = None,
    peft: Annotated[
        Path | None, typer.Option("--peft", help="Write a PEFT prompt-tuning adapter into this folder.")
    ] = None,
    prompt_embeds: Annotated[
        Path | None,
        typer.Option("--prompt-embeds", help="Write prompt and text as embeddings, one JSON object a line (.jsonl)."),
    ] = None,
    model: ModelOption = "mini",
    task: TaskOption = None,
    style: StyleOption = "text",
    max_input_length: LengthOption = 256,
    precision: PrecisionOption = "fp32",
    device: DeviceOption = None,
    revision: RevisionOption = None,
    chat: ChatOption = False,
) -> None:
    """Write a prompt in another program's format.

    `--peft`: `peft.PeftModel.from_pretrained(model, FOLDER)` reads the adapter; `tpv import` restores the prompt
    from it. `--prompt-embeds` (causal models): each text after the prompt as the embeddings [tokens, H] that vLLM's
    `prompt_embeds` takes, base64 of `torch.save`; texts go through `--task`'s template and cue as in `tpv predict`.

    Examples: `tpv export runs/sst2/prompt.safetensors --peft adapters/sst2`

    `tpv export runs/sst2/prompt.safetensors --prompt-embeds out.jsonl --model smollm2 --task sst2 "a fine film"`
    """
    if (peft is None) == (prompt_embeds is None):
        raise TpvError(
            f"what to export {prompt} to",
            expected="--peft FOLDER or --prompt-embeds FILE",
            got="neither" if peft is None else "both",
        )
    loaded = _load_prompt(prompt)
    if peft is not None:
        loaded.to_peft(peft)
        typer.echo(f"wrote {peft}/: PEFT adapter of {loaded!r}")
        return
    from tpv.interop.serving import write_prompt_embeds

    assert prompt_embeds is not None
    data = _words(task, style, ["a", "b"])  # without a task, only the cue is used
    rows = _rendered(data, task, texts)
    backbone = _load_model(model, device, precision, revision, chat)
    write_prompt_embeds(prompt_embeds, backbone, loaded, data, rows, max_input_length=max_input_length)
    typer.echo(f"wrote {prompt_embeds}: {len(rows)} text{'s' * (len(rows) != 1)} after {loaded!r}")


@app.command()
def push(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face hub.")],
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Prompt and vector files; NAME=FILE gives another name.")
    ],
    scores: Annotated[
        list[Path] | None,
        typer.Option("--scores", help="For the card: what `tpv evaluate --predictions` wrote; repeat for several."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="A new repository is private; an old one must be.")
    ] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to push to; made if need be.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
) -> None:
    """Put prompts and vectors on the Hugging Face hub, with a model card made from what they say of themselves.

    What the repository holds already stays, is replaced where the name is the same, and is described too. `--scores`
    are put to files by content: a prompt's to that prompt, a vector's to the vector that was added to a start.
    Log in first (`hf auth login`, or HF_TOKEN).

    Example: `tpv push me/reviews sst2=runs/sst2/vector.safetensors yelp=runs/yelp/vector.safetensors`
    """
    from tpv.interop.card import read_scores
    from tpv.interop.repository import push as upload
    from tpv.prompts.storage import load_any

    items = {name: load_any(path) for name, path in _named(files).items()}
    known = [score for path in scores or () for score in read_scores(path)]
    address = upload(repository, items, private=private, scores=known, revision=revision, message=message)
    for name, item in items.items():
        typer.echo(f"pushed {name}.safetensors: {item!r}")
    typer.echo(f"wrote {address}")


def _named(files: list[str]) -> dict[str, Path]:
    """Files by the names they get: `NAME=FILE`, or the file's own."""
    named: dict[str, Path] = {}
    for text in files:
        name, equals, rest = text.partition("=")
        path = Path(rest if equals and not Path(text).exists() else text)
        name = name if path != Path(text) else path.name.removesuffix(".safetensors")
        if name in named:
            raise TpvError(
                f"two files are called {name!r}", got=f"{named[name]} and {path}", fix="give one another: NAME=FILE"
            )
        named[name] = path
    return named


@app.command()
def pull(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face hub.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the files.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
) -> None:
    """Get prompts and vectors from the Hugging Face hub; each is checked, and nothing else is downloaded.

    Example: `tpv pull me/reviews --out runs/reviews`
    """
    from tpv.files import staged_folder
    from tpv.interop.repository import pull as download

    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise TpvError(f"{out} is there already", expected="a new folder", fix="choose another for --out")
    with staged_folder(out) as stage:
        items = download(repository, revision=revision)
        for name, item in items.items():
            (stage / name).parent.mkdir(parents=True, exist_ok=True)
            item.save(stage / f"{name}.safetensors")
    for name, item in items.items():
        typer.echo(f"wrote {out / name}.safetensors: {item!r}")


# --- the protocol ---------------------------------------------------------------------------------
ConfigArgument = Annotated[Path, typer.Argument(help="Config file (.toml), e.g. configs/mini.toml.")]
RunOption = Annotated[
    str | None, typer.Option("--out", "-o", help="Run directory: a folder, or a URL (s3://…).  [default: runs/CONFIG]")
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        help="Only this experiment, and what it needs: sources, cross_initialisation, similarity, combination, "
        "transfer, negation or cost."
    ),
]


WorkersOption = Annotated[
    int | None,
    typer.Option(help="How many workers.  [default: 1; as many as there is room for with --executor ray]", min=1),
]


def _run_folder(out: str) -> Path:
    """A run directory, or where that of a URL is worked on."""
    from tpv.execution.remote import is_url, working_folder

    return working_folder(out) if is_url(out) else Path(out)


@app.command()
def plan(
    config: ConfigArgument,
    out: RunOption = None,
    only: OnlyOption = None,
    estimate: Annotated[bool, typer.Option(help="Measure a few steps to say how long it takes.")] = True,
    workers: Annotated[int, typer.Option(help="How many workers to say it for, each as fast as this one.", min=1)] = 1,
) -> None:
    """Say what a config comes to: jobs by kind, what is done already, and how long the rest takes.

    Needs neither a network nor the model; without them there is no estimate of time.

    Examples: `tpv plan configs/paper.toml`

    `tpv plan configs/mini.toml --workers 2`
    """
    from tpv.execution.overview import show
    from tpv.studies.config import read_config

    folder = _run_folder(out or f"runs/{config.stem}")
    show(read_config(config), folder, _console(), experiment=only, estimate=estimate, workers=workers)


@app.command()
def run(
    config: ConfigArgument,
    out: RunOption = None,
    only: OnlyOption = None,
    limit: Annotated[
        int | None, typer.Option(help="Stop after about so many jobs; a bank that was begun is finished.", min=1)
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Who calculates: local, processes of this machine; or ray, workers of a Ray cluster.")
    ] = "local",
    workers: WorkersOption = None,
    address: Annotated[
        str | None,
        typer.Option(help="Of the Ray cluster, host:port.  [default: one that this machine is part of, or a new one]"),
    ] = None,
) -> None:
    """Run a study: everything a config asks for that is not done yet.

    Killed at any moment, the same command goes on where it was, and ends with the same results; so it does with another
    executor or number of workers. `[run]` in the config says what a worker takes: `cpus`, and `gpus`, which may be a
    fraction.

    Examples: `tpv run configs/mini.toml` and then `tpv report runs/mini`

    `tpv run configs/smoke.toml --workers 2`

    `tpv run configs/paper.toml --executor ray --out /shared/runs/paper`
    """
    from tpv.execution.execute import run as execute
    from tpv.execution.executors import crew_of
    from tpv.execution.progress import Reporter
    from tpv.studies.config import read_config

    place = out or f"runs/{config.stem}"
    folder = _run_folder(place)
    given = {
        "--only": only,
        "--limit": limit,
        "--executor": executor if executor != "local" else None,
        "--workers": workers,
        "--address": address,
    }
    options = [part for name, value in given.items() if value is not None for part in (name, str(value))]
    again = shlex.join(["tpv", "run", str(config), "--out", place, *options])
    try:
        read = read_config(config)
        crew = crew_of(read, folder, executor, workers, address)
        outcome = execute(read, folder, experiment=only, limit=limit, reporter=Reporter, crew=crew)
    except KeyboardInterrupt:
        typer.echo(f"interrupted; `{again}` goes on from here", err=True)
        sys.exit(130)
    for what in outcome.damaged:
        typer.echo(f"damaged, made again: {what}", err=True)
    if not outcome.ran and not outcome.failed and not outcome.left:
        typer.echo(f"{place}: all {outcome.total} jobs are done; `tpv report {place}` makes the report")
        return
    typer.echo(f"{place}: {outcome.ran} of {outcome.total} jobs run now, results in {place}/results.parquet")
    if outcome.warned:
        typer.echo(f"{outcome.warned} trainings ended with a warning; see `warnings` in their record.json", err=True)
    if outcome.cut:
        typer.echo(f"warning: texts were cut: {cut_summary(outcome.cut)}", err=True)
    if outcome.left:
        typer.echo(f"{outcome.left} jobs left by --limit; `{again}` goes on")
    for job, error in outcome.failed.items():
        typer.echo(f"failed: {job.kind} of {', '.join(_task_names(job))}: {error}", err=True)
    if outcome.failed:
        typer.echo(
            f"{len(outcome.failed)} jobs failed, {outcome.blocked} that need them were not run; `{again}` tries again",
            err=True,
        )
        raise typer.Exit(1)
    if not outcome.left:
        typer.echo(f"`tpv report {place}` makes the report")


def _task_names(job: Any) -> list[str]:
    from tpv.studies.jobs import tasks_of

    return list(dict.fromkeys(tasks_of(job))) or ["all source tasks"]


@app.command()
def report(
    runs: Annotated[list[str], typer.Argument(help="A run directory, or two to put side by side.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Where to write.  [default: the run directory, for a URL runs/NAME; runs/A-B for two]"
        ),
    ] = None,
) -> None:
    """Make every table and figure of a run from its stored predictions; or put two runs side by side.

    Writes `report.html`, `report.md`, `results.parquet`, `tables/` (CSV, LaTeX) and `figures/` (PNG, SVG).

    Examples: `tpv report runs/mini`

    `tpv report runs/paper runs/paper_compat`
    """
    from tpv.execution.remote import is_url
    from tpv.reporting.runs import compare_runs, report_run

    if len(runs) > 2:
        raise TpvError("run directories", expected="one, or two to compare", got=len(runs))
    names = [Path(run).name for run in runs]
    if len(runs) == 1:
        place = out or (Path("runs") / names[0] if is_url(runs[0]) else Path(runs[0]))
        for table in report_run(_run_folder(runs[0]), place):
            _console().print(table.as_rich())
        typer.echo(f"wrote {place / 'report.html'}")
    else:
        folder = out or Path("runs") / f"{names[0]}-{names[1]}"
        compare_runs(_run_folder(runs[0]), _run_folder(runs[1]), folder)
        typer.echo(f"wrote {folder / 'comparison.html'}")


def main() -> None:
    """Entry point: every user's mistake becomes one line on standard error and exit code 2."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        typer.echo(f"warning: {plain(scrub(str(message)))}", err=True)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt  # so that a terminated command cleans up as an interrupted one does

    signal.signal(signal.SIGTERM, stop)
    keep_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character still gets the rest
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module=r"tpv\.|__main__")
    warnings.showwarning = show
    try:
        code = app(standalone_mode=False) or 0
        if code == 130:
            typer.echo("interrupted", err=True)
        sys.exit(code)
    except TpvError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except typer.TyperException as error:
        message = " ".join(error.format_message().split())
        if message:  # a bare `tpv` has printed its help already
            typer.echo(f"error: {message} (try --help)", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:  # a full disk, a folder where a file is due: no reason for a traceback
        where = f" {error.filename}" if error.filename else ""
        typer.echo(scrub(f"error: cannot read or write{where}: {error.strerror or error}"), err=True)
        sys.exit(2)
    except Exception:  # our fault: the traceback is for mending it, and must not tell what logs somebody in
        typer.echo(scrub(traceback.format_exc()), err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
