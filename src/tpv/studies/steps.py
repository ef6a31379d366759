"""How each kind of job is calculated, and what its artifact holds.

| job     | files                                                                       |
|---------|-----------------------------------------------------------------------------|
| train   | `prompt.safetensors`, a `tpv.SoftPrompt`                                    |
| vectors | `vector-<i>.safetensors`, a `tpv.TaskPromptVector`, in the order of tasks   |
| attempt | `state.safetensors`: target prompts and attention                           |
| score   | `predictions.parquet`: one row an example                                   |
| search  | `grid.parquet`: predictions at every scale; `test-<i>.parquet`: at the best |
| compare | `cosines.parquet`; `norms.parquet`: of each start and its vector            |
| measure | `trainings.json`: steps needed, seconds a step                              |
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file
from safetensors.torch import save as safetensors_bytes

from tpv.errors import CutWarning, TpvError, scrub
from tpv.evaluation.score import PromptReader, Scores, SharedPrompt, evaluate, evaluate_readers
from tpv.execution.artifacts import Keys, Store
from tpv.methods.attempt import Attempt, fit_attempt
from tpv.methods.portable import fit_vectors
from tpv.models import Backbone, load_backbone
from tpv.progress import Callback
from tpv.prompts import initializers
from tpv.prompts.algebra import PromptMatrix, SoftPrompt, TaskPromptVector
from tpv.prompts.similarity import cosine_matrix
from tpv.studies.config import task_spec
from tpv.studies.jobs import (
    Attend,
    Blend,
    Compare,
    Data,
    Job,
    Measure,
    Member,
    Prompt,
    Score,
    Search,
    Start,
    Train,
    Vector,
    Vectors,
    Zero,
    task_of,
)
from tpv.studies.settings import Config
from tpv.tasks import Task, concatenate, load_task
from tpv.tasks.hub import DATA_DIR
from tpv.training.loop import fit

Save = Callable[[Path], object]


@dataclass
class Output:
    """What one job gave: how to write its files into a folder, and words for its record."""

    save: Save
    about: dict[str, Any] = field(default_factory=dict)


class Lab:
    """What the steps work with: the config, the model and the tasks (loaded on first use), and the artifacts."""

    def __init__(self, config: Config, store: Store) -> None:
        self.config, self.store = config, store
        self.keys: Keys  # set once model and tasks are known
        self._backbone: Backbone | None = None
        self._tasks: dict[str, Task] = {}
        self._data: dict[Data, Task] = {}
        self._prompts: dict[Start | Zero | Train, SoftPrompt] = {}
        self._vectors: dict[Member, TaskPromptVector] = {}

    @property
    def backbone(self) -> Backbone:
        if self._backbone is None:
            model = self.config.model
            self._backbone = load_backbone(
                model.name,
                device=model.device,
                precision=model.precision,
                revision=model.revision,
                chat=model.chat,
                gradient_checkpointing=model.gradient_checkpointing,
            )
            self._backbone.live_rows = self.config.live_rows
        return self._backbone

    def task(self, name: str) -> Task:
        """A task by the name the config uses, cut to the config's limits."""
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

    def _of_hub(self, name: str) -> bool:
        """Whether a task's rows come from the hub, or from a data folder in its stead."""
        return task_spec(name, self.config.task_files).source.kind == "hub"

    def whole(self, name: str) -> bool:
        """Whether a task has the rows the hub has for it, not those of a local copy and not a limited number."""
        limited = any(value is not None for value in self.config.limits.model_dump().values())
        return self._of_hub(name) and not (self.config.data_dir or os.environ.get(DATA_DIR) or limited)

    def data(self, data: Data) -> Task:
        """The rows that `data` describes."""
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
        key = self.keys(job)
        self.store.record(job.kind, key)
        return self.store.place(job.kind, key) / file

    def prompt(self, prompt: Prompt) -> SoftPrompt:
        """The prompt that an expression stands for."""
        if isinstance(prompt, Blend):
            result = self.prompt(prompt.start)
            for scale, vector in prompt.terms:
                result = self.vector(vector).apply(result, scale)
            return result
        if prompt not in self._prompts:
            if isinstance(prompt, Train):
                self._prompts[prompt] = SoftPrompt.load(self.read(prompt, "prompt.safetensors"))
            elif isinstance(prompt, Zero):
                tensor, init = initializers.zero(self.backbone, self.config.prompt.tokens)
                self._prompts[prompt] = SoftPrompt(tensor, self.backbone.identity, init)
            else:
                count, backbone = self.config.prompt.tokens, self.backbone
                if self.config.prompt.init == "normal":
                    tensor, init = initializers.normal(backbone, count, prompt.seed)
                else:
                    limit = self.config.vocabulary_limit
                    tensor, init = initializers.from_vocabulary(backbone, count, prompt.seed, limit)
                self._prompts[prompt] = SoftPrompt(tensor, backbone.identity, init)
        return self._prompts[prompt]

    def vector(self, vector: Vector) -> TaskPromptVector:
        """Tuned minus start (eq. 5), or what was trained as a vector."""
        if isinstance(vector, Train):
            return self.prompt(vector) - self.prompt(vector.start)
        if vector not in self._vectors:
            name = _vector_file(vector.of.tasks.index(vector.task))
            self._vectors[vector] = TaskPromptVector.load(self.read(vector.of, name))
        return self._vectors[vector]

    def attempt(self, job: Attend) -> Attempt:
        """An ATTEMPT model at its start."""
        names = [data.tasks[0] for data in job.targets]
        sources = [self.prompt(source) for source in job.sources]
        return Attempt(self.backbone, sources, names, seed=job.seed, temperature=job.temperature or None)

    def trained_attempt(self, job: Attend) -> Attempt:
        return self.attempt(job).restore(load_file(self.read(job, "state.safetensors")))


