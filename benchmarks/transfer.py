"""Does `tpv transfer` choose well, and does its ranking of sources say what they give? Two tables.

python benchmarks/transfer.py RUN [--out FILE]
    from a run of configs/transfer_smollm2.toml: the choice beside a random initialization, the probe and the candidate
    that hindsight would choose, by target and number of rows.

python benchmarks/transfer.py --ranking --data ../shared/data --library vectors/ [--targets …] [--out FILE]
    every source tuned on the rows of each target: rank correlation of what it gives on test rows with the likelihood of
    the rows, with the cosine of prompts tuned on both tasks (SPoT), with LogME and with the H-score. A line of
    FILE.jsonl is one target and sample; what is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

import tpv
from tpv.evaluation.each import each_on_all
from tpv.prompts.similarity import token_cosines
from tpv.reporting.records import Row, read_rows
from tpv.reporting.stats import bootstrap_mean
from tpv.transfers import problem_of
from tpv.transfers.members import of_length
from tpv.transfers.problem import Problem

TARGETS = ("imdb", "sst5", "emotion", "rte", "snli", "scitail")
APART = {"sst5": {"sst2"}, "snli": {"mnli"}}  # sources that share a target's texts
CHOICE, RANDOM, PROBE = "transfer", "transfer_random", "transfer_probe"


# --- the choice -----------------------------------------------------------------------------------------
def choices(rows: Sequence[Row]) -> str:
    """By target and number of rows, means over samples in percent; then the gains with their intervals."""
    mine = [row for row in rows if row.metric == "accuracy" and row.method.startswith(CHOICE)]
    lines = [
        "| target | rows | samples | chosen | random, tuned | probe | best by hindsight | chosen less best |",
        "|---|--:|--:|--:|--:|--:|---|--:|",
    ]
    gains: dict[tuple[int, str], list[float]] = {}
    for shots, target in sorted({(row.shots, row.task) for row in mine}, key=lambda pair: (pair[0] or 0, pair[1])):
        by_method: dict[str, dict[int, float]] = {}
        for row in mine:
            if (row.shots, row.task) == (shots, target):
                by_method.setdefault(row.method, {})[row.init_seed] = 100 * row.value
        means = {method: statistics.mean(values.values()) for method, values in by_method.items()}
        best = max((method for method in means if method != CHOICE), key=lambda method: means[method])
        named = best.removeprefix(f"{CHOICE}_")
        cells = [target, str(shots), str(len(by_method[CHOICE])), f"{means[CHOICE]:.1f}"]
        cells += [f"{means[one]:.1f}" if one in means else "–" for one in (RANDOM, PROBE)]
        cells += [f"{means[best]:.1f} ({named})", f"{means[CHOICE] - means[best]:+.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
        for other in (RANDOM, PROBE):
            found = [value - by_method[other][seed] for seed, value in by_method[CHOICE].items()]
            gains.setdefault((shots or 0, other), []).extend(found)
        gains.setdefault((shots or 0, "best"), []).append(means[CHOICE] - means[best])
    told = {RANDOM: "a random initialization, tuned", PROBE: "the probe", "best": "the best by hindsight"}
    for (shots, other), values in sorted(gains.items()):
        interval = bootstrap_mean(values) if len(values) > 1 else None
        about = f" ({interval.low:+.1f} to {interval.high:+.1f})" if interval else ""
        lines.append(f"\n- {shots} rows, the choice less {told[other]}: {statistics.mean(values):+.1f} points{about}")
    return "\n".join(lines)


# --- the ranking ----------------------------------------------------------------------------------------
def h_score(features: NDArray[np.float64], gold: NDArray[np.int64]) -> float:
    """tr(cov(f)^-1 cov(E[f|y])) (Bao et al., 2019), with the shrinkage of Ledoit and Wolf for few rows."""
    from sklearn.covariance import ledoit_wolf

    centred = features - features.mean(0)
    means = np.stack([centred[gold == label].mean(0) for label in gold])
    covariance, _ = ledoit_wolf(centred, assume_centered=True)
    return float(np.trace(np.linalg.solve(covariance, means.T @ means / len(gold))))


def log_me(features: NDArray[np.float64], gold: NDArray[np.int64]) -> float:
    """LogME (You et al., 2021): the mean log evidence of a linear model for each label, its two precisions fitted."""
    rows, width = features.shape
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    squares = singular**2
    total = 0.0
    labels = np.unique(gold)
    for label in labels:
        target = (gold == label).astype(float)
        projected = (left.T @ target) ** 2
        rest = max(float(target @ target - projected.sum()), 0.0)
        alpha = beta = 1.0
        for _ in range(100):
            shrunk = squares / (squares + alpha / beta)
            weights = float((squares * projected / (squares + alpha / beta) ** 2).sum())
            error = float((projected * (1 - shrunk) ** 2).sum()) + rest
            gamma = float(shrunk.sum())
            new_alpha, new_beta = gamma / max(weights, 1e-12), (rows - gamma) / max(error, 1e-12)
            done = abs(new_alpha / new_beta - alpha / beta) <= 1e-3 * alpha / beta
            alpha, beta = new_alpha, new_beta
            if done:
                break
        fit = beta / 2 * error + alpha / 2 * weights
        evidence = width / 2 * np.log(alpha) + rows / 2 * np.log(beta) - fit
        evidence -= 0.5 * (np.log(alpha + beta * squares).sum() + (width - len(squares)) * np.log(alpha))
        total += (evidence - rows / 2 * np.log(2 * np.pi)) / rows
    return total / len(labels)


def measured(problem: Problem, task: tpv.Task, steps: int) -> dict[str, Any]:
    """What each source gives, tuned, on test rows, beside what each way of ranking says before."""
    names = list(problem.vectors)
    rows = task.examples("test")
    gold = np.array([row.label for row in rows])
    starts = [problem.init(), *(problem.start(problem.vectors[name]) for name in names)]
    tuned = tpv.fit(
        problem.backbone,
        problem.part_task(range(len(problem.rows))),
        starts,
        of_length(problem.recipe, steps),
        callback=quiet,
    )
    length = problem.recipe.max_input_length
    accuracy = [
        float((mine.argmax(1) == gold).mean()) for mine in each_on_all(problem.backbone, task, tuned, rows, length)
    ]
    similar = token_cosines(tuned[0].tensor, torch.stack([start.tensor for start in starts[1:]]))  # SPoT's
    known = np.array([row.label for row in problem.rows])
    said = {}
    for name, cosine in zip(names, similar.tolist(), strict=True):
        states = problem.states(name)[:, -1, 0].double().numpy()  # the last depth, mean over the text
        said[name] = {"cosine": cosine, "logme": log_me(states, known), "h_score": h_score(states, known)}
    for one in problem.ranking:
        said[one.name]["likelihood"] = -one.loss
    gains = {name: 100 * (value - accuracy[0]) for name, value in zip(names, accuracy[1:], strict=True)}
    return {"random": accuracy[0], "gains": gains, "said": said}


def quiet(_: object) -> None:
    """No bar."""


def correlations(found: Sequence[Mapping[str, Any]]) -> str:
    """Spearman's correlation of each ranking with the gains, a mean over cells; and what its first source gives."""
    ways = ("likelihood", "cosine", "logme", "h_score")
    lines = [
        "| ranking by | rank correlation with the gain | gain of its first source | of the best source |",
        "|---|--:|--:|--:|",
    ]
    for way in ways:
        each, first, best = [], [], []
        for one in found:
            names = sorted(one["gains"])
            said, gains = (
                [part[name] for name in names] for part in ({n: one["said"][n][way] for n in names}, one["gains"])
            )
            if len(set(gains)) > 1:
                each.append(float(spearmanr(said, gains).statistic))
            first.append(gains[int(np.argmax(said))])
            best.append(max(gains))
        interval = bootstrap_mean(each)
        lines.append(
            f"| {way} | {interval.score:+.2f} ({interval.low:+.2f} to {interval.high:+.2f}) | "
            f"{statistics.mean(first):+.1f} | {statistics.mean(best):+.1f} |"
        )
    return "\n".join(lines)


