"""Feed every reader of files malformed ones: it has to read or to refuse them with a `TpvError`, and to do nothing else.

python stress/fuzz.py --times 10000 [--reader prompts] [--seed 0] [--first 0]

Prints for each reader how many inputs were tried, read and refused, and what went wrong, and exits with 1 if anything
did: another exception, a crash, more than 5 seconds of work, a file written, a process started, a name looked up on the
network. An input that does is made again by `--reader NAME --seed SEED --first NUMBER --times 1`.
"""

from __future__ import annotations

import argparse
import atexit
import builtins
import copy
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import posix
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import mutations as m
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transfer_readers
import tuned_readers
from huggingface_hub import constants
from made_files import CSV, SUFFIXES, TASK, backbone, data_files, data_of, odd_place, toml_of

import tpv
from tpv.errors import TpvError
from tpv.execution.artifacts import digest
from tpv.execution.directory import open_run
from tpv.execution.execute import run, write_results
from tpv.execution.progress import Reporter
from tpv.interop import card, released
from tpv.interop import scored as card_scores
from tpv.models.generation import Decoding
from tpv.prompts import peft_format as peft
from tpv.prompts import storage
from tpv.prompts.algebra import load_any
from tpv.prompts.provenance import Component, Init, VectorTraining, content_hash
from tpv.studies.cells import cells
from tpv.studies.config import build_config, read_config
from tpv.studies.jobs.base import in_order
from tpv.tasks import load_task, without_rows
from tpv.tasks.local import is_data_file
from tpv.tasks.spec import build_spec
from tpv.tasks.task import Task
from tpv.training import checkpoint
from tpv.training.fit import fit

SLOW = 5.0  # seconds of the processor
STUCK = 100.0  # seconds of the clock, for what waits; a busy machine must not look like it
MOST = 10_000  # characters of a refusal
ROOM = 6 * 2**30  # bytes of address space that an input may claim beyond what is there


class Mischief(BaseException):
    """A reader did what no reader should; no `except Exception` hides it."""


class TooSlow(BaseException):
    """A reader did not come back."""


class Failure(AssertionError):
    """What a reader must not do, in words."""


# --- what is watched ------------------------------------------------------------------------------
STARTS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "os.forkpty",
    "subprocess.Popen",
    "pty.spawn",
)
SENDS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request")
CHANGES = {  # which arguments are the paths that change, each with the one that may hold its folder
    "os.mkdir": ((0, 2),),
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.symlink": ((1, 2),),
    "os.link": ((1, 3),),
    "os.chmod": ((0, 2),),
    "os.truncate": ((0, None),),
}
FOLLOW = ("open", "os.chmod", "os.truncate")  # what a link leads to; all else is done to the link itself


@dataclass
class Watch:
    """Which folder may be written to just now; without one nothing is watched."""

    allowed: Path | None = None
    hooked: bool = False


_watch = Watch()


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch.allowed is None:
        return
    if event in STARTS or event in SENDS:
        raise Mischief(f"{event} {arguments!r:.200}")
    written = [_placed(arguments[place], arguments[at] if at else -1) for place, at in CHANGES.get(event, ())]
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written = [arguments[0]]
    for path in written:
        if isinstance(path, str | bytes) and not _inside(os.fsdecode(path), _watch.allowed, event in FOLLOW):
            raise Mischief(f"{event} {arguments!r:.200}")


def _placed(path: object, folder: int) -> object:
    """A path, put into the open folder that it is relative to, if there is one."""
    return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path) if folder >= 0 and isinstance(path, str) else path


