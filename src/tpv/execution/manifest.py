"""The manifest of a run directory, `run.json`: what it was made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

import tpv
from tpv.errors import DamagedFileError, TpvError
from tpv.execution.artifacts import Keys, digest, read_json
from tpv.execution.remote import remote_store
from tpv.files import atomic_write
from tpv.registry import register
from tpv.studies.experiments.transfer import stored_vectors
from tpv.studies.settings import BUILTIN_INITS, Config, restored

MANIFEST, SPLIT_MANIFEST = "run.json", "splits.json"


class _Model(BaseModel):
    """The model of a run: its identity, the digest of all its weights, and where it ran."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    fingerprint: str
    hidden_size: int
    architecture: str = "encoder-decoder"
    quantization: str = ""
    weights: str
    device: str


class _TaskData(BaseModel):
    """The rows of a task: their fingerprint and number, the label words, and whether all the hub has are there.

    `numbers`: the label words are numbers. `text_metric`: what a text task is reported by; empty for label words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    fingerprint: str
    sizes: dict[str, int]
    labels: tuple[str, ...]
    positive: int
    whole: bool
    numbers: bool = False
    text_metric: str = ""


class Manifest(BaseModel):
    """What a run directory was made from, as `run.json` keeps it.

    Attributes:
        config: the config, without what cannot change a number.
        tpv: the version.
        kinds: version of the code of each kind of job.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[2] = 2
    config: dict[str, Any]
    model: _Model
    tasks: dict[str, _TaskData]
    tpv: str
    kinds: dict[str, int]

    def keys(self, config: Config) -> Keys:
        """The keys of this run's jobs."""
        setting = {
            "model": {"weights": self.model.weights, "precision": config.model.precision, "chat": config.model.chat},
            "prompt": config.prompt.model_dump() | {"vocabulary_limit": config.vocabulary_limit},
            "quirks": [config.live_rows, config.quirks.label_padding, config.quirks.authors_f1],
            "max_input_length": config.model.max_input_length,
        }
        if config.prompt.init not in BUILTIN_INITS:
            setting["initializer"] = register.initializer[config.prompt.init].source_digest
        return Keys(setting, {name: about.fingerprint for name, about in self.tasks.items()})


def kind_versions() -> dict[str, int]:
    """Version of the code of each kind of job that comes with tpv; that of a plugin's is part of its jobs' keys."""
    return {entry.name: entry.thing.version for entry in register.job if entry.builtin}


def essential(config: Config) -> dict[str, Any]:
    """The config without what cannot change a number, as a manifest keeps it."""
    values: dict[str, Any] = config.model_dump(mode="json")
    values["run"] = {"bank": config.run.bank}
    values["stored"] = stored_vectors(config)
    # places: fingerprints and digests say what is there
    values |= {"data_dir": None, "library": None, "task_files": {}, "plugin_folder": None}
    return values


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a run directory, or None where nothing was run yet.

    Raises:
        DamagedFileError: it does not read, or another version wrote it.
    """
    path = folder / MANIFEST
    bring(folder, SPLIT_MANIFEST, MANIFEST)
    if not path.exists():
        return None
    content = read_json(path, "manifest")
    if content.get("digest") != digest(content):
        raise DamagedFileError(
            f"manifest {path} was altered, or another version wrote it", fix="put it back, or choose another --out"
        )
    content.pop("digest")
    if content.get("format") == 1:
        raise TpvError(
            f"run directory {folder} was made by another version of tpv",
            expected=f"tpv {tpv.__version__}",
            got=f"tpv {content.get('tpv')}",
            fix="choose another --out, or use that version; its results and report stay readable",
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise DamagedFileError(
            f"manifest {path} is damaged, or of another version",
            got=_mistakes(error),
            fix="use the tpv that made it, or choose another --out",
        ) from None


def _mistakes(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])


def write_manifest(folder: Path, manifest: Manifest) -> None:
    with atomic_write(folder / MANIFEST) as part:
        content = manifest.model_dump(mode="json")
        part.write_text(json.dumps(content | {"digest": digest(content)}, indent=1, sort_keys=True))
    send(folder, SPLIT_MANIFEST, MANIFEST)


def bring(folder: Path, *names: str) -> None:
    """Download files of a run directory from its URL, if it has one; files missing there are removed here."""
    store = remote_store(folder)
    if store is not None:
        for name in names:
            if not store.fetch(name):
                (folder / name).unlink(missing_ok=True)


def send(folder: Path, *names: str) -> None:
    """Take files of a run directory to its URL, in this order, where it has one."""
    store = remote_store(folder)
    if store is not None:
        store.send(*(name for name in names if (folder / name).exists()))


def check(folder: Path, manifest: Manifest, config: Config) -> None:
    """Refuse to resume with another config or another version.

    Raises:
        TpvError: with what differs.
    """
    differences = list(_differences(essential(config_of(folder, manifest)), essential(config)))
    if differences:
        raise TpvError(
            f"run directory {folder} was made with another config",
            got="; ".join(differences[:8]) + (f"; and {len(differences) - 8} more" if len(differences) > 8 else ""),
            fix="choose another --out, or put the config back",
        )
    check_version(folder, manifest)


def check_version(folder: Path, manifest: Manifest) -> None:
    """Refuse what another version of tpv made.

    Raises:
        TpvError: with both versions.
    """
    now = kind_versions()  # a kind that a run knows nothing of does not concern it
    if manifest.tpv != tpv.__version__ or manifest.kinds != {kind: now.get(kind) for kind in manifest.kinds}:
        raise TpvError(
            f"run directory {folder} was made by another version of tpv",
            expected=f"tpv {tpv.__version__}, job kinds {now}",
            got=f"tpv {manifest.tpv}, {manifest.kinds}",
            fix="choose another --out, or use that version",
        )


def config_of(folder: Path, manifest: Manifest) -> Config:
    """The config of a manifest; keys that it lacks for its age are at their defaults.

    Its plugins are looked for among the installed packages and in the working directory, never in the run directory:
    that may come from somebody else, and a report must not run what is in it.

    Raises:
        DamagedFileError: it is not valid.
    """
    try:
        config = restored(manifest.config | {"plugin_folder": None})
    except ValidationError as error:
        raise DamagedFileError(f"manifest {folder / MANIFEST} is damaged", got=_mistakes(error)) from None
    tasks = {*config.source_tasks, *config.targets}
    if tasks != manifest.tasks.keys():
        raise DamagedFileError(
            f"manifest {folder / MANIFEST} is damaged",
            expected=f"the rows of {', '.join(sorted(tasks))}",
            got=", ".join(sorted(manifest.tasks)),
        )
    return config


def _differences(was: Any, now: Any, place: str = "") -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            yield from _differences(was.get(key), now.get(key), f"{place}.{key}" if place else key)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, (one, two) in enumerate(zip(was, now, strict=True)):
            yield from _differences(one, two, f"{place}.{i}")
    elif was != now:
        yield f"{place} was {was!r}, is {now!r}"
