"""Generated text is token by token what plain `generate()` gives for one row at a time."""

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, GenerationConfig

import tpv
from tpv.models import Seq2SeqBackbone
from tpv.models.generation import Decoding

TEXTS = [
    "the man is eating an apple in a garden",
    "a cat",
    "the plot is never dull, and the cast is not good",
    "an apple and a man",
    "in the garden",
    "the man is not in the garden, and the cat is not eating an apple",
]


def plain(backbone, prompt, source, decoding):
    """One row through transformers, from embeddings, with nothing of ours."""
    model = backbone.model
    text = model.get_input_embeddings()(torch.tensor([source]))
    embeds = torch.cat([prompt[None].to(text.dtype), text], dim=1)
    how = {"decoder_input_ids": torch.tensor([[backbone._start_id]])} if model.config.is_encoder_decoder else {}
    config = GenerationConfig(
        max_new_tokens=decoding.max_new_tokens,
        num_beams=decoding.num_beams,
        do_sample=False,
        eos_token_id=backbone._eos_id,
        pad_token_id=backbone.pad_id,
        bos_token_id=0,
    )
    with torch.inference_mode():
        mask = torch.ones(embeds.shape[:2], dtype=torch.long)
        row = model.generate(inputs_embeds=embeds, attention_mask=mask, generation_config=config, **how)[0].tolist()
    row = row[1:] if how else row
    return tuple(row[: row.index(backbone._eos_id)]) if backbone._eos_id in row else tuple(row)


@pytest.fixture
def bart(causal_tokenizer):
    torch.manual_seed(0)
    model = BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(causal_tokenizer),
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=128,
            init_std=0.3,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=1,
            decoder_start_token_id=0,
            forced_eos_token_id=None,
            forced_bos_token_id=None,
        )
    )
    return Seq2SeqBackbone(model, causal_tokenizer, "bart")


def kinds(random_t5, random_causal, bart):
    """A backbone of every kind that generates in its own way."""
    yield "t5", random_t5(3)
    yield "bart", bart
    for family in ("llama", "qwen3", "gpt2", "gemma2", "gemma3", "mistral"):
        yield family, random_causal(family)
    yield "recomputed", random_causal("llama", recompute=True)


def test_rows_of_a_bank_say_what_each_says_alone(random_t5, random_causal, bart):
    for name, backbone in kinds(random_t5, random_causal, bart):
        prompts = [tpv.SoftPrompt.sample(backbone, 5, seed).tensor for seed in range(3)]
        bank, index = torch.stack(prompts), torch.tensor([2, 0, 1, 1, 0, 2])
        sources = backbone.encode_sources(TEXTS, 256, [""] * len(TEXTS))
        for decoding in (Decoding(max_new_tokens=9), Decoding(max_new_tokens=7, num_beams=3)):
            together = backbone.generate(bank, index, sources, decoding)
            alone = [
                plain(backbone, bank[k], source, decoding) for k, source in zip(index.tolist(), sources, strict=True)
            ]
            assert together == alone, (name, decoding)
            assert len(set(alone)) > 1, name  # the rows do not all say the same


def test_streams_and_draws(random_causal, random_t5):
    for backbone in (random_causal("llama"), random_t5(1)):
        bank, index = tpv.SoftPrompt.sample(backbone, 4).tensor[None], torch.tensor([0])
        source = backbone.encode_sources(TEXTS[:1], 256, [""])
        pieces = []
        (row,) = backbone.generate(bank, index, source, Decoding(max_new_tokens=8), pieces.append)
        assert "".join(pieces).strip() == backbone.decode(row).strip()
        state = torch.get_rng_state()
        drawn = [
            backbone.generate(bank, index, source, Decoding(max_new_tokens=12, do_sample=True, temperature=2.0, seed=s))
            for s in (0, 0, 1)
        ]
        assert drawn[0] == drawn[1] != drawn[2]
        assert torch.equal(state, torch.get_rng_state())


def test_targets_end_and_are_cut_where_too_long(random_causal, random_t5):
    for backbone in (random_causal("llama"), random_causal("llama", chat=True), random_t5()):
        texts = ["the man", "an apple in a garden and a man", "not good"]
        rows, cut = backbone.encode_targets(texts, 100)
        assert cut == 0
        assert rows == [backbone.encode_target(text) for text in texts]
        short, cut = backbone.encode_targets(texts, len(rows[0]))
        assert cut == sum(len(row) > len(rows[0]) for row in rows) > 0
        assert all(row[-1] == backbone._eos_id and len(row) <= len(rows[0]) for row in short)
        assert [row[:-1] for row in short] == [row[: len(mine) - 1] for row, mine in zip(rows, short, strict=True)]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens; expected a whole number of at least 1"),
        ({"num_beams": True}, "num_beams"),
        ({"temperature": 0.0, "do_sample": True}, "temperature; expected a positive finite number"),
        ({"temperature": 0.5}, "expected do_sample with it"),
        ({"do_sample": 1}, "do_sample; expected true or false"),
    ],
)
def test_decoding_that_does_not_fit_is_refused(how, words):
    with pytest.raises(tpv.TpvError, match=words):
        Decoding(**how)


def test_more_positions_than_the_model_has_are_refused(random_causal):
    backbone = random_causal("llama")
    bank = tpv.SoftPrompt.sample(backbone, 4).tensor[None]
    source = backbone.encode_sources(TEXTS[:1], 256, [""])
    with pytest.raises(tpv.TpvError, match="at most 128 positions"):
        backbone.generate(bank, torch.tensor([0]), source, Decoding(max_new_tokens=200))
