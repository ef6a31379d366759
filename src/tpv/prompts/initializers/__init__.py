"""Initializers: what a prompt holds before it is trained. A file each; each registers itself.

An initializer is a frozen dataclass whose fields are its parameters, with two methods:

- `sample(backbone, num_tokens, seed)`: one initialization [P, H] and its identity;
- `draw(backbone, num_tokens, count, generator)`: `count` fresh ones [count, P, H] from the same distribution, for
  training that sees a new initialization at every step. Those with `random = False` have nothing to draw.

A plugin may register a plain function instead, `(backbone, num_tokens, seed, *, parameters...) -> Tensor [P, H]`.

The same initializer serves sampling, training, validation and scoring, so that a vector is scored on the distribution
it was trained on.
"""

from tpv.prompts.initializers.base import MAX_TOKENS, Initializer, given, make, parse
from tpv.prompts.initializers.normal import Normal, embedding_rms
from tpv.prompts.initializers.text import Text
from tpv.prompts.initializers.vocabulary import VOCABULARY_LIMIT, Vocabulary
from tpv.prompts.initializers.zero import Zero

__all__ = [
    "MAX_TOKENS",
    "VOCABULARY_LIMIT",
    "Initializer",
    "Normal",
    "Text",
    "Vocabulary",
    "Zero",
    "embedding_rms",
    "given",
    "make",
    "parse",
]
