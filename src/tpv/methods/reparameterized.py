"""Prompts of which something else trains than their values: what such methods share.

All of them begin at the initialization, so that the vector, tuned minus init, is what training added. What they give is
a plain `SoftPrompt`; the parameters are gone after training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import Parameter

from tpv.evaluation.bank import PromptReader
from tpv.training.fit import Current


class Reparameterized:
    """A prompt [P, H] that is a function of what trains.

    Args:
        num_tokens: P.
        parameters: what trains.
        prompt: the prompt that they stand for now.
    """

    def __init__(self, num_tokens: int, parameters: Sequence[Parameter], prompt: Callable[[], Tensor]) -> None:
        self.num_tokens, self.parameters, self._prompt = num_tokens, parameters, prompt

    def prompt(self) -> Tensor:
        return self._prompt()

    def reader(self) -> PromptReader:
        return Current(self, self.num_tokens)
