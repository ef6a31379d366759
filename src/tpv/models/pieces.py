"""What single tokens stand for, spelled alike for tokenizers of different kinds."""

from __future__ import annotations

from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

SPACE = "▁"  # SentencePiece's space
BYTE_SPACE = "Ġ"  # the space of byte-level BPE


def pieces_of(tokenizer: Any, size: int) -> dict[str, int]:
    """The id of each token by its text, the first where several stand for one; see `Backbone.pieces`.

    Args:
        size: V, the rows of the model's embedding matrix; tokens beyond have none.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    special = set(tokenizer.all_special_ids)
    special |= {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    bytewise = any(token.startswith(BYTE_SPACE) for token in vocabulary)
    found: dict[str, int] = {}
    for token, number in sorted(vocabulary.items(), key=lambda item: item[1]):
        if number < size and number not in special:
            text = _unescaped(token, byte_of) if bytewise else token.replace(SPACE, " ")
            found.setdefault(text, number)
    return found


def _unescaped(token: str, byte_of: dict[str, int]) -> str:
    """The text of a byte-level token; a part of a character, or a token added later, stays as it is written."""
    try:
        return bytes(byte_of[letter] for letter in token).decode()
    except (KeyError, UnicodeDecodeError):
        return token