def rank(options: argparse.Namespace) -> str:
    """The second table; see above."""
    log = options.out.with_suffix(".jsonl")
    found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(one["target"], one["sample"]) for one in found}
    backbone = tpv.load_backbone(options.model)
    library = tpv.Library(str(options.library), model=backbone)
    for sample in range(options.samples):
        for target in options.targets.split(","):
            if (target, sample) in done:
                continue
            task = tpv.load_task(target, data_dir=options.data).limited({"test": options.rows}, 0)
            few = replace(task, splits={"train": task.examples("train")})
            own = {name: library[name] for name in library if name not in {target, *APART.get(target, ())}}
            given = {"shots": options.shots, "budget": "quick", "seed": sample, "max_input_length": 64}
            problem, _ = problem_of(backbone, few, own, candidates=["probe"], **given)
            found.append({"target": target, "sample": sample, **measured(problem, task, options.steps)})
            with log.open("a") as file:
                file.write(json.dumps(found[-1]) + "\n")
            print(target, sample, flush=True)
    return correlations(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--ranking", action="store_true")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--library", type=Path)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=300, help="test rows")
    parser.add_argument("--out", type=Path, default=Path("runs/transfer.md"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found = rank(options) if options.ranking else choices(read_rows(options.run / "results.parquet"))
    options.out.write_text(found + "\n")
    print(found)


if __name__ == "__main__":
    main()
