"""Encoder-decoder models of `transformers`: T5, Flan-T5, mT5, BART and their kin."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from transformers import Cache, DynamicCache
from transformers.modeling_outputs import MoEModelOutput

from tpv.models.attention import cheaper_unprojected, reads_encoder
from tpv.models.caches import cache_of, cached
from tpv.models.frozen import FrozenModel, at_depths, flat_places, masked_nll, mean_of, pad, passes, picked_nll, sent
from tpv.models.generation import Decoding, until_end
from tpv.models.graphs import rounded, spread
from tpv.models.protocol import LabelScores, Tokens
from tpv.models.ways import check_scores

DECODER_BUDGET = 65536  # encoder positions times labels whose keys and values are held at once


class Seq2SeqBackbone(FrozenModel):
    """A frozen encoder-decoder; see `tpv.models.Backbone` for the methods.

    The prompt goes before the text on the encoder's side only, and every one of its rows is read. Stock PEFT
    allocates twice as many and leaves half of them dead (quirk 1), as `tpv.compat.half_prompt` does on request.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, dtype: torch.dtype | None = None, **more: Any) -> None:
        """Args: see `FrozenModel`.

        Raises:
            TpvError: no end-of-sequence token, no decoder start token, or a model that cannot read embeddings.
        """
        super().__init__(model, tokenizer, name, dtype, **more)
        self._reads_unprojected = any(map(reads_encoder, model.modules()))
        starts = (getattr(part, "decoder_start_token_id", None) for part in (model.config, model.generation_config))
        start = next((number for number in starts if number is not None), None)
        self._start_id = self._special_id("decoder start token (decoder_start_token_id)", start, name)
        self._forced_bos: int | None = getattr(model.generation_config, "forced_bos_token_id", None)
        check_scores(self, name)

    def encode_sources(self, texts: Sequence[str], max_length: int, cues: Sequence[str] | None = None) -> list[Tokens]:
        encoded = self.tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
        rows = [tuple(row) for row in encoded]
        self._check_ids(rows)
        return rows

    def encode_target(self, text: str) -> Tokens:
        ids: list[int] = self.tokenizer(text_target=text)["input_ids"]
        self._check_known(text, ids)
        if ids[-1:] != [self._eos_id]:
            ids = [*ids, self._eos_id]
        return tuple(ids)

    def encode_targets(self, texts: Sequence[str], max_length: int) -> tuple[list[Tokens], int]:
        whole = [list(ids) for ids in self.tokenizer(text_target=list(texts))["input_ids"]]
        rows = [tuple(ids) if ids[-1:] == [self._eos_id] else (*ids, self._eos_id) for ids in whole]
        return self._truncated_targets(rows, max_length)

    @torch.inference_mode()
    def generate(
        self,
        bank: Tensor,
        index: Tensor,
        sources: Sequence[Tokens],
        decoding: Decoding,
        tell: Callable[[str], object] | None = None,
    ) -> list[Tokens]:
        embeds, attention = self._inputs(bank, index, sources)
        start = torch.full((len(sources), 1), self._start_id, device=self.device)
        rows, ends = self._generated(
            decoding, tell, inputs_embeds=embeds, attention_mask=attention, decoder_input_ids=start
        )
        return until_end(rows[:, 1:], ends)

    def _inputs(self, bank: Tensor, index: Tensor, sources: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        """Embeddings [N, P + T, H] with each row's prompt directly before its text, and their mask."""
        device = self.device
        ids, mask = pad(sources, self.pad_id, device)
        self._check_positions(bank.shape[1], ids.shape[1])
        return self._embedded(bank.to(device), sent(index, device), ids, mask)

    def _embedded(self, bank: Tensor, index: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`_inputs` of ids [N, T] and their mask."""
        rows = spread(bank, index)
        text = self._embed(ids)
        return (
            torch.cat([rows.to(text.dtype), text], dim=1),
            torch.cat([mask.new_ones(rows.shape[:2]), mask], dim=1).long(),
        )

    def _decoder_inputs(self, targets: Sequence[Tokens], width: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Targets [N, L], their mask, and the decoder inputs that predict them (shifted right)."""
        labels, mask = pad(targets, self.pad_id, self.device, width)
        start = labels.new_full((len(labels), 1), self._start_id)
        return labels, mask, torch.cat([start, labels[:, :-1]], dim=1)

    def nll(self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]) -> Tensor:
        if self.graphs.usable(self.model, bank):
            return self._nll_in_a_graph(bank, index, sources, targets)
        return picked_nll(self._target_logits(bank, index, sources, targets), targets)

    def _target_logits(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]
    ) -> Tensor:
        embeds, attention = self._inputs(bank, index, sources)
        _, _, decoder_ids = self._decoder_inputs(targets)
        return self._logits_at(
            flat_places([0] * len(targets), [len(target) for target in targets], decoder_ids.shape[1], self.device),
            (decoder_ids.shape[0], decoder_ids.shape[1]),
            inputs_embeds=embeds,
            attention_mask=attention,
            decoder_input_ids=decoder_ids,
            use_cache=False,
        )

    def _nll_in_a_graph(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], targets: Sequence[Tokens]
    ) -> Tensor:
        """`nll` with padding to one of few shapes, so that a graph of its kernels can be replayed."""
        device, longest = self.device, max(map(len, sources))
        self._check_positions(bank.shape[1], longest)
        ids, mask = pad(sources, self.pad_id, device, rounded(longest, self._most_text(bank)))
        labels, real, decoder_ids = self._decoder_inputs(targets, rounded(max(map(len, targets))))
        inputs = (bank.to(device), sent(index, device), ids, mask, labels, real, decoder_ids)
        return self.graphs(self._padded_nll, *inputs)

    def _padded_nll(
        self, bank: Tensor, index: Tensor, ids: Tensor, mask: Tensor, labels: Tensor, real: Tensor, decoder_ids: Tensor
    ) -> Tensor:
        embeds, attention = self._embedded(bank, index, ids, mask)
        logits = self._logits_at(
            torch.arange(labels.numel(), device=labels.device),
            (labels.shape[0], labels.shape[1]),
            inputs_embeds=embeds,
            attention_mask=attention,
            decoder_input_ids=decoder_ids,
            use_cache=False,
        )
        return masked_nll(logits, labels, real)

    @torch.inference_mode()
    def score_labels(
        self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], labels: Sequence[Tokens]
    ) -> LabelScores:
        embeds, attention = self._inputs(bank, index, sources)
        encoded = self.model.get_encoder()(inputs_embeds=embeds, attention_mask=attention)[0]
        # the cache of a row is copied once a label: take as many rows at a time as memory allows
        block = max(1, self._roomier * DECODER_BUDGET // (encoded.shape[1] * len(labels)))
        parts = [
            self._score_block(rows, mask, labels)
            for rows, mask in zip(encoded.split(block), attention.split(block), strict=True)
        ]
        log_probs, greedy = (torch.cat(column) for column in zip(*parts, strict=True))
        return LabelScores(log_probs.cpu(), greedy.cpu())

    @torch.inference_mode()
    def hidden(self, bank: Tensor, index: Tensor, sources: Sequence[Tokens], depths: Sequence[float]) -> Tensor:
        length, found = bank.shape[1], torch.empty(len(sources), len(depths), 2, bank.shape[2])
        for part in passes([length + len(row) for row in sources], True, self.scoring_positions):
            mine = torch.tensor(part)
            embeds, attention = self._inputs(bank, index[mine], [sources[i] for i in part])
            encoded = self.model.get_encoder()(
                inputs_embeds=embeds, attention_mask=attention, output_hidden_states=True
            )
            start = attention.new_full((len(part), 1), self._start_id)
            said = self.model(
                encoder_outputs=MoEModelOutput(encoded[0]),
                attention_mask=attention,
                decoder_input_ids=start,
                output_hidden_states=True,
                use_cache=False,
            )
            read = zip(
                at_depths(encoded.hidden_states, depths), at_depths(said.decoder_hidden_states, depths), strict=True
            )
            for number, (text, step) in enumerate(read):
                found[mine, number, 0] = mean_of(text[:, length:].float(), attention[:, length:]).cpu()
                found[mine, number, 1] = step[:, 0].float().cpu()
        return found

    def _cache(self, positions: int, queries: int) -> Cache | None:
        """A cache for so many queries of so many positions that keeps nothing of the positions, if that saves work."""
        config = self.model.config
        if self._reads_unprojected and cheaper_unprojected(queries, positions, config.d_kv):
            return DynamicCache()
        return None

    def _score_block(self, encoded: Tensor, attention: Tensor, labels: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        """Log-probabilities [N, C] and greedy labels [N] of encoded rows [N, T, H].

        One decoder step is shared by all labels; where labels have more tokens, the rest of each
        continues from that step's cache.
        """
        rows, count = len(encoded), len(labels)
        # Switch and NLLB-MoE look up what the encoder's routers said: `MoEModelOutput` has a field for it
        targets, mask, decoder_ids = self._decoder_inputs(labels)  # [C, L]
        longest = targets.shape[1]
        first = self.model(
            encoder_outputs=MoEModelOutput(encoded),
            attention_mask=attention,
            use_cache=longest > 1,
            decoder_input_ids=decoder_ids.new_full((rows, 1), self._start_id),
            **cached(self.model, self._cache(encoded.shape[1], 1 + count * (longest - 1)) if longest > 1 else None),
        )
        logits = first.logits[:, 0].float()  # [N, V]
        log_probs = log_softmax(logits, dim=-1)[:, targets[:, 0]]  # [N, C]
        greedy = logits.argmax(-1)[:, None] == targets[:, 0]
        if self._forced_bos is not None:  # generate() then emits this first, whatever the logits say
            greedy = (targets[:, 0] == self._forced_bos).expand_as(greedy).clone()
        if longest > 1:
            cache = cache_of(first)
            cache.batch_repeat_interleave(count)
            wanted = mask[:, 1:].repeat(rows, 1)  # [N·C, L-1]
            rest = self._logits_at(
                wanted.flatten().nonzero()[:, 0],
                (wanted.shape[0], wanted.shape[1]),
                encoder_outputs=MoEModelOutput(encoded.repeat_interleave(count, 0)),
                attention_mask=attention.repeat_interleave(count, 0),
                decoder_input_ids=decoder_ids[:, 1:].repeat(rows, 1),
                use_cache=True,
                **cached(self.model, cache),
            ).float()  # [M, V]
            truth = targets[:, 1:].repeat(rows, 1)[wanted]
            owner = torch.arange(rows * count, device=rest.device)[:, None].expand_as(wanted)[wanted]
            chosen = log_softmax(rest, dim=-1).gather(1, truth[:, None])[:, 0]
            log_probs = log_probs + log_probs.new_zeros(rows * count).index_add(0, owner, chosen).view(rows, count)
            misses = torch.zeros(rows * count, device=rest.device).index_add(
                0, owner, (rest.argmax(-1) != truth).float()
            )
            greedy &= (misses == 0).view(rows, count)
        # at most one label can be greedy: two labels differ at some first position
        return log_probs, torch.where(greedy.any(1), greedy.float().argmax(1), -1)