def _inside(path: str, folder: Path, follow: bool) -> bool:
    try:
        place = os.path.realpath(path if follow else os.path.dirname(os.path.abspath(path)))
        return Path(place).is_relative_to(folder) or path == os.devnull
    except ValueError:
        return True  # a name that cannot be


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Let nothing be written outside of a folder, no process start, nothing be sent, and no more than `SLOW` pass."""
    if not _watch.hooked:
        sys.addaudithook(_hook)
        _watch.hooked = True

    def late(*_: object) -> None:
        raise TooSlow(f"more than {SLOW:g} s of work, or {STUCK:g} s of waiting")

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, SLOW), signal.SIGALRM: (signal.ITIMER_REAL, STUCK)}
    before = {number: signal.signal(number, late) for number in timers}
    _watch.allowed = folder.resolve()
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        _watch.allowed = None
        for number, handler in before.items():
            signal.signal(number, handler)


# --- valid files to begin with --------------------------------------------------------------------
EVIL = [
    m.Calls(os.system, "touch executed"),
    m.Calls(posix.system, "touch executed"),
    m.Calls(builtins.eval, "__import__('os').system('touch executed')"),
    m.Calls(builtins.exec, "open('executed', 'w').close()"),
    m.Calls(builtins.open, "executed", "w"),
    m.Calls(subprocess.Popen, ["touch", "executed"]),
    m.Calls(shutil.rmtree, "nothing-here"),
    m.Calls(Path.touch, Path("executed")),
    m.Calls(torch.load, "/etc/passwd"),
    m.Calls(torch.hub.load, "owner/name", "model"),
    m.Calls(builtins.getattr, "", "format"),
    m.Calls(builtins.bytearray, 10**12),
    m.Calls(torch.empty, (10**6, 10**6)),
]
WIDTH = 4


@cache
def prompt_files() -> tuple[bytes, ...]:
    """A start, a prompt, a vector, and one that was trained as a vector."""
    model = backbone().identity.model_copy(update={"hidden_size": WIDTH})
    generator = torch.Generator().manual_seed(0)
    init = Init(kind="vocabulary", seed=3, token_ids=(1, 2, 3))
    start = tpv.SoftPrompt(torch.randn(3, WIDTH, generator=generator), model, init)
    tuned = start.tuned_to(torch.randn(3, WIDTH, generator=generator), "mini/sst2")
    training = VectorTraining(starts="vocabulary", beside=("a", "b"), scales=(0.5, 1.0), seed=1)
    part = Component(task="a", origin="o", init=None, coefficient=-0.5, training=training)
    portable = tpv.TaskPromptVector(torch.randn(3, WIDTH, generator=generator), model, (part,))
    return tuple(storage.saved_bytes(item) for item in (start, tuned, tuned - start, portable))


CONFIG = {
    "name": "fuzzed",
    "model": {"name": "mini", "device": "cpu", "max_input_length": 64},
    "prompt": {"tokens": 2},
    "seeds": {"inits": 2, "sample": 1},
    "style": "text",
    "experiments": ["sources", "combination", "similarity"],
    "families": [
        {"name": "f", "sources": ["mini/sst2", "mini/trec"], "targets": ["mini/imdb", "own.toml"], "min_shots": 0}
    ],
    "sources": {"training": {"steps": 1, "batch_size": 2, "select": "last"}, "per_task": {"mini/trec": {"lr": 0.1}}},
    "vectors": {"modes": ["portable"], "training": {"steps": 1}, "scales": [0.5, 1.0]},
    "combination": {"sizes": [2], "scale_step": 0.5},
    "transfer": {
        "shots": [0, 4],
        "batch_size": [[4, 2]],
        "attempt_schedule": [[4, 2, 1]],
        "training": {"steps": 1},
        "methods": ["random", "sum"],
    },
    "negation": {"scales": [0, 1], "methods": ["sum - own vector"]},
    "cost": {"pools": [1], "steps": 1},
    "limits": {"train": 8, "validation": 4, "test": 6},
    "quirks": {"label_padding": True},
    "run": {"energy": False, "bank": 4},
}


@cache
def run_folder() -> Path:
    """A finished run, kept until this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-run-"))
    mine = os.getpid()
    atexit.register(lambda: os.getpid() == mine and shutil.rmtree(folder, ignore_errors=True))
    values = copy.deepcopy(CONFIG) | {"experiments": ["sources", "combination", "similarity", "cost"], "quirks": {}}
    values["families"][0]["targets"], values["vectors"] = [], {}
    out = folder / "run"
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        run(build_config(values, where="config"), out, reporter=Reporter)
    return out