def calculate(lab: Lab, jobs: Sequence[Job], callback: Callback, checkpoint: Path | None) -> list[Output]:
    """The outputs of jobs of one kind that share a bank, in order.

    Args:
        callback: told where training stands.
        checkpoint: where a training keeps its state, to go on from after a kill.
    """
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outputs = _calculate(lab, list(jobs), callback, checkpoint)
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


def _calculate(lab: Lab, jobs: list[Any], callback: Callback, checkpoint: Path | None) -> list[Output]:
    first = jobs[0]
    if isinstance(first, Train):
        return _train(lab, jobs, callback, checkpoint)
    if isinstance(first, Attend):
        return _attend(lab, jobs, callback, checkpoint)
    if isinstance(first, Vectors):
        return [_train_vectors(lab, job, callback, checkpoint) for job in jobs]
    if isinstance(first, Score):
        return _score(lab, jobs)
    single: dict[type, Callable[[Lab, Any], Output]] = {Search: _search, Compare: _compare, Measure: _measure}
    return [single[type(job)](lab, job) for job in jobs]


def _train(lab: Lab, jobs: list[Train], callback: Callback, checkpoint: Path | None) -> list[Output]:
    tuned = fit(
        lab.backbone,
        [lab.data(job.data) for job in jobs],
        [lab.prompt(job.start) for job in jobs],
        jobs[0].recipe,
        callback=callback,
        checkpoint=checkpoint,
    )
    return [Output(partial(_save_prompt, prompt)) for prompt in tuned]


def _save_prompt(prompt: SoftPrompt, folder: Path) -> None:
    prompt.save(folder / "prompt.safetensors")


def _vector_file(place: int) -> str:
    return f"vector-{place}.safetensors"


def _train_vectors(lab: Lab, job: Vectors, callback: Callback, checkpoint: Path | None) -> Output:
    fixed = job.mode == "fixed"
    vectors = fit_vectors(
        lab.backbone,
        [lab.task(task) for task in job.tasks],
        job.recipe,
        portable=not fixed,
        composable=job.mode == "composable",
        starts="zero" if fixed else lab.config.prompt.init,
        num_tokens=lab.config.prompt.tokens,
        seed=job.seed,
        scales=job.scales,
        draws=job.draws,
        callback=callback,
        checkpoint=checkpoint,
    )

    def save(folder: Path) -> None:
        for i, vector in enumerate(vectors):
            vector.save(folder / _vector_file(i))

    return Output(save)


def _attend(lab: Lab, jobs: list[Attend], callback: Callback, checkpoint: Path | None) -> list[Output]:
    models = [lab.attempt(job) for job in jobs]
    recipe = jobs[0].recipe
    if recipe is not None:
        tasks = [[lab.data(data) for data in job.targets] for job in jobs]
        fit_attempt(
            lab.backbone,
            tasks,
            models,
            recipe,
            seeds=[recipe.seed] * len(jobs),
            callback=callback,
            checkpoint=checkpoint,
        )
    return [Output(partial(_save_state, model.state())) for model in models]


def _save_state(state: dict[str, torch.Tensor], folder: Path) -> None:
    (folder / "state.safetensors").write_bytes(safetensors_bytes(state))


def _score(lab: Lab, jobs: list[Score]) -> list[Output]:
    config, parts = lab.config, list[tuple[Task, PromptReader]]()
    for job in jobs:
        task = lab.task(job.task)
        if isinstance(job.prompt, Attend):
            names = [data.tasks[0] for data in job.prompt.targets]
            parts.append((task, lab.trained_attempt(job.prompt).reader(names.index(job.task))))
        else:
            parts.append((task, SharedPrompt(lab.prompt(job.prompt).tensor)))
    with torch.no_grad():
        scores = evaluate_readers(lab.backbone, parts, "test", config.model.max_input_length, config.compare_characters)
    return [Output(partial(_save_table, score.predictions, "predictions.parquet")) for score in scores]


def _save_table(table: pa.Table, name: str, folder: Path) -> None:
    pq.write_table(table, folder / name, compression="zstd")


