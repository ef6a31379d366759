"""Everything that is served, by name: the files of a library, and the changes that clients make to it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tpv.errors import IncompatibleError, TpvError
from tpv.evaluation.tuned import PROMPT_FILE, TASK_FILE, Tuned, scores_in
from tpv.execution.remote import is_url
from tpv.files import atomic_write, regular, writing
from tpv.merging.formulas import parse
from tpv.models import Backbone
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector, any_of_bytes
from tpv.prompts.index import RUN, Found, found_in
from tpv.prompts.library import Library
from tpv.prompts.provenance import Init
from tpv.prompts.storage import SAFE, SUFFIX, is_safe_name
from tpv.serving.mirror import Mirror
from tpv.serving.problems import Refusal, unknown_prompt
from tpv.serving.versions import Item, Use, Version, file_of, use_of
from tpv.tasks import TaskSpec, task_specs

MOST_PROMPTS = 10_000
Mark = tuple[object, ...]  # tells whether a file changed
STARTS = 4096  # initializations that are kept


class Catalog:
    """The prompts that are served. Reading is for any thread at any time; changes come one after the other.

    A prompt file is served as it is. A vector is served on the initialization that it was trained from, or on `init:0`
    where there is no one initialization. A tuned folder's prompt has its task, calibrator and scores.

    Args:
        source: a folder, made if need be; a URL; or what else `tpv.Library` reads, which is then not written to.

    Raises:
        TpvError: no such library, or it cannot be read.
    """

    def __init__(self, backbone: Backbone, source: str | Path) -> None:
        self.backbone, self.left_out = backbone, dict[str, str]()
        self._lock, self.changes = threading.RLock(), 0
        self._versions: dict[str, Version] = {}
        self._fixed: dict[str, Version] = {}
        self._marks: dict[str, Mark] = {}
        self._mirror: Mirror | None = None
        self._init = lru_cache(STARTS)(self._sampled)
        place = str(source)
        if is_url(place) and urlsplit(place).scheme == "file":
            place = urlsplit(place).path
        if is_url(place):
            self._mirror = Mirror(place)
            self.folder: Path | None = self._mirror.folder
        else:
            self.folder = self._local(place)
        if self.folder is None:
            self._fixed = self._of_library(Library(place, model=backbone), "")
        self.refresh()

    def _local(self, place: str) -> Path | None:
        """The folder of a library that can be written; None where it is something else."""
        folder = Path(place)
        if folder.is_dir():
            return None if (folder / RUN).is_file() else folder
        if folder.exists() or (place.count("/") == 1 and not folder.parent.is_dir()):
            return None  # a file, or a repository on the hub
        with writing(folder):
            folder.mkdir(parents=True)
        return folder

    # --- reading --------------------------------------------------------------------------------------
    @property
    def names(self) -> list[str]:
        """The names of everything, in order."""
        return sorted(self._versions)

    @property
    def versions(self) -> list[Version]:
        """Everything, in the order of the names."""
        current = self._versions
        return [current[name] for name in sorted(current)]

    def get(self, name: str, digest: str | None = None) -> Version:
        """What is served under a name now.

        A name may leave out the folders before it where it is clear without, and a tuned folder's name is its prompt's.

        Args:
            digest: of the prompt or of the version that it has to be.

        Raises:
            Refusal: there is none (404), or it is another one now (409).
        """
        found = self._found(name)
        if found is None:
            raise unknown_prompt(name, self._versions)
        if digest is not None and digest not in (found.digest, found.version):
            raise Refusal(
                409, f"prompt {name!r:.200} is another version now", expected=f"{digest:.64}", got=found.version
            )
        return found

    def _found(self, name: str) -> Version | None:
        current = self._versions
        for exact in (name, f"{name}/{PROMPT_FILE.removesuffix(SUFFIX)}"):
            if exact in current:
                return current[exact]
        ends = [full for full in current if full.endswith(f"/{name}")]
        return current[ends[0]] if len(ends) == 1 else None

    def item(self, name: str) -> Item:
        """What a name stands for in an expression.

        Raises:
            Refusal: there is none.
        """
        found = self._found(name)
        if found is None:
            raise Refusal(422, f"expression: {unknown_prompt(name, self._versions)}")
        return found.item

    def calculated(self, expression: str, use: Use) -> Version:
        """The prompt that an expression over the library stands for.

        Its task is the one that all its vectors were trained on, where `use` names none.

        Raises:
            TpvError: see `tpv.merging.formulas`.
        """
        formula = parse(expression)
        prompt = formula.prompt(self.item, self._start)
        task = use.task or self._task_of([self.get(name) for name in formula.names])
        return Version("", prompt, use.model_copy(update={"expression": formula.text, "task": task}))

    def _task_of(self, parts: list[Version]) -> TaskSpec | None:
        specs = [part.use.task for part in parts]
        return specs[0] if specs and all(spec == specs[0] for spec in specs) else None

    def _start(self, seed: int, num_tokens: int | None) -> SoftPrompt:
        """An untuned prompt; of the library's length where nothing else says how many tokens it has."""
        lengths = {version.prompt.num_tokens for version in self._versions.values()}
        if num_tokens is None and len(lengths) != 1:
            raise TpvError("expression", expected="a vector in it, which says how many tokens it has", got="none")
        return self._init(num_tokens or min(lengths), seed, "vocabulary", ())

    def _sampled(self, num_tokens: int, seed: int, kind: str, parameters: tuple[tuple[str, Any], ...]) -> SoftPrompt:
        return SoftPrompt.sample(self.backbone, num_tokens, seed, kind, **dict(parameters))

    def task(self, name: str) -> TaskSpec:
        """A task by name: one that comes with tpv, or that of something in the library.

        Raises:
            Refusal: there is none.
        """
        known = task_specs().get(name) or next(
            (one.use.task for one in self._versions.values() if one.use.task and one.use.task.name == name), None
        )
        if known is None:
            fix = "`tpv tasks` lists those that come with tpv; an object describes another one"
            raise Refusal(422, f"no task {name!r:.200}", fix=fix)
        return known

    # --- changes --------------------------------------------------------------------------------------
    def put(self, name: str, make: Callable[[], tuple[Item, Use]]) -> tuple[Version, bool]:
        """Write a prompt or a vector to the library; it is served when this returns.

        Args:
            make: what to write; called once the name is known to be good.

        Returns:
            What is served now, and whether the name is new.

        Raises:
            Refusal: a name that is taken or no safe one, a library that is not written to.
        """
        with self._lock:
            folder, before = self._place(name), self._versions.get(name)
            item, use = make()
            if before is not None and before.vector is not None and isinstance(item, SoftPrompt):
                raise Refusal(
                    409, f"{name!r} is a vector, which expressions use", fix="choose another name, or delete it first"
                )
            if before is None and len(self._versions) >= MOST_PROMPTS:
                raise Refusal(409, "the library is full", expected=f"at most {MOST_PROMPTS} prompts")
            version = self._version(name, item, use)
            content, path = file_of(item, use), folder / f"{name}{SUFFIX}"
            if self._mirror is not None:
                self._mirror.push(f"{name}{SUFFIX}", content)
            with atomic_write(path) as part:
                part.write_bytes(content)
            self._marks[name] = _mark(path)
            self._versions, self.changes = {**self._versions, name: version}, self.changes + 1
            return version, before is None

    def delete(self, name: str) -> None:
        """Delete a prompt or a vector from the library; nothing is answered with it when this returns.

        Raises:
            Refusal: there is none of exactly this name, or it is not the server's to delete.
        """
        with self._lock:
            if name not in self._versions:
                raise unknown_prompt(name, self._versions)
            folder = self._place(name)
            if self._mirror is not None:
                self._mirror.remove(f"{name}{SUFFIX}")
            path = folder / f"{name}{SUFFIX}"
            with writing(path):
                path.unlink(missing_ok=True)
            for parent in list(path.parents)[: name.count("/")]:
                with suppress(OSError):
                    parent.rmdir()
            self._marks.pop(name, None)
            self._versions = {other: version for other, version in self._versions.items() if other != name}
            self.changes += 1

    def _place(self, name: str) -> Path:
        """The folder of the library, if a file of this name may be written to it."""
        if self.folder is None:
            raise Refusal(403, "the library is not written to", expected="a folder of vectors, or a URL")
        if not is_safe_name(name):
            raise Refusal(422, f"name {name!r:.80}", expected=f"{SAFE}, inside the library")
        current = self._versions.get(name)
        path = self.folder / f"{name}{SUFFIX}"
        if (current is not None and current.fixed) or (path.parent / TASK_FILE).is_file():
            raise Refusal(409, f"{name!r} belongs to a tuned folder or a run", fix="choose another name")
        if current is None and name.casefold() in {known.casefold() for known in self._versions}:
            raise Refusal(409, f"the library has a prompt {name!r} already, spelled otherwise")
        try:
            inside = path.resolve().is_relative_to(self.folder.resolve())
        except (OSError, RuntimeError):
            inside = False
        if not inside:
            raise Refusal(409, f"name {name!r} leads out of the library", expected="no link to another place")
        return self.folder

    def refresh(self) -> bool:
        """Look for files that came, changed or went; whether there were any.

        A file that does not read leaves what was served under its name before, and `left_out` says why.

        Raises:
            TpvError: the library cannot be read.
        """
        with self._lock:
            if self.folder is None:
                changed, self._versions = not self._versions, self._fixed
                return changed
            if self._mirror is not None:
                self._mirror.pull()
            found, marks, left_out = dict(self._fixed), dict[str, Mark](), dict[str, str]()
            changed = False
            for file in found_in(self.folder):
                name = file.name.removesuffix(SUFFIX)
                if file.is_run:
                    found |= self._run(file)
                elif not _is_part(file):
                    marks[name] = _mark(file.path)
                    if marks[name] == self._marks.get(name):
                        version, reason = self._versions.get(name), self.left_out.get(name)
                    else:
                        version, reason = self._read(name, file.path)
                        changed = True
                    if reason is not None:
                        left_out[name] = reason
                    if version is not None:
                        found[name] = version
            changed = changed or found.keys() != self._versions.keys()
            self._marks, self.left_out, self._versions = marks, left_out, found
            self.changes += changed
            return changed

    def close(self) -> None:
        """Let go of what a URL was mirrored into."""
        if self._mirror is not None:
            self._mirror.close()

    # --- files ----------------------------------------------------------------------------------------
    def _read(self, name: str, path: Path) -> tuple[Version | None, str | None]:
        """What a file is served as; where it does not read what was served before, and the reason."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._of_file(name, path), None
        except (TpvError, OSError) as error:
            gone = not path.exists()
            return None if gone else self._versions.get(name), None if gone else str(error)

    def _of_file(self, name: str, path: Path) -> Version:
        in_tuned = (path.parent / TASK_FILE).is_file()
        scores: list[dict[str, Any]] = scores_in(path.parent) if in_tuned else []
        if in_tuned and path.name == PROMPT_FILE:
            tuned = Tuned.load(path.parent)
            if not isinstance(tuned.prompt, SoftPrompt):
                raise TpvError("a probe or an average, which is not served")
            about = tuned.about
            use = Use(task=tuned.task.spec, calibrator=about.calibrator, max_input_length=about.max_input_length)
            return self._version(name, tuned.prompt, use, scores=scores, fixed=True)
        item, metadata = any_of_bytes(regular(path).read_bytes(), name)
        use = use_of(metadata, name)
        if in_tuned and use.task is None:
            use = Use(task=Tuned.load(path.parent).task.spec)
        return self._version(name, item, use, scores=scores, fixed=in_tuned)

    def _version(self, name: str, item: Item, use: Use, **more: Any) -> Version:
        """A prompt or vector of this model as it is served.

        Raises:
            IncompatibleError: it is of another model.
        """
        own = self.backbone.identity
        if (item.model.fingerprint, item.model.hidden_size) != (own.fingerprint, own.hidden_size):
            raise IncompatibleError(
                f"{name!r:.80} belongs to another model", expected=own, got=item.model, fix="use one of this model"
            )
        if use.calibrator is not None:
            use.calibrator.check(() if use.task is None else use.task.labels)
        tasks = {part.task for part in item.components}
        if use.task is None and len(tasks) == 1:
            use = use.model_copy(update={"task": task_specs().get(*tasks)})
        if isinstance(item, SoftPrompt):
            return _hashed(Version(name, item, use, **more))
        return _hashed(Version(name, self._home(item) + item, use, vector=item, **more))

    def _home(self, vector: TaskPromptVector) -> SoftPrompt:
        """The initialization that a vector was trained from, if there is one and it can be made again; else init:0."""
        inits: set[Init | None] = {part.init for part in vector.components}
        init = next(iter(inits)) if len(inits) == 1 else None
        if init is not None:
            with suppress(TpvError, TypeError):
                own = self._init(
                    vector.num_tokens, init.seed or 0, init.kind, tuple(sorted((init.parameters or {}).items()))
                )
                if own.init.matches(init):
                    return own
        return self._init(vector.num_tokens, 0, "vocabulary", ())

    def _run(self, file: Found) -> dict[str, Version]:
        """The vectors of a run directory in the library, read once."""
        prefix = f"{file.name}/"
        known = {name: version for name, version in self._fixed.items() if name.startswith(prefix)}
        if not known:
            with suppress(TpvError):
                known = self._of_library(Library(file.path, model=self.backbone), prefix)
            self._fixed |= known
        return known

    def _of_library(self, library: Library, prefix: str) -> dict[str, Version]:
        found = {}
        for name, vector in library.items():
            full = f"{prefix}{name}"
            found[full] = self._version(full, vector, Use(), scores=library.entry(name).scores(), fixed=True)
        return found


def _hashed(version: Version) -> Version:
    """The version with its hashes calculated, here and not where requests wait."""
    version.about()
    return version


def _is_part(file: Found) -> bool:
    """Whether a file is what a tuned folder keeps beside its prompt and its vector."""
    stem = file.path.name.removesuffix(SUFFIX)
    return (stem == "init" or stem.split(".")[0].isdigit()) and (file.path.parent / TASK_FILE).is_file()


def _mark(path: Path) -> Mark:
    """What changes when a file or the task file beside it does."""
    marks: list[object] = []
    for one in (path, path.parent / TASK_FILE):
        try:
            stat = one.stat()
            marks += [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        except (OSError, ValueError):
            marks.append(None)
    return tuple(marks)
