"""What the paper claims, beside what a study found: one page with intervals and verdicts.

python benchmarks/claims.py RUN [--out docs/results/claims.md]

RUN is a run directory of `tpv run`, finished or not, with the paper's experiments: of configs/protocol_smollm2.toml,
configs/paper.toml, configs/portable.toml or the like. The page names what is not run yet. The claims are data, in
claims_paper.py: a quotation, its place, what is calculated, and the line it is compared with.

The paper: Belanec, Ostermann, Srba, Bielikova, "Task Prompt Vectors: Effective Initialization through Multi-Task
Soft-Prompt Transfer", arXiv:2408.01119v1 (2024).
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from claims_measured import KEPT, Cells, Subject, above, binary, gain, moved, pairs, relatives, unlearned
from claims_paper import (
    CLAIMS,
    PAPER_NAMES,
    PAPER_TARGETS,
    RETAINED,
    RULES,
    TOPICS,
    Claim,
    paper_gain,
    paper_moved,
    shown_shots,
    transfer_claims,
)
from scipy.stats import bootstrap

from tpv.errors import TpvError
from tpv.execution.directory import RunDirectory
from tpv.execution.reporting import read_run, study_of
from tpv.registry import register
from tpv.reporting.about import METHODS
from tpv.reporting.page import Section, write_markdown
from tpv.reporting.published import lookup
from tpv.reporting.records import ORDINARY
from tpv.reporting.results import Results, unique, where
from tpv.reporting.tables import MISSING, Table
from tpv.studies.cells import cells

MODES = (ORDINARY, "portable", "composable")  # a column each
HOLDS, FAILS, UNCLEAR, MISSED = "holds", "does not hold", "not clear", "not run yet"
RESAMPLES = 9999
EMBEDDED = " mini is tpv's small embedded model; its tasks are generated and only named after the paper's."


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, and how many tasks and initializations it is from."""

    value: float
    low: float
    high: float
    tasks: int
    inits: int