@cache
def scored(text: bool = False) -> bytes:
    """What `tpv evaluate --predictions` writes, of a task of labels or of text."""
    task = load_task("mini/sst2").limited({"test": 6}, 0)
    if text:
        rows = tuple(dataclasses.replace(row, target=row.source) for row in task.examples("test"))
        task = Task(build_spec(tuned_readers.TEXT_TASK, where="task"), {"test": rows})
    prompt = tpv.SoftPrompt.sample(backbone(), num_tokens=2, seed=0)
    table = tpv.evaluate(backbone(), task, prompt, decoding=Decoding(max_new_tokens=4) if text else None).predictions
    about = dict(table.schema.metadata)
    about[b"scored"] = json.dumps({"p": json.loads(about[b"scored"])}).encode()
    table = table.add_column(0, "prompt", pa.array(["p"] * len(table))).replace_schema_metadata(about)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


# --- the readers: make(rng, folder) writes what read(folder, rng) is given -------------------------
def _resealed(rng: Random, content: bytes, key: str) -> bytes:
    """A prompt file with other values or another identity, whose hash is right."""
    header, _ = m.header_of(content)
    metadata = header["__metadata__"]
    tensor = storage.parse_safetensors(content)[key]
    identity = json.loads(metadata["identity"]) if "identity" in metadata else {}
    if rng.randrange(3) == 0 or not identity:
        odd: list[Callable[[], torch.Tensor]] = [
            lambda: tensor * float("nan"),
            lambda: tensor / 0,
            lambda: tensor.half(),
            lambda: tensor.to(torch.bfloat16),
            lambda: tensor.double(),
            lambda: tensor.long(),
            lambda: tensor > 0,
            lambda: tensor.to(torch.complex64),
            lambda: tensor[:0],
            lambda: tensor[:, :0],
            lambda: tensor[0],
            lambda: tensor[None],
            lambda: tensor[0, 0],
            lambda: torch.zeros(1, WIDTH).expand(100_001, WIDTH),
            lambda: torch.empty(2**40, 0),
            lambda: tensor * 1e38 * 1e38,
        ]
        tensor = rng.choice(odd)().contiguous()
    else:
        identity = m.regrow(rng, identity)
    try:
        metadata |= {"identity": json.dumps(identity, sort_keys=True), "sha256": content_hash(tensor, identity)}
        return storage.safetensors_bytes({key: tensor}, metadata)
    except (TypeError, ValueError, RuntimeError):  # no words for it in the format
        return m.spoil(rng, content)


def _safetensors(rng: Random, content: bytes, key: str) -> bytes:
    how = rng.randrange(8)
    if how < 2:
        return m.spoil(rng, content)
    if how < 5:
        return m.reheaded(rng, content)
    if how < 7:
        return _resealed(rng, content, key)
    return rng.choice(
        (b"", b"hello", rng.randbytes(rng.randrange(200)), m.hostile_pickle(rng, EVIL, 0), content * 2, content[8:])
    )


def _use(item: tpv.SoftPrompt | tpv.TaskPromptVector, folder: Path) -> None:
    """What everybody does with what was read; it is written and read again as it is."""
    repr(item)
    item.norm()
    for part in item.components:
        _ = part.home
    (folder / "again").mkdir(exist_ok=True)
    item.save(folder / "again" / "item.safetensors")
    if load_any(folder / "again" / "item.safetensors") != item:
        raise AssertionError("what was written is not what is read")


