"""What a causal model can save without changing a result, found out by trying on a few random tokens.

Most decoders can calculate a prompt once for all rows that read it, and score all label words of a text in one pass.
Others take neither a cache of keys and values nor a mask and positions from outside, and most of them do not say so:
they return other numbers. So every way is compared with ordinary sequences, one length at a time, when a model loads.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import GenerationConfig

from tpv.errors import TpvError
from tpv.models.attention import choose_attention
from tpv.models.frozen import most_positions
from tpv.models.generation import reading_embeddings
from tpv.models.label_tree import LabelTree
from tpv.models.placement import home, places
from tpv.models.protocol import LabelScores, Tokens
from tpv.models.quiet import quiet

ATTENTION = {"full_attention", "sliding_attention"}  # kinds of layers that take a mask and a prompt's keys and values
# Restrict what a layer sees, by rules of the layer's own that only a long text shows.
OWN_WINDOWS = ("attention_chunk_size", "attention_window_size", "window_size", "keep_window_size")
# Of layers that select what they see from a long text (DeepSeek V3.2, GLM 5, MiniMax M3, Qwen 4). Where attention is
# not torch's they leave the selection to kernels that are not there.
SELECTIONS = ("index_topk", "index_topk_blocks", "indexer_budget")
PROMPT, TEXT = 2, 3  # positions of the prompt and the shorter text that ways are tried on
TRIED = PROMPT + TEXT + 2 + 5  # with what the longer text has more, and the label tree
STEPS = 3  # words that a model says to try its cache
MOST_WINDOW = 64  # a larger sliding window is not filled to try it: that would take long
# of logits, relative to their own spread; in bf16 passes of other shapes round in other places, SmolLM2 by up to 0.08
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.2}


class Ways(NamedTuple):
    """How rows go through a causal model.

    Attributes:
        shared_prompts: each prompt is calculated once, and its rows read its keys and values.
        label_tree: all label words follow a text at once, kept apart by a mask and positions.
        padding: rows of unlike length go together, the shorter ones padded at the end.
        own_attention: attention is calculated as `tpv.models.attention` says.
    """

    shared_prompts: bool
    label_tree: bool
    padding: bool
    own_attention: bool = True


PLAIN = Ways(shared_prompts=False, label_tree=False, padding=False)
PADDED = PLAIN._replace(padding=True)
SHARED = PADDED._replace(shared_prompts=True)


class TriedCausal(Protocol):
    """A causal backbone that is not yet in use."""

    model: Any
    vocab_size: int
    pad_id: int
    ways: Ways

    def node_logits(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], tree: LabelTree, ways: Ways
    ) -> Tensor: ...

    def generation_inputs(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], beams: int
    ) -> dict[str, Any]: ...


class TriedSeq2Seq(Protocol):
    """An encoder-decoder that is not yet in use."""

    model: Any
    vocab_size: int

    def nll(self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]) -> Tensor: ...

    def score_labels(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], labels: Sequence[Tokens]
    ) -> LabelScores: ...


_known: dict[str, Ways] = {}  # of each architecture that was tried in this process
_cached: dict[str, bool] = {}  # whether it generates from its cache; tried when it first generates


@torch.enable_grad()  # also where a backbone is made under no_grad
def find_ways(backbone: TriedCausal, name: str, *, recompute: bool) -> Ways:
    """The fastest ways that give this model the numbers that ordinary sequences give it.

    Args:
        name: of the model, for errors.
        recompute: prompts cannot be shared, because activations are calculated again in the backward pass.

    Raises:
        TpvError: a model that reads in both directions, or that cannot read embeddings.
    """
    key = _key(backbone.model, recompute)
    if key not in _known:
        _known[key] = _tried_causal(backbone, name, recompute)
    return _known[key]


def generates_from_cache(backbone: TriedCausal) -> bool:
    """Whether `generate()`, which goes on from a cache, gives this model the numbers of ordinary sequences."""
    key = _key(backbone.model, *backbone.ways)
    if key not in _cached:
        _cached[key] = _tried_cache(backbone)
    return _cached[key]


@torch.enable_grad()  # also where a backbone is made under no_grad
def check_scores(backbone: TriedSeq2Seq, name: str) -> None:
    """Try an encoder-decoder: its scores must be its losses.

    Raises:
        TpvError: a model that cannot read embeddings, or whose decoder reads words before it predicts them.
    """
    key = _key(backbone.model)
    if key not in _known:
        _try_seq2seq(backbone, name)
        _known[key] = PADDED


def sliding_window(config: Any) -> int | None:
    """How many positions a layer of sliding attention sees, if there are such layers."""
    kinds = getattr(config, "layer_types", None)
    window: int | None = getattr(config, "sliding_window", None)
    return window if kinds is None or "sliding_attention" in kinds else None


def _key(model: Any, *more: object) -> str:
    """What decides how a model behaves, but for its weights."""
    config = {key: value for key, value in model.config.to_dict().items() if key != "_name_or_path"}
    attention = model.config._attn_implementation
    about = [type(model).__name__, attention, str(model.dtype), model.device.type, places(model), *more, config]
    return json.dumps(about, sort_keys=True, default=str)


class _Trial(NamedTuple):
    """Two rows of unlike length that read two prompts: bank [2, P, H], readers [2], texts, and words for labels."""

    bank: Tensor
    readers: Tensor
    sources: list[Tokens]
    words: Tokens

    @classmethod
    def of(cls, model: Any, vocab_size: int, length: int) -> "_Trial":
        generator = torch.Generator().manual_seed(0)
        words = tuple(torch.randint(vocab_size, (2 * length + 7,), generator=generator).tolist())
        ids = torch.randint(vocab_size, (2, PROMPT), generator=generator)
        with torch.no_grad():
            embed = model.get_input_embeddings()
            bank = embed(ids.to(home(model, embed))).float().cpu()
        bank = bank + bank.std() * torch.randn(bank.shape, generator=generator)  # a tuned prompt is no word
        sources = [words[: length + 2], words[length + 2 : 2 * length + 2]]
        return cls(bank.requires_grad_(), torch.tensor([1, 0]), sources, words[-5:])


def _length(model: Any) -> int:
    """Of the shorter text that ways are tried on: a small sliding window is filled."""
    window = sliding_window(model.config.get_text_config()) or 0
    room = (most_positions(model) or 2 * MOST_WINDOW) - TRIED
    return TEXT + (window if window <= min(MOST_WINDOW, room) else 0)


def _tried_causal(backbone: TriedCausal, name: str, recompute: bool) -> Ways:
    config, length = backbone.model.config.get_text_config(), _length(backbone.model)
    bank, index, sources, (a, b, c, d, e) = _Trial.of(backbone.model, backbone.vocab_size, length)
    tree = LabelTree.of([(a, b, e), (a, c, e), (d, b, e)])
    choose_attention(backbone.model, own=False)
    try:
        alone = backbone.node_logits(bank, index[:1], sources[:1], LabelTree.of([(a,)]), PLAIN)
        torch.autograd.grad(alone.sum(), bank)
        with torch.inference_mode():
            plain = backbone.node_logits(bank, index, sources, tree, PLAIN)
    except Exception as error:  # each architecture has its own ways to fail
        raise _unreadable(backbone.model, name, error) from None

    def right(ways: Ways) -> bool:
        try:
            with torch.inference_mode():
                return _same(backbone.model, backbone.node_logits(bank, index, sources, tree, ways), plain)
        except Exception:  # a model that refuses a way cannot take it
            return False

    if not _same(backbone.model, alone.detach()[:, 0], plain[:1, 0]):
        raise TpvError(
            f"model {name!r} reads text in both directions",
            expected="a causal model (Llama, Qwen, GPT-2 …) or an encoder-decoder (T5, BART …)",
            got=type(backbone.model).__name__,
            fix="load a model of these kinds",
        )
    own = not any(getattr(config, key, None) for key in SELECTIONS)
    choose_attention(backbone.model, own=own)
    found = _fastest(right, config, recompute)
    if found == PLAIN and own and not right(PLAIN):
        own = False
        choose_attention(backbone.model, own=own)
        found = _fastest(right, config, recompute)
    return found._replace(own_attention=own)


def _fastest(right: Callable[[Ways], bool], config: Any, recompute: bool) -> Ways:
    """The fastest ways that are right; those that only a long text shows to be wrong are not tried."""
    obeys = set(getattr(config, "layer_types", None) or ATTENTION) <= ATTENTION
    obeys &= not any(getattr(config, key, None) for key in OWN_WINDOWS + SELECTIONS)
    found = next((ways for ways in (SHARED, PADDED)[not obeys or recompute :] if right(ways)), PLAIN)
    tree_too = found._replace(label_tree=True)
    return tree_too if obeys and found.padding and right(tree_too) else found


@torch.inference_mode()
def _tried_cache(backbone: TriedCausal) -> bool:
    model, trial = backbone.model, _Trial.of(backbone.model, backbone.vocab_size, _length(backbone.model))
    # three rows, since some caches take but one; of one length where a model does not obey a mask
    sources = [*trial.sources, trial.sources[0][::-1]]
    if not backbone.ways.label_tree:
        sources = [source[: len(sources[1])] for source in sources]
    readers = torch.tensor([*trial.readers.tolist(), 0])
    config = GenerationConfig(
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        do_sample=False,
        num_beams=1,
        pad_token_id=backbone.pad_id,
        return_dict_in_generate=True,
        output_logits=True,
    )
    try:
        inputs = backbone.generation_inputs(trial.bank, readers, sources, 1)
        with quiet(bars=True), reading_embeddings(model, cached=True):
            said = model.generate(**inputs, generation_config=config)
    except Exception:  # each architecture has its own ways to fail
        return False
    logits = torch.stack(said.logits, dim=1).float()  # [N, STEPS, V]
    trees = [LabelTree.of([tuple(words)]) for words in said.sequences.tolist()]
    return all(
        _same(model, found[None], backbone.node_logits(trial.bank, reader[None], [source], tree, PLAIN))
        for found, reader, source, tree in zip(logits, readers, sources, trees, strict=True)
    )


def _same(model: Any, logits: Tensor, plain: Tensor) -> bool:
    """Whether logits [..., V] are those of ordinary sequences."""
    return float((logits - plain).square().mean().sqrt()) <= _tolerance(model) * float(plain.std(-1).mean())


def _try_seq2seq(backbone: TriedSeq2Seq, name: str) -> None:
    bank, readers, sources, (a, b, c, d, e) = _Trial.of(backbone.model, backbone.vocab_size, TEXT)
    labels: list[Tokens] = [(a, b, e), (d, c, e)]
    try:
        losses = backbone.nll(bank, readers, sources, labels).cpu()
        torch.autograd.grad(losses.sum(), bank)
        said = backbone.score_labels(bank.detach(), readers, sources, labels).log_probs.diagonal()
    except Exception as error:  # each architecture has its own ways to fail
        raise _unreadable(backbone.model, name, error) from None
    losses = losses.detach()
    if float((said + losses).abs().max()) > _tolerance(backbone.model) * float(losses.abs().mean()):
        raise TpvError(
            f"the decoder of model {name!r} reads words before it predicts them",
            expected="an encoder-decoder like T5 or BART",
            got=type(backbone.model).__name__,
            fix="load another model",
        )


def _tolerance(model: Any) -> float:
    rounds = getattr(model.config, "quantization_config", None) is not None  # activations too, or in other kernels
    return TOLERANCE[torch.bfloat16] if rounds else TOLERANCE.get(model.dtype, TOLERANCE[torch.bfloat16])


def _unreadable(model: Any, name: str, error: Exception) -> TpvError:
    """The refusal of a model that fails on its first prompt."""
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return TpvError(
        f"model {name!r} cannot read a soft prompt",
        expected="a model that reads embeddings (inputs_embeds)",
        got=f"{type(model).__name__}: {first}",
        fix="load another model",
    )
