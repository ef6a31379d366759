"""What all frozen models share: embeddings, identity, digest, padding, and a few ways to save work."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from tpv.errors import TpvError
from tpv.models.attention import set_attention
from tpv.models.generation import Decoding, Pieces
from tpv.models.graphs import Graphs
from tpv.models.kept import KeptPrompts
from tpv.models.pieces import pieces_of
from tpv.models.placement import free_memory, home, places, stored
from tpv.models.protocol import TargetStates, Tokens
from tpv.models.quantized import quantization_of
from tpv.models.quiet import quiet
from tpv.prompts.provenance import ModelIdentity, fingerprint, tensor_bytes

ACTIVATIONS = 4 * 2**30  # bytes of them to keep for one backward pass; fixed, since how rows are cut shows in last bits
ON_GPU = 0.3  # the share of a GPU's memory instead
MOST_POSITIONS = 16384
MOST_ON_GPU = 2**17
PASS_WORTH = 512  # positions of padding that cost as much as another pass does


def training_positions(model: Any, device: torch.device) -> int:
    """How many prompt and text positions a model may train at once: what fits `ACTIVATIONS`, estimated.

    A transformer layer keeps about 12 vectors of its width and 4 of its feed-forward's for each position.
    """
    config = model.config.get_text_config()
    width = config.hidden_size
    inner = next(
        (
            size
            for name in ("intermediate_size", "d_ff", "ffn_dim", "encoder_ffn_dim", "n_inner")
            if (size := getattr(config, name, None))
        ),
        4 * width,
    )
    inner = inner if isinstance(inner, int) else max(inner)  # Gemma 3n names one for each layer
    each = config.num_hidden_layers * (12 * width + 4 * inner) * (2 if model.dtype == torch.bfloat16 else 4)
    room, most = float(ACTIVATIONS), MOST_POSITIONS
    if device.type == "cuda" and places(model):  # what is free is not much: the weights were made to fill it
        room = min(room, free_memory(model) / 2)
    elif device.type == "cuda":
        room, most = ON_GPU * torch.cuda.get_device_properties(device).total_memory, MOST_ON_GPU
    return max(256, min(most, int(room / each)))


def most_positions(model: Any) -> int | None:
    """The number of prompt and text positions a model can read, if there is a limit."""
    config = model.config
    limits: list[int] = []
    for name in ("max_encoder_position_embeddings", "max_position_embeddings", "max_seq_len"):  # LED, most, MPT
        named = (getattr(part, name, None) for part in (config, config.get_text_config()))
        limits += [most for most in named if most is not None and most > 0][:1]  # XLNet says -1
    # RoBERTa counts from the padding token's id
    limits += [
        table.num_embeddings - table.padding_idx - 1
        for name, table in model.named_modules()
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None
    ]
    return min(limits, default=None)


def pad(rows: Sequence[Tokens], fill: int, device: torch.device, width: int = 0) -> tuple[Tensor, Tensor]:
    """Right-padded ids [N, T] and the mask [N, T] of what is real; T is the longest row's, or `width` if more."""
    longest = max(width, max(map(len, rows)))
    ids = torch.tensor([[*row, *([fill] * (longest - len(row)))] for row in rows])
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    return sent(ids, device), sent(mask, device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the model's device; a GPU takes it in while Python goes on."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def flat_places(first: Sequence[int], count: Sequence[int], width: int, device: torch.device) -> Tensor:
    """Row times T plus position of `count` places from `first` on of each row of T = `width`, in their order: [M]."""
    at = [
        row * width + start + n for row, (start, many) in enumerate(zip(first, count, strict=True)) for n in range(many)
    ]
    return sent(torch.tensor(at), device)


def joined(sources: Sequence[Tokens], targets: Sequence[Tokens]) -> list[Tokens]:
    """Texts and all of their targets but the last token: what a decoder-only model reads to say the targets."""
    return [(*source, *target[:-1]) for source, target in zip(sources, targets, strict=True)]


def passes(lengths: Sequence[int], padding: bool, budget: int | None = None) -> list[list[int]]:
    """Rows that go through the model together, within a budget of positions (at least one row).

    Args:
        padding: rows of unlike length may go together.
    """
    order = list(range(len(lengths)))
    if budget is not None or not padding:
        order.sort(key=lambda i: lengths[i])
    parts: list[list[int]] = [[]]
    for i in order:
        alike = padding or all(lengths[i] == lengths[j] for j in parts[-1][:1])
        fits = budget is None or lengths[i] * (len(parts[-1]) + 1) <= budget
        if parts[-1] and not (alike and fits):
            parts.append([])
        parts[-1].append(i)
    return [sorted(part) for part in parts]


def picked_nll(logits: Tensor, targets: Sequence[Tokens]) -> Tensor:
    """Summed negative log-likelihood [N] of targets, from the logits [M, V] at the places of their M tokens.

    What is picked is known on the CPU: a mask on a GPU would have to be waited for.
    """
    tokens = sent(torch.tensor([token for target in targets for token in target]), logits.device)
    row = rows_of(targets, logits.device)
    chosen = log_softmax(logits.float(), dim=-1).gather(1, tokens[:, None])[:, 0]
    return -torch.zeros(len(targets), device=logits.device).index_add(0, row, chosen)


def rows_of(targets: Sequence[Tokens], device: torch.device) -> Tensor:
    """Which row each of the M tokens of targets belongs to, [M]."""
    return sent(torch.tensor([row for row, target in enumerate(targets) for _ in target]), device)


def masked_nll(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """`picked_nll` from the logits [N L, V] at all places, those of padding too: its shapes depend on no value."""
    chosen = log_softmax(logits.float(), dim=-1).gather(1, labels.reshape(-1, 1)).view_as(labels)
    return -(chosen * mask).sum(1)


def at_depths(states: Sequence[Tensor], depths: Sequence[float]) -> list[Tensor]:
    """The states [N, T, H] after these shares of the layers, of those before the first layer and after each."""
    return [states[max(1, round(depth * (len(states) - 1)))] for depth in depths]


def mean_of(states: Tensor, real: Tensor) -> Tensor:
    """The mean [N, H] of states [N, T, H] over the positions that are real, [N, T]."""
    weight = real.to(states.dtype)[:, :, None]
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1.0)


class FrozenModel:
    """A model of `transformers` with its tokenizer, nothing of it trainable.

    Args:
        model: as it is stored.
        name: where it was loaded from.
        dtype: what it shall run in; None for as it is, which a model of several devices or of few bits must be.
        recompute: keep only the inputs of each layer for the backward pass and calculate the rest again
            (gradient checkpointing): less memory, more time, the same numbers.
    """

    def __init__(
        self, model: Any, tokenizer: Any, name: str, dtype: torch.dtype | None = None, *, recompute: bool = False
    ) -> None:
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        set_attention(model)
        # where nothing is tied, nobody reads the table that an encoder-decoder itself names
        reader = model.get_encoder() if model.config.is_encoder_decoder else model
        self._embed: Any = getattr(reader, "get_input_embeddings", model.get_input_embeddings)()
        self._head: nn.Module | None = model.get_output_embeddings()
        self.device = home(model, self._embed)  # where inputs go
        self.vocab_size: int = self._embed.num_embeddings
        self._eos_id = self._special_id("end-of-sequence token", tokenizer.eos_token_id, name)
        with torch.no_grad():
            ids = torch.arange(self.vocab_size, device=self.device)
            # Through the module, since some models scale it; before the cast, so that a start has the
            # same values whatever the model runs in.
            self._embeddings: Tensor = self._embed(ids).cpu()
        if dtype is not None:
            model.to(dtype)
        quantization, decides = quantization_of(model)
        self.identity = ModelIdentity(
            name=name,
            fingerprint=fingerprint(self._embeddings, decides),
            hidden_size=self._embeddings.shape[1],
            architecture="encoder-decoder" if model.config.is_encoder_decoder else "decoder-only",
            quantization=quantization,
        )
        pad_id: int | None = tokenizer.pad_token_id  # often a token added later, which the model has no row for
        self.pad_id = pad_id if pad_id is not None and pad_id < self.vocab_size else 0
        self.most_positions = most_positions(model)
        self.training_positions = MOST_POSITIONS if recompute else training_positions(model, self.device)
        on_gpu = self.device.type == "cuda"  # where a pass costs its launches, and memory is for activations alone
        self.pass_worth = MOST_ON_GPU if on_gpu else PASS_WORTH
        self._roomier = 4 if on_gpu else 1
        self.scoring_positions = MOST_POSITIONS * self._roomier
        # kernels of one device, which no library's layers interrupt
        self.graphs = Graphs(on_gpu and not recompute and not places(model) and not quantization)
        self._with_states = False  # whether logits come with the states behind them: see `target_states`
        self._state_width = 0
        if recompute:
            _recompute_layers(model)

    @property
    def device_type(self) -> str:
        return str(self.device.type)

    @property
    def share_prompts(self) -> bool:
        return False

    def keep_prompts(self, budget: int) -> KeptPrompts | None:
        return None

    def embeddings(self) -> Tensor:
        return self._embeddings

    def encode_text(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def pieces(self) -> dict[str, int]:
        return pieces_of(self.tokenizer, self.vocab_size)

    def decode(self, tokens: Tokens) -> str:
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text

    def weights_digest(self) -> str:
        digest = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {value.dtype} {list(value.shape)}".encode())
            digest.update(tensor_bytes(stored(self.model, name, value).reshape(-1).contiguous()))
        return digest.hexdigest()

    def set_dropout(self, active: bool) -> None:
        self.graphs.forget()
        self.model.train(active)

    def _special_id(self, what: str, number: int | None, name: str) -> int:
        """The id of a special token that no text can do without."""
        if number is None:
            raise TpvError(f"model {name!r} has no {what}", fix="name one in its tokenizer or configuration")
        if number >= self.vocab_size:
            raise TpvError(
                f"the {what} of model {name!r} is not in its vocabulary",
                expected=f"an id below {self.vocab_size}",
                got=number,
                fix="use the tokenizer that belongs to the model",
            )
        return number

    def _check_ids(self, rows: Sequence[Tokens]) -> None:
        """Refuse token ids that the model has no embedding for.

        Not asked of the whole tokenizer, since many have tokens that no text is ever written with.
        """
        largest = max((max(row) for row in rows if row), default=0)
        if largest >= self.vocab_size:
            word = self.tokenizer.convert_ids_to_tokens(largest)
            raise TpvError(
                f"the tokenizer of {self.identity.name} has token {word!r}, which is not in the model's vocabulary",
                expected=f"ids below {self.vocab_size}",
                got=largest,
                fix="use the tokenizer that belongs to the model",
            )

    def _check_known(self, word: str, ids: Sequence[int]) -> None:
        """Refuse a label word that the tokenizer has no pieces for, or the model no embeddings."""
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and unknown in ids:
            raise TpvError(
                f"label word {word!r} cannot be written by the tokenizer of {self.identity.name}",
                got=self.tokenizer.decode(ids),
                fix="choose a label word of known characters",
            )
        self._check_ids([tuple(ids)])

    def _truncated_targets(self, rows: Sequence[Tokens], max_length: int) -> tuple[list[Tokens], int]:
        """Targets of at most so many tokens, end-of-sequence kept, and how many were longer."""
        self._check_ids(rows)
        cut = sum(len(row) > max_length for row in rows)
        return [row if len(row) <= max_length else (*row[: max_length - 1], self._eos_id) for row in rows], cut

    def _generated(
        self, decoding: Decoding, tell: Callable[[str], object] | None, **inputs: Any
    ) -> tuple[Tensor, list[int]]:
        """What `transformers` generates from these inputs, [N, L], and the tokens that end it."""
        config = decoding.config(self.model, self._eos_id, self.pad_id)
        streamer = Pieces(self.tokenizer, tell) if tell is not None else None
        with decoding.drawing(self.device), quiet(bars=True):
            rows: Tensor = self.model.generate(**inputs, generation_config=config, streamer=streamer)
        ends: list[int] = config.eos_token_id
        return rows.cpu(), ends

    def _most_text(self, bank: Tensor) -> int | None:
        """The number of text positions that the model has beside these prompts, if there is a limit."""
        return None if self.most_positions is None else self.most_positions - bank.shape[1]

    def _check_positions(self, prompt: int, text: int) -> None:
        """Refuse more positions than the model has."""
        most = self.most_positions
        if most is not None and prompt + text > most:
            raise TpvError(
                f"prompt and text do not fit {self.identity.name}",
                expected=f"at most {most} positions",
                got=f"{prompt} + {text}",
                fix="lower max_input_length or the number of prompt tokens",
            )

    def _logits_at(self, at: Tensor, shape: tuple[int, int], **inputs: Any) -> Tensor:
        """The model's logits [M, V] at M of N x T places; its output layer sees only these where it can.

        Args:
            at: row times T plus position, [M].
            shape: (N, T).
        """

        read: list[Tensor] = []

        def pick(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor] | None:
            if args[0].shape[:-1] != shape:  # ProphetNet's takes [N, ngram, T, H]
                return None
            read.append(args[0].flatten(0, 1).index_select(0, at.to(args[0].device)))
            return (read[0],)

        handle = self._head.register_forward_pre_hook(pick) if self._head is not None else None
        try:
            logits: Tensor = self.model(**inputs).logits
        finally:
            if handle is not None:
                handle.remove()
        logits = logits.flatten(0, 1).index_select(0, at.to(logits.device)) if logits.shape[:-1] == shape else logits
        if not self._with_states:
            return logits
        if not read:
            raise TpvError(
                f"hidden states of {self.identity.name}", expected="one for each position", got="another form"
            )
        self._state_width = read[0].shape[-1]
        return torch.cat([logits.float(), read[0].float()], dim=-1)

    def _target_logits(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]
    ) -> Tensor:
        """Logits [M, V] of the targets' tokens, row after row."""
        raise NotImplementedError

    def target_states(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]
    ) -> TargetStates:
        self._with_states = True
        try:
            both = self._target_logits(bank, index, sources, targets)
        finally:
            self._with_states = False
        logits, hidden = both.split([both.shape[1] - self._state_width, self._state_width], dim=1)
        return TargetStates(logits, hidden, rows_of(targets, both.device))


def _recompute_layers(model: nn.Module) -> None:
    """Gradient checkpointing in evaluation mode: transformers' own switch works in training mode only."""

    def recomputed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        return forward(*args, **kwargs)

    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.forward = partial(recomputed, layer.forward)
