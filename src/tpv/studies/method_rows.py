"""Registered methods as rows of an experiment: which can be one, and the job that each is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tpv.errors import TpvError
from tpv.registry import register
from tpv.studies.expressions import Data, Initial
from tpv.studies.jobs.adapt import Adapt
from tpv.studies.jobs.prepare import Prepare, method_of
from tpv.studies.jobs.train import Train
from tpv.studies.settings import Config
from tpv.studies.tables import MethodChoice
from tpv.training.recipe import Recipe


def row_names() -> list[str]:
    """The methods that make a prompt for a target: of kind `prompt` or `sources`, or a mixture for one target.

    Plain prompt tuning is the row `random`.
    """
    others = [entry for entry in register.method if entry.name != "prompt_tuning"]
    found = [entry for entry in others if not getattr(entry.thing, "unlearns", False)]
    return [
        entry.name
        for entry in found
        if entry.thing.kind in ("prompt", "sources") or getattr(entry.thing, "single_target", False)
    ]


def adapt_job(
    config: Config, choice: MethodChoice, data: Data, sources: tuple[Train, ...], seed: int, recipe: Recipe | None
) -> Adapt | Initial | None:
    """A target's prompt by a method; None where the method says nothing without rows of the target.

    Args:
        sources: none for a method of kind `prompt`.
        seed: of the initialization.
        recipe: None for the prompt before training.
    """
    if recipe is None and not sources:
        return Initial(seed)
    if not sources:
        return Adapt(data, Initial(seed), choice.method, choice.parameters, (), None, None, recipe)
    method = method_of(choice.method, choice.parameters)
    if recipe is None and not method.zero_shot:
        return None
    prepared = own = None
    if method.prepares:
        prepared = Prepare(sources, choice.method, choice.parameters, config.joint_recipe(), seed)
    first = method.first_recipe(recipe) if recipe else None
    if first is not None:
        own = Train(data, Initial(seed), first)
    return Adapt(data, Initial(seed), choice.method, choice.parameters, sources, prepared, own, recipe)


def misfits(choices: Sequence[MethodChoice], num_tokens: int, sources: int) -> Iterator[str]:
    """What of the methods does not fit prompts of so many tokens, or so many sources."""
    for choice in choices:
        method = method_of(choice.method, choice.parameters)
        if hasattr(method, "check_fit"):
            try:
                method.check_fit(num_tokens, sources)
            except TpvError as error:
                yield str(error)
