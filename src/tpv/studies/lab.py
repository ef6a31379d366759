"""What jobs work with: the config, the model and the tasks (loaded on first use), and the artifacts of other jobs."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tpv.errors import CutWarning, scrub
from tpv.studies.config import task_spec
from tpv.studies.expressions import Data
from tpv.studies.jobs.base import Job, Output, Sizes
from tpv.studies.settings import Config

if TYPE_CHECKING:
    from tpv.evaluation.answers import MatchRule
    from tpv.evaluation.bank import PromptReader
    from tpv.models import Backbone
    from tpv.progress import Callback
    from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
    from tpv.prompts.initializers import Initializer
    from tpv.prompts.library import Library
    from tpv.tasks import Task
    from tpv.training.run import Targets


class Artifacts(Protocol):
    """Where the files of finished jobs are."""

    def file(self, job: Job, name: str) -> Path:
        """A file of a finished job, checked.

        Raises:
            DamagedFileError: missing or altered.
        """
        ...


class Lab:
    """What the jobs of a config share; nothing is loaded before it is used.

    Attributes:
        artifacts: of the run directory; set once model and tasks are known.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.artifacts: Artifacts
        self._tasks: dict[str, Task] = {}
        self._data: dict[Data, Task] = {}
        self._prompts: dict[Any, SoftPrompt] = {}
        self._vectors: dict[Any, TaskPromptVector] = {}

    @cached_property
    def backbone(self) -> Backbone:
        """The model."""
        from tpv.compat.half import half_prompt
        from tpv.models import load_backbone

        model = self.config.model
        backbone = load_backbone(
            model.name,
            device=model.device,
            precision=model.precision,
            revision=model.revision,
            chat=model.chat,
            gradient_checkpointing=model.gradient_checkpointing,
            device_map=model.device_map,
            quantization=model.quantization,
        )
        live = self.config.live_rows
        return backbone if live is None else half_prompt(backbone, live)

    @cached_property
    def initializer(self) -> Initializer:
        """What every prompt is initialized by, in training and in scoring."""
        from tpv.prompts import initializers

        return initializers.make(self.config.prompt.init, **self.config.initializer_parameters)

    @cached_property
    def library(self) -> Library:
        """The vectors of the config's library."""
        from tpv.prompts.library import Library

        return Library(self.config.library)

    @cached_property
    def match(self) -> MatchRule | None:
        """What of a label word an output has to begin with; None for all of it."""
        from tpv.compat.match import prefix_match

        return prefix_match(16) if self.config.quirks.authors_f1 else None

    @cached_property
    def targets(self) -> Targets | None:
        """What rows teach; None for their gold answers."""
        from tpv.compat.targets import padded_targets

        return padded_targets if self.config.quirks.label_padding else None

    def task(self, name: str) -> Task:
        """A task by the name the config uses, limited to the config's number of rows."""
        from tpv.tasks import load_task

        if name not in self._tasks:
            config = self.config
            real = name
            if config.quirks.sst5_is_sst2 and name.endswith("sst5"):
                real = name.removesuffix("sst5") + "sst2"
            task = load_task(
                Path(config.task_files[real]) if real in config.task_files else real,
                seed=config.split_seed,
                data_dir=config.data_dir if self._of_hub(real) else None,
                authors_splits=config.quirks.authors_splits and self._of_hub(real),
                style=config.style,
            )
            limits = {split: most for split, most in config.limits.model_dump().items() if most is not None}
            self._tasks[name] = task.limited(limits, config.split_seed)
        return self._tasks[name]

    def sizes(self, names: Sequence[str]) -> Sizes:
        """Rows of these tasks, by split."""
        return {name: {split: len(rows) for split, rows in self.task(name).splits.items()} for name in names}

    def _of_hub(self, name: str) -> bool:
        """Whether a task's rows come from the hub, or from a data folder in its stead."""
        return task_spec(name, self.config.task_files).source.kind == "hub"

    def whole(self, name: str) -> bool:
        """Whether a task has the rows the hub has for it, not those of a local copy and not a limited number."""
        from tpv.tasks.hub import DATA_DIR

        limited = any(value is not None for value in self.config.limits.model_dump().values())
        return self._of_hub(name) and not (self.config.data_dir or os.environ.get(DATA_DIR) or limited)

    def data(self, data: Data) -> Task:
        """The rows that `data` describes."""
        from tpv.tasks import concatenate

        if data not in self._data:
            tasks = [self.task(name) for name in data.tasks]
            task = tasks[0] if len(tasks) == 1 else concatenate(tasks)
            if data.shots is not None:
                task = task.few_shot(data.shots, data.sample_seed)
            if data.validation_rows is not None:
                task = task.limited({"validation": data.validation_rows}, data.sample_seed)
            self._data[data] = task
        return self._data[data]

    def read(self, job: Job, file: str) -> Path:
        """A file of a finished job, checked.

        Raises:
            DamagedFileError: missing or altered.
        """
        return self.artifacts.file(job, file)

    def prompt(self, expression: Any) -> SoftPrompt:
        """The prompt that an expression stands for."""
        if not expression.kept:
            made: SoftPrompt = expression.prompt(self)
            return made
        if expression not in self._prompts:
            self._prompts[expression] = expression.prompt(self)
        return self._prompts[expression]

    def vector(self, expression: Any) -> TaskPromptVector:
        """The vector that an expression stands for."""
        if expression not in self._vectors:
            self._vectors[expression] = expression.vector(self)
        return self._vectors[expression]

    def reader(self, expression: Any, task: str) -> PromptReader:
        """What gives each row of a task its prompt: one prompt for all, or what a job's model makes of the row."""
        from tpv.evaluation.bank import SharedPrompt

        own = getattr(expression, "reader", None)
        if own is not None:
            reader: PromptReader = own(self, task)
            return reader
        return SharedPrompt(self.prompt(expression).tensor)


def calculate(lab: Lab, jobs: Sequence[Job], callback: Callback, checkpoint: Path | None) -> list[Output]:
    """The outputs of jobs of one kind that share a bank, in order.

    Args:
        callback: told how far a training is.
        checkpoint: where a training keeps its state, to resume from after a kill.
    """
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outputs = type(jobs[0]).run(lab, jobs, callback, checkpoint)
    seconds = time.perf_counter() - started
    said = {(scrub(str(one.message)), one.category) for one in caught if issubclass(one.category, UserWarning)}
    kinds = {
        "cut": sorted(message for message, category in said if issubclass(category, CutWarning)),
        "warnings": sorted(message for message, category in said if not issubclass(category, CutWarning)),
    }
    for output in outputs:
        output.about |= {"seconds": seconds / len(jobs), "bank": len(jobs)}
        output.about |= {kind: messages for kind, messages in kinds.items() if messages}
    return outputs
