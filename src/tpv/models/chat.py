"""Chat templates around a text."""

from __future__ import annotations

from typing import Any

from tpv.errors import TpvError


def chat_parts(tokenizer: Any, name: str) -> tuple[str, str]:
    """What the chat template puts before and after the user's text, up to where the assistant begins.

    Raises:
        TpvError: the tokenizer has no chat template, or one that does not keep the user's text.
    """
    if tokenizer.chat_template is None:
        raise TpvError(f"the tokenizer of model {name!r} has no chat template", fix="load it without chat")
    mark = "\x02text\x03"
    turns = [{"role": "user", "content": mark}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    head, found, tail = str(whole).partition(mark)
    if not found or mark in tail:
        raise TpvError(f"the chat template of model {name!r} does not keep the user's text", fix="load it without chat")
    return head, tail
