"""A study that nobody ran: its settings, rows and predictions."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pyarrow as pa

from tpv.metrics import macro_f1
from tpv.reporting.records import Row
from tpv.reporting.study import FamilyInfo, Study, TaskInfo

WORDS = {
    "mnli": ("entailment", "neutral", "contradiction"),
    "qnli": ("entailment", "not_entailment"),
    "sst2": ("negative", "positive"),
    "yelp_polarity": ("negative", "positive"),
    "scitail": ("entailment", "neutral"),
    "imdb": ("negative", "positive"),
    "sst5": ("a", "b", "c", "d", "e"),
}
FAMILIES = (
    FamilyInfo("NLI", ("mnli", "qnli"), ("scitail",)),
    FamilyInfo("Sentiment", ("sst2", "yelp_polarity"), ("imdb", "sst5")),
)
SOURCES = ("mnli", "qnli", "sst2", "yelp_polarity")
TARGETS = {"scitail": FAMILIES[0], "imdb": FAMILIES[1], "sst5": FAMILIES[1]}
SHOTS = (0, 10, 100, 250)
STARTS = (0, 1, 2)
EXAMPLES = 40


def study(model="t5-base", compat=False, prefix="", **more):
    tasks = {
        prefix + name: TaskInfo(prefix + name, words, "f1" if len(words) == 2 else "macro_f1", 1)
        for name, words in WORDS.items()
    }
    families = tuple(
        FamilyInfo(f.name, tuple(prefix + s for s in f.sources), tuple(prefix + t for t in f.targets)) for f in FAMILIES
    )
    settings = {
        "name": "made up",
        "model": model,
        "compat": compat,
        "tasks": tasks,
        "families": families,
        "shots": SHOTS,
        "facts": [("tokens", "20")],
        "made_with": "a test",
    }
    return Study(**settings | more)


def made_up(prefix="", seed=0):
    """Rows of every experiment, timings, and the predictions behind tuned, moved and transferred scores."""
    random = np.random.default_rng(seed)
    rows, outputs = [], {}

    def add(experiment, task, method, sources, start, value, metric="exact_match", **more):
        fields = {"shots": None, "scale": None} | more
        names = tuple(prefix + name for name in sources)
        rows.append(
            Row(
                experiment, prefix + task, method, names, start, metric=metric, value=float(value), n=EXAMPLES, **fields
            )
        )

    def scored(experiment, task, method, sources, start, quality, **more):
        """Every metric of predictions that are right with this probability."""
        words = WORDS[task]
        gold = np.arange(EXAMPLES) % len(words)
        other = random.integers(-1, len(words), EXAMPLES)
        predicted = np.where(random.random(EXAMPLES) < quality, gold, other)
        job = f"job{len(outputs)}"
        outputs[job] = (words, gold, predicted)
        for metric, value in (
            ("exact_match", (gold == predicted).mean()),
            ("macro_f1", macro_f1(gold, predicted)),
            ("invalid_rate", (predicted == -1).mean()),
            ("majority", 1 / len(words)),
            ("loss", 0.5),
        ):
            add(experiment, task, method, sources, start, value, metric, job=job, **more)
        if len(words) == 2:
            flipped = np.where(predicted == -1, 1 - gold, predicted)
            hits = ((flipped == 1) & (gold == 1)).sum()
            add(
                experiment,
                task,
                method,
                sources,
                start,
                2 * hits / ((flipped == 1).sum() + (gold == 1).sum()),
                "f1",
                job=job,
                **more,
            )

    for task in SOURCES:
        for start in STARTS:
            scored("sources", task, "untuned", (task,), start, 0.1)
            scored("sources", task, "tuned", (task,), start, 0.95)
            scored("cross_initialization", task, "tuned", (task,), start, 0.95, vector_seed=start)
            for other in STARTS:
                if other != start:
                    quality = 0.2 if task == "qnli" else 0.9
                    scored("cross_initialization", task, "moved", (task,), start, quality, vector_seed=other)
    points = [(task, start) for task in SOURCES for start in STARTS]
    for (a, i), (b, j) in combinations(points, 2):
        for method in ("prompts", "vectors"):
            value = 0.05 + 0.05 * (a == b) + 0.03 * (i == j) * (method == "prompts") + 0.01 * random.standard_normal()
            add("similarity", "", method, (a, b), i, value, "cosine", vector_seed=j)
    for k, (a, b) in enumerate(combinations(SOURCES, 2)):
        for start in STARTS:
            for task in (a, b):
                for scale in np.arange(0, 1.01, 0.25):
                    add(
                        "combination",
                        task,
                        "sum",
                        (a, b),
                        start,
                        0.9 - (scale - 0.5) ** 2 - 0.02 * k,
                        scale=float(scale),
                        split="validation",
                    )
                scored(
                    "combination",
                    task,
                    "sum",
                    (a, b),
                    start,
                    0.8 if k % 2 or task == a else 0.1,
                    scale=0.5 + 0.25 * (start == 1),
                )
            for method, vector in (("sum_own", start), ("tuned_other", (start + 1) % 3)):
                for scale in (0.0, 0.5, 1.0):
                    for task in (a, b):
                        quality = 0.9 - (0.7 if task == a else 0.1) * scale
                        scored("negation", task, method, (a, b), start, quality, scale=scale, vector_seed=vector)
    for target, family in TARGETS.items():
        methods = [
            ("random", (), 0.3),
            *(("spot", (name,), 0.7) for name in family.sources),
            ("spot_multi", family.sources, 0.75),
            ("attempt", family.sources, 0.5),
            ("sum", family.sources, 0.95),
        ]
        for method, used, quality in methods:
            for start in STARTS[: 2 if method == "attempt" else 3]:
                for shots in SHOTS:
                    if shots == 10 and target == "scitail":
                        continue
                    scored("transfer", target, method, used, start, quality * (0.8 + shots / 2000), shots=shots)
                add(
                    "transfer",
                    target,
                    method,
                    used,
                    start,
                    0.0 if method == "random" else 0.5,
                    "label_coverage",
                    shots=0,
                )
    timings = []
    for size in (1, 2, 3):
        for start in STARTS:
            for method, steps in (("spot_multi", 100 * (size + 1)), ("attempt", 100 + 20 * size), ("vectors", 100)):
                add("cost", "", method, SOURCES[: size + 1], start, steps, "steps", shots=size)
                timings.append(replace(rows[-1], metric="seconds", value=steps / 10 + start))

    def predictions(job, task):
        words, gold, predicted = outputs[job]
        named = [words[p] if p >= 0 else None for p in predicted]
        return pa.table({"example": [str(i) for i in range(EXAMPLES)], "gold": [words[g] for g in gold], "said": named})

    return rows, timings, predictions
