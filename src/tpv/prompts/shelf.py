"""Where a library's vectors come from: folders, run directories, repositories of the hub, and what is in memory."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tpv.errors import DamagedFileError, TpvError
from tpv.prompts.algebra import TaskPromptVector
from tpv.prompts.facts import Facts, Reason, facts_of, read_facts
from tpv.prompts.index import RUN, FolderIndex, found_in
from tpv.prompts.storage import SEGMENT, SUFFIX
from tpv.registry import provided

BAD_RUN = "unreadable run directory"
Load = Callable[[], TaskPromptVector]


@dataclass
class LibraryEntry:
    """One vector of a library: what is known of it, and how to get it.

    Attributes:
        parts: its name, after the folders of its source that it is in.
        facts: what is known without its values.
        load: reads or calculates it.
        home: the parts of its source's name, for libraries of several sources.
        path: of its file, where it has one.
        needs_model: `load` loads a model.
        card_scores: of a repository's card.
        index: of the folder that its file is in, where there is one.
    """

    parts: tuple[str, ...]
    facts: Facts
    load: Load
    home: tuple[str, ...] = ()
    path: str | None = None
    needs_model: bool = False
    card_scores: Sequence[Mapping[str, Any]] = ()
    index: FolderIndex | None = None

    @property
    def full(self) -> str:
        """Its name with all folders of its source."""
        return "/".join(self.parts)

    def vector(self) -> TaskPromptVector:
        """The vector.

        Raises:
            TpvError: it cannot be read or calculated, or is not the one that was listed.
        """
        vector = self.load()
        if facts_of(vector.model, vector.num_tokens, vector.components) != self.facts:
            raise DamagedFileError(
                f"{self.path or self.full} is not the vector that was listed", fix="make the library anew"
            )
        return vector

    def digest(self) -> str | None:
        """Of the vector; None where that takes a model, or where its file turns out to be damaged."""
        known = "" if self.index is None else self.index.digest(self.full + SUFFIX)
        if known or self.needs_model:
            return known or None
        try:
            digest = self.vector().digest
        except TpvError:
            return None
        if self.index is not None:
            self.index.keep_digest(self.full + SUFFIX, digest)
        return digest

    def scores(self) -> list[Mapping[str, Any]]:
        """What is written down of how it does: on a repository's card, or by `tpv tune` in its folder."""
        folder = Path(self.path).parent if self.path and self.parts[-1] == "vector" else None
        if folder is None or not (folder / "task.toml").is_file():
            return list(self.card_scores)
        found: list[Mapping[str, Any]] = provided("tpv.evaluation.tuned", "scores_in")(folder)
        return found


@dataclass
class Gathered:
    """The vectors of a source, and the names of what was left out, by reason.

    Attributes:
        folder: the folder that they are files of, where they are.
    """

    entries: list[LibraryEntry] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    folder: Path | None = None

    def leave_out(self, reason: str, name: str) -> None:
        self.left_out.setdefault(str(reason), []).append(name)

    def add(self, other: Gathered) -> None:
        self.entries += other.entries
        for reason, names in other.left_out.items():
            self.left_out.setdefault(reason, []).extend(names)


def of_vectors(vectors: Mapping[str, TaskPromptVector]) -> Gathered:
    """Vectors in memory, by name.

    Raises:
        TpvError: something that is no vector, or a name that is none.
    """
    for name in vectors:
        if not isinstance(name, str) or not name:
            raise TpvError("name of a vector", expected="a text", got=f"{name!r:.80}")
    return Gathered([in_memory(name, vector) for name, vector in vectors.items()])


def in_memory(name: str, vector: TaskPromptVector) -> LibraryEntry:
    """A vector as an entry.

    Raises:
        TpvError: it is none.
    """
    if not isinstance(vector, TaskPromptVector):
        raise TpvError(
            f"vector {name!r} of a library" if name else "vector to add to a library",
            expected="a TaskPromptVector",
            got=type(vector).__name__,
            fix="tuned - init is the vector of a prompt",
        )
    facts = facts_of(vector.model, vector.num_tokens, vector.components)
    return LibraryEntry((name,), facts, lambda: vector)


def default_name(vector: TaskPromptVector) -> str:
    """What a vector is called if nobody says: its tasks, as the name of a file."""
    tasks = "-".join(facts_of(vector.model, vector.num_tokens, vector.components).tasks)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", tasks).strip("-.")[:70].rstrip("-.") or "vector"


