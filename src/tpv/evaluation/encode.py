"""Texts and label words as tokens."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from tpv.errors import CutWarning, TpvError
from tpv.models import Backbone, Tokens
from tpv.tasks import Example, Task

ENDLESS = 2**30  # tokens: no text is cut at this


def encode_examples(
    backbone: Backbone, rows: Sequence[Example], max_input_length: int, about: str | None = None
) -> list[Tokens]:
    """Tokens of the inputs of examples, each with its cue.

    Args:
        about: what the rows are, in words: with it, a `CutWarning` says how many were cut.
    """
    texts, cues = [row.source for row in rows], [row.cue for row in rows]
    encoded = backbone.encode_sources(texts, max_input_length, cues)
    full = [i for i, tokens in enumerate(encoded) if len(tokens) >= max_input_length] if about else []
    if full:
        whole = backbone.encode_sources([texts[i] for i in full], ENDLESS, [cues[i] for i in full])
        cut = sum(len(tokens) > len(encoded[i]) for i, tokens in zip(full, whole, strict=True))
        if cut:
            warnings.warn(CutWarning.of(cut, len(rows), about or "", max_input_length), stacklevel=2)
    return encoded


def encode_texts(backbone: Backbone, texts: Sequence[str], task: Task, max_input_length: int) -> list[Tokens]:
    """Tokens of a user's texts, as they are, each with the task's cue.

    Raises:
        TpvError: no texts, an empty text, one that is not UTF-8.
    """
    check_length(max_input_length)
    if isinstance(texts, str):
        raise TpvError("texts to label", expected="a sequence of texts", got="one text", fix="put it in a list")
    check_texts(texts)
    rows = [Example(str(number), text, "", 0, task.spec.cue) for number, text in enumerate(texts)]
    return encode_examples(backbone, rows, max_input_length, "the input")


def check_texts(texts: Sequence[object]) -> None:
    """Refuse texts that cannot be answered.

    Raises:
        TpvError: no texts, an empty text, one that is not UTF-8.
    """
    if not texts:
        raise TpvError("texts to label", expected="at least one", got="none")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise TpvError(f"text {number + 1}", expected="a string", got=type(text).__name__)
        if not text.strip():
            raise TpvError(f"text {number + 1} is empty", fix="fill it in or drop it")
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise TpvError(f"text {number + 1} is not UTF-8", fix="convert it first")


def check_length(max_input_length: object) -> None:
    good = isinstance(max_input_length, int) and not isinstance(max_input_length, bool)
    if not good or not 1 <= max_input_length < 2**31:  # type: ignore[operator]
        raise TpvError("max_input_length", expected="a whole number from 1 to 2^31", got=f"{max_input_length!r:.40}")
