"""What tpv needs of a frozen language model; each family of models is one file that provides it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from tpv.prompts.provenance import ModelIdentity

if TYPE_CHECKING:
    from tpv.models.generation import Decoding
    from tpv.models.kept import KeptPrompts

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LabelScores:
    """How a model scores the label words on N rows.

    Attributes:
        log_probs: log-probability of each label's tokens, end-of-sequence included, fp32 [N, C].
        greedy: the label that greedy decoding emits, int64 [N]; -1 where it emits anything else.
    """

    log_probs: Tensor
    greedy: Tensor


@dataclass(frozen=True, slots=True)
class TargetStates:
    """What a model makes of the targets of N rows, one entry for each of their M tokens, row after row.

    Attributes:
        logits: of the token, fp32 [M, V].
        hidden: what the output layer reads there, fp32 [M, H].
        row: which row it belongs to, int64 [M].
    """

    logits: Tensor
    hidden: Tensor
    row: Tensor


class Backbone(Protocol):
    """A frozen model that reads a soft prompt before each text.

    A *bank* is a tensor [K, P, H] of prompts; `index` says for each row which of them it reads.
    Sources and targets are token ids as `encode_source` and `encode_target` give them.
    """

    identity: ModelIdentity
    vocab_size: int
    pad_id: int
    training_positions: int  # prompt and text positions that fit one backward pass
    scoring_positions: int  # and one forward pass
    pass_worth: int  # positions of padding that cost as much as another pass does
    most_positions: int | None  # prompt and text positions that the model can read; None for no limit

    @property
    def device_type(self) -> str:
        """Kind of device the model is on: `cpu`, `cuda`, `mps`."""
        ...

    @property
    def share_prompts(self) -> bool:
        """Whether a prompt is computed once for all rows that read it; then fewer distinct prompts cost less.

        Otherwise every row computes its own prompt, and a different prompt for each row costs no more.
        """
        ...

    def keep_prompts(self, budget: int) -> "KeptPrompts | None":
        """Keep keys and values of prompts from one pass to the next, for scoring and generation; 0 keeps none.

        Returns:
            What is kept; None where every row computes its own prompt.

        Args:
            budget: bytes.
        """
        ...

    def embeddings(self) -> Tensor:
        """The input embedding matrix [V, H], on the CPU, detached."""
        ...

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text, no special tokens added."""
        ...

    def pieces(self) -> dict[str, int]:
        """The id of each token by the text that it stands for, with a space in front where it begins a word.

        Special tokens are left out. Tokenizers of different kinds agree on these texts where they share tokens.
        """
        ...

    def decode(self, tokens: Tokens) -> str:
        """The text that tokens stand for, special tokens left out."""
        ...

    def encode_sources(self, texts: Sequence[str], max_length: int, cues: Sequence[str] | None = None) -> list[Tokens]:
        """Token ids of input texts, special tokens included, the texts cut so that `max_length` tokens are left.

        Args:
            cues: what a decoder-only model reads between each text and its answer, never cut; an
                encoder-decoder, which answers from a start token of its own, takes none.
        """
        ...

    def encode_target(self, text: str) -> Tokens:
        """Token ids the model has to emit to say a label word, end-of-sequence included."""
        ...

    def encode_targets(self, texts: Sequence[str], max_length: int) -> tuple[list[Tokens], int]:
        """Token ids the model has to emit to say these texts, end-of-sequence included, and how many were truncated.

        Args:
            max_length: in tokens, end-of-sequence included.
        """
        ...

    def nll(self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]) -> Tensor:
        """Negative log-likelihood of each row's target, summed over its tokens: fp32 [N].

        Differentiable in `bank`, and only in it.
        """
        ...

    def target_states(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]
    ) -> TargetStates:
        """Logits and last hidden states at the tokens of each row's target; differentiable as `nll` is.

        Raises:
            TpvError: a model whose output layer reads something else than one state for each position.
        """
        ...

    def score_labels(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], labels: Sequence[Tokens]
    ) -> LabelScores:
        """Score every label on every row, and say which one greedy decoding emits."""
        ...

    def generate(
        self,
        bank: Tensor,
        index: Tensor,
        sources: Sequence[Tokens],
        decoding: "Decoding",
        tell: Callable[[str], object] | None = None,
    ) -> list[Tokens]:
        """What the model says to each row, end-of-sequence left out.

        Args:
            tell: called with pieces of text as they come, where there is one row and no beams.
        """
        ...

    def hidden(self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], depths: Sequence[float]) -> Tensor:
        """Hidden states after some layers, for a probe: fp32 [N, D, 2, H], on the CPU.

        Of each depth the mean over a text's positions and the state that an answer begins from: that of the last
        position, or of the first step of an encoder-decoder's decoder. Prompts may be empty, [M, 0, H].

        Args:
            depths: shares of the layers passed, in (0, 1].
        """
        ...

    def weights_digest(self) -> str:
        """sha256 over all weights: equal for equal models, whatever they are called."""
        ...

    def set_dropout(self, active: bool) -> None:
        """Switch the model's own dropout; off unless asked for (quirk 16)."""
        ...
