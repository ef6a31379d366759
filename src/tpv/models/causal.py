"""Decoder-only models of `transformers`: Llama, Qwen, SmolLM, GPT-2, Gemma and their kin."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tpv.models.attention import choose_attention
from tpv.models.caches import cached
from tpv.models.chat import chat_parts
from tpv.models.frozen import (
    FrozenModel,
    at_depths,
    flat_places,
    joined,
    masked_nll,
    mean_of,
    pad,
    passes,
    picked_nll,
    sent,
)
from tpv.models.generation import Decoding, reading_embeddings, until_end
from tpv.models.graphs import rounded, spread
from tpv.models.kept import KeptPrompts, Layers
from tpv.models.label_tree import LabelTree
from tpv.models.protocol import LabelScores, Tokens
from tpv.models.ways import Ways, find_ways, generates_from_cache, sliding_window

LOGIT_BUDGET = 2**26  # logits held at once in scoring, fp32: 256 MiB
CONTEXT = "\nlabel:"  # what a label word is tokenised after; how a word is cut does not depend on the cue before it
SCORED_POSITIONS = 16384  # in one forward pass, where each label word has a sequence of its own


class CausalBackbone(FrozenModel):
    """A frozen decoder-only model; see `tpv.models.Backbone` for the methods.

    A row reads prompt, text, cue, label word, end-of-sequence: the prompt sits directly before the text, as PEFT
    puts it, and padding comes last, where no real position sees it. Prompt positions attend to the prompt only,
    so each prompt of a bank is calculated once and its keys and values are shared by its rows, and all label words
    hang on the end of a text at once. A model that does not obey this reads ordinary sequences (see `Ways`).

    Args:
        chat: put each text into the tokenizer's chat template as the user's turn; the label word is then the
            assistant's, and cues are left out.
        recompute: see `FrozenModel`; prompts are then calculated once a row.

    Raises:
        TpvError: a tokenizer without an end-of-sequence token, or without a chat template where one is asked for;
            a model that is not causal, or that cannot read embeddings.
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
        config = model.config.get_text_config()
        self._window = sliding_window(config)
        self._mixed = len(set(getattr(config, "layer_types", None) or [])) > 1
        self._chat = chat_parts(tokenizer, name) if chat else None
        self._kept: KeptPrompts | None = None
        self.ways = find_ways(self, name, recompute=recompute)
        choose_attention(model, own=self.ways.own_attention)

    @property
    def share_prompts(self) -> bool:
        return self.ways.shared_prompts

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
            chats = [(*head, *body[:room], *tail) for body in bodies]
            self._check_ids(chats)
            return chats
        words = cues or [""] * len(texts)
        ends = {cue: self._after("x", f"\n{cue}") if cue else [] for cue in set(words)}
        rows: list[Tokens] = []
        for ids, cue in zip(self.tokenizer(list(texts))["input_ids"], words, strict=True):
            body = ids[:-1] if len(ids) > 1 and ids[-1] == self._eos_id else ids
            rows.append((*body[: max(1, max_length - len(ends[cue]))], *ends[cue]))
        self._check_ids(rows)
        return rows

    def encode_target(self, text: str) -> Tokens:
        ids = self._after(self._chat[1], text) if self._chat is not None else self._after(CONTEXT, f" {text}")
        self._check_known(text, ids)
        return (*ids, self._eos_id)

    def encode_targets(self, texts: Sequence[str], max_length: int) -> tuple[list[Tokens], int]:
        before = self._chat[1] if self._chat is not None else CONTEXT
        words = [text if self._chat is not None else f" {text}" for text in texts]
        head = self.encode_text(before)
        whole = self.tokenizer([before + word for word in words], add_special_tokens=False)["input_ids"]
        rows = [
            (*(ids[len(head) :] if ids[: len(head)] == head else self.encode_text(word)), self._eos_id)
            for ids, word in zip(whole, words, strict=True)
        ]
        return self._truncated_targets(rows, max_length)

    # --- the model ------------------------------------------------------------------------------------
    def _prompts(self, bank: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """The live rows of a bank and the index, where the model is and in what it runs in."""
        device = self.device
        return bank.to(device, self._embed_dtype), sent(index, device)

    @property
    def _embed_dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._embed.weight.dtype
        return dtype

    def _past(self, bank: Tensor, index: Tensor) -> DynamicCache:
        """Keys and values of the prompt of each row, every prompt computed once; differentiable in the bank."""
        kept = self._kept if not torch.is_grad_enabled() else None
        layers = self._once(bank) if kept is None else kept.layers(bank, self._once)
        shared = DynamicCache()
        for number, (keys, values) in enumerate(layers):
            here = index.to(keys.device)  # layers may lie on several devices
            shared.update(spread(keys, here), spread(values, here), number)
        return shared

    def _once(self, bank: Tensor) -> Layers:
        """Keys and values [M, heads, P, D] of each layer, every prompt of a bank computed once."""
        once = DynamicCache()
        # a copy, since CTRL scales what it is given in place
        self.model.base_model(inputs_embeds=bank.clone(), use_cache=True, **cached(self.model.base_model, once))
        layers: list[Any] = list(once.layers)
        return [(layer.keys, layer.values) for layer in layers]

    def keep_prompts(self, budget: int) -> KeptPrompts | None:
        self._kept = KeptPrompts(budget) if budget and self.share_prompts else None
        return self._kept

    def _logits(
        self,
        bank: Tensor,
        index: Tensor,
        ids: Tensor,
        at: Tensor,
        ways: Ways,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Logits [M, V] at M places of texts `ids` [N, T], each read after its prompt.

        Args:
            at: the places, row times T plus position, [M].
            mask: who sees whom, bool [N, T, P + T]; by default everyone what comes before.
            positions: of the text tokens, [N, T]; by default P, P + 1, ...
        """
        rows, place = self._prompts(bank, index)
        length = rows.shape[1]
        embeds = self._embed(ids)
        extra: dict[str, Any] = {}
        if ways.shared_prompts:
            extra = {**cached(self.model, self._past(rows, place)), "use_cache": True}
        else:
            embeds = torch.cat([spread(rows, place).to(embeds.dtype), embeds], dim=1)
            at = at + (at // ids.shape[1] + 1) * length
            extra = {"use_cache": False}
        if mask is not None and positions is not None:
            if not ways.shared_prompts:
                before = torch.ones(length, length + ids.shape[1], dtype=torch.bool, device=mask.device).tril()
                mask = torch.cat([before.expand(len(ids), -1, -1), mask], dim=1)
            start = torch.arange(length, device=ids.device).expand(len(ids), -1)
            places = torch.cat([start, positions], dim=1)  # of keys, and without a cache of queries
            queries = positions if ways.shared_prompts else places
            extra |= {"attention_mask": self._masks(mask, queries, places, embeds.dtype), "position_ids": queries}
        return self._logits_at(at, (embeds.shape[0], embeds.shape[1]), inputs_embeds=embeds, **extra)

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
        self._check_positions(len(prompt), len(source))
        text: Tensor = self._embed(torch.tensor(source, device=self.device))
        return torch.cat([prompt.to(text), text]).cpu()

    def nll(self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]) -> Tensor:
        if self.ways.padding and self.graphs.usable(self.model, bank):
            return self._nll_in_a_graph(bank, index, joined(sources, targets), targets)
        return picked_nll(self._target_logits(bank, index, sources, targets), targets)

    def _target_logits(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]
    ) -> Tensor:
        rows = joined(sources, targets)
        first, count = [len(source) - 1 for source in sources], [len(target) for target in targets]
        return self._sequence_logits(bank, index, rows, first, count, self.ways)

    def _nll_in_a_graph(self, bank: Tensor, index: Tensor, rows: Sequence[Tokens], targets: Sequence[Tokens]) -> Tensor:
        """`nll` with padding to one of few shapes, so that a graph of its kernels can be replayed."""
        device, longest = self.device, max(map(len, rows))
        self._check_positions(bank.shape[1], longest)
        ids, _ = pad(rows, self.pad_id, device, rounded(longest, self._most_text(bank)))
        labels, real = pad(targets, self.pad_id, device, rounded(max(map(len, targets))))
        # the last so many places of each row; those of shorter targets come twice, and count once
        last = torch.tensor([i * ids.shape[1] + len(row) - 1 for i, row in enumerate(rows)])[:, None]
        first = last - torch.tensor([len(target) - 1 for target in targets])[:, None]
        at = torch.minimum(first + torch.arange(labels.shape[1]), last).flatten().to(device)
        prompts, place = self._prompts(bank, index)
        return self.graphs(self._padded_nll, prompts, place, ids, at, labels, real)

    def _padded_nll(self, bank: Tensor, index: Tensor, ids: Tensor, at: Tensor, labels: Tensor, real: Tensor) -> Tensor:
        return masked_nll(self._logits(bank, index, ids, at, self.ways), labels, real)

    @torch.inference_mode()
    def score_labels(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], labels: Sequence[Tokens]
    ) -> LabelScores:
        tree = LabelTree.of(labels)
        block = max(1, self._roomier * LOGIT_BUDGET // (self.vocab_size * (1 + len(tree.tokens))))
        parts = []
        for start in range(0, len(sources), block):
            rows = index[start : start + block]
            used, local = rows.unique(return_inverse=True)
            logits = self.node_logits(bank[used], local, sources[start : start + block], tree, self.ways)
            parts.append(tree.scores(logits, labels))
        return LabelScores(
            torch.cat([part.log_probs for part in parts]).cpu(), torch.cat([part.greedy for part in parts]).cpu()
        )

    @torch.inference_mode()
    def generate(
        self,
        bank: Tensor,
        index: Tensor,
        sources: Sequence[Tokens],
        decoding: Decoding,
        tell: Callable[[str], object] | None = None,
    ) -> list[Tokens]:
        """See `Backbone`. Rows of unlike length go together where the model obeys masks and positions from outside."""
        self._check_positions(bank.shape[1], max(map(len, sources)) + decoding.max_new_tokens - 1)
        cached = generates_from_cache(self)
        found: list[Tokens] = [()] * len(sources)
        for part in passes([len(source) for source in sources], cached and self.ways.label_tree):
            texts = [sources[i] for i in part]
            inputs = self.generation_inputs(bank, index[torch.tensor(part)], texts, decoding.num_beams)
            with reading_embeddings(self.model, cached=cached):
                rows, ends = self._generated(decoding, tell, **inputs)
            for i, row in zip(part, until_end(rows, ends), strict=True):
                found[i] = row
        return found

    def generation_inputs(self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], beams: int) -> dict[str, Any]:
        """What `generate()` takes to read rows padded in front, so that what is generated follows each text directly.

        The padding lies between prompt and text, where the prompt's keys and values are shared, and before the prompt
        where a sliding window counts places instead of positions.
        """
        prompts, place = self._prompts(bank, index)
        width = max(map(len, sources))
        backwards, real = pad([source[::-1] for source in sources], self.pad_id, self.device)
        ids, real = backwards.flip(1), real.flip(1)
        text, prompt = self._embed(ids), prompts.index_select(0, place)
        seen = torch.cat([real.new_ones(prompt.shape[:2]), real], dim=1).long()
        embeds = torch.cat([prompt.to(text.dtype), text], dim=1)
        if self.ways.shared_prompts and self._window is None:
            past = self._past(prompts, place.repeat_interleave(beams))
            return {"inputs_embeds": embeds, "attention_mask": seen, **cached(self.model, past)}
        if not bool(real.all()):
            shift = width - real.sum(1, keepdim=True)  # padding of each row, to go before its prompt
            at = self._before_prompt(shift, prompt.shape[1], seen.shape[1])
            embeds = embeds.gather(1, at[:, :, None].expand(-1, -1, embeds.shape[2]))
            seen = seen.gather(1, at)
        return {"inputs_embeds": embeds, "attention_mask": seen}

    @staticmethod
    def _before_prompt(shift: Tensor, prompt: int, width: int) -> Tensor:
        """Places [N, width] of prompt, padding, text in the order padding, prompt, text; `shift` [N, 1] is padding."""
        place = torch.arange(width, device=shift.device).expand(len(shift), -1)
        moved = torch.where(place < shift, place + prompt, place - shift)
        return torch.where(place < shift + prompt, moved, place)

    @torch.inference_mode()
    def hidden(self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], depths: Sequence[float]) -> Tensor:
        prompts, place = self._prompts(bank, index)
        length, found = bank.shape[1], torch.empty(len(sources), len(depths), 2, bank.shape[2])
        self._check_positions(length, max(map(len, sources)))
        for part in passes([length + len(row) for row in sources], self.ways.padding, self.scoring_positions):
            mine = torch.tensor(part)
            ids, real = pad([sources[i] for i in part], self.pad_id, self.device)
            embeds = torch.cat([prompts.index_select(0, place[mine.to(place.device)]), self._embed(ids)], dim=1)
            model = self.model.base_model
            states = model(inputs_embeds=embeds, use_cache=False, output_hidden_states=True).hidden_states
            last = real.sum(1) - 1
            for number, state in enumerate(at_depths(states, depths)):
                text = state[:, length:].float()
                found[mine, number, 0] = mean_of(text, real).cpu()
                found[mine, number, 1] = text[torch.arange(len(part), device=text.device), last].cpu()
        return found

    def node_logits(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], tree: LabelTree, ways: Ways
    ) -> Tensor:
        """Logits at every node of a tree of labels that hangs on the end of each text: fp32 [N, 1 + S, V].

        Raises:
            TpvError: prompt, text and labels take more positions than the model has.
        """
        calculate = self._tree_logits if ways.label_tree else self._branch_logits
        return calculate(bank, index, sources, tree, ways).float().view(len(sources), len(tree.order), -1)

    def _branch_logits(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], tree: LabelTree, ways: Ways
    ) -> Tensor:
        """`node_logits` [N (1 + S), V] of texts that each branch of the tree follows as an ordinary sequence."""
        rows = [(*source, *branch.tokens) for source in sources for branch in tree.branches]
        first = [len(source) - 1 + branch.first for source in sources for branch in tree.branches]
        count = [1 + len(branch.tokens) - branch.first for _ in sources for branch in tree.branches]
        repeated = index.repeat_interleave(len(tree.branches))
        logits = self._sequence_logits(bank, repeated, rows, first, count, ways, SCORED_POSITIONS)
        nodes = torch.tensor(tree.order, device=logits.device).argsort()
        return logits.view(len(sources), len(nodes), -1)[:, nodes]

    def _tree_logits(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], tree: LabelTree, ways: Ways
    ) -> Tensor:
        """`node_logits` [N (1 + S), V] of texts that the whole tree follows, kept apart by a mask and positions."""
        device, count, size = self.device, len(sources), len(tree.tokens)
        text, _ = pad(sources, self.pad_id, device)
        lengths = torch.tensor([len(source) for source in sources], device=device)
        prompt, width = bank.shape[1], text.shape[1]
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
        nodes = torch.arange(width, width + size, device=device).expand(count, -1)
        row = torch.arange(count, device=device)[:, None] * (width + size)
        at = (row + torch.cat([lengths[:, None] - 1, nodes], dim=1)).flatten()
        return self._logits(bank, index, ids, at, ways, seen, positions)

    def _sequence_logits(
        self,
        bank: Tensor,
        index: Tensor,
        rows: Sequence[Tokens],
        first: Sequence[int],
        count: Sequence[int],
        ways: Ways,
        budget: int | None = None,
    ) -> Tensor:
        """Logits [M, V] at `count` places from `first` on of each of these rows, in their order.

        Args:
            budget: prompt and row positions in one forward pass; by default no limit.
        """
        device, prompt = self.device, bank.shape[1]
        self._check_positions(prompt, max(map(len, rows)))
        parts = passes([prompt + len(row) for row in rows], ways.padding, budget)
        logits = []
        for part in parts:
            ids, _ = pad([rows[i] for i in part], self.pad_id, device)
            mine = index if len(parts) == 1 else index[torch.tensor(part)]
            at = flat_places([first[i] for i in part], [count[i] for i in part], ids.shape[1], device)
            logits.append(self._logits(bank, mine, ids, at, ways))
        if len(parts) == 1:
            return logits[0]
        owner = torch.tensor([i for part in parts for i in part for _ in range(count[i])], device=device)
        return torch.cat(logits)[owner.argsort(stable=True)]
