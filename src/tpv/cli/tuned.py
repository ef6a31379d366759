"""What `tpv predict` and `tpv evaluate` work with: a folder that knows its task, or a prompt file and a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tpv.cli.show import input_lines, load_prompt, split_fields, words
from tpv.errors import TpvError

if TYPE_CHECKING:
    from tpv.cli.options import ModelOptions
    from tpv.evaluation.ensemble import Ensemble
    from tpv.evaluation.tuned import ModelChoice, Tuned
    from tpv.outputs.ranking import Calibrator
    from tpv.prompts.algebra import SoftPrompt
    from tpv.tasks import Task


@dataclass
class Usable:
    """A prompt with its task.

    Attributes:
        template: texts go through the task's template.
        model: what a tuned folder names.
        length: texts are truncated to this many tokens.
    """

    task: Task
    prompt: SoftPrompt | Ensemble
    template: bool
    model: ModelChoice | None
    length: int
    calibrator: Calibrator | None = None
    normalize: str | None = None

    @property
    def one_prompt(self) -> SoftPrompt:
        """The prompt, where it has to be one.

        Raises:
            TpvError: an ensemble of `tpv transfer`.
        """
        from tpv.prompts.algebra import SoftPrompt

        if not isinstance(self.prompt, SoftPrompt):
            raise TpvError(
                "this folder's answer is a probe or an average, which generates no text",
                fix="label texts with tpv predict",
            )
        return self.prompt

    def rows(self, texts: list[str] | None) -> list[str]:
        """Whole inputs: texts, or lines of standard input, put through the template."""
        given = input_lines(texts)
        if not self.template:
            return given
        return [
            self.task.render(split_fields(self.task, row, number)) if row.strip() else row
            for number, row in enumerate(given, 1)
        ]

    def whole(self, rows: Sequence[Mapping[str, str]]) -> Sequence[Mapping[str, str]] | list[str]:
        """Rows of a file as `tpv.predict` takes them: through the template, or as they are."""
        return rows if self.template else [next(iter(row.values())) for row in rows]

    def key(self, model: ModelOptions) -> list[object]:
        """All that decides the answers."""
        calibrator = self.calibrator.model_dump() if self.calibrator else None
        spec, choice = self.task.spec.model_dump(mode="json"), model.choice(self.model).model_dump()
        return [self.prompt.digest, spec, self.length, self.normalize, calibrator, choice]

    def columns(self, named: list[str] | None) -> dict[str, str]:
        """The column of each field of the task; those named, in order, or those that are called like the fields."""
        return columns_of(self.task, named)


def columns_of(task: Task, named: Sequence[str] | None) -> dict[str, str]:
    """The column of each field of a task; those named, in order, or those that are called like the fields.

    Raises:
        TpvError: another number of columns than of fields.
    """
    fields = task.spec.fields
    if not named:
        return {field: field for field in fields}
    if len(named) != len(fields):
        raise TpvError("--text", expected=f"{len(fields)}, for {', '.join(fields)}", got=", ".join(named))
    return dict(zip(fields, named, strict=True))


def usable(prompt: Path, task: str | None, labels: str | None, style: str, *, needs_labels: bool = True) -> Usable:
    """What to answer texts with.

    Raises:
        TpvError: a folder together with options that it answers itself; a prompt file without them.
    """
    from tpv.evaluation import MAX_INPUT_LENGTH

    if not prompt.exists():
        raise TpvError(f"{prompt} does not exist", fix="check the path")
    if prompt.is_dir():
        given = {"--task": task is not None, "--labels": labels is not None, "--style": style != "text"}
        if any(given.values()):
            raise TpvError(
                f"{prompt} knows its task",
                got=f"options for prompt files: {', '.join(name for name, there in given.items() if there)}",
                fix="drop them, or give the prompt file in it",
            )
        used = of_folder(load_tuned(prompt))
        if needs_labels and not used.task.labels:
            raise TpvError(f"{prompt} was tuned on a text task", fix="use tpv generate")
        return used
    if not needs_labels and task is None:
        return Usable(words(None, style, ["a", "b"]), load_prompt(prompt), False, None, MAX_INPUT_LENGTH)
    if (task is None) == (labels is None):
        raise TpvError(
            f"which labels {prompt} says",
            expected="a folder that tpv tune wrote, or either --task or --labels",
            got="both" if task else "neither",
        )
    data = words(task, style, [word.strip() for word in str(labels).split(",")])
    return Usable(data, load_prompt(prompt), task is not None, None, MAX_INPUT_LENGTH)


def load_tuned(folder: Path) -> Tuned:
    """The folder that `tpv tune` wrote."""
    from tpv.evaluation.tuned import Tuned

    return Tuned.load(folder)


def of_folder(tuned: Tuned) -> Usable:
    """A tuned folder as something to label with."""
    about = tuned.about
    return Usable(tuned.task, tuned.prompt, True, about.model, about.max_input_length, about.calibrator)
