"""Options of `tpv port`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from tpv.cli.options import DataOptions, Precision, SetOption, TaskOptions, pairs
from tpv.cli.tuned import columns_of
from tpv.errors import TpvError

if TYPE_CHECKING:
    from tpv.models import Backbone
    from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
    from tpv.tasks import Task


class Teaches(StrEnum):
    """What rows teach."""

    labels = "labels"
    source = "source"


@dataclass
class PairOptions:
    """The two models."""

    title: ClassVar[str] = "Models"
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps.  [default: the best available one]")] = (
        None
    )
    precision: Annotated[Precision, typer.Option(help="What both models run in.")] = Precision.fp32

    def load(self, name: str) -> Backbone:
        """One of them."""
        from tpv.models import load_backbone

        precision = self.precision is Precision.bf16
        return load_backbone(name, device=self.device, precision="bf16" if precision else "fp32")


@dataclass
class MapOptions:
    """The map from one embedding space to the other."""

    title: ClassVar[str] = "Map"
    method: Annotated[str, typer.Option(help="A map, see `tpv registry port`.")] = "sparse"
    set_: SetOption = None
    anchors: Annotated[
        str | None,
        typer.Option(
            help="Fit on the first so many shared tokens, or on the lines of this text file.  "
            "[default: all shared tokens]"
        ),
    ] = None
    tokens: Annotated[
        int | None, typer.Option("--tokens", "-p", help="P on the target.  [default: as many as there are]")
    ] = None
    known_from: Annotated[
        Path | None,
        typer.Option(help="For --method projector: a folder of vectors or prompts of the source that it learns from."),
    ] = None
    known_to: Annotated[
        Path | None,
        typer.Option(
            help="Their counterparts on the target, called alike.  [default: learn from the tasks that they were "
            "trained on]"
        ),
    ] = None

    def options(self, source: TaskOptions) -> dict[str, Any]:
        """As `tpv.port` takes them."""
        found: dict[str, Any] = {"method": self.method, "num_tokens": self.tokens, "anchors": self._anchors()}
        return found | {"known": self._known(source)} | pairs(self.set_)

    def _anchors(self) -> int | list[str] | None:
        if self.anchors is None or self.anchors.isdigit():
            return None if self.anchors is None else int(self.anchors)
        try:
            return [line for line in Path(self.anchors).read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            got = getattr(error, "strerror", None) or "not UTF-8"
            raise TpvError("--anchors", expected="a number, or a text file", got=f"{self.anchors}: {got}") from None

    def _known(self, source: TaskOptions) -> list[Any]:
        from tpv.prompts.algebra import load_any

        if self.known_from is None:
            if self.known_to is not None:
                raise TpvError("--known-to", expected="--known-from with it", got="no --known-from")
            return []
        ours = sorted(self.known_from.glob("*.safetensors"))
        if not ours:
            raise TpvError(f"--known-from {self.known_from}", expected="a folder of .safetensors files", got="none")
        items = [load_any(path) for path in ours]
        if self.known_to is None:
            return [(item, source.named(_task_name(item, path))) for item, path in zip(items, ours, strict=True)]
        return [(item, load_any(self.known_to / path.name)) for item, path in zip(items, ours, strict=True)]


def _task_name(item: SoftPrompt | TaskPromptVector, path: Path) -> str:
    names = {part.task for part in item.components}
    if len(names) != 1 or "" in names:
        raise TpvError(f"task of {path}", expected="one that it was trained on", got=item.expression, fix="--known-to")
    return names.pop()


@dataclass
class TeacherOptions:
    """Training on the target after that."""

    title: ClassVar[str] = "Teacher"
    teacher: Annotated[
        Teaches, typer.Option(help="What rows teach: their labels, or what the source model says under the old prompt.")
    ] = Teaches.labels
    unlabelled: Annotated[
        Path | None,
        typer.Option(help="For --teacher source: a file of rows without labels, for the task that --task names."),
    ] = None

    def task(self, task: str | None, data: DataOptions, source: TaskOptions) -> Task | None:
        """What to train on, if anything."""
        from tpv.porting.adapting import unlabelled
        from tpv.tasks.formats import read_all

        if self.unlabelled is None:
            if task is None and data.train is None:
                if self.teacher is Teaches.source:
                    raise TpvError("--teacher source", expected="--task, --train or --unlabelled", got="none of them")
                return None
            return data.load(task, source, hold_out=False)
        if task is None or data.train is not None or self.teacher is not Teaches.source:
            raise TpvError("--unlabelled", expected="--task NAME and --teacher source, without --train")
        found = replace(data, text=None).load(task, source)
        columns = columns_of(found, data.text)
        rows = [{field: row.get(column) for field, column in columns.items()} for row in self._rows(read_all, data)]
        return unlabelled(found, rows)

    def _rows(self, read: Any, data: DataOptions) -> Sequence[dict[str, Any]]:
        found: Sequence[dict[str, Any]] = read(self.unlabelled, encoding=data.encoding)
        return found
