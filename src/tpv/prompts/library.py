"""A library: the task prompt vectors of a model, from wherever they are, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tpv.errors import IncompatibleError, TpvError, UnknownNameError, did_you_mean, plain
from tpv.files import atomic_write
from tpv.prompts import shelf, storage
from tpv.prompts.algebra import TaskPromptVector
from tpv.prompts.provenance import ModelIdentity
from tpv.prompts.shelf import Gathered, LibraryEntry

if TYPE_CHECKING:
    import pyarrow as pa

    from tpv.models import Backbone

Source = str | PathLike[str] | TaskPromptVector | Mapping[str, TaskPromptVector]
Test = Callable[[LibraryEntry], bool]
SHORT = 8  # digits of a fingerprint that tell models apart
COLUMNS = ("name", "terms", "num_tokens", "mode", "tasks", "init", "scores", "model", "fingerprint", "digest", "path")
SCORES = ("exact_match", "macro_f1", "f1", "invalid_rate", "majority")


class Library(Mapping[str, TaskPromptVector]):
    """Task prompt vectors by name, read when they are asked for: `tpv.Library("vectors/")["sst2"]`.

    A source is a folder (all vector files in it and in its folders, of tuned folders and run directories too), a run
    directory of `tpv run` (its finished vectors), a file, a repository `OWNER/NAME` on the Hugging Face Hub, a
    vector, or a mapping from names to vectors. A name is that of the file without its ending, preceded by the names of
    its folders where it takes them to tell two files apart; `library["folder/name"]` always works.

    What is no vector, does not read or does not fit is left out, and `left_out` says what and why. Of a folder only the
    headers of files are read, and only those that are not in its index, the file `.tpv-index.json`.

    Args:
        source: one of these, or a list of them; nothing for an empty library in memory.
        model: keep the vectors of this model: a backbone, its identity, or the name or fingerprint of a model that is
            in the library.

    Raises:
        TpvError: a source that is not there or cannot be read, something in a list that is no source, an unknown name
            of a model.
    """

    def __init__(
        self, source: Source | Iterable[Source] | None = None, *, model: Backbone | ModelIdentity | str | None = None
    ) -> None:
        gathered = [_gathered(one) for one in _listed(source)]
        self._folder = gathered[0].folder if len(gathered) == 1 else None
        self._entries: dict[str, LibraryEntry]
        self._identity: ModelIdentity | None
        self._left_out: dict[str, list[str]] = {}
        for one in gathered:
            _extend(self._left_out, one.left_out)
        if isinstance(source, Library):
            self._entries = dict(source._entries)
        else:
            entries = _distinct(entry for one in gathered for entry in one.entries)
            self._entries = shelf.unique_names(entries, several=len(gathered) > 1)
        self._identity = _identity_of(model) or (source._identity if isinstance(source, Library) else None)
        if model is not None:
            self._sift({"of another model": self._of_model(model)})

    # --- a mapping ------------------------------------------------------------------------------------
    @property
    def names(self) -> list[str]:
        """The names of the vectors, in order."""
        return list(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return self._found(name) is not None

    def __getitem__(self, name: str) -> TaskPromptVector:
        """The vector of this name, read and checked.

        Raises:
            UnknownNameError: there is none; it is a KeyError too. TpvError: its file does not read.
        """
        return self.entry(name).vector()

    def entry(self, name: str) -> LibraryEntry:
        """What is known of the vector of this name without reading it.

        Raises:
            UnknownNameError: there is none.
        """
        entry = self._found(name)
        if entry is None:
            fix = did_you_mean(str(name), self._entries) if self._entries else "the library is empty"
            raise UnknownNameError(f"no vector {name!r} in the library", fix=fix)
        return entry

    def _found(self, name: object) -> LibraryEntry | None:
        if not isinstance(name, str):
            return None
        found = [entry for entry in self._entries.values() if entry.full == name]
        return self._entries.get(name) or (found[0] if len(found) == 1 else None)

    def __repr__(self) -> str:
        models = ", ".join(sorted({plain(entry.facts.model.name) for entry in self._entries.values()}))
        return f"Library({len(self)} vectors{models and f' of {models}'}{self.left_out_text(before='; ')})"

    # --- what is in it --------------------------------------------------------------------------------
    @property
    def model(self) -> ModelIdentity | None:
        """The model that all the vectors belong to; None for an empty library, or one of several models."""
        models = {entry.facts.model.fingerprint: entry.facts.model for entry in self._entries.values()}
        return self._identity or (next(iter(models.values())) if len(models) == 1 else None)

    @property
    def folder(self) -> Path | None:
        """The folder that `add` writes to, where the library is one."""
        return self._folder

    @property
    def left_out(self) -> dict[str, list[str]]:
        """The names of what is not in the library, by reason."""
        return {reason: list(names) for reason, names in self._left_out.items()}

    def left_out_text(self, before: str = "") -> str:
        """What is not in the library, counted, in words; empty where there is nothing."""
        counted = ", ".join(f"{len(names)} {reason}" for reason, names in self._left_out.items())
        return counted and f"{before}left out: {counted}"

    def filter(
        self,
        *,
        model: Backbone | ModelIdentity | str | None = None,
        num_tokens: int | None = None,
        tasks: str | Iterable[str] | None = None,
        portable: bool | None = None,
    ) -> Library:
        """The vectors that fit, as a library; what does not is counted in its `left_out`.

        Args:
            model: as for `Library`.
            num_tokens: P.
            tasks: vectors that were trained on these tasks and no others.
            portable: vectors that were trained under fresh initializations, or those that were not.

        Raises:
            TpvError: an unknown name of a model.
        """
        wanted = {tasks} if isinstance(tasks, str) else set(tasks or ())
        tests: dict[str, Test] = {}
        if num_tokens is not None:
            tests["of another number of tokens"] = lambda entry: entry.facts.num_tokens == num_tokens
        if tasks is not None:
            tests["of other tasks"] = lambda entry: wanted.issuperset(entry.facts.tasks)
        if portable is not None:
            tests["not portable" if portable else "portable"] = lambda entry: entry.facts.portable == portable
        result = Library(self, model=model)
        result._sift(tests)
        return result

    def _sift(self, tests: Mapping[str, Test]) -> None:
        """Leave out what fails a test, by the first reason."""
        kept: dict[str, LibraryEntry] = {}
        for name, entry in self._entries.items():
            reason = next((reason for reason, fits in tests.items() if not fits(entry)), None)
            if reason is None:
                kept[name] = entry
            else:
                self._left_out.setdefault(reason, []).append(name)
        self._entries = kept

    def _of_model(self, model: Backbone | ModelIdentity | str) -> Test:
        """Whether an entry is of a model."""
        identity = _identity_of(model)
        wanted = self._fingerprint(str(model)) if identity is None else identity.fingerprint
        return lambda entry: entry.facts.model.fingerprint == wanted

    def _fingerprint(self, called: str) -> str:
        """The fingerprint of the library's model of this name, or whose fingerprint begins so."""
        models = {entry.facts.model.fingerprint: entry.facts.model.name for entry in self._entries.values()}
        names = (called, os.path.abspath(called))  # of a local model, its path is the name
        found = [mark for mark, name in models.items() if name in names]
        if not found and len(called) >= SHORT:
            found = [mark for mark in models if mark.startswith(called)]
        if len(found) == 1:
            return found[0]
        if found:
            marks = ", ".join(mark[:12] for mark in found)
            raise TpvError(f"several models are called {called!r}", fix=f"give the fingerprint of one: {marks}")
        fix = did_you_mean(called, set(models.values())) if models else "the library is empty"
        raise TpvError(f"no vector of the library is of a model called {called!r}", fix=fix)

    def describe(self, *, digests: bool = True) -> pa.Table:
        """A table of the vectors: what each is, where it comes from, and how well it did where that is written down.

        Columns:
            name: name of the vector in the library.
            terms: the tasks in it, each with its factor.
            num_tokens: number of prompt tokens, P.
            mode: `ordinary`, `portable` or `composable`; `merged` for sums and merges.
            tasks: the tasks it was trained on.
            init: the initialization it was trained from.
            scores: scores that are written down; null where there are none.
            model: name of the model.
            fingerprint: hash that identifies the model.
            digest: hash of the vector's values.
            path: file of the vector; null where there is none.

        Args:
            digests: also `digest`, for which the values of every vector that the index has none of are read. It is null
                where that would take a model, and for a file whose values are damaged.
        """
        import pyarrow as pa

        score = pa.struct(
            [("task", pa.string()), ("split", pa.string()), ("start", pa.string()), ("n", pa.int64())]
            + [(metric, pa.float64()) for metric in SCORES]
        )
        kinds = {"num_tokens": pa.int64(), "tasks": pa.list_(pa.string()), "scores": pa.list_(score)}
        rows = [_row(name, entry, digests) for name, entry in self._entries.items()]
        for index in {id(entry.index): entry.index for entry in self._entries.values()}.values():
            if index is not None:
                index.write()
        return pa.Table.from_pylist(
            rows, schema=pa.schema([(column, kinds.get(column, pa.string())) for column in COLUMNS])
        )

    # --- adding ---------------------------------------------------------------------------------------
    def add(self, vector: TaskPromptVector, name: str | None = None) -> str:
        """Add a vector: to the folder, where the library is one, else in memory only.

        Args:
            name: by default the tasks it was trained on. A `/` in it makes a folder.

        Returns:
            Its name.

        Raises:
            TpvError: a name that is taken or that is no safe one, or a folder that cannot be written.
            IncompatibleError: a vector of another model.
        """
        entry = shelf.in_memory("", vector)
        if self.model is not None and self.model.fingerprint != vector.model.fingerprint:
            raise IncompatibleError(
                "this vector belongs to another model than the library",
                expected=self.model,
                got=vector.model,
                fix="keep the vectors of each model in a folder of their own",
            )
        name = shelf.default_name(vector) if name is None else str(name).removesuffix(storage.SUFFIX)
        if not storage.is_safe_name(name):
            raise TpvError(f"name {name!r:.80} of a vector", expected=f"{storage.SAFE}, inside the library")
        taken = {known.casefold() for key, entry in self._entries.items() for known in (key, entry.full)}
        if name.casefold() in taken:
            raise TpvError(f"the library has a vector {name!r} already", fix="give another name")
        entry.parts = tuple(name.split("/"))
        if self._folder is not None:
            path = self._folder / f"{name}{storage.SUFFIX}"
            if not path.resolve().is_relative_to(self._folder.resolve()):
                raise TpvError(f"{path} leads out of the library", expected="no link to another place")
            with atomic_write(path, new=True) as part:
                part.write_bytes(storage.saved_bytes(vector))
            entry.path, entry.home = str(path), self._folder.resolve().parts
            entry.load = partial(TaskPromptVector.load, path)
        self._entries[name] = entry
        return name


