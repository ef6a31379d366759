"""How tpv is extended: merges, initializers, methods, outputs, metrics, candidates and so on register themselves.

Each is one file with a decorator, in tpv or in a module of your own:

    import tpv

    @tpv.register.merge("median")
    def median(vectors):
        "The median of the vectors, value by value."
        return vectors.median(dim=0).values

Parameters are declared once: as the keyword-only arguments of a function, or the fields of a dataclass or pydantic
model. The keys of a config, the options of the command line, the help and the error messages follow from them.
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
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from tpv.errors import TpvError, did_you_mean

Thing = TypeVar("Thing")
Decorated = TypeVar("Decorated")
NAME = re.compile(r"[a-z][a-z0-9_]*")
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
LAST = 1000  # the position of entries that ask for none: after those that come with tpv


class Entry(Generic[Thing]):
    """Something registered.

    Attributes:
        name: what a config and the command line call it.
        thing: the function or class that was registered.
        parameters: a pydantic model of its parameters, without fields where it has none.
        summary: the first line of its docstring.
        order: its position in lists of its registry.
        module: the module that registered it.
        builtin: whether it comes with tpv.
        sort: what its registry holds, for error messages: `merge`.
        about: what else its decorator said of it, such as the `title` of a metric.
    """

    def __init__(
        self,
        name: str,
        thing: Thing,
        parameters: type[BaseModel],
        order: int,
        module: str,
        sort: str,
        about: Mapping[str, Any],
    ) -> None:
        self.name, self.thing, self.parameters, self.order, self.module = name, thing, parameters, order, module
        self.sort, self.about = sort, dict(about)
        self.summary = (inspect.getdoc(thing) or "").partition("\n")[0]
        self.builtin = module.partition(".")[0] == "tpv"

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, {self.module})"

    def checked(self, values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """The values as its parameters, defaults filled in.

        Args:
            where: what the values belong to, for the error message; by default its own name.

        Raises:
            TpvError: unknown or missing parameters, or values that do not fit; one message lists all mistakes.
        """
        known = self.parameters.model_fields
        mistakes = [f"unknown parameter {name!r}, {_hint(name, known)}" for name in values if name not in known]
        try:
            model = self.parameters.model_validate({name: values[name] for name in values if name in known})
        except ValidationError as error:
            mistakes += told(error, self.parameters)
        if mistakes:
            raise TpvError(f"invalid parameters of {where or f'{self.sort} {self.name!r}'}", got="; ".join(mistakes))
        return {name: getattr(model, name) for name in known}

    def describe(self) -> list[str]:
        """Each parameter with its default, in words."""
        return [
            name if field.is_required() else f"{name} = {field.get_default(call_default_factory=True)!r}"
            for name, field in self.parameters.model_fields.items()
        ]

    @property
    def source_digest(self) -> str | None:
        """sha256 of the source of a plugin's module, to notice when it changes; None for what comes with tpv."""
        return None if self.builtin else source_digest(self.module)


