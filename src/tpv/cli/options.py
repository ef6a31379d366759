"""Options that commands share, in groups: a group is a dataclass, and a parameter of a command.

`grouped` turns a command with such parameters into what Typer understands: every field becomes an option of its own,
and the command gets the filled dataclass.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast, get_args, get_type_hints

import typer

from tpv.errors import TpvError

if TYPE_CHECKING:
    from tpv.evaluation.tuned import ModelChoice
    from tpv.models import Backbone
    from tpv.models.placement import DeviceMap
    from tpv.tasks import Task
    from tpv.training.recipe import Recipe


def task_names(incomplete: str) -> list[str]:
    """Names of tasks that begin so, for completion in a shell."""
    from tpv.tasks import task_specs

    return [name for name in task_specs() if name.startswith(incomplete)]


def model_names(incomplete: str) -> list[str]:
    """Names of the models that come without a network, for completion in a shell."""
    return [name for name in ("mini", "smollm2") if name.startswith(incomplete)]


class Precision(StrEnum):
    """What a model runs in."""

    fp32 = "fp32"
    bf16 = "bf16"


class Quantization(StrEnum):
    """In how many bits a model is loaded."""

    bnb_4bit = "bnb-4bit"
    bnb_8bit = "bnb-8bit"


class Style(StrEnum):
    """The templates of a task."""

    text = "text"
    instruct = "instruct"


class Normalize(StrEnum):
    """How scores of label words are normalized."""

    none = "none"
    tokens = "tokens"
    context = "context"


class Split(StrEnum):
    """The splits of a task."""

    train = "train"
    validation = "validation"
    test = "test"


class Schedule(StrEnum):
    """What the learning rate does after warm-up."""

    linear = "linear"
    cosine = "cosine"
    constant = "constant"


OutFile = Annotated[Path, typer.Option("--out", "-o", help="Write the result here (.safetensors).")]
LibraryArgument = Annotated[
    str, typer.Argument(metavar="FOLDER", help="A folder of vectors, a run directory, or OWNER/NAME on the hub.")
]
LabelsOption = Annotated[
    str | None, typer.Option("--labels", help="Label words in the order of their ids, separated by commas.")
]
TaskOption = Annotated[
    str | None,
    typer.Option("--task", "-t", help="A name from `tpv tasks`, or a task file (.toml).", autocompletion=task_names),
]
NormalizeOption = Annotated[
    Normalize | None,
    typer.Option(
        help="Rank label words by log-probability as it is (none), per token (tokens), or less that without a text "
        "(context).  [default: as calibrated, or none]"
    ),
]
UsedLengthOption = Annotated[
    int | None,
    typer.Option(
        "--max-input-length", help="Input texts are truncated to this many tokens.  [default: as tuned, or 256]"
    ),
]
LengthOption = Annotated[int, typer.Option("--max-input-length", help="Input texts are truncated to this many tokens.")]
EncodingOption = Annotated[
    str | None, typer.Option("--encoding", help="Of text files that are not UTF-8: utf-16, latin-1, cp1252, …")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the method (repeatable).")
]


@dataclass
class ModelOptions:
    """Which model, and how it runs."""

    title: ClassVar[str] = "Model"
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="`mini`, `smollm2`, a local folder, a .gguf file, or a Hugging Face hub name.  "
            "[default: what a tuned folder names, or mini]",
            autocompletion=model_names,
        ),
    ] = None
    precision: Annotated[
        Precision | None, typer.Option(help="What the model runs in.  [default: as tuned, or fp32]")
    ] = None
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps.  [default: the best available one]")] = (
        None
    )
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")] = None
    chat: Annotated[bool, typer.Option("--chat", help="Put texts into the chat template (causal models).")] = False
    quantization: Annotated[
        Quantization | None, typer.Option(help="Load the model in 4 or 8 bits with bitsandbytes.  [default: as tuned]")
    ] = None
    device_map: Annotated[
        str | None,
        typer.Option(help="Spread the model over devices with accelerate: auto, or a JSON file {module: device}."),
    ] = None

    def placing(self) -> str | dict[str, int | str] | None:
        """How the model is spread, if it is; `load_backbone` refuses what is no such thing."""
        if self.device_map is None or not self.device_map.endswith(".json"):
            return self.device_map
        from tpv.execution.artifacts import read_json

        return read_json(Path(self.device_map), "device map")

    def choice(self, tuned: ModelChoice | None = None) -> ModelChoice:
        """Which model: as the options say, and what they do not say as a prompt was tuned."""
        from tpv.evaluation.tuned import ModelChoice

        own = ModelChoice(name="mini") if tuned is None or self.model is not None else tuned
        name = self.model or own.name
        return ModelChoice(
            name=str(Path(name).resolve()) if Path(name).exists() and name != "mini" else name,
            revision=self.revision or own.revision,
            precision=own.precision if self.precision is None else _precision(self.precision),
            chat=self.chat or own.chat,
            quantization=own.quantization if self.quantization is None else cast(Any, self.quantization.value),
        )

    def load(self, name: str | None = None, *, recompute: bool = False, tuned: ModelChoice | None = None) -> Backbone:
        """The model.

        Args:
            name: of another option than --model.
            tuned: what a tuned folder names.
        """
        choice = self.choice(tuned)
        named = choice.model_copy(update={"name": name or self.model or choice.name})
        return named.load(device=self.device, device_map=cast("DeviceMap | None", self.placing()), recompute=recompute)


def _precision(precision: Precision) -> Literal["fp32", "bf16"]:
    return "fp32" if precision is Precision.fp32 else "bf16"


@dataclass
class TaskOptions:
    """Where a named task comes from, and how its texts are cut to size."""

    title: ClassVar[str] = "Task"
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder with local copies of hub data, DIR/TASK/{train,validation,test}.*  [default: $TPV_DATA_DIR]"
        ),
    ] = None
    style: Annotated[
        Style, typer.Option("--style", help="The task's template: plain text, or an instruction in words.")
    ] = Style.text

    def folder(self) -> Path | None:
        """The folder with local copies, if one is named."""
        from tpv.tasks.hub import DATA_DIR

        named = self.data_dir or os.environ.get(DATA_DIR) or None
        return None if named is None else Path(named).expanduser()

    def named(self, name: str) -> Task:
        """A task by its name or task file."""
        from tpv.tasks import load_task

        return load_task(name, data_dir=self.data_dir, style=self.style.value)


@dataclass
class DataOptions:
    """Own data in place of a named task."""

    title: ClassVar[str] = "Own data"
    train: Annotated[
        Path | None,
        typer.Option("--train", help="Own data instead of --task: .csv, .tsv, .jsonl[.gz], .parquet, or a folder."),
    ] = None
    text: Annotated[list[str] | None, typer.Option("--text", help="Text column (repeatable).")] = None
    label: Annotated[str, typer.Option("--label", help="Label column, with ids or words.")] = "label"
    labels: LabelsOption = None
    target: Annotated[
        str | None, typer.Option("--target", help="Column of the text to write, for a task whose output is text.")
    ] = None
    template: Annotated[str | None, typer.Option(help="The input text, with columns in braces: 'review: {text}'.")] = (
        None
    )
    name: Annotated[str | None, typer.Option("--name", help="What to call the task.  [default: the file's name]")] = (
        None
    )
    validation: Annotated[Path | None, typer.Option("--validation", help="File with the validation split.")] = None
    test: Annotated[Path | None, typer.Option("--test", help="File with the test split.")] = None
    encoding: EncodingOption = None

    def load(self, task: str | None, options: TaskOptions, *, hold_out: bool = True) -> Task:
        """The task: the one that was named, or the user's own data.

        Args:
            hold_out: hold out rows of own data for splits that are not given.
        """
        from tpv.tasks import load_task

        if (task is None) == (self.train is None):
            raise TpvError(
                "which task", expected="either --task NAME or --train FILE", got="both" if task else "neither"
            )
        source = self.train if task is None else task
        assert source is not None
        return load_task(
            source,
            text=self.text or None,
            label=self.label,
            target=self.target,
            template=self.template,
            task_name=self.name,
            hold_out=hold_out or task is not None,
            validation=self.validation,
            test=self.test,
            encoding=self.encoding,
            data_dir=options.data_dir,
            style=options.style.value,
            labels=[word.strip() for word in self.labels.split(",")] if self.labels else None,
        )


@dataclass
class RecipeOptions:
    """How to train; the defaults are the paper's, or for few rows what suits those."""

    title: ClassVar[str] = "Training"
    steps: Annotated[
        int | None, typer.Option(help="Optimizer steps.  [default: 5 √rows for few rows: a label task, below 1,000]")
    ] = None
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training rows.  [default: 10, where nothing sets the steps]")
    ] = None
    batch_size: Annotated[
        int | None, typer.Option(help="Rows per step, for each prompt.  [default: 32; 16 for few rows]")
    ] = None
    lr: Annotated[str, typer.Option(help="Peak learning rate; `auto` fits it to the model (0.3 for T5).")] = "auto"
    weight_decay: Annotated[float, typer.Option(help="Of AdamW, on the prompt.")] = 1e-5
    proximity: Annotated[
        float, typer.Option(help="Pull towards the initialization in each step: this times the learning rate.")
    ] = 0.0
    warmup: Annotated[int, typer.Option(help="Warm-up steps; a shorter run warms up over its first tenth.")] = 500
    schedule: Annotated[Schedule, typer.Option(help="The learning rate after warm-up.")] = Schedule.linear
    eval_every: Annotated[
        int | None, typer.Option(help="Steps between validations.  [default: 100; a fifth of the steps for few rows]")
    ] = None
    select: Annotated[
        str | None,
        typer.Option(
            help="Keep the checkpoint that is best by `loss` or a metric (`tpv registry metric`), or the `last` one.  "
            "[default: loss; last for few rows with fewer than 50 to validate on]"
        ),
    ] = None
    patience: Annotated[int | None, typer.Option(help="Stop after this many validations without improvement.")] = None
    max_input_length: LengthOption = 256
    dropout: Annotated[bool, typer.Option("--dropout", help="Leave the model's own dropout on.")] = False
    seed: Annotated[int, typer.Option(help="Seed of the data order.")] = 0

    def recipe(self, task: Task | None = None) -> Recipe:
        """The recipe that they make; for a label task of few rows, what is not given is that of `few_rows`."""
        from tpv.training.recipe import FEW_ROWS, Recipe, few_rows

        try:
            rate: float | Literal["auto"] = "auto" if self.lr == "auto" else float(self.lr)
        except ValueError:
            raise TpvError("--lr", expected="a number, or auto", got=repr(self.lr)) from None
        schedule: Literal["linear", "cosine", "constant"] = self.schedule.value
        names = ("steps", "epochs", "batch_size", "eval_every", "select")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        rows = len(task.splits.get("train", ())) if task is not None and task.labels else 0
        if task is not None and 0 < rows < FEW_ROWS and not {"steps", "epochs"} & given.keys():
            given = few_rows(rows, len(task.splits.get("validation", ()))) | given
        return Recipe(
            **given,
            lr=rate,
            weight_decay=self.weight_decay,
            proximity=self.proximity,
            warmup_steps=self.warmup,
            schedule=schedule,
            patience=self.patience,
            max_input_length=self.max_input_length,
            dropout=self.dropout,
            seed=self.seed,
        )


