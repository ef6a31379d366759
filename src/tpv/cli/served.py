"""What `tpv predict --server` works with: a prompt of a server, or an expression over its library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from tpv.cli.show import input_lines, split_fields
from tpv.errors import TpvError

if TYPE_CHECKING:
    import pyarrow as pa

    from tpv.serving.client import Client
    from tpv.tasks import Task

ServerOption = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="Ask a server that `tpv serve` runs; its key is in $TPV_API_KEY."),
]


@dataclass
class Served:
    """A prompt of a server.

    Attributes:
        name: of the prompt, or an expression.
        task: the template and label words that texts are read with.
        named: what the command line calls the task, if anything.
    """

    client: Client
    name: str
    about: Mapping[str, Any]
    task: Task
    named: str | None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    @classmethod
    def of(cls, url: str, prompt: Path, task: str | None, given: Mapping[str, bool]) -> Served:
        """A prompt of the server at a URL.

        Args:
            given: options that a server answers itself, and whether they are there.

        Raises:
            TpvError: such an option; a server that does not answer, or has no such prompt.
        """
        from tpv.prompts.storage import is_safe_name
        from tpv.serving.client import Client
        from tpv.serving.server import need
        from tpv.tasks import without_rows

        need("httpx2")
        wrong = [name for name, there in given.items() if there]
        if wrong:
            raise TpvError("--server", expected="--task alone beside it", got=", ".join(wrong), fix="drop them")
        client, name = Client(url), str(prompt)
        about = client.prompt(name) if is_safe_name(name) else {}
        if task is not None:
            return cls(client, name, about, without_rows(task), task)
        if not about:
            raise TpvError("which task", expected="--task beside an expression", got="none")
        if about["task"] is None:
            raise TpvError(f"prompt {name!r} of the server has no task", fix="name one with --task")
        return cls(client, name, about, _task_of(about), None)

    def rows(self, texts: Sequence[str] | None) -> list[dict[str, str]]:
        """Texts, or lines of standard input, as rows of the task."""
        return [split_fields(self.task, row, number) for number, row in enumerate(input_lines(list(texts or ())), 1)]

    def predict(self, rows: Sequence[Mapping[str, str]]) -> pa.Table:
        """The labels of rows."""
        which = {"prompt": self.name} if self.about else {"prompt": None, "expression": self.name}
        return self.client.predict(texts=rows, task=self.named, **which)

    def columns(self, named: Sequence[str] | None) -> dict[str, str]:
        """The column of each field of the task, see `tpv.cli.tuned.Usable.columns`."""
        from tpv.cli.tuned import columns_of

        return columns_of(self.task, named)

    def key(self) -> list[object]:
        """All that decides the answers, as far as the server says it."""
        return [self.name, self.about.get("version"), self.named, self.client.url]

    @staticmethod
    def labels_of(table: pa.Table) -> list[str]:
        """The label words of a table of predictions."""
        from tpv.outputs.scores import SEPARATOR

        return str(table.schema.metadata[b"labels"].decode()).split(SEPARATOR)


def _task_of(about: Mapping[str, Any]) -> Task:
    """The fields of a prompt's task; its template stays with the server."""
    from tpv.tasks import Task
    from tpv.tasks.spec import build_spec

    fields = about["fields"]
    template = " ".join(f"{{{field}}}" for field in fields)
    content = {"name": about["task"], "fields": fields, "template": template, "labels": about["labels"] or ["a", "b"]}
    return Task(build_spec(content | {"source": {"kind": "files"}}, where="task of the server"), {})
