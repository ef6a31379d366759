"""Text from a frozen model after a soft prompt, by `transformers`' own generation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, TextStreamer

from tpv.errors import TpvError
from tpv.models.protocol import Tokens


@dataclass(frozen=True)
class Decoding:
    """How text is generated.

    Attributes:
        max_new_tokens: at most so many tokens, end-of-sequence included.
        num_beams: 1 is greedy decoding, more is beam search.
        do_sample: draw each token from the model's distribution.
        temperature: of that distribution.
        seed: of the draws, for a whole call: which rows are generated together changes what is drawn.
    """

    max_new_tokens: int = 128
    num_beams: int = 1
    do_sample: bool = False
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "num_beams", "seed"):
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
                raise TpvError(name, expected=f"a whole number of at least {least}", got=f"{value!r:.40}")
        if not isinstance(self.do_sample, bool):
            raise TpvError("do_sample", expected="true or false", got=f"{self.do_sample!r:.40}")
        good = isinstance(self.temperature, int | float) and not isinstance(self.temperature, bool)
        if not good or not 0 < self.temperature < float("inf"):
            raise TpvError("temperature", expected="a positive finite number", got=f"{self.temperature!r:.40}")
        if self.temperature != 1 and not self.do_sample:
            raise TpvError("temperature", expected="do_sample with it, which it is for", got="no do_sample")

    def config(self, model: Any, eos: int, pad: int) -> GenerationConfig:
        """As `transformers` takes it; nothing is left for the model's own generation settings to fill in."""
        stops = getattr(model.generation_config, "eos_token_id", None)
        ends = {eos, *(stops if isinstance(stops, list) else [] if stops is None else [stops])}
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            num_beams=self.num_beams,
            do_sample=self.do_sample,
            temperature=float(self.temperature) if self.do_sample else 1.0,
            top_k=0 if self.do_sample else 50,
            top_p=1.0,
            repetition_penalty=1.0,
            length_penalty=1.0,
            no_repeat_ngram_size=0,
            min_length=0,
            early_stopping=False,
            eos_token_id=sorted(ends),
            pad_token_id=pad,
            bos_token_id=getattr(model.generation_config, "bos_token_id", None),
            decoder_start_token_id=getattr(model.generation_config, "decoder_start_token_id", None),
            forced_bos_token_id=getattr(model.generation_config, "forced_bos_token_id", None),
            use_cache=True,
            return_dict_in_generate=False,
        )

    @contextmanager
    def drawing(self, device: torch.device) -> Iterator[None]:
        """Draw from the seed, and leave the process's own random state alone."""
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices, enabled=self.do_sample):
            if self.do_sample:
                torch.manual_seed(self.seed)
            yield


@contextmanager
def reading_embeddings(model: Any, *, cached: bool) -> Iterator[None]:
    """Let a decoder's `generate()` begin from embeddings; it refuses where a model's signature does not name them.

    Args:
        cached: go on from the model's cache. Without it every step reads the whole row again, which takes rows of one
            length, and any model that can read embeddings.
    """
    own = model.prepare_inputs_for_generation
    if cached and "inputs_embeds" in inspect.signature(own).parameters:
        yield
        return

    def passed_on(input_ids: Tensor, inputs_embeds: Tensor | None = None, **kwargs: Any) -> Any:
        return own(input_ids, inputs_embeds=inputs_embeds, **kwargs)

    # named, since what is in no signature is refused; of rows of one length it says nothing
    def whole(
        input_ids: Tensor, inputs_embeds: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        words = model.get_input_embeddings()(input_ids)
        return {"inputs_embeds": torch.cat([inputs_embeds, words], dim=1), "use_cache": False}

    model.prepare_inputs_for_generation = passed_on if cached else whole
    try:
        yield
    finally:
        del model.prepare_inputs_for_generation


class Pieces(TextStreamer):
    """Hands on text as it is generated, word by word."""

    def __init__(self, tokenizer: Any, tell: Callable[[str], object]) -> None:
        super().__init__(tokenizer, skip_special_tokens=True)
        self._tell = tell

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        self._tell(text)


def until_end(rows: Tensor, ends: Sequence[int]) -> list[Tokens]:
    """What was generated, [N, L], as tokens up to the end-of-sequence, that left out."""
    found = []
    for row in rows.tolist():
        stop = next((place for place, token in enumerate(row) if token in ends), len(row))
        found.append(tuple(row[:stop]))
    return found