# --- intervals and verdicts -----------------------------------------------------------------------------
def rectangle(found: Cells) -> tuple[list[Subject], list[int]]:
    """Subjects and initializations of the largest table without a gap; a run that is not finished has gaps."""
    subjects, counts = unique(subject for subject, _ in found), Counter(init for _, init in found)
    inits = [init for init, _ in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
    best: tuple[list[Subject], list[int]] = ([], [])
    for size in range(1, len(inits) + 1):
        some = inits[:size]
        whole = [subject for subject in subjects if all((subject, init) in found for init in some)]
        if len(whole) * size > len(best[0]) * len(best[1]):
            best = whole, some
    return best


def estimate(found: Cells, middle: str = "mean") -> Estimate | None:
    """The middle over tasks of the mean over initializations, and its interval; None of nothing.

    A nan counts as missing. Tasks and initializations are resampled independently of each other, which keeps pairs
    within a cell together (Owen, 2007, "The pigeonhole bootstrap"); percentiles of 9,999 resamples.
    """
    found = {key: value for key, value in found.items() if math.isfinite(value)}
    tasks, inits = rectangle(found)
    if not tasks:
        return None
    matrix = np.array([[found[task, init] for init in inits] for task in tasks])
    centre = {"mean": np.mean, "median": np.median}[middle]

    def of(*drawn: Any, axis: int = -1) -> Any:
        chosen = iter(drawn)
        rows, columns = (next(chosen).astype(int) if size > 1 else np.zeros(1, int) for size in matrix.shape)
        return centre(matrix[rows[..., :, None], columns[..., None, :]].mean(-1), axis=axis)

    value = float(centre(matrix.mean(1)))
    sampled = [np.arange(size) for size in matrix.shape if size > 1]
    if not sampled:
        return Estimate(value, value, value, len(tasks), len(inits))
    random = np.random.default_rng(0)
    done = bootstrap(sampled, of, n_resamples=RESAMPLES, vectorized=True, method="percentile", rng=random)
    low, high = done.confidence_interval
    return Estimate(value, float(low), float(high), len(tasks), len(inits))


def judge(claim: Claim, one: Estimate | None) -> str:
    """What a number says of a claim: its whole interval is on the right side of the line, or on the wrong one."""
    if one is None or (not claim.counted and min(one.tasks, one.inits) < 2):
        return UNCLEAR
    sign = 1 if claim.above else -1
    ends = sorted(sign * (end - claim.line) for end in (one.low, one.high))
    return HOLDS if ends[0] > 0 else FAILS if ends[1] <= 0 else UNCLEAR


def verdict(judged: Mapping[str, str]) -> str:
    """The verdict over all modes: that of ordinary vectors, unless only vectors of another mode make the claim hold."""
    others = [mode for mode, said in judged.items() if said == HOLDS and mode != ORDINARY]
    return f"{HOLDS} with {others[0]} vectors" if others and judged[ORDINARY] != HOLDS else judged[ORDINARY]


# --- the page -------------------------------------------------------------------------------------------
def minus(text: str) -> str:
    """A number with the sign that is printed."""
    return text.replace("-", "−")


def shown(one: Estimate | None, digits: int, *, signed: bool = False, counted: bool = False) -> str:
    """`−0.1 (−0.4 to +0.2), 6 × 3`; no interval where nothing was resampled."""
    if one is None:
        return MISSING
    sign = "+" if signed else ""
    rounded = (round(number, digits) + 0.0 for number in (one.value, one.low, one.high))  # no "−0.0"
    value, low, high = (minus(f"{number:{sign}.{digits}f}") for number in rounded)
    interval = "" if counted or max(one.tasks, one.inits) < 2 else f" ({low} to {high})"
    return f"{value}{interval}, {one.tasks} × {one.inits}"


def claims_of(results: Results) -> list[Claim]:
    """All claims, topic by topic."""
    every = [*CLAIMS, *transfer_claims(results.study.shots)]
    return [claim for topic in TOPICS for claim in every if claim.topic == topic]


@dataclass(frozen=True)
class Judged:
    """A claim, its numbers by mode, and what they say."""

    claim: Claim
    found: Mapping[str, Estimate | None]
    verdict: str


def judged(claim: Claim, every: Results, usable: Results, modes: Sequence[str]) -> Judged:
    """A claim with its verdict.

    Args:
        every: all rows, which say whether it was run.
        usable: those of the tasks that were learned.
    """
    found = {mode: estimate(claim.cells(usable, mode), claim.middle) for mode in modes}
    if claim.counted:
        found = {mode: one and replace(one, low=one.value, high=one.value) for mode, one in found.items()}
    said = {mode: judge(claim, one) if claim.cells(every, mode) else MISSED for mode, one in found.items()}
    return Judged(claim, found, verdict(said))


def claim_table(topic: str, every: Sequence[Judged], modes: Sequence[str]) -> Table:
    """The claims of a topic."""
    rows: list[tuple[str, ...]] = []
    told = ""
    for one in every:
        claim = one.claim
        quote = f"“{claim.quote}” ({claim.source})"
        cells_ = [shown(one.found[mode], claim.digits, signed=claim.line <= 0, counted=claim.counted) for mode in modes]
        line = f"{'above' if claim.above else 'below'} {minus(f'{claim.line:.3g}')}"
        paper = minus(claim.paper) if claim.paper[:1] in "+-" else claim.paper
        rows.append(("as above" if quote == told else quote, claim.measured, line, paper, *cells_, one.verdict))
        told = quote
    head = ("claim", "measured", "holds if", "paper", *(f"{mode} vectors" for mode in modes), "verdict")
    return Table(topic, head, rows, best={(number, len(head) - 1) for number in range(len(rows))}, name="claims")


def only(found: Cells, subject: Subject) -> Cells:
    return {key: value for key, value in found.items() if key[0] == subject}


def paper_name(task: str) -> str:
    """What the paper's tables call a task; the embedded model's are named after theirs."""
    name = task.rpartition("/")[2]
    return PAPER_NAMES.get(name, name)


def by_task(results: Results, modes: Sequence[str]) -> Table | None:
    """Vectors on other initializations, task by task."""
    found = {mode: moved(results, mode) for mode in modes}
    tasks = results.in_order(task for of in found.values() for (task,), _ in of)
    rows = []
    for task in tasks:
        name = paper_name(task)
        paper = minus(f"{paper_moved(name):+.1f}") if lookup(1, name, "moved", None) else MISSING
        mine = (shown(estimate(only(found[mode], (task,))), 1, signed=True) for mode in modes)
        rows.append((results.study.short(task), paper, *mine))
    head = ("task", "paper, Table 1", *(f"{mode} vectors" for mode in modes))
    title = "Vector on another initialization − tuned prompt, points of exact match"
    return Table(title, head, rows, name="by_task") if rows else None


def by_pair(results: Results, modes: Sequence[str]) -> Table | None:
    """The lower score of pairs, by the kind of pair."""
    kinds: dict[str, Callable[[Subject], bool]] = {
        "same family": partial(relatives, results),
        "different families": lambda both: not relatives(results, both),
        "both with two labels": partial(binary, results),
        "one or none with two labels": lambda both: not binary(results, both),
    }
    found = {mode: pairs(results, mode) for mode in modes}
    rows = []
    for name, wanted in kinds.items():
        mine = [{key: share for key, share in found[mode].items() if wanted(key[0])} for mode in modes]
        if any(mine):
            rows.append((name, "lower score / tuned", *(shown(estimate(of), 2) for of in mine)))
            for line in (KEPT, RETAINED):
                shares = (shown(estimate(above(of, line)), 2) for of in mine)
                rows.append((name, f"share of pairs above {line}", *shares))
    head = ("pairs", "measured", *(f"{mode} vectors" for mode in modes))
    return Table("Sums of two vectors, by kind of pair", head, rows, name="by_pair") if rows else None


def by_target(results: Results, modes: Sequence[str]) -> Table | None:
    """The sum less the best single source, target by target."""
    rows = []
    for shots in shown_shots(results.study.shots):
        found = {mode: gain(results, mode, "spot", shots) for mode in modes}
        for task in results.in_order(task for of in found.values() for (task,), _ in of):
            name = paper_name(task)
            number = paper_gain(name, "spot", shots) if name in PAPER_TARGETS else None
            paper = MISSING if number is None else minus(f"{number:+.1f}")
            mine = [estimate(only(found[mode], (task,))) for mode in modes]
            if any(mine):
                told = (shown(one, 1, signed=True) for one in mine)
                rows.append((results.study.short(task), str(shots), paper, *told))
    head = ("target", "shots", "paper, Tables 2 and 4", *(f"{mode} vectors" for mode in modes))
    return Table("Sum − SPoT from the best single source, points", head, rows, name="by_target") if rows else None


def cost_table(results: Results) -> Table | None:
    """Steps and seconds to add a task, and the numbers that are trained."""
    rows = []
    for method in ("vectors", "spot_multi", "attempt"):
        for metric in ("steps", "seconds"):
            mine = where(results.of("cost", metric), method=method)
            sizes = sorted({row.shots for row in mine if row.shots is not None})
            if sizes:
                ends = [statistics.fmean(row.value for row in where(mine, shots=size)) for size in sizes]
                digits = 1 if metric == "seconds" else 0
                told = "; ".join(
                    f"pool of {size}: {value:,.{digits}f}" for size, value in zip(sizes, ends, strict=True)
                )
                rows.append((METHODS.get(method, method), metric, told))
    trained = unique(row.n for row in results.of("similarity", "cosine"))
    if trained:
        paper = "the paper's 100 × 768 are 76,800"
        rows.append(("vectors", "numbers trained for a task", f"{', '.join(f'{n:,}' for n in trained)} ({paper})"))
    note = "Steps of the whole training. Seconds are extrapolated from a few steps, timed once on the run's machine."
    head = ("method", "measured", "result")
    return Table("What one more task takes", head, rows, note, name="cost") if rows else None


def usable_rows(results: Results) -> Results:
    """The rows without those of source tasks that were not learned; all of transfer and cost."""
    lost = {*unlearned(results)}
    rows = [
        row
        for experiment in results.experiments
        for split in ("test", "validation")
        for row in results.all_of(experiment, split)
        if experiment in ("transfer", "cost") or lost.isdisjoint(row.sources)
    ]
    return Results(results.study, rows)


def write_claims(out: Path, results: Results, missing: Sequence[str]) -> str:
    """Write the page; returns how many claims have each verdict, in words.

    Args:
        missing: the parts of the study that are not run, in words.

    Raises:
        TpvError: `out` cannot be written.
    """
    study, usable = results.study, usable_rows(results)
    seen = {row.mode for experiment in results.experiments for row in results.all_of(experiment)}
    modes = [mode for mode in MODES if mode == ORDINARY or mode in seen]
    every = [judged(claim, results, usable, modes) for claim in claims_of(results)]
    topics = unique(one.claim.topic for one in every)
    tables = [claim_table(topic, [one for one in every if one.claim.topic == topic], modes) for topic in topics]
    counts = Counter(one.verdict for one in every)
    order = [HOLDS, *(f"{HOLDS} with {mode} vectors" for mode in MODES[1:]), FAILS, UNCLEAR, MISSED]
    told = "; ".join(f"{said}: {counts[said]}" for said in order if counts[said])
    lost = unlearned(results)
    intro = [
        "The claims of “Task Prompt Vectors” (Belanec et al., 2024), each beside the paper's figure and what the study "
        f"“{study.name}” found on {study.model}. {told}." + (EMBEDDED if study.model == "mini" else ""),
        f"Tasks: {', '.join(map(study.short, study.tasks))}."
        + (f" Not learned, and left out: {', '.join(map(study.short, lost))}." if lost else "")
        + (f" Not run yet: {'; '.join(missing)}." if missing else " All parts of the study were run."),
    ]
    details = [by_task(usable, modes), by_pair(usable, modes), by_target(results, modes), cost_table(results)]
    rules = Table("Terms", ("term", "meaning"), RULES, name="rules")
    settings = Table("Settings of the study", ("setting", "value"), list(study.facts), name="settings")
    sections = [
        Section("Claims", "The last section says what columns and verdicts mean.", tables=tables),
        Section("In detail", "The same numbers by task, pair and target.", tables=[one for one in details if one]),
        Section("How to read this page", "The rules are the same for every study.", tables=[rules, settings]),
    ]
    write_markdown(out, "The paper's claims, tested", intro, sections, f"Made by {study.made_with}.")
    return told


def missing_parts(directory: RunDirectory) -> list[str]:
    """Experiments that are not in a run's config or not finished, and modes of vectors that it does not train."""
    config, found = directory.config, []
    every = cells(config)
    for entry in register.experiment:
        jobs = unique(cell.job for cell in every if cell.experiment == entry.name)
        done = sum(map(directory.done, jobs))
        if entry.builtin and not jobs:
            found.append(f"{entry.name} (not in this study)")
        elif done < len(jobs):
            found.append(f"{entry.name} ({done} of {len(jobs)} jobs done)")
    found += [f"{mode} vectors (not in this study)" for mode in MODES[1:] if mode not in config.vectors.modes]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory of `tpv run`")
    parser.add_argument("--out", type=Path, default=Path("docs/results/claims.md"))
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as place:  # a run that goes on in another process is left alone
            directory, rows, timings = read_run(options.run, Path(place))
        told = write_claims(options.out, Results(study_of(directory), rows, timings), missing_parts(directory))
    except TpvError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{options.out}: {told}")


if __name__ == "__main__":
    main()
