"""What the tables of a config are made of: types that refuse what cannot be meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tpv.errors import TpvError, did_you_mean
from tpv.registry import Registry, register
from tpv.training.recipe import Recipe

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


Distinct = AfterValidator(_distinct)


def renamed(old: Mapping[str, str]) -> BeforeValidator:
    """Old names of values are read as what they are called now."""
    return BeforeValidator(lambda value: old.get(value, value) if isinstance(value, str) else value)


def check_recipe(values: dict[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
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


def overridden(training: Mapping[str, Any], mine: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a training with some of them others; steps replace epochs, and epochs steps."""
    length = {"steps", "epochs"} if mine.keys() & {"steps", "epochs"} else set()
    return {key: value for key, value in training.items() if key not in length} | dict(mine)


Training = Annotated[dict[str, Any], AfterValidator(check_recipe)]
# their batch size (and ATTEMPT's epochs) go by the number of shots
FewShot = Annotated[dict[str, Any], AfterValidator(partial(check_recipe, without=("batch_size",)))]
ByShots = Annotated[dict[str, Any], AfterValidator(partial(check_recipe, without=("batch_size", "epochs", "steps")))]


class Settings(BaseModel):
    """A table of a config; refuses unknown keys and is immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class Choice(Settings):
    """An extension and its parameters: a table of a config with the name as `method` and the parameters beside it.

    Attributes:
        method: the registered name.
        given: the parameters that the config sets, by name.
        parameters: all parameters, by name.
    """

    method: str
    given: tuple[tuple[str, Any], ...] = ()
    parameters: tuple[tuple[str, Any], ...] = ()


class MergeChoice(Choice):
    """A way to merge vectors: a name from `tpv.register.merge`, or a table with the name as `method`."""

    @model_validator(mode="before")
    @classmethod
    def _found(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"method": value}
        if not isinstance(value, dict) or not isinstance(value.get("method"), str):
            raise ValueError("must be the name of a merge, or a table with the name as `method`")
        name = value["method"]
        if name in register.merge and register.merge[name].about.get("learns"):
            raise ValueError(str(TpvError(f"merge {name!r} learns from rows", fix="name it in transfer.methods")))
        return _chosen(register.merge, "merge", value)


class MethodChoice(Choice):
    """A registered method as a row of an experiment: a name from `tpv.register.method`, with parameters."""


def chosen_method(value: Mapping[str, Any]) -> MethodChoice:
    """The choice that a table of a config makes, or that a manifest has kept.

    Raises:
        ValueError: no such method, or parameters that do not fit.
    """
    return MethodChoice(**_chosen(register.method, "method", value))


def _chosen(kind: Registry[Any], what: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Choice` that a table of a config makes, or that a manifest has kept."""
    given = dict(value["given"]) if "given" in value else {name: it for name, it in value.items() if name != "method"}
    try:
        checked = kind[value["method"]].checked(given, f"{what} {value['method']!r}")
    except TpvError as error:
        raise ValueError(str(error)) from None
    return {
        "method": value["method"],
        "given": tuple(sorted((name, checked[name]) for name in given)),
        "parameters": tuple(sorted(checked.items())),
    }