def _listed(source: Source | Iterable[Source] | None) -> list[Source]:
    if source is None:
        return []
    if isinstance(source, str | PathLike | TaskPromptVector | Mapping):
        return [source]
    if isinstance(source, Iterable):
        return list(source)
    return [source]


def _gathered(source: Source) -> Gathered:
    """The vectors of one source."""
    if isinstance(source, Library):
        return Gathered(list(source._entries.values()), source.left_out, source._folder)
    if isinstance(source, Mapping):
        return shelf.of_vectors(source)
    if isinstance(source, TaskPromptVector):
        return shelf.of_vectors({shelf.default_name(source): source})
    if isinstance(source, str | PathLike):
        return shelf.of_place(source if isinstance(source, str) else Path(source))
    raise TpvError(
        "source of a library",
        expected="a folder, OWNER/NAME on the Hugging Face Hub, vectors, or a list of these",
        got=type(source).__name__,
    )


def _identity_of(model: Backbone | ModelIdentity | str | None) -> ModelIdentity | None:
    """The identity of a model; None where only a name is given."""
    if model is None or isinstance(model, str):
        return None
    identity = getattr(model, "identity", model)
    if not isinstance(identity, ModelIdentity):
        raise TpvError("model of a library", expected="a backbone, its identity or its name", got=type(model).__name__)
    return identity


def _distinct(entries: Iterable[LibraryEntry]) -> list[LibraryEntry]:
    """Without files that two of the sources hold."""
    seen: dict[object, LibraryEntry] = {}
    for entry in entries:
        seen.setdefault((*entry.home, *entry.parts) if entry.home else id(entry), entry)
    return list(seen.values())


def _extend(total: dict[str, list[str]], more: Mapping[str, list[str]]) -> None:
    for reason, names in more.items():
        total.setdefault(reason, []).extend(names)


def _row(name: str, entry: LibraryEntry, digests: bool) -> dict[str, Any]:
    facts = entry.facts
    return {
        "name": name,
        **{column: getattr(facts, column) for column in ("terms", "num_tokens", "mode", "tasks", "init")},
        "scores": [dict(score) for score in entry.scores()] or None,
        "model": facts.model.name,
        "fingerprint": facts.model.fingerprint,
        "digest": entry.digest() if digests else None,
        "path": entry.path,
    }
