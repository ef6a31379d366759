"""`tpv transfer`."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from tpv.cli.options import DataOptions, LengthOption, ModelOptions, TaskOptions, task_names
from tpv.cli.show import cell, console

if TYPE_CHECKING:
    from rich.table import Table

    from tpv.progress import Progress
    from tpv.transfers.racing import Standing

ORDER = 25
SHOWN = 12  # candidates in the live table


@dataclass
class RaceOptions:
    """The race of candidates."""

    title: ClassVar[str] = "Race"
    shots: Annotated[
        int | None, typer.Option(help="Use only this many training rows, drawn with the class distribution kept.")
    ] = None
    budget: Annotated[
        str, typer.Option(help="How much work: `quick`, `standard`, `thorough`, or about so many seconds.")
    ] = "standard"
    candidate: Annotated[
        list[str] | None,
        typer.Option(help="Race these alone, see `tpv registry candidate` (repeatable).  [default: the budget's]"),
    ] = None
    tokens: Annotated[int | None, typer.Option("--tokens", "-p", help="P, without a library.  [default: 20]")] = None
    lr: Annotated[float | None, typer.Option(help="Peak learning rate of prompts.  [default: fits the model]")] = None
    max_input_length: LengthOption = 256
    seed: Annotated[int, typer.Option(help="Of initializations, folds, data order and the draw of --shots.")] = 0

    def options(self) -> dict[str, Any]:
        """As `tpv.transfer` takes them."""
        found: dict[str, Any] = {"shots": self.shots, "budget": self._budget(), "seed": self.seed, "lr": self.lr}
        found |= {"num_tokens": self.tokens, "max_input_length": self.max_input_length}
        return found if self.candidate is None else found | {"candidates": self.candidate}

    def _budget(self) -> str | float:
        """A name, or seconds."""
        try:
            return float(self.budget)
        except ValueError:
            return self.budget


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for what was chosen, and the page.")],
    model: ModelOptions,
    source: TaskOptions,
    data: DataOptions,
    race: RaceOptions,
    task: Annotated[
        str | None,
        typer.Option("--task", "-t", help="A name from `tpv tasks`, or a task file.", autocompletion=task_names),
    ] = None,
    library: Annotated[
        list[str] | None,
        typer.Option("--library", "-l", help="Folder or hub repository of vectors (repeatable); none goes without."),
    ] = None,
) -> None:
    """Find the best classifier that a few labelled rows and a library of vectors give, and say why it is the best.

    Vectors are ranked by how likely they make the rows. Then candidates race by cross-validation: prompts tuned from
    random initializations, from the best vectors and from merges of them, a plain instruction, a probe on the frozen
    model. The winner is fitted to all rows: `tpv predict FOLDER TEXT` labels with it. The folder also gets
    `transfer.html`. Test rows, where there are some, score the winner at the end and decide nothing. The same command
    resumes an interrupted race, whose state is beside the folder, in `.NAME.race`.

    Examples: `tpv transfer --train few.csv --text review --label stars --library vectors/ --out runs/x`

    `tpv transfer --task mini/imdb --shots 16 --library runs/mini --budget quick --out runs/imdb`
    """
    from tpv.evaluation.score import evaluate
    from tpv.evaluation.tuned import RESULT_FILES
    from tpv.files import staged_folder
    from tpv.transfers import transfer

    whole = data.load(task, source, hold_out=False)
    backbone = model.load()
    vectors = _library(library, backbone)
    begun = time.perf_counter()
    work = out.parent / f".{out.name}.race"
    with staged_folder(out, replaces=RESULT_FILES) as stage:  # refuses a bad place at once
        if work.is_dir():
            typer.echo(f"resuming the race in {work}", err=True)
        try:
            with _shown() as (tell, advance):
                result = transfer(backbone, whole, vectors, work=work, tell=tell, callback=advance, **race.options())
        except KeyboardInterrupt:
            typer.echo("run the same command to resume the race", err=True)
            raise
        result.write(stage, model.choice())
    shutil.rmtree(work, ignore_errors=True)
    console().print(_table(result.standings.to_pylist()))
    typer.echo(result.reason)
    typer.echo(f"took {time.perf_counter() - begun:.0f} s; wrote {out}: use it with tpv predict {out} TEXT")
    if whole.splits.get("test"):
        scores = evaluate(
            backbone,
            whole,
            result.answerer,
            "test",
            max_input_length=race.max_input_length,
            calibrator=result.calibrator,
        )
        low, high = scores.interval("accuracy")
        sure = f"95 % interval {low:.2f} to {high:.2f}"
        typer.echo(f"test: accuracy {scores.accuracy:.3f} on {scores.n} rows, {sure} (majority {scores.majority:.3f})")


def _library(names: list[str] | None, backbone: Any) -> Any:
    """The library of these names, vectors of other models left out and counted."""
    if not names:
        return None
    from tpv import Library

    library = Library(names, model=backbone)
    for reason, left in library.left_out.items():
        typer.echo(f"left out of the library: {len(left)} ({reason})", err=True)
    return library


@contextmanager
def _shown() -> Iterator[Any]:
    """What is told of a race: a live table on a terminal, else a line for each thing done; and of its trainings."""
    if not sys.stderr.isatty():
        yield (lambda what, _: typer.echo(what, err=True)), None
        return
    from rich.console import Console, Group
    from rich.live import Live

    with Live(console=Console(stderr=True), transient=True, refresh_per_second=4) as live:
        state: dict[str, Any] = {"what": "", "table": None}

        def show(more: str = "") -> None:
            parts = [state["table"]] if state["table"] is not None else []
            live.update(Group(*parts, f"{state['what']}{more}"))

        def tell(what: str, standings: Sequence[Standing]) -> None:
            state["what"] = what
            if standings:
                state["table"] = _table([one.row() for one in standings[:SHOWN]])
            show()

        def advance(progress: Progress) -> None:
            left = progress.seconds / progress.step * (progress.total - progress.step)
            show(f", step {progress.step} of {progress.total}, {left:.0f} s left")

        yield tell, advance


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    """Candidates, the best first."""
    from rich.table import Table

    table = Table("candidate", "log loss", "accuracy", "95 % interval", "weight", "steps", "seconds")
    for number, row in enumerate(rows):
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
        cells = (row["entrant"], f"{row['log_loss']:.3f}", f"{row['accuracy']:.3f}", interval, f"{row['weight']:.2f}")
        table.add_row(
            *map(cell, (*cells, str(row["steps"]), f"{row['seconds']:.0f}")), style="bold" if number == 0 else None
        )
    return table