def source_digest(module: str) -> str | None:
    """sha256 of the source file of an imported module; None where it has none."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None


def told(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Each mistake that pydantic found, in one line that names the parameter."""
    lines = []
    for item in error.errors():
        name = ".".join(map(str, item["loc"]))
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown parameter {name!r}, {_hint(name, model.model_fields)}")
        elif item["type"] == "missing":
            lines.append(f"{name} is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            about = f"{name}: " if name else ""
            lines.append(f"{about}{message[:1].lower()}{message[1:]}, got {item['input']!r:.60}")
    return lines


def _hint(name: str, known: Iterable[str]) -> str:
    return did_you_mean(name, known) if known else "it has no parameters"


class Registry(Generic[Thing]):
    """Everything registered under one sort, by name. Call it with a name to register something.

    Args:
        sort: what it holds, for error messages: `merge`.
        home: packages whose modules register what comes with tpv; imported on first use.
        told: whether the things take parameters from a config or the command line.
    """

    def __init__(self, sort: str, *home: str, told: bool = True) -> None:
        self.sort, self.told, self._home = sort, told, home
        self._entries: dict[str, Entry[Thing]] = {}
        self._found = False

    def __call__(
        self, name: str, *, parameters: type[BaseModel] | None = None, order: int = LAST, **about: Any
    ) -> Callable[[Decorated], Decorated]:
        """A decorator that registers a function or class under a name.

        Args:
            name: lower-case letters, digits and underscores, a letter first.
            parameters: a pydantic model of its parameters; by default they are the keyword-only arguments of a
                function, or the fields of a dataclass or pydantic model.
            order: its position in lists; plugins come last by default, in the order they were registered.
            about: what things of this sort can say besides, such as the `title` of a metric.

        Raises:
            TpvError: the name is invalid or taken, or a type annotation of a parameter cannot be resolved.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise TpvError(
                f"name of a {self.sort}",
                expected="lower-case letters, digits and underscores, a letter first",
                got=repr(name),
            )

        def add(thing: Decorated) -> Decorated:
            module = getattr(thing, "__module__", "")
            there = self._entries.get(name)
            if there is not None and (there.module, _called(there.thing)) != (module, _called(thing)):
                raise TpvError(
                    f"{self.sort} {name!r} is registered already, by {there.module}",
                    got=f"another one, from {module}",
                    fix="choose another name",
                )
            model = parameters or (_parameters(thing, f"{self.sort} {name!r}") if self.told else _Nothing)
            registered: Any = thing
            self._entries[name] = Entry(name, registered, model, order, module, self.sort, about)
            return thing

        return add

    def _load(self) -> None:
        if self._found:
            return
        self._found = True  # before the import, which may look something up
        try:
            for package in self._home:
                module = importlib.import_module(package)
                for inner in sorted(pkgutil.iter_modules(module.__path__), key=lambda found: found.name):
                    importlib.import_module(f"{package}.{inner.name}")
        except BaseException:
            self._found = False  # so that the next use fails the same way, and not with a part of them
            raise

    def entries(self) -> list[Entry[Thing]]:
        """All entries, in order."""
        self._load()
        return sorted(self._entries.values(), key=lambda entry: entry.order)

    def names(self) -> list[str]:
        """All names, in order."""
        return [entry.name for entry in self.entries()]

    def __iter__(self) -> Iterator[Entry[Thing]]:
        return iter(self.entries())

    def __contains__(self, name: object) -> bool:
        self._load()
        return isinstance(name, str) and name in self._entries

    def __getitem__(self, name: str) -> Entry[Thing]:
        """The entry of this name.

        Raises:
            TpvError: there is none; the message lists all names, and the nearest one.
        """
        self._load()
        if not isinstance(name, str) or name not in self._entries:
            near = get_close_matches(str(name), self.names())
            raise TpvError(
                f"unknown {self.sort} {name!r:.60}",
                expected=", ".join(self.names()) or None,
                fix=did_you_mean(str(name), near) if near else "if a plugin registers it, load the plugin first",
            )
        return self._entries[name]

    def without(self, *names: str) -> None:
        """Remove entries, for tests."""
        for name in names:
            self._entries.pop(name, None)


def _called(thing: object) -> str:
    return getattr(thing, "__qualname__", repr(thing))


def _parameters(thing: Any, about: str) -> type[BaseModel]:
    """The pydantic model of the parameters that a function, dataclass or pydantic model declares."""
    if isinstance(thing, type) and issubclass(thing, BaseModel):
        return thing
    declared: dict[str, Any] = {}
    if isinstance(thing, type) and is_dataclass(thing):
        for field in fields(thing):
            if field.init:
                default: Any = ... if field.default is MISSING else field.default
                if field.default_factory is not MISSING:
                    default = Field(default_factory=field.default_factory)
                declared[field.name] = (_type_of(field.type, thing, field.name, about), default)
    elif inspect.isfunction(thing):
        for parameter in inspect.signature(thing).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                default = ... if parameter.default is parameter.empty else parameter.default
                annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
                declared[parameter.name] = (_type_of(annotation, thing, parameter.name, about), default)
    settings = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    model: type[BaseModel] = create_model(f"parameters of {about}", __config__=settings, **declared)
    return model


def _type_of(annotation: Any, thing: Any, name: str, about: str) -> Any:
    """The type that an annotation names; of parameters only, since others may be imported for type checkers alone."""
    if not isinstance(annotation, str):
        return annotation
    owners = thing.__mro__ if isinstance(thing, type) else (thing,)
    spaces = [vars(sys.modules[owner.__module__]) for owner in owners if owner.__module__ in sys.modules]
    for space in [getattr(thing, "__globals__", {}), *spaces]:
        try:
            return eval(annotation, dict(space))
        except NameError:
            continue
    raise TpvError(
        f"parameter {name!r} of {about}",
        expected="a type that its module imports when it runs",
        got=annotation,
        fix="do not import it under TYPE_CHECKING",
    )


class _Nothing(BaseModel):
    """The parameters of what has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Register:
    """All registries, as `tpv.register`: `@tpv.register.merge("median")` and so on."""

    def __init__(self) -> None:
        self.merge: Registry[Any] = Registry("merge", "tpv.merging")
        self.port: Registry[Any] = Registry("map", "tpv.porting")
        self.initializer: Registry[Any] = Registry("initializer", "tpv.prompts.initializers")
        self.method: Registry[Any] = Registry("method", "tpv.methods")
        self.output: Registry[Any] = Registry("output", "tpv.outputs")
        self.metric: Registry[Any] = Registry("metric", "tpv.metrics", told=False)
        self.candidate: Registry[Any] = Registry("candidate", "tpv.transfers.candidates")
        self.job: Registry[Any] = Registry("job kind", "tpv.studies.jobs", told=False)
        self.experiment: Registry[Any] = Registry("experiment", "tpv.studies.experiments", told=False)

    def registries(self) -> dict[str, Registry[Any]]:
        """Every registry by its name."""
        return dict(vars(self))


register = Register()


def load_plugins(plugins: Iterable[str], *, near: Path | None = None) -> list[ModuleType]:
    """Import modules that register something.

    Each is looked for among the installed packages first, then in `near`, then in the working directory.

    Args:
        plugins: names of modules, as in `import NAME`.
        near: another folder to look in, such as that of the config that names them.

    Raises:
        TpvError: no such module, or it fails when it is imported.
    """
    if isinstance(plugins, str):
        raise TpvError("plugins", expected="a list of module names", got=repr(plugins), fix=f"write [{plugins!r}]")
    folders = [str(folder) for folder in (near, Path.cwd()) if folder is not None]
    return [_load_plugin(name, folders) for name in plugins]


def _load_plugin(name: str, folders: list[str]) -> ModuleType:
    about = f"plugin {name!r:.80}"
    if not isinstance(name, str) or not MODULE.fullmatch(name):
        raise TpvError(f"{about} is not the name of a Python module", expected="a name as in `import my_module`")
    before = list(sys.path)
    sys.path += [folder for folder in folders if folder not in sys.path]
    try:
        importlib.invalidate_caches()
        return importlib.import_module(name)
    except TpvError:
        raise
    except (Exception, SystemExit) as error:
        sought = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if sought is not None and f"{name}.".startswith(f"{sought}."):
            got = f"no module of this name in {', '.join(folders)} or among the installed packages"
            raise TpvError(f"{about} was not found", expected="a name as in `import my_module`", got=got) from None
        raise TpvError(
            f"{about} fails when it is imported", got=f"{type(error).__name__}: {error}", fix="correct the module"
        ) from error
    finally:
        sys.path[:] = before


def provided(module: str, name: str) -> Any:
    """What a higher room provides for a lower one, imported when it is needed.

    Registries find what comes with tpv in the same way. Use it only where a room needs one function of a room above it
    and a caller cannot pass it in.
    """
    return getattr(importlib.import_module(module), name)