def make_prompt(rng: Random, folder: Path) -> None:
    path = folder / "item.safetensors"
    if not odd_place(rng, path):
        path.write_bytes(_safetensors(rng, rng.choice(prompt_files()), "tensor"))


def read_prompt(rng: Random, folder: Path) -> None:
    _use(load_any(folder / "item.safetensors"), folder)


@cache
def adapter() -> tuple[dict[str, Any], bytes, bytes]:
    """Config and weights of our own export, and the weights of another program's."""
    prompt = tpv.SoftPrompt.sample(backbone(), num_tokens=2, seed=0)
    with tempfile.TemporaryDirectory() as place:
        prompt.to_peft(place)
        config = json.loads((Path(place) / peft.CONFIG).read_text())
        ours = (Path(place) / peft.WEIGHTS).read_bytes()
    return config, ours, storage.safetensors_bytes({peft.KEY: prompt.tensor}, {"format": "pt"})


def make_adapter(rng: Random, folder: Path) -> None:
    config, ours, theirs = adapter()
    place = folder / "adapter"
    place.mkdir()
    weights, text = (theirs if rng.randrange(3) else ours), m.as_json(config)
    which = rng.randrange(5)
    if which < 2:
        text = m.spoil(rng, text) if rng.randrange(2) else m.as_json(m.regrow(rng, config))
    elif which == 2:
        text = rng.choice((text, b"[" * 100_000, b"null", b"[]", b"1", b"", b'{"peft_type": ' + b"9" * 5_000 + b"}"))
        weights = _safetensors(rng, weights, peft.KEY)
    else:
        weights = _safetensors(rng, weights, peft.KEY)
    if not odd_place(rng, place / peft.CONFIG):
        (place / peft.CONFIG).write_bytes(text)
    if not odd_place(rng, place / peft.WEIGHTS) and rng.randrange(40):
        (place / peft.WEIGHTS).write_bytes(weights)
    if rng.randrange(20) == 0:
        (place / peft.PICKLE).write_bytes(m.hostile_pickle(rng, EVIL, 0))


def read_adapter(rng: Random, folder: Path) -> None:
    known = backbone() if rng.randrange(10) else None  # without it, the model that the adapter names is looked for
    _use(tpv.SoftPrompt.from_peft(folder / "adapter", known, keep_dead_rows=rng.random() < 0.5), folder)


@cache
def released_files() -> tuple[bytes, bytes]:
    """A start and a tuned prompt as torch.save writes them."""
    init = tpv.SoftPrompt.sample(backbone(), num_tokens=4, seed=0).tensor
    one, two = io.BytesIO(), io.BytesIO()
    torch.save({released.KEY: init}, one)
    torch.save(init + 1, two)
    return one.getvalue(), two.getvalue()


def make_released(rng: Random, folder: Path) -> None:
    init, tuned = released_files()
    number = rng.choice((0, 0, 7, 10**30))
    place = folder / "released" / f"origin_{number}"
    place.mkdir(parents=True)
    files = {
        place.name: init,
        rng.choice(("sst2", "sst2", "a b", "\x1b[2J", "x" * 240, "\u202e", ".hidden", "..")): tuned,
    }
    for name in rng.choice(([place.name], list(files), list(files)[1:])):
        how = rng.randrange(8)
        if how < 2:
            files[name] = m.spoil(rng, files[name])
        elif how < 5:
            files[name] = m.repacked(rng, files[name])
        elif how == 5:
            files[name] = m.repacked(rng, files[name], m.hostile_pickle(rng, EVIL, 0))
        elif how == 6:
            files[name] = m.hostile_pickle(rng, EVIL, 0)
        else:
            odd = io.BytesIO()
            tensor = torch.ones(4, backbone().identity.hidden_size)
            torch.save(
                rng.choice(
                    (
                        tensor[0],
                        tensor.half(),
                        tensor * float("nan"),
                        {released.KEY: [1]},
                        [],
                        "x",
                        tensor[:, :1],
                        torch.ones(1, 1).expand(10**12, 10**6),
                        tensor.to_sparse(),
                        torch.empty(4, 4, device="meta"),
                        torch.nn.Parameter(tensor),
                        {1: tensor},
                        {released.KEY: tensor, "x": 1},
                        m.nested(100),
                    )
                ),
                odd,
                _use_new_zipfile_serialization=rng.random() < 0.9,
            )
            files[name] = odd.getvalue()
    for name, content in files.items():
        path = place / f"{name}.bin"
        if not odd_place(rng, path):
            path.write_bytes(content)
    if rng.randrange(20) == 0:
        (folder / "released" / f"origin_{rng.choice(('1', '01', '2' * 200, 'x'))}").mkdir()


