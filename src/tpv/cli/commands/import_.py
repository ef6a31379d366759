"""`tpv import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tpv.cli.show import load_prompt
from tpv.errors import TpvError

if TYPE_CHECKING:
    from tpv.prompts.matrix import PromptMatrix

NAME, ORDER = "import", 70


def command(
    folder: Annotated[Path, typer.Argument(help="A PEFT adapter, or the authors' folder with origin_0, origin_1, …")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the prompts and vectors.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The model it belongs to.  [default: the one a PEFT adapter names]"),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            "--init", "--start", help="The initialization, a prompt file or an adapter: gives the vector too."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="With --init: the task it was trained on.")] = None,
    keep_dead_rows: Annotated[
        bool, typer.Option("--keep-dead-rows", help="Keep the half of the rows that PEFT never reads on a T5.")
    ] = False,
) -> None:
    """Read prompts that PEFT trained, or that the paper's authors released; write prompts and vectors.

    A PEFT adapter becomes `prompt.safetensors`, and `vector.safetensors` where its initialization is given. The
    authors' folder becomes `origin_N/init.safetensors`, `origin_N/TASK.prompt.safetensors` and
    `origin_N/TASK.vector.safetensors`.

    Examples: `tpv import my-adapter --init my-adapter-untrained --task sst2 --out runs/mine`

    `tpv import released --model google-t5/t5-base --out runs/released`
    """
    from tpv.files import staged_folder
    from tpv.interop import released
    from tpv.prompts import peft_format

    adapter = peft_format.is_adapter(folder)
    if not adapter and not released.is_released(folder):
        raise TpvError(
            f"{folder} holds nothing to import",
            expected=f"a PEFT adapter ({peft_format.CONFIG}), or folders origin_0, origin_1, …",
        )
    if not adapter and (init or task):
        raise TpvError(
            "the authors' files hold their initializations and tasks", got="--init or --task", fix="leave it out"
        )
    with staged_folder(out) as stage:
        if adapter:
            items = _from_peft(folder, model, keep_dead_rows, init, task)
        else:
            items = _from_released(folder, model, keep_dead_rows)
        for name, item in items.items():
            (stage / name).parent.mkdir(exist_ok=True)
            item.save(stage / name)
    for name, item in items.items():
        typer.echo(f"wrote {out / name}: {item!r}")


def _from_peft(
    folder: Path, model: str | None, keep_dead_rows: bool, init: Path | None, task: str | None
) -> dict[str, PromptMatrix]:
    from tpv.models import load_backbone
    from tpv.prompts.algebra import SoftPrompt

    if (init is None) != (task is None):
        raise TpvError("the vector of an adapter", expected="--init and --task, or neither", got="one of them")
    backbone = load_backbone(model, device="cpu") if model else None
    if init is None:
        return {"prompt.safetensors": SoftPrompt.from_peft(folder, backbone, keep_dead_rows)}
    begin = SoftPrompt.from_peft(init, backbone, keep_dead_rows) if init.is_dir() else load_prompt(init)
    prompt = SoftPrompt.from_peft(folder, backbone, keep_dead_rows, init=begin, task=task)
    return {"prompt.safetensors": prompt, "vector.safetensors": prompt - begin}


def _from_released(folder: Path, model: str | None, keep_dead_rows: bool) -> dict[str, PromptMatrix]:
    from tpv.interop.released import read_released
    from tpv.models import load_backbone

    if model is None:
        raise TpvError(f"{folder} does not say which model it belongs to", fix="pass --model; the authors' is T5-base")
    items: dict[str, PromptMatrix] = {}
    for record in read_released(folder, load_backbone(model, device="cpu"), keep_dead_rows):
        place = f"origin_{record.origin}"
        items[f"{place}/init.safetensors"] = record.init
        items[f"{place}/{record.task}.prompt.safetensors"] = record.tuned
        items[f"{place}/{record.task}.vector.safetensors"] = record.vector
    return items
