"""How time and memory grow: with the prompt, the bank, the text and the number of stored vectors; and fixed costs.

python benchmarks/scaling.py [--out runs/bench]

On the embedded model. Writes scaling.png, scaling.md and scaling.json: each measurement, and the exponent of the power
law fitted to it (1: twice as much takes twice as long).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

import tpv
from tpv.reporting import figures
from tpv.tasks import Example, Task

REPEATS = 3
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
import scaling

def status(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])

scaling.prepare()
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: loading had one of its own
before = status("VmRSS")
scaling.{call}
print(status("VmHWM") - before)
"""


def task_of(words: int, rows: int = 64) -> Task:
    """Texts of so many words."""
    task = tpv.load_task("mini/sst2")
    source = [row.source for row in task.examples("train")]
    body = " ".join(source).split()
    made = tuple(
        Example(str(i), " ".join(body[i * 7 % 1000 : i * 7 % 1000 + words]), "positive", 1, "") for i in range(rows)
    )
    return Task(task.spec, {"train": made, "validation": made, "test": made})


def prepare() -> None:
    """What every measurement needs, so that its own part stands out."""
    step(10, 1, 16, steps=1)


def step(tokens: int, prompts: int, words: int, steps: int = 4, rows: int = 32) -> float:
    """Seconds of a training step."""
    backbone = tpv.load_backbone("mini")
    starts = [tpv.SoftPrompt.sample(backbone, tokens, seed) for seed in range(prompts)]
    ends: list[float] = []
    recipe = tpv.Recipe(steps=steps, batch_size=max(1, rows // prompts), lr=0.01, select="last")
    tpv.fit(backbone, task_of(words), starts, recipe, callback=lambda _: ends.append(time.perf_counter()))
    return statistics.median(np.diff(ends)) if len(ends) > 1 else 0.0


def stored(count: int) -> float:
    """Seconds for reading so many vectors from disk and comparing each with each."""
    backbone = tpv.load_backbone("mini")
    start = tpv.SoftPrompt.sample(backbone, 10, 0)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            tensor = start.tensor + torch.randn(start.tensor.shape, generator=torch.Generator().manual_seed(i))
            (start.tuned_to(tensor, "a task", "its rows") - start).save(Path(folder) / f"{i}.safetensors")
        begun = time.perf_counter()
        vectors = [tpv.TaskPromptVector.load(path) for path in sorted(Path(folder).iterdir())]
        tpv.cosine_matrix(vectors)
        return time.perf_counter() - begun


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of log y over log x."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def peak(call: str) -> float:
    """Bytes that a call adds to a process that has a model; Linux only."""
    code = CHILD.format(here=str(Path(__file__).parent), call=call)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def command(*words: str) -> float:
    """Median seconds of a command in a fresh process."""
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run([sys.executable, *words], capture_output=True, check=True)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def installed() -> int:
    """Bytes of the package's own files."""
    root = Path(tpv.__file__).parent
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


AXES: dict[str, tuple[str, Sequence[int], Callable[[int], float], Callable[[int], str]]] = {
    "P": ("rows of the prompt", (10, 20, 50, 100, 200), lambda p: step(p, 1, 16), lambda p: f"step({p}, 1, 16)"),
    "K": (
        "prompts in the bank, 1 row each a step",
        (1, 3, 10, 30, 100),
        lambda k: step(10, k, 16, rows=k),
        lambda k: f"step(10, {k}, 16, rows={k})",
    ),
    "T": ("words of a text", (16, 32, 64, 128, 250), lambda t: step(10, 1, t), lambda t: f"step(10, 1, {t})"),
    "N": ("stored vectors, read and compared", (10, 100, 1000, 10000), stored, lambda n: f"stored({n})"),
}


def drawn(found: dict[str, Any]) -> Figure:
    """Seconds over size of each axis, both logarithmic."""
    panels = [
        figures.LinePanel(
            f"time ~ {name}^{about['exponents'][0]:.2f}", {"seconds": figures.Line(about["sizes"], about["seconds"])}
        )
        for name, about in found.items()
        if name in AXES
    ]
    drawing = figures.line_panels(panels, "size", "seconds", columns=2, size=(4.2, 3), limits=None)
    for axes in drawing.axes:
        for axis, scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
            scale("log")
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
    return drawing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    found: dict[str, Any] = {}
    lines = ["| | from | to | time | grows as | memory added at most | grows as |", "|---|--:|--:|--:|--:|--:|--:|"]
    for name, (what, sizes, seconds, call) in AXES.items():
        times = [statistics.median(seconds(size) for _ in range(1 if size > 1000 else REPEATS)) for size in sizes]
        memory = [max(1.0, peak(call(size))) for size in sizes]
        # from where it is more than the fixed cost of a step, or of a page
        power, space = exponent(sizes[-3:], times[-3:]), exponent(sizes[-3:], memory[-3:])
        found[name] = {"what": what, "sizes": sizes, "seconds": times, "bytes": memory, "exponents": [power, space]}
        lines.append(
            f"| {what}, {name} | {sizes[0]} | {sizes[-1]:,} | {times[0]:.3g} to {times[-1]:.3g} s | "
            f"{name}^{power:.2f} | {memory[-1] / 2**20:,.0f} MiB | {name}^{space:.2f} |"
        )
        print(lines[-1], flush=True)
    fixed = {
        "import tpv": command("-c", "import tpv"),
        "tpv --help": command("-m", "tpv.cli", "--help"),
        "MiB installed, dependencies not counted": installed() / 2**20,
    }
    found["fixed"] = fixed | {"version": distribution("tpv").version}
    lines += ["", *(f"- {name}: {value:.2f}{'' if 'MiB' in name else ' s'}" for name, value in fixed.items())]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "scaling.png").write_bytes(figures.png(drawn(found)))
    (options.out / "scaling.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (options.out / "scaling.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print("\n".join(lines[-4:]))


if __name__ == "__main__":
    main()
