"""Decoder-only models of `transformers`: Llama, Qwen, SmolLM, GPT-2, Gemma and their kin."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache

from tpv.errors import TpvError
from tpv.models.frozen import FrozenModel, pad, picked_nll
from tpv.models.protocol import LabelScores, Tokens

LOGIT_BUDGET = 2**26  # logits held at once in scoring, fp32: 256 MiB
CONTEXT = "\nlabel:"  # what a label word is tokenised after; how a word is cut does not depend on the cue before it
ATTENTION = {"full_attention", "sliding_attention"}  # kinds of layers whose prompt can be calculated once


class CausalBackbone(FrozenModel):
    """A frozen decoder-only model; see `tpv.models.Backbone` for the methods.

    A row reads prompt, text, cue, label word, end-of-sequence: the prompt sits directly before the text, as PEFT
    puts it, and padding comes last, where no real position sees it. Prompt positions attend to the prompt only,
    so each prompt of a bank is calculated once and its keys and values are shared by its rows (`share_prompts`).

    Args:
        chat: put each text into the tokenizer's chat template as the user's turn; the label word is then the
            assistant's, and cues are left out.
        recompute: see `FrozenModel`; prompts are then calculated once a row.

    Raises:
        TpvError: a tokenizer without an end-of-sequence token, or without a chat template where one is asked for.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        name: str,
        dtype: torch.dtype | None = None,
        *,
        chat: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__(model, tokenizer, name, dtype, recompute=recompute)
        if tokenizer.eos_token_id is None:
            raise TpvError(f"the tokenizer of model {name!r} has no end-of-sequence token")
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        self.share_prompts = not recompute and kinds <= ATTENTION
        windowed = "sliding_attention" in kinds or getattr(config, "layer_types", None) is None
        self._window: int | None = getattr(config, "sliding_window", None) if windowed else None
        self._mixed = len(kinds) > 1
        self._chat = _chat_parts(tokenizer, name) if chat else None

    # --- text to tokens -------------------------------------------------------------------------------
    def _after(self, context: str, text: str) -> list[int]:
        """Tokens of `text` as they are where it follows `context`."""
        before, both = self.encode_text(context), self.encode_text(context + text)
        return both[len(before) :] if both[: len(before)] == before else self.encode_text(text)

    def encode_sources(self, texts: Sequence[str], max_length: int, cues: Sequence[str] | None = None) -> list[Tokens]:
        if self._chat is not None:
            head, tail = (self.encode_text(part) for part in self._chat)
            room = max(1, max_length - len(head) - len(tail))
            bodies = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
            return [(*head, *body[:room], *tail) for body in bodies]
        words = cues or [""] * len(texts)
        ends = {cue: self._after("x", f"\n{cue}") if cue else [] for cue in set(words)}
        rows = []
        for ids, cue in zip(self.tokenizer(list(texts))["input_ids"], words, strict=True):
            body = ids[:-1] if len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id else ids
            rows.append((*body[: max(1, max_length - len(ends[cue]))], *ends[cue]))
        return rows

    def encode_target(self, text: str) -> Tokens:
        ids = self._after(self._chat[1], text) if self._chat is not None else self._after(CONTEXT, f" {text}")
        self._check_known(text, ids)
        return (*ids, self.tokenizer.eos_token_id)

    # --- the model ------------------------------------------------------------------------------------
    def _prompts(self, bank: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The live rows of a bank and the index, where the model is and in what it runs in."""
        device = self.model.device
        return bank[:, : self.live_rows].to(device, self._embed_dtype), index.to(device)

    @property
    def _embed_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    def _past(self, bank: Tensor, index: Tensor) -> DynamicCache:
        """Keys and values of the prompt of each row, every prompt calculated once; differentiable in the bank."""
        once = DynamicCache()
        self.model.base_model(inputs_embeds=bank, past_key_values=once, use_cache=True)
        shared = DynamicCache()
        layers: list[Any] = list(once.layers)
        for number, layer in enumerate(layers):
            # index_select: its gradient is summed in one order, that of plain indexing in any
            shared.update(layer.keys.index_select(0, index), layer.values.index_select(0, index), number)
        return shared

    def _logits(
        self,
        bank: Tensor,
        index: Tensor,
        ids: Tensor,
        at: Tensor,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Logits [M, V] at the places `at` [N, T] of texts `ids` [N, T], each read after its prompt.

        Args:
            mask: who sees whom, bool [N, T, P + T]; by default everyone what comes before.
            positions: of the text tokens, [N, T]; by default P, P + 1, ...
        """
        rows, place = self._prompts(bank, index)
        length = rows.shape[1]
        embeds = self._embed(ids)
        extra: dict[str, Any] = {}
        if self.share_prompts:
            extra = {"past_key_values": self._past(rows, place), "use_cache": True}
        else:
            embeds = torch.cat([rows.index_select(0, place).to(embeds.dtype), embeds], dim=1)
            at = torch.cat([at.new_zeros(len(at), length), at], dim=1)
            extra = {"use_cache": False}
        if mask is not None and positions is not None:
            if not self.share_prompts:
                before = torch.ones(length, length + ids.shape[1], dtype=torch.bool, device=mask.device).tril()
                mask = torch.cat([before.expand(len(ids), -1, -1), mask], dim=1)
            start = torch.arange(length, device=ids.device).expand(len(ids), -1)
            places = torch.cat([start, positions], dim=1)  # of keys, and without a cache of queries
            queries = positions if self.share_prompts else places
            extra |= {"attention_mask": self._masks(mask, queries, places, embeds.dtype), "position_ids": queries}
        with self._logits_only_at(at):
            logits: Tensor = self.model(inputs_embeds=embeds, **extra).logits
        return logits

    def _masks(self, mask: Tensor, queries: Tensor, keys: Tensor, dtype: torch.dtype) -> Any:
        """A boolean mask [N, Q, K] in the form that transformers takes as it is, for each kind of layer."""

        def additive(seen: Tensor) -> Tensor:
            zero = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
            return zero.masked_fill(~seen, torch.finfo(dtype).min)[:, None]

        if self._window is None:
            return additive(mask)
        near = additive(mask & (queries[:, :, None] - keys[:, None, :] < self._window))
        return {"full_attention": additive(mask), "sliding_attention": near} if self._mixed else near

    @torch.inference_mode()
    def input_embeddings(self, prompt: Tensor, source: Tokens) -> Tensor:
        """What the model reads for one row: prompt [P, H] and text as embeddings [P + T, H], in what it runs in."""
        self._check_positions(len(prompt[: self.live_rows]), len(source))
        text: Tensor = self._embed(torch.tensor(source, device=self.model.device))
        return torch.cat([prompt[: self.live_rows].to(text), text]).cpu()

    def nll(self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]) -> Tensor:
        device = self.model.device
        rows = [(*source, *target[:-1]) for source, target in zip(sources, targets, strict=True)]
        ids, _ = pad(rows, self.pad_id, device)
        labels, mask = pad(targets, self.pad_id, device)
        first = torch.tensor([len(source) - 1 for source in sources], device=device)[:, None]
        count = torch.tensor([len(target) for target in targets], device=device)[:, None]
        place = torch.arange(ids.shape[1], device=device)
        at = (place >= first) & (place < first + count)
        self._check_positions(bank[:, : self.live_rows].shape[1], ids.shape[1])
        return picked_nll(self._logits(bank, index, ids, at), labels, mask)

    @torch.inference_mode()
    def score_labels(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], labels: Sequence[Tokens]
    ) -> LabelScores:
        tree = _Tree.of(labels)
        block = max(1, LOGIT_BUDGET // (self.vocab_size * (1 + len(tree.tokens))))
        parts = []
        for start in range(0, len(sources), block):
            rows = index[start : start + block]
            used, local = rows.unique(return_inverse=True)
            parts.append(self._score_block(bank[used], local, sources[start : start + block], labels, tree))
        log_probs, greedy = (torch.cat(column) for column in zip(*parts, strict=True))
        return LabelScores(log_probs.cpu(), greedy.cpu())

    def _score_block(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], labels: Sequence[Tokens], tree: "_Tree"
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities [N, C] and greedy labels [N]: all label words hang on the end of the text as one tree."""
        device, count, size = self.model.device, len(sources), len(tree.tokens)
        text, _ = pad(sources, self.pad_id, device)
        lengths = torch.tensor([len(source) for source in sources], device=device)
        prompt, width = bank[:, : self.live_rows].shape[1], text.shape[1]
        self._check_positions(prompt, width + size)
        ids = torch.cat([text, torch.tensor(tree.tokens, dtype=torch.long, device=device).expand(count, -1)], dim=1)
        # positions: a token of a label stands as many places after its text as it is deep in the tree
        depth = torch.tensor(tree.depths, dtype=torch.long, device=device)
        place = torch.arange(width, device=device)
        positions = torch.cat([place.expand(count, -1), lengths[:, None] + depth], dim=1) + prompt
        seen = torch.zeros(count, width + size, prompt + width + size, dtype=torch.bool, device=device)
        seen[:, :, :prompt] = True
        seen[:, :width, prompt : prompt + width] = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        seen[:, width:, prompt : prompt + width] = (place < lengths[:, None])[:, None, :]
        seen[:, width:, prompt + width :] = tree.ancestors.to(device)
        at = torch.cat([place == lengths[:, None] - 1, torch.ones(count, size, dtype=torch.bool, device=device)], dim=1)
        logits = self._logits(bank, index, ids, at, seen, positions).float().view(count, 1 + size, -1)
        total, said = logits.logsumexp(-1), logits.argmax(-1)  # [N, 1 + S]
        log_probs, greedy = [], []
        for path, label in zip(tree.paths, labels, strict=True):
            nodes, tokens = torch.tensor(path, device=device), torch.tensor(label, device=device)
            log_probs.append((logits[:, nodes, tokens] - total[:, nodes]).sum(1))
            greedy.append((said[:, nodes] == tokens).all(1))
        match = torch.stack(greedy, dim=1)
        # at most one label can be greedy: two labels differ at some first position
        return torch.stack(log_probs, dim=1), torch.where(match.any(1), match.float().argmax(1), -1)


class _Tree(NamedTuple):
    """Label words as a tree: shared beginnings once. Node 0 is the end of the text; S more follow.

    Attributes:
        tokens: of the nodes after the first; a label's last token is predicted and never read.
        depths: how many nodes lie between each and the end of the text.
        ancestors: whom each of them sees among them, itself included: bool [S, S].
        paths: for each label the nodes at which its tokens are predicted.
    """

    tokens: list[int]
    depths: list[int]
    ancestors: Tensor
    paths: list[list[int]]

    @classmethod
    def of(cls, labels: Sequence[Tokens]) -> "_Tree":
        known: dict[Tokens, int] = {(): 0}
        paths = []
        for label in labels:
            for end in range(1, len(label)):
                known.setdefault(label[:end], len(known))
            paths.append([known[label[:end]] for end in range(len(label))])
        nodes = list(known)[1:]
        ancestors = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
        for row, node in enumerate(nodes):
            for end in range(1, len(node) + 1):
                ancestors[row, known[node[:end]] - 1] = True
        return cls([node[-1] for node in nodes], [len(node) - 1 for node in nodes], ancestors, paths)


def _chat_parts(tokenizer: Any, name: str) -> tuple[str, str]:
    """What the chat template puts before and after the user's text, up to where the assistant begins."""
    if tokenizer.chat_template is None:
        raise TpvError(f"the tokenizer of model {name!r} has no chat template", fix="load it without chat")
    mark = "\x02text\x03"
    turns = [{"role": "user", "content": mark}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    head, found, tail = str(whole).partition(mark)
    if not found or mark in tail:
        raise TpvError(f"the chat template of model {name!r} does not keep the user's text", fix="load it without chat")
    return head, tail
