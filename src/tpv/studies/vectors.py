"""The prompts and vectors of a config's source tasks, as expressions."""

from __future__ import annotations

from typing import Any

from tpv.reporting.records import ORDINARY
from tpv.studies.expressions import Data, Initial, Member, TrainedVector, Zeros
from tpv.studies.jobs.train import Train
from tpv.studies.jobs.vectors import Vectors
from tpv.studies.modes import BUILTIN, mode_of
from tpv.studies.settings import Config


def modes_of(config: Config, seed: int) -> tuple[str, ...]:
    """The modes in which vectors are trained with a seed, beside ordinary ones."""
    return config.vectors.modes if seed in config.vector_starts else ()


def source_prompt(config: Config, task: str, seed: int) -> Train:
    """A source task's prompt from one initialization."""
    return Train(Data((task,)), Initial(seed), config.source_recipe(task))


def trained_vector(config: Config, mode: str, task: str, seed: int) -> TrainedVector:
    """A source task's vector: of its tuned prompt, or one that was trained in another mode."""
    if mode == ORDINARY:
        return source_prompt(config, task, seed)
    if mode_of(mode).kind == "prompt":
        return Train(Data((task,)), Initial(seed), config.vector_recipe(mode), mode)
    settings = config.vectors
    parameters: tuple[tuple[str, Any], ...] = ()
    if mode in BUILTIN:
        parameters = (("draws", settings.draws or None), ("scales", settings.scales))
    return Member(Vectors(config.source_tasks, mode, seed, config.vector_recipe(mode), parameters), task)


def base_of(mode: str, seed: int) -> Initial | Zeros:
    """What vectors of a mode are added to: zeros, where that is what they come from, else a drawn initialization."""
    return Zeros() if mode_of(mode).home else Initial(seed)
