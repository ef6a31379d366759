"""What a config says: the pydantic models behind `configs/*.toml`. Reading files is `tpv.studies.config`'s work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from tpv.errors import TpvError, did_you_mean
from tpv.tasks.spec import Style
from tpv.training.recipe import Recipe

MOST_TOKENS = 100_000
MOST_STARTS = 10_000

Experiment = Literal[
    "sources", "cross_initialisation", "similarity", "combination", "transfer", "negation", "cost"
]  # in the order in which they run
Method = Literal["random", "spot", "spot_multi", "attempt", "sum"]
Negation = Literal[
    "sum - own vector", "sum - other start's vector", "tuned - own vector", "tuned - other start's vector"
]
VectorMode = Literal["portable", "composable", "fixed"]
Mode = Literal["ordinary", "portable", "composable", "fixed"]  # ordinary: a tuned prompt minus its start
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Whole = Annotated[int, Field(ge=0, le=10**9, strict=True)]
Switch = Annotated[bool, Field(strict=True)]
# no control characters, and none that turn the direction of writing
Name = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069]+$")]
Item = TypeVar("Item")


def _distinct(values: tuple[Item, ...]) -> tuple[Item, ...]:
    if len(set(values)) != len(values):
        raise ValueError(f"repeats itself: {list(values)}")
    return values


Each = AfterValidator(_distinct)


def _check_recipe(values: dict[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values if `Recipe` takes them; what is set elsewhere may not be among them."""
    known = {field.name for field in fields(Recipe)} - {"seed", "max_input_length", *without}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise ValueError("; ".join(f"unknown key {key!r}, {did_you_mean(key, known)}" for key in unknown))
    try:
        Recipe(**values)
    except TpvError as error:
        raise ValueError(str(error.got)) from None
    return values


