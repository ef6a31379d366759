"""The initialization that a vector was trained from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tpv.errors import TpvError
from tpv.prompts import initializers
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector

if TYPE_CHECKING:
    from tpv.models import Backbone


def home_of(backbone: Backbone, vector: TaskPromptVector) -> SoftPrompt | None:
    """The initialization that a vector belongs to, drawn again; None where it has none or several."""
    homes = {part.init for part in vector.components}
    init = homes.pop() if len(homes) == 1 else None
    if init is None or init.kind == "given" or init.seed is None:
        return None
    try:
        drawn = initializers.make(init.kind, **(init.parameters or {}))
        prompt = SoftPrompt.sample(backbone, vector.num_tokens, init.seed, drawn)
    except TpvError:  # of a plugin that is not here
        return None
    return prompt if prompt.init.matches(init) else None