def _search(lab: Lab, job: Search) -> Output:
    config, start = lab.config, lab.prompt(job.start)
    total = sum((lab.vector(vector) for vector in job.vectors[1:]), lab.vector(job.vectors[0]))
    names = list(map(task_of, job.vectors))
    tasks = [lab.task(name) for name in names]

    def score(of: Task | list[Task], bank: list[SoftPrompt], split: str) -> list[Scores]:
        return evaluate(
            lab.backbone,
            of,
            bank,
            split,
            max_input_length=config.model.max_input_length,
            compare_characters=config.compare_characters,
        )

    prompts = [total.apply(start, scale) for scale in job.scales]
    tables: list[pa.Table] = []
    matches = [0.0] * len(job.scales)
    for name, task in zip(names, tasks, strict=True):
        for i, scores in enumerate(score(task, prompts, "validation")):
            matches[i] += scores.exact_match / len(tasks)
            table = scores.predictions.select(["example", "gold", "predicted"]).replace_schema_metadata()
            table = table.append_column("task", pa.array([name] * scores.n))
            tables.append(table.append_column("scale", pa.array([job.scales[i]] * scores.n)))
    best = max(range(len(job.scales)), key=lambda i: matches[i])  # the smallest of equally good ones
    tested = score(tasks, [prompts[best]] * len(tasks), "test")
    grid = pa.concat_tables(tables)

    def save(folder: Path) -> None:
        _save_table(grid, "grid.parquet", folder)
        for i, scores in enumerate(tested):
            _save_table(scores.predictions, f"test-{i}.parquet", folder)

    return Output(save, {"scale": job.scales[best]})


def _compare(lab: Lab, job: Compare) -> Output:
    """Cosines of the upper triangle; where half of the rows are dead, on the live rows and on all."""
    trained = [prompt for prompt in job.prompts if isinstance(prompt, Train)]  # all of them, or none
    prompts = [lab.prompt(prompt) for prompt in trained]
    vectors = [lab.vector(prompt) for prompt in job.prompts]
    live = lab.config.live_rows
    kinds: dict[str, Sequence[PromptMatrix]] = {"prompts": prompts} if trained else {}
    kinds |= {"vectors": vectors}
    if live is not None and trained:
        kinds = {
            "prompts": [SoftPrompt(p.tensor[:live], p.model, p.init) for p in prompts],
            "vectors": [TaskPromptVector(v.tensor[:live], v.model, v.components) for v in vectors],
            "prompts, all rows": prompts,
            "vectors, all rows": vectors,
        }
    rows: list[dict[str, Any]] = []
    for kind, items in kinds.items():
        matrix = cosine_matrix(items)
        rows += [
            {"kind": kind, "a": a, "b": b, "cosine": float(matrix[a, b]), "values": items[0].tensor.numel()}
            for a in range(len(items))
            for b in range(a + 1, len(items))
        ]
    norms_of_starts = [lab.prompt(prompt.start).norm() for prompt in trained]
    if not trained:  # vectors without a start of their own: beside the starts they are put on
        each = [lab.prompt(Start(seed)).norm() for seed in lab.config.seeds.starts]
        norms_of_starts = [sum(each) / len(each)] * len(vectors)
    norms = [
        {"prompt": i, "start": norm, "vector": vector.norm()}
        for i, (norm, vector) in enumerate(zip(norms_of_starts, vectors, strict=True))
    ]

    def save(folder: Path) -> None:
        _save_table(pa.Table.from_pylist(rows), "cosines.parquet", folder)
        _save_table(pa.Table.from_pylist(norms), "norms.parquet", folder)

    return Output(save)


def _measure(lab: Lab, job: Measure) -> Output:
    """Each training alone for a few steps, without validating: what a step costs."""
    rows: list[dict[str, Any]] = []
    for training in job.trainings:
        if training.recipe is None:
            raise TpvError("a training to measure", expected="one with a recipe", got="none")
        steps = replace(training.recipe, steps=job.steps, epochs=None, select="last")
        if isinstance(training, Train):
            task = lab.data(training.data)
            needed = training.recipe.total_steps(len(task.examples("train")))
            start = lab.prompt(training.start)
            begun = time.perf_counter()
            fit(lab.backbone, task, start, steps, callback=_silent)
        else:
            tasks = [lab.data(data) for data in training.targets]
            needed = training.recipe.total_steps(sum(len(task.examples("train")) for task in tasks))
            model = lab.attempt(training)
            begun = time.perf_counter()
            fit_attempt(lab.backbone, [tasks], [model], steps, seeds=[steps.seed], callback=_silent)
        rows.append({"steps": needed, "seconds_per_step": (time.perf_counter() - begun) / job.steps})
    return Output(lambda folder: (folder / "trainings.json").write_text(json.dumps(rows)))


def _silent(_: object) -> None:
    """A callback for trainings that need no bar."""
