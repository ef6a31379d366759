"""`tpv export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tpv.cli.options import LengthOption, ModelOptions, Style, TaskOption
from tpv.cli.show import load_prompt, words
from tpv.cli.tuned import Usable
from tpv.errors import TpvError

ORDER = 80


def command(
    prompt: Annotated[Path, typer.Argument(help="Prompt file.")],
    model: ModelOptions,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts for --prompt-embeds; without any, the lines of standard input.")
    ] = None,
    peft: Annotated[
        Path | None, typer.Option("--peft", help="Write a PEFT prompt-tuning adapter into this folder.")
    ] = None,
    prompt_embeds: Annotated[
        Path | None,
        typer.Option("--prompt-embeds", help="Write prompt and text as embeddings, one JSON object per line (.jsonl)."),
    ] = None,
    task: TaskOption = None,
    style: Annotated[Style, typer.Option(help="The task's template.")] = Style.text,
    max_input_length: LengthOption = 256,
) -> None:
    """Write a prompt in another program's format.

    `--peft`: `peft.PeftModel.from_pretrained(model, FOLDER)` reads the adapter; `tpv import` restores the prompt
    from it. `--prompt-embeds` (causal models): each text after the prompt as the embeddings [tokens, H] that vLLM's
    `prompt_embeds` takes, base64 of `torch.save`; texts go through `--task`'s template and cue as in `tpv predict`.

    Examples: `tpv export runs/sst2/prompt.safetensors --peft adapters/sst2`

    `tpv export runs/sst2/prompt.safetensors --prompt-embeds out.jsonl --model smollm2 --task sst2 "a fine film"`
    """
    if (peft is None) == (prompt_embeds is None):
        raise TpvError(
            f"what to export {prompt} to",
            expected="--peft FOLDER or --prompt-embeds FILE",
            got="neither" if peft is None else "both",
        )
    loaded = load_prompt(prompt)
    if peft is not None:
        loaded.to_peft(peft)
        typer.echo(f"wrote {peft}/: PEFT adapter of {loaded!r}")
        return
    from tpv.interop.serving import write_prompt_embeds

    assert prompt_embeds is not None
    data = words(task, style.value, ["a", "b"])  # without a task, only the cue is used
    rows = Usable(data, loaded, task is not None, None, max_input_length).rows(texts)
    write_prompt_embeds(prompt_embeds, model.load(), loaded, data, rows, max_input_length=max_input_length)
    typer.echo(f"wrote {prompt_embeds}: {len(rows)} text{'s' * (len(rows) != 1)} after {loaded!r}")
