"""What a transfer gives: an answerer, why it was chosen, and all that was tried."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tpv.errors import TpvError
from tpv.evaluation.ensemble import Ensemble, PromptPart
from tpv.evaluation.predict import predict
from tpv.evaluation.tuned import RESULT_FILES, About, ModelChoice, Tuned
from tpv.files import staged_folder
from tpv.models import Backbone
from tpv.outputs.ranking import Calibrator
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.tasks import Task
from tpv.transfers.ranking import Ranked


@dataclass(frozen=True, eq=False)
class TransferResult:
    """The best that few rows and a library gave.

    Attributes:
        chosen: name of the entrant that won.
        reason: in a sentence or two why, and what else would do.
        answerer: what answers: a prompt, or an ensemble of prompts and probes.
        calibrator: of its probabilities, fitted to the rows judged in the race.
        vector: what was added to the initialization to make `prompt`, where that is made of vectors.
        standings: a row for each entrant: `entrant`, `candidate`, `round`, `steps`, `folds`, `accuracy`, `low`, `high`
            (Wilson's 95 % interval), `log_loss`, `seconds`, `weight` (how likely it is the best for new rows),
            `chosen`; what answers first, then by log loss.
        curve: how the winner does in the race's folds with fewer rows: `rows`, `accuracy`, `low`, `high`, `log_loss`;
            empty where there are too few rows for a curve.
        sources: a row for each vector of the library, the best first: `source`, `loss`, `accuracy`.
        task: what was learned, without rows.
        max_input_length: texts are truncated to this many tokens.
        backbone: the model.
    """

    chosen: str
    reason: str
    answerer: SoftPrompt | Ensemble
    calibrator: Calibrator
    vector: TaskPromptVector | None
    standings: pa.Table
    sources: pa.Table
    curve: pa.Table
    task: Task
    max_input_length: int
    backbone: Backbone

    @property
    def prompt(self) -> SoftPrompt | None:
        """The prompt that won; of an average the one with the most weight; None where only probes answer."""
        return best_prompt(self.answerer)

    @property
    def table(self) -> pa.Table:
        """See `standings`."""
        return self.standings

    @property
    def ranking(self) -> list[str]:
        """Names of the sources, best first."""
        names: list[str] = self.sources["source"].to_pylist()
        return names

    def predict(self, texts: Sequence[str] | Sequence[Mapping[str, object]]) -> pa.Table:
        """Label new texts; see `tpv.predict`."""
        return predict(
            self.backbone,
            self.task,
            self.answerer,
            texts,
            max_input_length=self.max_input_length,
            calibrator=self.calibrator,
        )

    def save(self, folder: str | Path, *, model: ModelChoice | None = None) -> None:
        """Write a folder that `tpv predict FOLDER` and `tpv evaluate FOLDER` work with, and the page `transfer.html`.

        An older result in it is replaced.

        Args:
            model: how to load the model again; by default by its name, in fp32.

        Raises:
            TpvError: the folder cannot be written.
        """
        if not str(folder).strip():
            raise TpvError("folder to save to", expected="a path", got=repr(folder))
        with staged_folder(Path(folder), replaces=RESULT_FILES) as stage:
            self.write(stage, model or ModelChoice(name=self.backbone.identity.name))

    def write(self, folder: Path, model: ModelChoice) -> None:
        """Write what `save` does into a folder that is new."""
        if isinstance(self.answerer, SoftPrompt):
            self.answerer.save(folder / "prompt.safetensors")
        if self.vector is not None:
            self.vector.save(folder / "vector.safetensors")
        about = About(model=model, max_input_length=self.max_input_length, calibrator=self.calibrator)
        Tuned(self.task, self.answerer, about).save(folder)
        content = {
            "chosen": self.chosen,
            "reason": self.reason,
            "standings": self.standings.to_pylist(),
            "sources": self.sources.to_pylist(),
            "curve": self.curve.to_pylist(),
        }
        (folder / "transfer.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        self.report(folder / "transfer.html")

    def report(self, path: str | Path) -> None:
        """Write a page: candidates with intervals, the ranking of sources, and the choice.

        Raises:
            TpvError: the place cannot be written.
        """
        from tpv.reporting.transfer import write_transfer

        tables = (self.standings.to_pylist(), self.sources.to_pylist(), self.curve.to_pylist())
        write_transfer(Path(path), self.task.name, self.reason, *tables)


def best_prompt(answerer: SoftPrompt | Ensemble) -> SoftPrompt | None:
    """The prompt that answers, or the one with the most weight; None without any."""
    if isinstance(answerer, SoftPrompt):
        return answerer
    weights = answerer.weights or (1.0,) * len(answerer.parts)
    prompts = [
        (weight, part.prompt)
        for weight, part in zip(weights, answerer.parts, strict=True)
        if isinstance(part, PromptPart)
    ]
    return max(prompts, key=lambda pair: pair[0])[1] if prompts else None


def curve_table(points: Sequence[Mapping[str, float]]) -> pa.Table:
    """A learning curve: the winner with fewer rows.

    Columns:
        rows: number of training rows.
        accuracy: accuracy on rows that it did not learn from.
        low, high: Wilson's 95 % interval of the accuracy.
        log_loss: mean negative log-probability of the gold label, nats.
    """
    kinds = [("rows", pa.int64()), *((name, pa.float64()) for name in ("accuracy", "low", "high", "log_loss"))]
    return pa.Table.from_pylist(list(points), schema=pa.schema(kinds))


def source_table(ranking: Sequence[Ranked]) -> pa.Table:
    """The ranking of the sources, the best first.

    Columns:
        source: name of the vector.
        loss: mean negative log-probability of the right labels under it, nats.
        accuracy: accuracy under it on the given rows.
    """
    rows = [{"source": one.name, "loss": one.loss, "accuracy": one.accuracy} for one in ranking]
    kinds = [("source", pa.string()), ("loss", pa.float64()), ("accuracy", pa.float64())]
    return pa.Table.from_pylist(rows, schema=pa.schema(kinds))