def read_released(rng: Random, folder: Path) -> None:
    for record in released.read_released(folder / "released", backbone(), keep_dead_rows=rng.random() < 0.5):
        for item in (record.init, record.tuned, record.vector):
            _use(item, folder)


def make_task(rng: Random, folder: Path) -> None:
    (folder / "rows.csv").write_text(CSV)
    path = folder / "own.toml"
    if not odd_place(rng, path):
        path.write_bytes(toml_of(rng, TASK))


def read_task(rng: Random, folder: Path) -> None:
    style = rng.choice(("text", "instruct"))
    repr(without_rows(str(folder / "own.toml"), style=style))
    task = load_task(folder / "own.toml", style=style)
    repr(task)
    _ = task.fingerprint
    for split in ("train", "validation", "test"):
        task.examples(split)
    task.few_shot(2, 0)


def make_config(rng: Random, folder: Path) -> None:
    (folder / "rows.csv").write_text(CSV)
    (folder / "own.toml").write_bytes(m.as_toml(TASK) if rng.randrange(5) else toml_of(rng, TASK))
    path = folder / "config.toml"
    tree: dict[str, Any] = CONFIG
    if rng.randrange(4) == 0:
        (folder / "base.toml").write_bytes(
            toml_of(rng, CONFIG | {"extends": rng.choice(("config.toml", "base.toml", "", "none.toml", 3))})
            if rng.randrange(2)
            else m.as_toml(CONFIG)
        )
        tree = {"extends": "base.toml", "name": "over", "limits": {}, "sources": {"training": {"epochs": 1}}}
    if not odd_place(rng, path):
        path.write_bytes(toml_of(rng, tree))


def read_study(rng: Random, folder: Path) -> None:
    config = read_config(folder / "config.toml")
    if len(config.seeds.starts) * len(config.source_tasks) <= 100 and max(config.combination.sizes) < 9:
        jobs = in_order(cell.job for cell in cells(config))
        assert len(set(jobs)) == len(jobs)


def make_data(rng: Random, folder: Path) -> None:
    suffix = rng.choice(SUFFIXES)
    path = folder / f"rows{suffix}"
    if not odd_place(rng, path):
        path.write_bytes(data_of(rng, suffix))


def read_data(rng: Random, folder: Path) -> None:
    path = next((path for path in folder.iterdir() if is_data_file(path)), folder / "rows.csv")
    options: dict[str, Any] = rng.choice(
        (
            {},
            {"text": "text"},
            {"text": ["text"], "label": "label"},
            {"template": "{text}"},
            {"labels": ["no", "yes"]},
            {"text": "", "label": ""},
            {"validation": path},
            {"template": "{label.__class__}"},
            {"labels": ["0", "1"]},
        )
    )
    task = load_task(path, **options)
    repr(task)
    _ = task.fingerprint