def of_place(place: str | Path) -> Gathered:
    """The vectors at a place: a folder, a run directory, a file, or a repository of the hub.

    Raises:
        TpvError: there is no such place, or it cannot be read.
    """
    path = Path(place)
    try:
        if path.is_dir():
            return _of_run(path, ()) if (path / RUN).is_file() else _of_folder(path)
        if path.is_file():
            return _of_file(path)
    except OSError as error:  # a folder on the way that is not ours to enter, a name that is too long
        raise TpvError(f"library {place} cannot be read", got=error.strerror) from None
    parts = str(place).split("/")
    if isinstance(place, Path) or len(parts) != 2 or not all(map(SEGMENT.fullmatch, parts)):
        raise TpvError(
            f"no library at {place}",
            expected="a folder of vectors, a run directory, or OWNER/NAME on the Hugging Face hub",
            fix="check the path",
        )
    try:
        return _of_repository(place)
    except DamagedFileError:
        raise
    except TpvError as error:
        raise TpvError(f"no folder {place} is here, and no repository could be read", got=str(error)) from None


def _of_folder(folder: Path) -> Gathered:
    gathered, index, home = Gathered(folder=folder), FolderIndex(folder), folder.resolve().parts
    for name, path, is_run, stat in found_in(folder):
        parts = tuple(name.removesuffix(SUFFIX).split("/"))
        if is_run:
            try:
                gathered.add(_of_run(path, parts))
            except TpvError:
                gathered.leave_out(BAD_RUN, name)
            continue
        facts = Reason.unreadable if stat is None else index.facts(name, path, stat)
        if isinstance(facts, Reason):
            gathered.leave_out(facts, name)
        else:
            load = partial(TaskPromptVector.load, path)
            gathered.entries.append(LibraryEntry(parts, facts, load, home, str(path), index=index))
    index.write()
    return gathered


def _of_file(path: Path) -> Gathered:
    vector = TaskPromptVector.load(path)
    facts = facts_of(vector.model, vector.num_tokens, vector.components)
    home = path.resolve().parent.parts
    return Gathered([LibraryEntry((path.stem,), facts, partial(TaskPromptVector.load, path), home, str(path))])


def _of_run(folder: Path, inside: tuple[str, ...]) -> Gathered:
    """The finished vectors of a run directory.

    Args:
        inside: the folders of the source that it is in, itself included.
    """
    gathered = Gathered()
    finished: Iterable[tuple[str, Path, str, Load]] = provided("tpv.execution.vectors", "finished_vectors")(folder)
    for name, file, kind, load in finished:
        facts = read_facts(file, kind)
        if isinstance(facts, Reason):
            gathered.leave_out(facts, "/".join((*inside, name)))
        else:
            home = folder.resolve().parts if not inside else folder.resolve().parts[: -len(inside)]
            tuned = kind == "SoftPrompt"  # the vector is what it has more than its initialization, which a model draws
            path = None if tuned else str(file)
            gathered.entries.append(LibraryEntry((*inside, name), facts, load, home, path, needs_model=tuned))
    return gathered


def _of_repository(repo_id: str) -> Gathered:
    items, scores = provided("tpv.interop.repository", "pull_scored")(repo_id)
    gathered = Gathered()
    for name, item in items.items():
        if not isinstance(item, TaskPromptVector):
            gathered.leave_out(Reason.prompt, f"{name}{SUFFIX}")
            continue
        entry = in_memory(name, item)
        entry.parts, entry.home = tuple(name.split("/")), tuple(repo_id.split("/"))
        entry.path = f"hf://{repo_id}/{name}{SUFFIX}"
        entry.card_scores = [score.model_dump(exclude={"file", "digest"}) for score in scores[name]]
        gathered.entries.append(entry)
    return gathered


def unique_names(entries: Sequence[LibraryEntry], several: bool) -> dict[str, LibraryEntry]:
    """Entries by name, with as many of the folders they are in as it takes to tell them apart.

    Args:
        several: they are of several sources, so that the names of these count as folders too.
    """
    parts = [(*entry.home, *entry.parts) if several else entry.parts for entry in entries]
    used = [1] * len(entries)
    growing = True
    while growing:
        alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for i, part in enumerate(parts):
            alike[part[-used[i] :]].append(i)
        short = [i for group in alike.values() if len(group) > 1 for i in group if used[i] < len(parts[i])]
        for i in short:
            used[i] += 1
        growing = bool(short)
    named: dict[str, LibraryEntry] = {}
    for i, entry in enumerate(entries):
        name = plain_name = "/".join(parts[i][-used[i] :])
        number = 2
        while name in named:  # equal names in memory
            name, number = f"{plain_name}-{number}", number + 1
        named[name] = entry
    return named
