"""A folder that `tpv tune` wrote, complete: the prompt, and in `task.toml` the task and model it was tuned for.

What a text goes through is kept with the prompt, so that serving cannot drift apart from training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tpv.errors import TpvError
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.evaluation.ensemble import Ensemble, PartRecord
from tpv.outputs.ranking import Calibrator
from tpv.outputs.scores import Scores
from tpv.prompts.algebra import SoftPrompt
from tpv.registry import told
from tpv.tasks import SPLITS, Task, load_task
from tpv.tasks.local import task_from_files
from tpv.tasks.spec import FileSource, HubSource, TaskSpec, build_spec, read_toml

if TYPE_CHECKING:
    from tpv.models import Backbone
    from tpv.models.placement import DeviceMap

# What `tpv tune` and `tpv transfer` leave in a folder: a new result takes the place of all of an older one.
RESULT_FILES = (
    "init.safetensors",
    "prompt.safetensors",
    "vector.safetensors",
    "[0-9]*.prompt.safetensors",
    "[0-9]*.probe.safetensors",
    "history.csv",
    "transfer.json",
    "transfer.html",
)
TASK_FILE, PROMPT_FILE = "task.toml", "prompt.safetensors"


class ModelChoice(BaseModel):
    """The model that a prompt was tuned on, as `tpv.load_backbone` takes it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    chat: bool = False
    quantization: Literal["bnb-4bit", "bnb-8bit"] | None = None

    def load(
        self, *, device: str | None = None, device_map: DeviceMap | None = None, recompute: bool = False
    ) -> Backbone:
        """The model; what does not decide its numbers is an argument, see `tpv.load_backbone`."""
        from tpv.models import load_backbone

        return load_backbone(
            self.name,
            device=device,
            device_map=device_map,
            precision=self.precision,
            revision=self.revision,
            chat=self.chat,
            gradient_checkpointing=recompute,
            quantization=self.quantization,
        )


class TunedScore(BaseModel):
    """How the tuned prompt did, as a task file keeps it.

    Attributes:
        start: the initialization it was tuned from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    task: str
    split: str
    start: str
    n: int
    exact_match: float
    majority: float
    macro_f1: float | None = None
    f1: float | None = None
    invalid_rate: float | None = None

    @classmethod
    def of(cls, scores: Scores, task: str, split: str, start: str) -> TunedScore:
        """What is kept of its scores."""
        return cls(
            task=task,
            split=split,
            start=start,
            n=scores.n,
            exact_match=scores.exact_match,
            majority=scores.majority,
            macro_f1=scores.macro_f1,
            f1=scores.positive_f1,
            invalid_rate=scores.invalid_rate,
        )


class About(BaseModel):
    """The table `[tuned]` of a task file.

    Attributes:
        model: what it was tuned on.
        max_input_length: texts are truncated to this many tokens.
        calibrator: of its probabilities, where one was fitted.
        parts: of an ensemble, where not one prompt answers.
        scores: of the tuned prompt on its test split, where that has rows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: ModelChoice
    max_input_length: Annotated[int, Field(ge=1)] = MAX_INPUT_LENGTH
    calibrator: Calibrator | None = None
    parts: tuple[PartRecord, ...] = ()
    scores: tuple[TunedScore, ...] = ()


