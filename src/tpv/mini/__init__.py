"""The embedded model and its generated tasks: everything tpv needs to work with no network.

Twelve tasks mirror the paper's in families, label words and shape of input; three more have text to write. Every row
comes from a seeded generator; no text is shared between the splits of a task.
"""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from random import Random

from tpv.mini import inference, sentiment, topic
from tpv.mini.words import TEXTS as TEXTS

Row = tuple[dict[str, str], int]

GENERATORS: dict[str, Callable[[Random], Row]] = {
    "mnli": inference.mnli,
    "qnli": inference.qnli,
    "dbpedia": topic.dbpedia,
    "trec": topic.trec,
    "sst2": sentiment.sst2,
    "yelp": sentiment.yelp,
    "scitail": inference.scitail,
    "snli": inference.snli,
    "ag_news": topic.ag_news,
    "yahoo": topic.yahoo,
    "imdb": sentiment.imdb,
    "sst5": sentiment.sst5,
}
SOURCES = ("mnli", "qnli", "dbpedia", "trec", "sst2", "yelp")
TARGETS = ("scitail", "snli", "ag_news", "yahoo", "imdb", "sst5")
SPLIT_SIZES = {"test": 400, "validation": 200, "train": 2000}  # drawn in this order
DATA_SEED = 2024


@cache
def text_splits(name: str) -> dict[str, tuple[tuple[dict[str, str], str], ...]]:
    """All rows of one generated text task, `{"train" | "validation" | "test": rows}`; a row is `(fields, text)`."""
    source, answer = TEXTS[name]
    return {split: tuple((fields, answer(fields)) for fields, _ in rows) for split, rows in splits(source).items()}


@cache
def splits(name: str) -> dict[str, tuple[Row, ...]]:
    """All rows of one generated task, `{"train" | "validation" | "test": rows}`.

    A row is `(fields, label id)`. No two rows of a task, in whatever splits, have the same fields.
    """
    rng = Random(f"tpv mini {name} {DATA_SEED}")
    seen: set[tuple[str, ...]] = set()
    result: dict[str, tuple[Row, ...]] = {}
    for split, size in SPLIT_SIZES.items():
        rows: list[Row] = []
        while len(rows) < size:
            fields, label = GENERATORS[name](rng)
            key = tuple(fields.values())
            if key not in seen:
                seen.add(key)
                rows.append((fields, label))
        result[split] = tuple(rows)
    return result


def model_folder() -> Path:
    """Where the embedded model's `transformers` folder lies in the installed package."""
    return Path(str(files("tpv.mini"))) / "model"
