"""What a config says: the pydantic models behind `configs/*.toml`. Reading files is `tpv.studies.config`'s work."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, create_model, field_validator, model_validator

from tpv.errors import TpvError, did_you_mean
from tpv.registry import load_plugins, register, source_digest
from tpv.reporting.records import ORDINARY
from tpv.studies.modes import BUILTIN, mode_names
from tpv.studies.parts import Execution, Family, Limits, Quirks
from tpv.studies.tables import (
    Count,
    Distinct,
    Name,
    Seed,
    Settings,
    Switch,
    Training,
    Whole,
    check_recipe,
    overridden,
    renamed,
)
from tpv.tasks.spec import Style
from tpv.training.recipe import Recipe

MOST_TOKENS = 100_000
MOST_STARTS = 10_000
OLD_EXPERIMENTS = {"cross_initialisation": "cross_initialization"}  # of 0.1, still read
BUILTIN_INITS = ("vocabulary", "normal")  # known without loading torch
Table = TypeVar("Table", bound=Settings)


class Model(Settings):
    """The frozen model, as for `tpv.load_backbone`.

    Attributes:
        name: `mini`, `smollm2`, a local folder, a `.gguf` file or a Hugging Face Hub name.
        device: `cpu`, `cuda`, `cuda:1` or `mps`; by default the best available one.
        precision: what the model runs in. Prompts and vectors stay in fp32.
        revision: branch, tag or commit of a Hub model.
        chat: put texts into the tokenizer's chat template (causal models).
        gradient_checkpointing: less memory for more time, with the same result.
        device_map: spread the model over devices: `auto`, or a table from module to a GPU's number, `cpu` or `disk`.
        quantization: load the model in 4 or 8 bits with bitsandbytes.
        max_input_length: input texts are truncated to this many tokens.
    """

    name: str
    device: str | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    revision: str | None = None
    chat: Switch = False
    gradient_checkpointing: Switch = False
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | dict[str, int | str] | None = None
    quantization: Literal["bnb-4bit", "bnb-8bit"] | None = None
    max_input_length: Count = 256


class Prompt(Settings):
    """The prompt.

    Attributes:
        tokens: number of prompt tokens, P.
        init: the initializer of every prompt, in training and in scoring; `tpv registry initializer` lists them.
        init_parameters: parameters of the initializer, by name.
        vocabulary_limit: the initializer `vocabulary` samples token ids below this; 0 takes the whole vocabulary.
    """

    tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS, strict=True)] = 100
    init: str = "vocabulary"
    init_parameters: dict[str, Any] = Field(default_factory=dict)
    vocabulary_limit: Whole = 5000

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.init in BUILTIN_INITS and not self.init_parameters:
            return self
        try:
            register.initializer[self.init].checked(self.init_parameters, f"initializer {self.init!r}")
        except TpvError as error:
            raise ValueError(str(error)) from None
        return self


def _starts(value: object) -> object:
    """The number of initializations, or their seeds; checked here, so that a mistake is reported once."""
    if isinstance(value, bool) or not isinstance(value, int | list | tuple):
        raise ValueError("must be a number of initializations, or a list of their seeds")
    if isinstance(value, int):
        if not 1 <= value <= MOST_STARTS:
            raise ValueError(f"must be a number of initializations from 1 to {MOST_STARTS}, is {value}")
        return value
    if not value or len(set(map(repr, value))) != len(value):
        raise ValueError(f"seeds of the initializations must be at least one, and distinct: {list(value)}")
    return tuple(value)


class Seeds(Settings):
    """Seeds, each for one source of randomness.

    Attributes:
        inits: how many initializations to run (their seeds are 0, 1, …), or a list of their seeds.
        sample: seed of few-shot samples.
        order: seed of the order of the training rows.
        split: seed of splits that tpv holds out.
    """

    inits: Annotated[tuple[Seed, ...] | int, BeforeValidator(_starts)] = 10
    sample: Seed = 0
    order: Seed = 0
    split: Seed = 0

    @property
    def starts(self) -> tuple[int, ...]:
        return tuple(range(self.inits)) if isinstance(self.inits, int) else self.inits

    def first(self, count: int) -> tuple[int, ...]:
        """The first so many of the initializations; 0 for all."""
        return self.starts[: count or None]


class SourceTraining(Settings):
    """Training of the source prompts.

    Attributes:
        training: how all source prompts train.
        per_task: keys of `training` to override for a task, by task.
    """

    training: Training = Field(default_factory=dict)
    per_task: dict[str, dict[str, Any]] = Field(default_factory=dict)


class VectorSettings(Settings):
    """Vectors of the source tasks that are trained as vectors (`tpv.fit_vectors`): further rows of every experiment.

    Attributes:
        modes: training methods. `portable` trains under a fresh initialization at every step; `composable` also adds
            the other sources' vectors at random; `fixed` trains all from zeros, as a baseline. Any other method from
            `tpv registry method` works too; one that trains prompts gives vectors that are tuned minus initialization.
        training: keys that differ from the sources' training.
        per_mode: keys of `training` to override for a mode, by mode.
        inits: train with this many of the initializations' seeds; 0 for all.
        scales: range that a vector's own factor is drawn from in training.
        draws: prompts drawn per step; 0 for one per row, or one per batch on a causal model.
    """

    modes: Annotated[tuple[str, ...], Distinct] = ()
    training: Training = Field(default_factory=dict)
    per_mode: dict[str, Training] = Field(default_factory=dict)
    inits: Whole = 0
    scales: tuple[Annotated[float, Field(gt=0, le=10)], Annotated[float, Field(gt=0, le=10)]] = (1.0, 1.0)
    draws: Whole = 0

    @field_validator("modes")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for mode in value:
            if mode == ORDINARY or (mode not in BUILTIN and mode not in mode_names()):
                raise ValueError(f"unknown value {mode!r}, {did_you_mean(mode, mode_names())}")
        return value

    @field_validator("scales")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"scales must ascend, are {list(value)}")
        return value


class Config(Settings):
    """One study: model, tasks, seeds, and what is done with them.

    Every registered experiment that has settings adds a table of its name: see `config_model`.

    Attributes:
        name: what the study is called.
        model: the frozen model.
        prompt: size and initialization of the prompts.
        seeds: which initializations to run, and the other seeds.
        families: groups of source tasks and of targets that they initialize.
        experiments: the experiments to run; `tpv registry experiment` lists them.
        sources: training of the source prompts.
        vectors: further vectors of the source tasks, trained as vectors.
        limits: caps on the rows of each split.
        style: the template of every task: plain text, or an instruction in words.
        data_dir: folder with local copies of Hub data, `DIR/TASK/{train,validation,test}.*`.
        library: a folder of vectors that join the sources in races (`"transfer"` in `transfer.methods`).
        stored: names and digests of the library's vectors; filled in when a run begins, so that its report does not
            need them.
        task_files: the file of each task that is the user's own, by its name; filled in when a config is read.
        quirks: what the authors' code does and the paper does not say.
        run: how to run; none of it changes a number by more than rounding.
        plugins: modules that register something, found beside the config or among the installed packages.
        plugin_folder: where plugins are looked for; filled in when a config is read.
    """

    name: Name
    model: Model
    prompt: Prompt = Prompt()
    seeds: Seeds = Seeds()
    families: Annotated[tuple[Family, ...], Field(min_length=1)]
    experiments: Annotated[tuple[Annotated[str, renamed(OLD_EXPERIMENTS)], ...], Field(min_length=1), Distinct] = (
        "sources",
        "cross_initialization",
        "similarity",
        "combination",
        "transfer",
        "negation",
        "cost",
    )
    sources: SourceTraining = SourceTraining()
    vectors: VectorSettings = VectorSettings()
    limits: Limits = Limits()
    style: Style = "text"
    data_dir: str | None = None
    library: str | None = None
    stored: dict[str, str] = Field(default_factory=dict)
    task_files: dict[str, str] = Field(default_factory=dict)
    quirks: Quirks = Quirks()
    run: Execution = Execution()
    plugins: Annotated[tuple[str, ...], Distinct] = ()
    plugin_folder: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        mistakes: list[str] = []
        for name in self.experiments:
            if name not in register.experiment:
                mistakes.append(
                    f"experiments: unknown value {name!r}, {did_you_mean(name, register.experiment.names())}"
                )
        for entry in register.experiment:
            if entry.name in self.experiments and hasattr(entry.thing, "mistakes") and type(self) is not Config:
                mistakes += entry.thing.mistakes(self)
        if len(set(self.source_tasks)) != len(self.source_tasks):
            mistakes.append(f"families: a source task occurs twice in {list(self.source_tasks)}")
        if len(set(self.targets)) != len(self.targets):
            mistakes.append(f"families: a target task occurs twice in {list(self.targets)}")
        both = sorted(set(self.source_tasks) & set(self.targets))
        if both:
            mistakes.append(f"families: {both} are sources and targets; a target must be new to the sources")
        names = [family.name for family in self.families]
        if len(set(names)) != len(names):
            mistakes.append(f"families: names repeat: {names}")
        odd = [task for task in (*self.source_tasks, *self.targets) if "+" in task]
        if odd:
            mistakes.append(f"families: task names must not have a + in them, which joins names in results: {odd}")
        if self.data_dir is not None and self.quirks.authors_splits:
            mistakes.append("quirks.authors_splits: the splits of a local copy (data_dir) are used as they are")
        for task, values in self.sources.per_task.items():
            if task not in self.source_tasks:
                mistakes.append(
                    f"sources.per_task.{task}: no such source task, {did_you_mean(task, self.source_tasks)}"
                )
                continue
            try:
                check_recipe(self._source_values(task))
            except ValueError as error:
                mistakes.append(f"sources.per_task.{task}: {error}")
            if not values:
                mistakes.append(f"sources.per_task.{task}: is empty")
        for mode in self.vectors.per_mode:
            if mode not in self.vectors.modes:
                mistakes.append(f"vectors.per_mode.{mode}: is not among the modes {list(self.vectors.modes)}")
        for mode in self.vectors.modes:
            try:
                check_recipe(self._vector_values(mode))
            except ValueError as error:
                mistakes.append(f"vectors, training of mode {mode}: {error}")
        if self.quirks.doubled_prompt and self.prompt.tokens % 2:
            mistakes.append(
                f"quirks.doubled_prompt: needs an even number of prompt tokens, there are {self.prompt.tokens}"
            )
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    def plugin_digest(self) -> str:
        """sha256 over the source files of all plugins; empty without any."""
        digests = filter(None, map(source_digest, self.plugins))
        text = " ".join(digests)
        return hashlib.sha256(text.encode()).hexdigest() if text else ""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by its values: a worker imports the plugins before anything else is unpickled."""
        return restored, (self.model_dump(mode="json"),)

    def table(self, kind: type[Table]) -> Table:
        """The settings of the experiment that this kind of table belongs to."""
        name = next(entry.name for entry in register.experiment if entry.parameters is kind)
        found: Table = getattr(self, name)
        return found

    @property
    def left_out(self) -> list[str]:
        """What is asked for and cannot be, there being too few source tasks."""
        asked = [entry.thing for entry in register.experiment if entry.name in self.experiments]
        return [text for thing in asked if hasattr(thing, "left_out") for text in thing.left_out(self)]

    @property
    def initializer_parameters(self) -> dict[str, Any]:
        """Parameters of the prompt's initializer."""
        own = dict(self.prompt.init_parameters)
        return {"limit": self.vocabulary_limit} | own if self.prompt.init == "vocabulary" else own

    @property
    def source_tasks(self) -> tuple[str, ...]:
        return tuple(task for family in self.families for task in family.sources)

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(task for family in self.families for task in family.targets)

    @property
    def vector_starts(self) -> tuple[int, ...]:
        return self.seeds.first(self.vectors.inits)

    @property
    def live_rows(self) -> int | None:
        return self.prompt.tokens // 2 if self.quirks.doubled_prompt else None

    @property
    def vocabulary_limit(self) -> int:
        return 5000 if self.quirks.first_5000 else self.prompt.vocabulary_limit

    @property
    def split_seed(self) -> int:
        return 42 if self.quirks.trainer_defaults else self.seeds.split

    def _source_values(self, task: str) -> dict[str, Any]:
        return overridden(self.sources.training, self.sources.per_task.get(task, {}))

    def _vector_values(self, mode: str) -> dict[str, Any]:
        training = overridden(self.sources.training, self.vectors.training)
        return overridden(training, self.vectors.per_mode.get(mode, {}))

    def recipe(self, values: Mapping[str, Any]) -> Recipe:
        quirks = self.quirks
        recipe = Recipe(
            **{**values, "seed": 42 if quirks.trainer_defaults else self.seeds.order},
            max_input_length=self.model.max_input_length,
        )
        if quirks.model_dropout:
            recipe = replace(recipe, dropout=True)
        if quirks.select_by_loss:
            recipe = replace(recipe, select="loss")
        if quirks.trainer_defaults:
            recipe = replace(recipe, schedule="linear", max_grad_norm=1.0)
        return recipe

    def source_recipe(self, task: str) -> Recipe:
        """How one source task's prompt is trained; with several tasks joined, by the first."""
        return self.recipe(self._source_values(task))

    def vector_recipe(self, mode: str) -> Recipe:
        """How vectors of a mode are trained."""
        return self.recipe(self._vector_values(mode))

    def joint_recipe(self) -> Recipe:
        """How a prompt is trained on several sources at once."""
        return self.recipe(self.sources.training)


def config_model() -> type[Config]:
    """`Config` with a table for every registered experiment that has settings."""
    return _model(tuple((entry.name, entry.parameters) for entry in register.experiment))


@cache
def _model(tables: tuple[tuple[str, type[Settings]], ...]) -> type[Config]:
    found: dict[str, Any] = {}
    for name, table in tables:
        if table.model_fields:
            if name in Config.model_fields:
                raise TpvError(f"experiment {name!r}", expected="a name that is no key of a config", got=name)
            found[name] = (table, table())
    model: type[Config] = create_model("Config", __base__=Config, **found)
    return model


def restored(values: Mapping[str, Any]) -> Config:
    """A config from the values that `model_dump` gave, its plugins imported first: in a worker's process, say."""
    folder = values.get("plugin_folder")
    load_plugins(values.get("plugins", ()), near=Path(folder) if folder else None)
    return config_model().model_validate(values)