def pairs(values: Sequence[str] | None) -> dict[str, Any]:
    """`KEY=VALUE` options as parameters: a value is JSON where it reads as such, else text."""
    import json

    found: dict[str, Any] = {}
    for text in values or ():
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise TpvError("--set", expected="KEY=VALUE", got=repr(text))
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def grouped(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command in which every field of a group becomes an option, shown under the group's title."""
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    groups: dict[str, tuple[type[Any], list[str]]] = {}
    plain: list[inspect.Parameter] = []
    options: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if not is_dataclass(hints[name]):
            plain.append(parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        group: Any = hints[name]
        own = get_type_hints(group, include_extras=True)
        groups[name] = (group, [field.name for field in fields(group)])
        for field in fields(group):
            default = field.default if field.default is not MISSING else inspect.Parameter.empty
            options.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=default,
                    annotation=_under(own[field.name], group.title),
                )
            )

    @wraps(command)
    def call(**values: Any) -> Any:
        filled = {
            name: group(**{field: values.pop(field) for field in names}) for name, (group, names) in groups.items()
        }
        return command(**values, **filled)

    parameters = [*plain, *options]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _under(annotation: Any, title: str) -> Any:
    """An annotated option, shown under this title in the help."""
    kind, option = get_args(annotation)
    option = copy(option)
    option.rich_help_panel = title
    return Annotated[kind, option]
