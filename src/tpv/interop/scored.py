"""Scores as the page of a repository keeps them: of which file, on which task."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, TypeAdapter

from tpv.errors import DamagedFileError, TpvError
from tpv.files import read_parquet
from tpv.outputs.scores import Scores, score_predictions
from tpv.prompts.algebra import TaskPromptVector
from tpv.prompts.matrix import PromptMatrix
from tpv.prompts.provenance import Components, Init, ModelIdentity
from tpv.registry import register

Items = Mapping[str, PromptMatrix]


class CardScore(BaseModel):
    """One scoring as a card keeps it.

    Attributes:
        file: name of the prompt or vector in the repository.
        digest: of its content, so that a score does not outlive the file that it was measured on.
        start: for a vector, the initialization it was added to; empty for a prompt, which was scored as it is.
        text: of a text task, its metrics by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    digest: str
    start: str = ""
    task: str
    split: str
    n: int
    exact_match: float
    macro_f1: float | None = None
    f1: float | None = None
    invalid_rate: float | None = None
    majority: float
    text: Mapping[str, float] = {}

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What a later scoring replaces an earlier one by."""
        return self.file, self.task, self.split, self.start

    def values(self) -> dict[str, Any]:
        """Plain values, without what the task does not have: a card of labels is as older versions read it."""
        return {key: value for key, value in self.model_dump(exclude_none=True).items() if value != {}}


card_scores = TypeAdapter(list[CardScore])


class _ScoredIdentity(BaseModel):
    """What `scores_of` reads of the identity of a prompt that was scored."""

    model: ModelIdentity
    components: Components
    init: Init


class _Scored(BaseModel):
    """Which prompt a table of predictions is of."""

    digest: str
    identity: _ScoredIdentity


def read_scores(path: str | PathLike[str]) -> list[Scores]:
    """The scores of each prompt in a table that `tpv evaluate --predictions` wrote.

    Raises:
        TpvError: no such file, or one that does not say which prompts it scores.
        DamagedFileError: no Parquet file, or predictions that do not read.
    """
    try:
        table = read_parquet(Path(path))
        columns = table.column_names
    except OSError as error:
        raise TpvError(f"{path} cannot be read", got=error.strerror or str(error)) from None
    except (pa.ArrowException, ValueError) as error:
        raise DamagedFileError(f"{path} is damaged or no Parquet file", got=str(error)) from None
    about = dict(table.schema.metadata or {})
    if "prompt" not in columns or not {b"scored", b"split", b"task"} <= set(about):
        raise TpvError(
            f"{path} does not say which prompts it scores",
            expected="a file of `tpv evaluate --predictions`",
            fix="score the prompts again",
        )
    try:
        scored: dict[str, Any] = json.loads(about[b"scored"])
        result = []
        for prompt, who in scored.items():
            _Scored.model_validate(who)
            own = table.filter(pa.compute.equal(table["prompt"], prompt)).drop_columns(["prompt"])
            if len(set(own["example"].to_pylist())) != len(own):
                raise TpvError(f"{path} scores {prompt} twice", fix="score each prompt once")
            result.append(score_predictions(own.replace_schema_metadata(about | {b"scored": json.dumps(who).encode()})))
        return result
    except (KeyError, ValueError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DamagedFileError(f"{path} is damaged: its predictions do not read", got=str(error)) from None


def scores_of(items: Items, scores: Iterable[Scores]) -> list[CardScore]:
    """Scores put to the files they were measured on, by content and never by name.

    A prompt's score belongs to the file that holds that prompt. A vector's belongs to the file whose trained vectors,
    coefficients included, are those of the prompt that was scored: it was that vector on some initialization.

    Raises:
        TpvError: scores that do not say what was scored, or that belong to none of the files.
    """
    rows: list[CardScore] = []
    seen = 0
    for score in scores:
        seen += 1
        about = {key.decode(): value.decode() for key, value in (score.predictions.schema.metadata or {}).items()}
        if "scored" not in about:
            raise TpvError("these scores do not say which prompt they are of", expected="scores of tpv.evaluate")
        who = json.loads(about["scored"])
        for file, item in items.items():
            exact = item.digest == who["digest"]
            moved = (
                isinstance(item, TaskPromptVector)
                and item.components
                and who["identity"]["model"]["fingerprint"] == item.model.fingerprint
                and who["identity"]["components"] == [part.model_dump(mode="json") for part in item.components]
            )
            if exact or moved:
                init = who["identity"]["init"]
                rows.append(
                    CardScore(
                        file=file,
                        digest=item.digest,
                        start="" if exact else _start(init),
                        task=about["task"],
                        split=about["split"],
                        n=score.n,
                        exact_match=score.exact_match,
                        macro_f1=score.macro_f1,
                        f1=score.positive_f1,
                        invalid_rate=score.invalid_rate,
                        majority=score.majority,
                        text=_of_text(score),
                    )
                )
    if seen and not rows:
        raise TpvError(
            "the scores belong to none of the files",
            expected="scores of these prompts, or of these vectors on an initialization",
            got=f"{seen} of others",
            fix="score what is pushed: `tpv evaluate FILE --predictions scores.parquet`",
        )
    return rows


def _of_text(score: Scores) -> dict[str, float]:
    """The metrics of text that the task has, by name."""
    names = [entry.name for entry in register.metric if entry.about.get("scope") == "text"]
    return {name: score.metric(name) for name in names if score.defined(name)}


def _start(init: Mapping[str, Any]) -> str:
    return str(Init.model_validate(init))


def still_true(items: Items, old: Iterable[CardScore], new: Iterable[CardScore]) -> list[CardScore]:
    """Scores of files that are as they were when scored; a later scoring replaces an earlier one."""
    by_place = {score.place: score for score in (*old, *new)}
    return [
        by_place[place]
        for place in sorted(by_place)
        if place[0] in items and items[place[0]].digest == by_place[place].digest
    ]
