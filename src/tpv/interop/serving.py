"""Prompts out to where they serve: text in, embeddings out, in the form vLLM's `prompt_embeds` takes."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tpv.errors import TpvError
from tpv.evaluation import MAX_INPUT_LENGTH
from tpv.evaluation.bank import check_bank
from tpv.evaluation.encode import encode_texts
from tpv.files import atomic_write, writing
from tpv.models import Backbone, CausalBackbone
from tpv.prompts.algebra import SoftPrompt
from tpv.tasks import Task


def prompt_embeds(
    backbone: Backbone,
    prompt: SoftPrompt,
    task: Task,
    texts: Sequence[str],
    *,
    max_input_length: int = MAX_INPUT_LENGTH,
) -> list[Tensor]:
    """What a causal model reads for each text, prompt first: embeddings [P + T, H] in what the model runs in.

    Args:
        task: gives the cue; its template is not applied, `texts` go in as they are.

    Raises:
        TpvError: an encoder-decoder (vLLM takes embeddings for decoder-only models), no texts, an empty text, a
            prompt of another model.
    """
    if not isinstance(backbone, CausalBackbone):
        raise TpvError(
            f"model {backbone.identity.name!r} is an encoder-decoder",
            expected="a causal model, for prompt_embeds",
            fix="export it with --peft and serve it with transformers",
        )
    (rows,) = check_bank(backbone, [prompt])
    sources = encode_texts(backbone, texts, task, max_input_length)
    return [backbone.input_embeddings(rows, source) for source in sources]


def write_prompt_embeds(
    path: Path,
    backbone: Backbone,
    prompt: SoftPrompt,
    task: Task,
    texts: Sequence[str],
    *,
    max_input_length: int = MAX_INPUT_LENGTH,
) -> None:
    """One JSON object a line: `text`, and `prompt_embeds`, base64 of what `torch.save` writes of [P + T, H].

    That string is what the `prompt_embeds` field of a request to vLLM's completions endpoint holds; decoded, the
    tensor is what its `LLM.generate({"prompt_embeds": ...})` takes.

    Raises:
        TpvError: see `prompt_embeds`; also a name that does not end in .jsonl, or a place that cannot be written.
    """
    if path.suffix != ".jsonl":
        raise TpvError(f"file {path} for embeddings", expected="a name ending in .jsonl")
    with atomic_write(path) as part:
        tensors = prompt_embeds(backbone, prompt, task, texts, max_input_length=max_input_length)
        with writing(path), part.open("w", encoding="utf-8") as file:
            for text, tensor in zip(texts, tensors, strict=True):
                buffer = io.BytesIO()
                torch.save(tensor.clone(), buffer)  # a view would be saved with all that it views
                encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
                file.write(json.dumps({"text": text, "prompt_embeds": encoded}, ensure_ascii=False) + "\n")