@dataclass(frozen=True)
class Tuned:
    """A tuned prompt with all that it takes to use it.

    Attributes:
        task: its template, label words and so on, without rows.
        prompt: the tuned prompt, or the ensemble that `tpv.transfer` chose.
        about: model, lengths, calibrator.
    """

    task: Task
    prompt: SoftPrompt | Ensemble
    about: About

    def save(self, folder: Path) -> None:
        """Write `task.toml` into a folder, beside the prompt; the parts of an ensemble, too."""
        import tomli_w

        spec = self.task.spec
        if isinstance(spec.source, FileSource):  # the rows do not come with the prompt
            spec = spec.model_copy(update={"source": spec.source.model_copy(update=dict.fromkeys(SPLITS))})
        content = spec.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        content |= {"source": spec.source.model_dump(mode="json", exclude_none=True)}
        if spec.output != "label":
            content["output"] = spec.output
        about = self.about
        if isinstance(self.prompt, Ensemble):
            about = about.model_copy(update={"parts": self.prompt.save(folder)})
        kept = about.model_dump(mode="json", exclude_none=True)
        content["tuned"] = {name: value for name, value in kept.items() if name not in ("parts", "scores") or value}
        (folder / TASK_FILE).write_text(tomli_w.dumps(content), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> Tuned:
        """Read a folder that `tpv tune` wrote.

        Raises:
            TpvError: no such folder, one without a prompt or task file (as 0.1 wrote them), or files that do not read.
        """
        place = Path(folder)
        file = place / TASK_FILE
        if not file.is_file():
            raise TpvError(
                f"{place} is not a complete tuned folder",
                expected=f"{TASK_FILE} and {PROMPT_FILE} in it",
                got="neither" if not (place / PROMPT_FILE).is_file() else f"only {PROMPT_FILE}",
                fix=f"give the prompt file itself, {place / PROMPT_FILE}, with --task or --labels"
                if (place / PROMPT_FILE).is_file()
                else "check the path",
            )
        content = read_toml(file, "task file")
        if "tuned" not in content:
            raise TpvError(f"task file {file} has no table [tuned]", fix="it was not written by tpv tune")
        try:
            about = About.model_validate(content.pop("tuned"))
        except ValidationError as error:
            mistakes = "; ".join(told(error, About))
            raise TpvError(f"task file {file}: [tuned] does not fit", got=mistakes) from None
        spec = build_spec(content, where=f"task file {file}")
        if about.calibrator is not None:
            about.calibrator.check(spec.labels)
        task = Task(spec, {})
        if about.parts:
            return cls(task, Ensemble.load(place, about.parts, len(task.labels)), about)
        return cls(task, SoftPrompt.load(place / PROMPT_FILE), about)

    def with_rows(self, *, label: str | None = None, encoding: str | None = None, **splits: Path | None) -> Task:
        """The task with rows: of these files, or else those that it comes with.

        Args:
            label: the files' label column, where it is not that of training.
            encoding: of the files, where they are not UTF-8.
            splits: the file of each split.

        Raises:
            TpvError: no file, and own data, whose rows do not come with the prompt; see also `tpv.load_task`.
        """
        files = {split: str(path.resolve()) for split, path in splits.items() if path is not None}
        spec = self.task.spec
        if not files:
            if isinstance(spec.source, FileSource):
                raise TpvError(f"rows of task {spec.name!r}", expected="--test FILE, its rows are your own", got="none")
            return _rows_of(spec)
        given: dict[str, Any] = {"kind": "files", **files}
        if isinstance(spec.source, FileSource | HubSource):
            given |= {name: getattr(spec.source, name) for name in ("label_column", "target_column")}
        if label is not None:
            given["target_column" if spec.output == "text" else "label_column"] = label
        own = spec.model_copy(update={"source": FileSource.model_validate(given), "splits": "given"})
        return task_from_files(own, Path(), encoding=encoding)


def scores_in(folder: Path) -> list[dict[str, Any]]:
    """The scores that are kept in a tuned folder, for a library; none where its task file does not read."""
    try:
        about = About.model_validate(read_toml(folder / TASK_FILE, "task file").get("tuned"))
    except (TpvError, ValidationError):
        return []
    return [score.model_dump() for score in about.scores]


def _rows_of(spec: TaskSpec) -> Task:
    """The rows of a task that comes with tpv, in the template it was tuned with."""
    plain = load_task(spec.name)
    if plain.spec.template == spec.template:
        return plain
    styled = load_task(spec.name, style="instruct")
    if styled.spec.template == spec.template:
        return styled
    raise TpvError(f"task {spec.name!r} has another template now", fix="give its rows as --test FILE")
