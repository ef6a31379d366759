"""The one decorator behind every list of things: merges, initializers, methods, outputs, metrics, jobs, experiments.

A thing is one file. It registers itself with a decorator, inside tpv or in a module of your own:

    import tpv

    @tpv.register.merge("median")
    def median(vectors):
        "The value in the middle, at every place."
        return vectors.median(dim=0).values

Its parameters are declared once: the keyword-only arguments of a function, the fields of a dataclass or of a pydantic
model. From them come the keys of a config, the options of the command line, the help and the error messages.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from tpv.errors import TpvError, did_you_mean

Thing = TypeVar("Thing")
NAME = re.compile(r"[a-z][a-z0-9_]*")
LAST = 1000  # the place of things that do not ask for one: after those that come with tpv


class Entry(Generic[Thing]):
    """One registered thing.

    Attributes:
        name: what a config and the command line call it.
        thing: what was registered.
        parameters: a pydantic model of its parameters, without fields where it has none.
        summary: the first line of its docstring.
        order: its place among the others of its sort.
        module: the module that registered it.
        builtin: whether it comes with tpv.
    """

    def __init__(self, name: str, thing: Thing, parameters: type[BaseModel], order: int, module: str) -> None:
        self.name, self.thing, self.parameters, self.order, self.module = name, thing, parameters, order, module
        self.summary = (inspect.getdoc(thing) or "").partition("\n")[0]
        self.builtin = module.partition(".")[0] == "tpv"

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, {self.module})"

    def checked(self, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """The values as this thing's parameters, defaults filled in.

        Args:
            where: what the values are of, for the error message.

        Raises:
            TpvError: an unknown parameter, one that is missing, or a value that does not fit; all of them in one line.
        """
        try:
            model = self.parameters.model_validate(dict(values))
        except ValidationError as error:
            raise TpvError(
                f"invalid parameters of {where or self.name!r}", got="; ".join(told(error, self.parameters))
            ) from None
        return {name: getattr(model, name) for name in type(model).model_fields}

    @property
    def source_digest(self) -> str | None:
        """sha256 of the module's source, so that a job knows when a plugin changed; None for what comes with tpv."""
        if self.builtin:
            return None
        file = getattr(sys.modules.get(self.module), "__file__", None)
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def told(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Each mistake in the parameters of a thing with its name, in plain words."""
    lines = []
    for item in error.errors():
        name = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown parameter {name!r}, {did_you_mean(name, model.model_fields)}")
        elif item["type"] == "missing":
            lines.append(f"{name} is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message[:1].lower()}{message[1:]}, got {item['input']!r:.60}")
    return lines


class Registry(Generic[Thing]):
    """All things of one sort, by name. Call it with a name to register one.

    Args:
        sort: what they are, for error messages: `merge`.
        home: packages whose modules register those that come with tpv; imported on first use.
    """

    def __init__(self, sort: str, *home: str) -> None:
        self.sort, self._home = sort, home
        self._entries: dict[str, Entry[Thing]] = {}
        self._found = False

    def __call__(
        self, name: str, *, parameters: type[BaseModel] | None = None, order: int = LAST
    ) -> Callable[[Thing], Thing]:
        """Register what is decorated under a name.

        Args:
            name: lower-case letters, digits and underscores.
            parameters: a pydantic model of its parameters; by default its keyword-only arguments (a function) or
                its fields (a dataclass or pydantic model).
            order: its place among the others; those of a plugin come last, in the order they were registered.

        Raises:
            TpvError: a name that is taken or cannot be one.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise TpvError(
                f"name of a {self.sort}",
                expected="lower-case letters, digits and underscores, a letter first",
                got=repr(name),
            )

        def add(thing: Thing) -> Thing:
            module = getattr(thing, "__module__", "")
            there = self._entries.get(name)
            if there is not None and (there.module, _called(there.thing)) != (module, _called(thing)):
                raise TpvError(
                    f"there is a {self.sort} called {name!r} already",
                    got=f"another one in {module}",
                    fix=f"choose another name; that one comes from {there.module}",
                )
            model = parameters or _parameters(thing, f"{self.sort} {name}")
            self._entries[name] = Entry(name, thing, model, order, module)
            return thing

        return add

    def _load(self) -> None:
        if self._found:
            return
        self._found = True  # before the import, which may look something up
        for package in self._home:
            module = importlib.import_module(package)
            for inner in sorted(pkgutil.iter_modules(module.__path__), key=lambda found: found.name):
                importlib.import_module(f"{package}.{inner.name}")

    def entries(self) -> list[Entry[Thing]]:
        """All of them, in order."""
        self._load()
        return sorted(self._entries.values(), key=lambda entry: entry.order)

    def names(self) -> list[str]:
        """Their names, in order."""
        return [entry.name for entry in self.entries()]

    def __iter__(self) -> Iterator[Entry[Thing]]:
        return iter(self.entries())

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._entries

    def __getitem__(self, name: str) -> Entry[Thing]:
        """The entry of this name.

        Raises:
            TpvError: there is none; with the list, and the nearest name.
        """
        self._load()
        if not isinstance(name, str) or name not in self._entries:
            raise TpvError(
                f"unknown {self.sort} {name!r:.60}",
                expected=", ".join(self.names()),
                fix=did_you_mean(str(name), self.names()),
            )
        return self._entries[name]

    def without(self, *names: str) -> None:
        """Forget things again, for tests."""
        for name in names:
            self._entries.pop(name, None)


def _called(thing: object) -> str:
    return getattr(thing, "__qualname__", repr(thing))


def _parameters(thing: Any, about: str) -> type[BaseModel]:
    """The pydantic model of what a thing can be told."""
    if isinstance(thing, type) and issubclass(thing, BaseModel):
        return thing
    settings = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    found: dict[str, Any] = {}
    if is_dataclass(thing):
        hints = get_type_hints(thing, include_extras=True)
        for field in fields(thing):
            if field.init:
                default: Any = ...
                if field.default is not MISSING:
                    default = field.default
                elif field.default_factory is not MISSING:
                    default = Field(default_factory=field.default_factory)
                found[field.name] = (hints[field.name], default)
    elif inspect.isfunction(thing):
        hints = get_type_hints(thing, include_extras=True)
        for parameter in inspect.signature(thing).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                default = ... if parameter.default is parameter.empty else parameter.default
                found[parameter.name] = (hints.get(parameter.name, Any), default)
    model: type[BaseModel] = create_model(f"parameters of {about}", __config__=settings, **found)
    return model


class Register:
    """The registries of tpv, `tpv.register`: `@tpv.register.merge("median")` and its kin."""

    def __init__(self) -> None:
        self.merge: Registry[Any] = Registry("merge", "tpv.merging")
        self.initializer: Registry[Any] = Registry("initializer", "tpv.prompts.initializers")
        self.method: Registry[Any] = Registry("method", "tpv.methods")
        self.output: Registry[Any] = Registry("output", "tpv.outputs")
        self.metric: Registry[Any] = Registry("metric", "tpv.metrics")
        self.job: Registry[Any] = Registry("job kind", "tpv.studies.jobs")
        self.experiment: Registry[Any] = Registry("experiment", "tpv.studies.experiments")

    def registries(self) -> dict[str, Registry[Any]]:
        """Every registry by its name."""
        return dict(vars(self))


register = Register()


def load_plugins(plugins: Iterable[str], *, near: Path | None = None) -> list[ModuleType]:
    """Import modules that register things; each is found as Python finds modules, then in `near`, then beside you.

    Args:
        near: another folder to look in: that of the config that names them.

    Raises:
        TpvError: no such module, or one that fails as it is imported.
    """
    modules = []
    for name in plugins:
        folders = [str(folder) for folder in (near, Path.cwd()) if folder is not None]
        before = list(sys.path)
        sys.path += [folder for folder in folders if folder not in sys.path]
        try:
            importlib.invalidate_caches()
            modules.append(importlib.import_module(name))
        except TpvError:
            raise
        except Exception as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
            raise TpvError(
                f"plugin {name!r:.80} cannot be imported",
                expected="the name of a Python module, as in `import NAME`",
                got=f"no module of this name in {', '.join(folders)} or among the installed packages"
                if missing
                else f"{type(error).__name__}: {error}",
            ) from None
        finally:
            sys.path[:] = before
    return modules
