"""Files of rows in, the same rows with answers out: shared by the commands that answer texts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from tpv.cli.options import EncodingOption
from tpv.errors import TpvError


@dataclass
class FileOptions:
    """A file of rows in, the same rows with answers out."""

    title: ClassVar[str] = "Files"
    input: Annotated[
        Path | None,
        typer.Option("--input", "-i", help="Answer the rows of this file: csv, tsv, jsonl[.gz], parquet; - is stdin."),
    ] = None
    output: Annotated[Path | None, typer.Option("--output", help="Write them here, all columns kept; - is stdout.")] = (
        None
    )
    format: Annotated[str | None, typer.Option(help="Of stdin and stdout: csv, tsv or jsonl.")] = None
    text: Annotated[
        list[str] | None,
        typer.Option(help="Column of the text, where it is not called as in training (repeatable, in that order)."),
    ] = None
    encoding: EncodingOption = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output where it exists.")] = False

    def check(self, texts: Sequence[str] | None, as_json: bool) -> bool:
        """Whether there is a file to answer.

        Raises:
            TpvError: only one end of it, texts beside it, an input that is not there, an output that is.
        """
        from tpv.evaluation.label_file import same_file, stage_of

        if (self.input is None) != (self.output is None):
            missing = "--output" if self.output is None else "--input"
            raise TpvError("files to answer", expected="both --input and --output", got=f"no {missing}")
        if self.input is None or self.output is None:
            return False
        if texts or as_json:
            raise TpvError("what to answer", expected="texts, or --input FILE", got="both" if texts else "--json")
        if str(self.input) != "-" and not self.input.exists():
            raise TpvError(f"input file {self.input} does not exist", fix="check the path")
        if same_file(self.input, self.output):
            raise TpvError("--output", expected="another file than --input", got=str(self.output))
        if self.output.is_file() and not self.overwrite and not stage_of(self.output).exists():
            raise TpvError(f"output file {self.output} exists", fix="choose another name, or add --overwrite")
        return True

    def run(
        self,
        fields: Mapping[str, str],
        answer: Callable[[Sequence[Mapping[str, str]]], list[dict[str, Any]]],
        added: Mapping[str, type],
        key: object,
        done: str,
    ) -> None:
        """Answer the rows of the file, and say how many there were.

        Args:
            fields, answer, added, key: see `tpv.evaluation.label_file.label_file`.
            done: what was done to the rows, in a word.
        """
        from tpv.evaluation.label_file import Endpoint, label_file
        from tpv.progress import counting_bar
        from tpv.tasks.formats import as_format

        assert self.input is not None
        assert self.output is not None
        kind = as_format(self.format)
        source = Endpoint.of(self.input, sys.stdin.buffer, kind, "standard input")
        target = Endpoint.of(self.output, sys.stdout.buffer, kind, "standard output")
        with counting_bar(done, None) as advance:
            counts = label_file(source, target, fields, answer, added, key=key, encoding=self.encoding, advance=advance)
        before = f", {counts.resumed} of them before" if counts.resumed else ""
        where = self.output if target.path else target.name
        typer.echo(f"wrote {where}: {done} {counts.rows - counts.empty} of {counts.rows} rows{before}", err=True)
        if counts.empty:
            have = "row has" if counts.empty == 1 else "rows have"
            typer.echo(f"warning: {counts.empty} {have} no text and got no answer", err=True)