def _overridden(training: Mapping[str, Any], mine: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a training with some of them others; steps replace epochs, and epochs steps."""
    length = {"steps", "epochs"} if mine.keys() & {"steps", "epochs"} else set()
    return {key: value for key, value in training.items() if key not in length} | dict(mine)


Training = Annotated[dict[str, Any], AfterValidator(_check_recipe)]
# their batch size (and ATTEMPT's epochs) go by the number of shots
FewShot = Annotated[dict[str, Any], AfterValidator(partial(_check_recipe, without=("batch_size",)))]
ByShots = Annotated[dict[str, Any], AfterValidator(partial(_check_recipe, without=("batch_size", "epochs", "steps")))]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Model(_Table):
    """The frozen model, as for `tpv.load_backbone`."""

    name: str
    device: str | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    revision: str | None = None
    chat: Switch = False
    gradient_checkpointing: Switch = False
    max_input_length: Count = 256


class Prompt(_Table):
    """The prompt. `vocabulary_limit`: token ids to sample from are below this; 0 takes the whole vocabulary."""

    tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS, strict=True)] = 100
    init: Literal["vocabulary", "normal"] = "vocabulary"
    vocabulary_limit: Whole = 0


def _starts(value: object) -> object:
    """How many starts, or their seeds: checked here, so that a mistake is told once."""
    if isinstance(value, bool) or not isinstance(value, int | list | tuple):
        raise ValueError("must be a number of starts, or a list of their seeds")
    if isinstance(value, int):
        if not 1 <= value <= MOST_STARTS:
            raise ValueError(f"must be a number of starts from 1 to {MOST_STARTS}, is {value}")
        return value
    if not value or len(set(map(repr, value))) != len(value):
        raise ValueError(f"seeds of the starts must be at least one, and distinct: {list(value)}")
    return tuple(value)


class Seeds(_Table):
    """Three seeds, kept apart, and that of the splits. `inits`: how many starts (0, 1, ...), or their seeds."""

    inits: Annotated[tuple[Seed, ...] | int, BeforeValidator(_starts)] = 10
    sample: Seed = 0
    order: Seed = 0
    split: Seed = 0

    @property
    def starts(self) -> tuple[int, ...]:
        return tuple(range(self.inits)) if isinstance(self.inits, int) else self.inits

    def first(self, count: int) -> tuple[int, ...]:
        """So many of the starts; 0 for all."""
        return self.starts[: count or None]


class Family(_Table):
    """Sources whose vectors are added and whose prompts are passed on, and the targets they go to.

    `min_shots`: few-shot samples are no smaller than this (the paper's topic tasks start at 10).
    """

    name: Name
    sources: Annotated[tuple[str, ...], Field(min_length=1)]
    targets: tuple[str, ...] = ()
    min_shots: Whole = 0


class Sources(_Table):
    """Training of the source prompts; `per_task` overrides keys of `training` for a task."""

    training: Training = Field(default_factory=dict)
    per_task: dict[str, dict[str, Any]] = Field(default_factory=dict)


class VectorSettings(_Table):
    """Vectors of the source tasks that are trained as vectors (`tpv.fit_vectors`): further rows of every experiment.

    Attributes:
        modes: `portable`: under a fresh start at every step; `composable`: so, and with the other sources' vectors
            added by chance; `fixed`: all from one start of zeros, the simplest rival.
        training: keys of the sources' training that are to differ; `per_mode` overrides them for a mode.
        inits: how many of the starts' seeds they are trained with; 0 for all.
        scales: range of a vector's own factor in training.
        draws: how many prompts are drawn a step; 0 for one a row, or one a batch on a causal model.
    """

    modes: Annotated[tuple[VectorMode, ...], Each] = ()
    training: Training = Field(default_factory=dict)
    per_mode: dict[VectorMode, Training] = Field(default_factory=dict)
    inits: Whole = 0
    scales: tuple[Annotated[float, Field(gt=0, le=10)], Annotated[float, Field(gt=0, le=10)]] = (1.0, 1.0)
    draws: Whole = 0

    @field_validator("scales")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"scales must ascend, are {list(value)}")
        return value


class Combination(_Table):
    """Sums of source vectors.

    Attributes:
        sizes: how many vectors are added, 2 for pairs.
        scale_step: of the grid of lambdas from 0 to 1.
        inits: from how many of the starts; 0 for all.
    """

    sizes: Annotated[tuple[Annotated[int, Field(ge=2, strict=True)], ...], Field(min_length=1), Each] = (2,)
    scale_step: Annotated[float, Field(ge=0.001, le=1, strict=True)] = 0.05
    inits: Whole = 0

    @property
    def scales(self) -> tuple[float, ...]:
        count = round(1 / self.scale_step)
        return tuple(round(i / count, 6) for i in range(count + 1))

    @field_validator("scale_step")
    @classmethod
    def _divides_one(cls, value: float) -> float:
        if abs(round(1 / value) * value - 1) > 1e-9:
            raise ValueError(f"scale_step must divide 1, is {value}")
        return value


class Transfer(_Table):
    """Targets by shots, methods and starts.

    Attributes:
        shots: training examples in total; 0 is evaluation only.
        methods: `spot` is one row a source, `spot_multi` one prompt trained on all sources of the family.
        baseline_inits: how many of the starts `spot_multi` and `attempt` run from; 0 for all.
        vary_sample: draw another sample for each start; otherwise one sample serves all.
        validation_rows: keep only so many validation examples; 0 for all.
        training: of the few-shot runs; `batch_size` is `[up to this many shots, rows]`, ascending.
        attempt_training: of ATTEMPT; `attempt_schedule` is `[up to this many shots, rows, epochs]`.
        temperature: of ATTEMPT's attention; 0 for e times the model's width.
    """

    shots: Annotated[tuple[Whole, ...], Field(min_length=1), Each] = (0, 100)
    methods: Annotated[tuple[Method, ...], Field(min_length=1), Each] = (
        "random",
        "spot",
        "spot_multi",
        "attempt",
        "sum",
    )
    baseline_inits: Whole = 3
    vary_sample: Switch = False
    validation_rows: Whole = 0
    training: FewShot = Field(default_factory=dict)
    batch_size: tuple[tuple[Count, Count], ...] = ((25, 2), (250, 8), (1000, 16))
    attempt_training: ByShots = Field(default_factory=dict)
    attempt_schedule: tuple[tuple[Count, Count, Count], ...] = ((25, 2, 30), (250, 8, 20), (1000, 16, 10))
    temperature: Annotated[float, Field(ge=0, le=1e9, strict=True)] = 0

    @model_validator(mode="after")
    def _covered(self) -> Self:
        for name in ("batch_size", "attempt_schedule"):
            limits = [row[0] for row in getattr(self, name)]
            if not limits or limits != sorted(set(limits)) or limits[-1] < max(self.shots):
                raise ValueError(f"{name} must list ascending numbers of shots up to {max(self.shots)}, lists {limits}")
        return self


class NegationSettings(_Table):
    """Subtract `scales` times a task's vector, for each ordered pair of a family's sources."""

    scales: Annotated[tuple[Annotated[float, Field(ge=0, le=100, strict=True)], ...], Field(min_length=1), Each] = (
        0,
        0.5,
        1,
        1.5,
        2,
    )
    methods: Annotated[tuple[Negation, ...], Field(min_length=1), Each] = (
        "sum - own vector",
        "sum - other start's vector",
        "tuned - own vector",
        "tuned - other start's vector",
    )
    sum_scale: Annotated[float, Field(gt=0, le=10, strict=True)] = 1.0


class Cost(_Table):
    """Add one source to a pool: `steps` are trained alone and timed, the rest is calculated."""

    pools: Annotated[tuple[Count, ...], Each] = ()  # sizes of the pool; by default 1 to all sources but one
    steps: Count = 20


class Limits(_Table):
    """At most so many examples of a task in each split, class distribution kept."""

    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None


class Quirks(_Table):
    """What the authors' code does and the paper does not say; numbers as in docs/quirks.md. All off by default.

    Attributes:
        doubled_prompt: (1) only the first half of a prompt's rows is read.
        first_5000: (2) starts are sampled from token ids below 5,000.
        label_padding: (3) the padding of label words enters the loss.
        sst5_is_sst2: (4) the target called sst5 has the rows and label words of sst2.
        authors_f1: (5) F1 of the positive class for binary tasks, words compared on 16 characters.
        few_shot_validation: (6) 250 validation examples for few-shot runs, one sample for all starts.
        select_by_loss: (7) the best checkpoint is the one of lowest validation loss.
        authors_splits: (8) MNLI validates on mismatched, TREC halves its test split.
        model_dropout: (16) the frozen model's dropout stays on in training.
        trainer_defaults: (17) linear decay, clipping at 1.0, seed 42 for splits and order.
    """

    doubled_prompt: Switch = False
    first_5000: Switch = False
    label_padding: Switch = False
    sst5_is_sst2: Switch = False
    authors_f1: Switch = False
    few_shot_validation: Switch = False
    select_by_loss: Switch = False
    authors_splits: Switch = False
    model_dropout: Switch = False
    trainer_defaults: Switch = False


class Execution(_Table):
    """How to run; none of it but `bank` and `cpus` can change a number, and those only in the last bits.

    Attributes:
        cpus: cores of a worker, the threads it calculates with; 0 for all there are, which only one worker can have.
        gpus: what a worker takes of a GPU; 0 leaves it to a single worker to use what is there.
    """

    bank: Count = 32
    cpus: Whole = 0
    gpus: Annotated[float, Field(ge=0, le=1, strict=True)] = 0
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], Each] = ()
    energy: Switch = True
    country: Annotated[str, Field(pattern="^[A-Z]{3}$")] | None = None


class Config(_Table):
    """One study: model, tasks, seeds, and what is done with them.

    `style`: which template every task goes through, `text` or `instruct`. `task_files` is filled in when a config is
    read: the file of each task that is the user's own, by its name.
    """

    name: Name
    model: Model
    prompt: Prompt = Prompt()
    seeds: Seeds = Seeds()
    families: Annotated[tuple[Family, ...], Field(min_length=1)]
    experiments: Annotated[tuple[Experiment, ...], Field(min_length=1), Each] = (
        "sources",
        "cross_initialisation",
        "similarity",
        "combination",
        "transfer",
        "negation",
        "cost",
    )
    sources: Sources = Sources()
    vectors: VectorSettings = VectorSettings()
    combination: Combination = Combination()
    transfer: Transfer = Transfer()
    negation: NegationSettings = NegationSettings()
    cost: Cost = Cost()
    limits: Limits = Limits()
    style: Style = "text"
    data_dir: str | None = None
    task_files: dict[str, str] = Field(default_factory=dict)
    quirks: Quirks = Quirks()
    run: Execution = Execution()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        mistakes: list[str] = []
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
                _check_recipe(self._source_values(task))
            except ValueError as error:
                mistakes.append(f"sources.per_task.{task}: {error}")
            if not values:
                mistakes.append(f"sources.per_task.{task}: is empty")
        for mode in self.vectors.per_mode:
            if mode not in self.vectors.modes:
                mistakes.append(f"vectors.per_mode.{mode}: is not among the modes {list(self.vectors.modes)}")
        for mode in self.vectors.modes:
            try:
                _check_recipe(self._vector_values(mode))
            except ValueError as error:
                mistakes.append(f"vectors, training of mode {mode}: {error}")
        if self.quirks.doubled_prompt and self.prompt.tokens % 2:
            mistakes.append(
                f"quirks.doubled_prompt: needs an even number of prompt tokens, there are {self.prompt.tokens}"
            )
        if mistakes:
            raise ValueError("\n".join(mistakes))
        return self

    @property
    def source_tasks(self) -> tuple[str, ...]:
        return tuple(task for family in self.families for task in family.sources)

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(task for family in self.families for task in family.targets)

    @property
    def left_out(self) -> list[str]:
        """What is asked for and cannot be, there being too few source tasks."""
        count = len(self.source_tasks)
        sizes = [f"sums of {size} vectors" for size in self.combination.sizes if size > count]
        return sizes + [f"cost at a pool of {size}" for size in self.cost.pools if size >= count]

    @property
    def baseline_starts(self) -> tuple[int, ...]:
        return self.seeds.first(self.transfer.baseline_inits)

    @property
    def vector_starts(self) -> tuple[int, ...]:
        return self.seeds.first(self.vectors.inits)

    @property
    def combined_starts(self) -> tuple[int, ...]:
        return self.seeds.first(self.combination.inits)

    @property
    def live_rows(self) -> int | None:
        return self.prompt.tokens // 2 if self.quirks.doubled_prompt else None

    @property
    def vocabulary_limit(self) -> int:
        return 5000 if self.quirks.first_5000 else self.prompt.vocabulary_limit

    @property
    def compare_characters(self) -> int | None:
        return 16 if self.quirks.authors_f1 else None

    @property
    def split_seed(self) -> int:
        return 42 if self.quirks.trainer_defaults else self.seeds.split

    def _source_values(self, task: str) -> dict[str, Any]:
        return _overridden(self.sources.training, self.sources.per_task.get(task, {}))

    def _vector_values(self, mode: VectorMode) -> dict[str, Any]:
        training = _overridden(self.sources.training, self.vectors.training)
        return _overridden(training, self.vectors.per_mode.get(mode, {}))

    def _recipe(self, values: Mapping[str, Any]) -> Recipe:
        quirks = self.quirks
        recipe = Recipe(
            **{**values, "seed": 42 if quirks.trainer_defaults else self.seeds.order},
            max_input_length=self.model.max_input_length,
        )
        if quirks.label_padding:
            recipe = replace(recipe, label_padding=True)
        if quirks.model_dropout:
            recipe = replace(recipe, dropout=True)
        if quirks.select_by_loss:
            recipe = replace(recipe, select="loss")
        if quirks.trainer_defaults:
            recipe = replace(recipe, schedule="linear", max_grad_norm=1.0)
        return recipe

    def source_recipe(self, task: str) -> Recipe:
        """How one source task's prompt is trained; with several tasks joined, by the first."""
        return self._recipe(self._source_values(task))

    def vector_recipe(self, mode: VectorMode) -> Recipe:
        """How vectors of a mode are trained."""
        return self._recipe(self._vector_values(mode))

    def joint_recipe(self) -> Recipe:
        """How a prompt is trained on several sources at once."""
        return self._recipe(self.sources.training)

    def few_shot_recipe(self, shots: int) -> Recipe:
        rows = next(rows for most, rows in self.transfer.batch_size if shots <= most)
        return self._recipe({**self.transfer.training, "batch_size": rows})

    def attempt_recipe(self, shots: int) -> Recipe:
        _, rows, epochs = next(row for row in self.transfer.attempt_schedule if shots <= row[0])
        return self._recipe({**self.transfer.attempt_training, "batch_size": rows, "epochs": epochs})

    def shots_of(self, family: Family) -> tuple[int, ...]:
        """Shots of a family's targets; 0 is always possible."""
        return tuple(shots for shots in self.transfer.shots if shots == 0 or shots >= family.min_shots)

    @property
    def few_shot_validation(self) -> int | None:
        return 250 if self.quirks.few_shot_validation else self.transfer.validation_rows or None

    def sample_seed(self, start: int) -> int:
        """Seed of the few-shot draw of a run from this start."""
        vary = self.transfer.vary_sample and not self.quirks.few_shot_validation
        return self.seeds.sample + start if vary else self.seeds.sample