def make_run(rng: Random, folder: Path) -> None:
    place = folder / "run"
    shutil.copytree(run_folder(), place)
    files = sorted(path for path in place.rglob("*") if path.is_file() and path.name != ".lock")
    records = [path for path in files if path.name == "record.json"]
    how = rng.randrange(8)
    if how < 2:
        path = rng.choice(files)
        path.write_bytes(m.spoil(rng, path.read_bytes()))
    elif how < 5:  # the manifest, sealed again
        path = place / "run.json"
        _write_sealed(path, m.regrow(rng, json.loads(path.read_text())))
    elif how == 5:
        path = rng.choice(records)
        _write_sealed(path, m.regrow(rng, json.loads(path.read_text())))
    else:  # a file of an artifact, its hash in the record right
        path = rng.choice([path for path in files if "jobs" in path.parts and path.name != "record.json"])
        path.write_bytes(_spoilt_artifact(rng, path))
        record = json.loads((path.parent / "record.json").read_text())
        record["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        _write_sealed(path.parent / "record.json", record)
    odd_place(rng, rng.choice(files))


def _spoilt_artifact(rng: Random, path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".parquet" and rng.randrange(2):
        table = pq.read_table(path)
        about = {
            key: rng.choice((value, b"", b"\xff", b"{}", b"[1]", b"null"))
            for key, value in (table.schema.metadata or {}).items()
        }
        at = rng.randrange(len(table.column_names))
        columns = [*table.columns]
        columns[at] = rng.choice(
            (
                pa.nulls(len(table)),
                pa.array(["x"] * len(table)),
                pa.array([7] * len(table)),
                pa.array([-1] * len(table)),
                pa.array([[1.0]] * len(table)),
                pa.array([float("nan")] * len(table)),
            )
        )
        buffer = io.BytesIO()
        names = [rng.choice((name, "odd")) if rng.randrange(10) == 0 else name for name in table.column_names]
        pq.write_table(
            pa.table(columns, names=names).replace_schema_metadata(about).slice(0, rng.choice((0, len(table)))), buffer
        )
        return buffer.getvalue()
    if path.suffix == ".json":
        return m.as_json(m.regrow(rng, json.loads(content)))
    return m.spoil(rng, content)


def _write_sealed(path: Path, tree: Any) -> None:
    if isinstance(tree, dict):
        with suppress(TypeError, ValueError):
            tree["digest"] = digest(tree)
    path.write_bytes(m.as_json(tree))


def read_run(rng: Random, folder: Path) -> None:
    directory = open_run(folder / "run")
    if (
        len(directory.config.seeds.starts) * len(directory.config.source_tasks) <= 100
        and max(directory.config.combination.sizes) < 9
    ):
        write_results(directory, folder / "run")


@cache
def checkpoint_file() -> bytes:
    """The state of a training in its middle."""
    with tempfile.TemporaryDirectory() as place:
        path, seen = Path(place) / "c.safetensors", list[bytes]()
        before, checkpoint.CHECKPOINT_SECONDS = checkpoint.CHECKPOINT_SECONDS, 0.0
        try:
            _train(path, lambda _: seen.append(path.read_bytes()) if path.exists() else None)
        finally:
            checkpoint.CHECKPOINT_SECONDS = before
    return seen[-1]


@cache
def _lesson() -> tuple[tpv.Task, tpv.SoftPrompt, tpv.Recipe]:
    task = load_task("mini/sst2").limited({"train": 4, "validation": 2}, 0)
    recipe = tpv.Recipe(steps=3, batch_size=1, eval_every=2, select="loss", lr=0.1, warmup_steps=0)
    return task, tpv.SoftPrompt.sample(backbone(), num_tokens=1, seed=0), recipe


def _train(path: Path, callback: Callable[[Any], object] = lambda _: None) -> None:
    task, start, recipe = _lesson()
    fit(backbone(), task, start, recipe, checkpoint=path, callback=callback)


def make_checkpoint(rng: Random, folder: Path) -> None:
    path, content = folder / "c.safetensors", checkpoint_file()
    if odd_place(rng, path):
        return
    how = rng.randrange(6)
    header, data = m.header_of(content)
    if how == 0:
        content = m.spoil(rng, content)
    elif how == 1:
        content = m.reheaded(rng, content)
    elif how == 2:
        state = m.regrow(rng, json.loads(header["__metadata__"]["state"]))
        header["__metadata__"]["state"] = json.dumps(state)
        content = m.with_header(m.as_json(header), data)
    elif how == 3:
        tensors = storage.parse_safetensors(content)
        name = rng.choice(sorted(tensors))
        tensors[name] = rng.choice(
            (
                tensors[name].double(),
                tensors[name].reshape(-1)[:1].clone(),
                tensors[name] * float("nan"),
                torch.zeros(0),
                torch.zeros(3, 3, 3),
                tensors[name].long(),
            )
        )
        content = storage.safetensors_bytes(tensors, header["__metadata__"])
    elif how == 4:
        name = rng.choice([name for name in header if name != "__metadata__"])
        header[rng.choice(("x", "0.0.value", "0.0.adam.step"))] = header.pop(name)
        content = m.with_header(m.as_json(header), data)
    else:
        content = rng.choice((b"", b"hello", m.hostile_pickle(rng, EVIL, 0), content[: len(content) // 2]))
    path.write_bytes(content)


def read_checkpoint(rng: Random, folder: Path) -> None:
    _train(folder / "c.safetensors")


def make_scores(rng: Random, folder: Path) -> None:
    path = folder / "scores.parquet"
    if odd_place(rng, path):
        return
    content = scored(text=rng.randrange(3) == 0)
    path.write_bytes(content)
    path.write_bytes(m.spoil(rng, content) if rng.randrange(3) == 0 else _spoilt_scores(rng, path))


def _spoilt_scores(rng: Random, path: Path) -> bytes:
    if rng.randrange(2):
        return _spoilt_artifact(rng, path)
    table = pq.read_table(path)
    about = dict(table.schema.metadata)
    about[b"scored"] = m.as_json(m.regrow(rng, json.loads(about[b"scored"])))
    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(about), buffer)
    return buffer.getvalue()


def read_scores(rng: Random, folder: Path) -> None:
    scores = card_scores.read_scores(folder / "scores.parquet")
    prompt = tpv.SoftPrompt.sample(backbone(), num_tokens=2, seed=0)
    shown = card_scores.scores_of({"p": prompt}, scores)
    card.write_card("me/mine", {"p": prompt}, shown, [], {})


@dataclass(frozen=True)
class Reader:
    """How an input is made, and how it is read."""

    make: Callable[[Random, Path], None]
    read: Callable[[Random, Path], None]


READERS = {
    "prompts": Reader(make_prompt, read_prompt),
    "adapters": Reader(make_adapter, read_adapter),
    "released": Reader(make_released, read_released),
    "tasks": Reader(make_task, read_task),
    "configs": Reader(make_config, read_study),
    "data": Reader(make_data, read_data),
    "runs": Reader(make_run, read_run),
    "checkpoints": Reader(make_checkpoint, read_checkpoint),
    "scores": Reader(make_scores, read_scores),
    **{name: Reader(*pair) for name, pair in tuned_readers.READERS.items()},
    **{name: Reader(*pair) for name, pair in transfer_readers.READERS.items()},
}


# --- one input, and many --------------------------------------------------------------------------
def attempt(reader: Reader, rng: Random, base: Path) -> str:
    """Make one input in `base/case` and read it; "read", or "refused".

    Raises:
        Failure: what is refused otherwise than by a `TpvError` of one line, a file outside of the case, too slow.
    """
    case = base / "case"
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir()
    reader.make(rng, case)
    before = os.getcwd()
    os.chdir(base)
    try:
        with warnings.catch_warnings(), watched(case):
            warnings.simplefilter("ignore")
            reader.read(rng, case)
        outcome = "read"
    except TpvError as error:
        text = str(error)
        if len(text) > MOST or not text.isprintable():
            raise Failure(f"a refusal that is no line: {text!r:.300} of {len(text)} characters") from None
        outcome = "refused"
    except (Exception, Mischief, TooSlow) as error:
        raise Failure("".join(traceback.format_exception(error))) from None
    finally:
        os.chdir(before)
    if (strange := sorted(path.name for path in base.iterdir() if path != case)) or (case / "executed").exists():
        raise Failure(f"files outside of the case: {strange}")
    return outcome


@dataclass
class Tally:
    """What came of the inputs of a reader."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    failures: list[tuple[int, str]] = field(default_factory=list)


def _work(name: str, seed: int, numbers: range, base: Path, pipe: Any) -> None:
    """In a process of its own: send (number, outcome, seconds) of each input."""
    reader = READERS[name]
    _warm_up(name)
    constants.HF_HUB_OFFLINE = True  # names in adapters are looked up nowhere; nobody asks what runs this process
    soft = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
    for number in numbers:
        begun = time.process_time()
        try:
            outcome = attempt(reader, Random(f"{name} {seed} {number}"), base)
        except Failure as error:
            outcome = str(error)
        pipe.send((number, outcome, time.process_time() - begun))
    pipe.close()


def _warm_up(name: str) -> None:
    """Everything that is made once, before address space is counted and files are watched."""
    torch.set_num_threads(1)
    backbone()
    needed: dict[str, Callable[[], object]] = {
        "adapters": adapter,
        "released": released_files,
        "runs": run_folder,
        "checkpoints": checkpoint_file,
        "scores": lambda: (scored(), scored(text=True)),
        "data": data_files,
        "prompts": prompt_files,
        "tuned": tuned_readers.tuned_files,
        "ensembles": transfer_readers.ensemble_files,
        "libraries": transfer_readers.vector_files,
        "labelled": data_files,
        "texts": data_files,
    }
    needed.get(name, backbone)()


def try_many(name: str, seed: int, numbers: range) -> Tally:
    """Inputs of one reader, in a process that may die of one: the next goes on after it."""
    tally, first = Tally(), numbers.start
    context = multiprocessing.get_context("fork")
    _warm_up(name)
    while first < numbers.stop:
        ours, theirs = context.Pipe(duplex=False)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as base:
            process = context.Process(target=_work, args=(name, seed, range(first, numbers.stop), Path(base), theirs))
            process.start()
            theirs.close()
            done = first - 1
            try:
                while ours.poll(2 * STUCK):
                    done, outcome, seconds = ours.recv()
                    tally.slowest = max(tally.slowest, seconds)
                    tally.outcomes[outcome if outcome in ("read", "refused") else "failed"] += 1
                    if outcome not in ("read", "refused"):
                        tally.failures.append((done, outcome))
                else:
                    process.kill()
            except EOFError:
                pass
            process.join()
        if done < numbers.stop - 1 or process.exitcode:
            tally.outcomes["failed"] += 1
            tally.failures.append((done + 1, f"the process ended with code {process.exitcode}"))
            done += 1
        first = done + 1
    return tally


def main(names: list[str], times: int, seed: int, first: int) -> int:
    failed = 0
    for name in names:
        begun = time.monotonic()
        tally = try_many(name, seed, range(first, first + times))
        counts = tally.outcomes
        print(
            f"{name}: {sum(counts.values())} inputs, {counts['read']} read, {counts['refused']} refused, {counts['failed']} failures; "
            f"slowest {tally.slowest:.2f} s, {time.monotonic() - begun:.0f} s in all",
            flush=True,
        )
        failed += counts["failed"]
        for number, what in tally.failures[:20]:
            print(f"--- {name} --seed {seed} --first {number} --times 1\n{what}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10_000)
    parser.add_argument("--reader", choices=READERS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(main(arguments.reader or list(READERS), arguments.times, arguments.seed, arguments.first))
