"""Every family of models against `transformers` itself: plain float32 passes and generation one row at a time.

The models are random and tiny: two layers or the fewest a family takes, sliding windows and chunks shorter than the
texts. `S`, `T` and `P` say which savings a family is found to allow: shared prompts, label trees, padding.
"""

import json

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

import tpv
from tpv.models import CausalBackbone, Seq2SeqBackbone
from tpv.models.generation import Decoding
from tpv.models.ways import Ways, generates_from_cache

VOCABULARY, POSITIONS, WINDOW = 200, 128, 8
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.3,
    "init_std": 0.3,
    "initializer_factor": 1.5,
    "tie_word_embeddings": False,  # tied ones say the same word again and again
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 0,
    "attention_dropout": 0.0,
    "sliding_window": WINDOW,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": POSITIONS,
    "d_model": 32,
    "n_heads": 4,
    "n_layers": 2,
    "max_seq_len": POSITIONS,
    "embedding_size": 32,
    "ffn_dim": 64,
    "n_ctx": POSITIONS,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 8,
    "state_size": 8,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "d_ff": 64,
    "d_kv": 16,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "rotary_dim": 8,
}
FULL, SLIDING = "full_attention", "sliding_attention"
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "head_dim": 8,
    "num_key_value_heads": 4,
    "n_group": 1,
    "topk_group": 1,
}
# with few heads many positions are tied, and which of those are selected depends on how long the text goes on
INDEXED = LATENT | {"index_head_dim": 16, "index_n_heads": 16, "index_topk": 4}
MIXED = {"layer_types": [SLIDING, FULL]}
LINEAR = {"layer_types": ["linear_attention", FULL]}
DECAY = LINEAR | {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
DECODER = {"is_decoder": True}
SPECIAL = {"pad_token_id": 1, "decoder_start_token_id": 2, "bos_token_id": 2}
UNTIED = SPECIAL | {"tie_word_embeddings": False}

# --- models within models: text parts, and an eye that is closed ---
TEXT = {
    key: SIZES[key]
    for key in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
        "initializer_range",
        "tie_word_embeddings",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "sliding_window",
    )
} | MIXED
VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
BERT = {
    "model_type": "bert",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
    "tie_word_embeddings": False,
}
NESTED = {"t5gemma", "t5gemma2", "encoder-decoder", "gemma3"}

# --- causal models: what they allow, and what their configuration needs beyond SIZES ---------------------
COMMON = {
    "llama": ("STP", {}),
    "qwen2": ("STP", {}),
    "qwen2_moe": ("STP", {}),
    "qwen3": ("STP", {}),
    "qwen3_moe": ("STP", {}),
    "gemma": ("STP", {}),
    "gemma2": ("STP", MIXED),
    "gemma3_text": ("STP", MIXED),
    "gemma3": (
        "STP",
        {
            "text_config": TEXT,
            "vision_config": VISION,
            "mm_tokens_per_image": 4,
            "eos_token_id": 0,
            "image_token_index": 190,
            "boi_token_index": 191,
            "eoi_token_index": 192,
            "tie_word_embeddings": False,
        },
    ),
    "mistral": ("STP", {}),
    "ministral": ("STP", MIXED),
    "mixtral": ("STP", {}),
    "phi": ("STP", {}),
    "phi3": ("STP", {}),
    "phimoe": ("STP", {}),
    "gpt2": ("STP", {}),
    "gpt_neox": ("STP", {}),
    "gptj": ("STP", {}),
    "gpt_bigcode": ("STP", {}),
    "gpt_oss": ("STP", MIXED),
    "opt": ("STP", {}),
    "olmo": ("STP", {}),
    "olmo2": ("STP", {}),
    "olmo3": ("STP", MIXED),
    "olmoe": ("STP", {}),
    "cohere": ("STP", {}),
    "cohere2": ("STP", MIXED),
    "granite": ("STP", {}),
    "smollm3": ("STP", {}),
    "stablelm": ("STP", {}),
    "starcoder2": ("STP", {}),
    "deepseek_v3": ("STP", LATENT),
    "ernie4_5": ("STP", {}),
    "exaone4": ("STP", MIXED),
    "glm": ("STP", {}),
    "glm4": ("STP", {}),
    "xglm": ("STP", {}),
    "biogpt": ("STP", {}),
    "codegen": ("STP", {}),
    "ctrl": ("STP", {"dff": 64}),
    "modernbert-decoder": (
        "STP",
        MIXED | {"pad_token_id": 1, "bos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2, "local_attention": WINDOW},
    ),
    # positions made from a mask of padding (ALiBi): a prompt can be shared, a tree cannot
    "bloom": ("S.P", {}),
    "mpt": ("S.P", {}),
    "falcon": ("S.P", {"head_dim": ..., "alibi": True}),
    # recurrent, convolutional, local or chunked layers
    "mamba": ("..P", {}),
    "mamba2": ("..P", {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8}),
    "falcon_mamba": ("..P", {}),
    "falcon_h1": ("..P", {"mamba_d_ssm": 64}),
    "bamba": ("..P", {"attn_layer_indices": [1]}),
    "jamba": ("..P", {"attn_layer_period": 2, "attn_layer_offset": 1}),
    "recurrent_gemma": ("..P", {"attention_window_size": WINDOW, "block_types": ["recurrent", "attention"]}),
    "qwen3_next": ("..P", DECAY),
    "lfm2": ("..P", {"layer_types": ["conv", FULL]}),
    "llama4_text": ("..P", {"attention_chunk_size": WINDOW}),
    "rwkv": ("..P", {}),
    "openai-gpt": ("..P", {}),
    "gpt_neo": ("..P", {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW}),
}
RARE = {
    "afmoe": ("STP", {}),
    "apertus": ("STP", {}),
    "arcee": ("STP", {}),
    "aria_text": ("STP", {}),
    "axk1": ("STP", LATENT),
    "axk2": ("..P", LATENT),
    "bailing_hybrid": ("..P", LATENT | LINEAR),
    "beam": ("STP", MIXED),
    "bert": ("STP", DECODER),
    "bert-generation": ("STP", DECODER),
    "big_bird": ("STP", DECODER),
    "bitnet": ("STP", {}),
    "cohere2_moe": ("STP", {}),
    "dbrx": (
        "STP",
        {
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
            "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        },
    ),
    "deepseek_v2": ("STP", LATENT),
    "deepseek_v32": ("..P", INDEXED),
    "diffllama": ("STP", {}),
    "doge": ("..P", {}),
    "dots1": ("STP", {"n_shared_experts": 1}),
    "electra": ("STP", DECODER),
    "ernie4_5_moe": ("STP", {}),
    "exaone_moe": ("STP", {}),
    "flex_olmo": ("STP", {}),
    "flint": ("STP", {}),
    "gemma3n_text": (
        "STP",
        {
            "num_hidden_layers": 4,
            "intermediate_size": [64] * 4,
            "layer_types": [SLIDING, FULL] * 2,
            "num_kv_shared_layers": 0,
        },
    ),
    "gemma4_text": (
        "STP",
        MIXED | {"global_head_dim": 16, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0},
    ),
    "glm4_moe": ("STP", {}),
    "glm4_moe_lite": ("STP", LATENT),
    "glm_moe_dsa": ("..P", INDEXED),
    "gpt_neox_japanese": ("STP", {}),
    "granite_swa": ("STP", MIXED),
    "granitemoe": ("STP", {}),
    "granitemoe_swa": ("STP", MIXED),
    "granitemoehybrid": ("..P", LINEAR),
    "granitemoeshared": ("STP", {}),
    "helium": ("STP", {"num_key_value_heads": 4, "head_dim": 8}),
    "hrm_text": ("STP", {"initializer_range": 0.1}),
    "hunyuan_v1_dense": ("STP", {}),
    "hunyuan_v1_moe": ("STP", {}),
    "hy_v3": ("STP", {}),
    "hyperclovax": ("STP", {}),
    "inkling_text": ("..P", {}),
    "inkling2_text": ("..P", {}),
    "internlm3": ("STP", {}),
    "iquestcoder": ("STP", {}),
    "jais2": ("STP", {}),
    "jetmoe": ("STP", {}),
    "kimi_linear": ("..P", LATENT | LINEAR | {"linear_head_dim": 8, "linear_num_heads": 2}),
    "kolibri1": ("STP", {}),
    "laguna": ("STP", {}),
    "lfm2_moe": ("..P", {"layer_types": ["conv", FULL]}),
    "lfm3": ("..P", {"layer_types": ["conv", FULL]}),
    "longcat_flash": ("STP", LATENT),
    "megatron-bert": ("STP", DECODER),
    "mellum": ("STP", {}),
    "mimo_v2_flash": ("STP", MIXED),
    "minicpm3": ("STP", LATENT),
    "minimax": ("..P", {}),
    "minimax_m2": ("STP", {}),
    "minimax_m3_vl_text": ("..P", {"layer_types": ["minimax_m3_sparse", FULL]}),
    "ministral3": ("STP", {}),
    "nanochat": ("STP", {}),
    "nemotron": ("STP", {}),
    "nemotron_h": (
        "..P",
        {"mamba_num_heads": 4, "mamba_head_dim": 8, "ssm_state_size": 8, "n_groups": 1, "chunk_size": 8},
    ),
    "olmo_hybrid": ("..P", {}),
    "persimmon": ("STP", {}),
    "qwen3_5_text": ("..P", DECAY),
    "qwen3_5_moe_text": ("..P", DECAY),
    "qwen4_exp_text": (
        "..P",
        DECAY
        | {
            "layer_types": ["linear_attention", "indexed_attention"],
            "indexer_n_heads": 16,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 16,
            "indexer_budget": 4,
            "indexer_compress_ratio": 2,
        },
    ),
    "rembert": ("STP", DECODER),
    "roberta": ("..P", DECODER | {"pad_token_id": 1}),
    "seed_oss": ("STP", {}),
    "solar_open": ("STP", {}),
    "vaultgemma": ("STP", MIXED),
    "xlm": ("..P", {"causal": True}),
    "xlstm": ("..P", {}),
    "youtu": ("STP", LATENT),
    "zamba": ("..P", {"layers_block_type": ["mamba", "hybrid"] * 2, "num_hidden_layers": 4, "attention_head_dim": 16}),
    "zamba2": ("..P", {"layers_block_type": ["mamba", "hybrid"]}),
    "zaya": ("..P", {"num_experts_per_tok": 1}),
}

# --- encoder-decoders --------------------------------------------------------------------------------------
SEQ2SEQ = {
    "t5": {},
    "mt5": {},
    "umt5": {},
    "bart": {},
    "mbart": {},
    "marian": {},
    "pegasus": {},
    "m2m_100": {},
    "blenderbot": {},
    "blenderbot-small": {},
    "mvp": {},
    "plbart": {},
    "switch_transformers": {},
    "nllb-moe": {},
    "longt5": {"local_radius": 3, "global_block_size": 4},
    "led": {"attention_window": 4, "max_encoder_position_embeddings": POSITIONS},
    "pegasus_x": {"block_size": 4, "num_global_tokens": 4},
    "bigbird_pegasus": {"block_size": 2, "num_random_blocks": 1},
    "t5gemma": {"encoder": TEXT | SPECIAL, "decoder": TEXT | SPECIAL, "vocab_size": VOCABULARY, "eos_token_id": 0}
    | UNTIED,
    "t5gemma2": {
        "encoder": {"text_config": TEXT, "vision_config": VISION, "mm_tokens_per_image": 4},
        "decoder": TEXT,
        "eos_token_id": 0,
    }
    | UNTIED,
    "encoder-decoder": {"encoder": BERT, "decoder": BERT | DECODER | {"add_cross_attention": True}} | UNTIED,
}

# select what they see from the whole text
SELECT = {"axk2", "deepseek_v32", "glm_moe_dsa", "minimax_m3_vl_text", "qwen4_exp_text"}
# generate() takes no embeddings from them, or (RoBERTa, xLSTM) goes on from them wrongly or not at all
BY_HAND = {
    "bamba",
    "ctrl",
    "falcon_h1",
    "gemma3",
    "nemotron_h",
    "openai-gpt",
    "qwen4_exp_text",
    "roberta",
    "xlm",
    "xlstm",
    "zamba",
    "zamba2",
}

# every step of generation reads the whole row: RWKV's state takes one row, RoBERTa loses count, the others keep none
WHOLE = {"openai-gpt", "roberta", "rwkv", "xlm", "xlstm"}

# --- families that no prompt can be tuned on --------------------------------------------------------------
BOTH_WAYS, NO_EMBEDDINGS = "model '.*' reads text in both directions", "model '.*' cannot read a soft prompt"
PAD = {"pad_token_id": 1}
REFUSED = {
    "bert": (BOTH_WAYS, {}),
    "bert-generation": (BOTH_WAYS, {}),
    "big_bird": (BOTH_WAYS, {}),
    "camembert": (BOTH_WAYS, PAD),
    "data2vec-text": (BOTH_WAYS, PAD),
    "electra": (BOTH_WAYS, {}),
    "ernie": (BOTH_WAYS, {}),
    "megatron-bert": (BOTH_WAYS, {}),
    "rembert": (BOTH_WAYS, {}),
    "roberta": (BOTH_WAYS, PAD),
    "roberta-prelayernorm": (BOTH_WAYS, PAD),
    "roformer": (BOTH_WAYS, {}),
    "xlm": (BOTH_WAYS, {}),
    "xlm-roberta": (BOTH_WAYS, PAD),
    "xlm-roberta-xl": (BOTH_WAYS, PAD),
    "xlnet": (BOTH_WAYS, {"max_position_embeddings": ..., "d_head": 8}),
    "xmod": (BOTH_WAYS, PAD | {"default_language": "en_XX"}),
    "cpmant": (NO_EMBEDDINGS, {}),  # takes ids only
    "deepseek_v4": (NO_EMBEDDINGS, {}),  # picks experts by ids
    "reformer": (
        NO_EMBEDDINGS,
        DECODER
        | {  # no gradient but in training mode, with dropout
            "axial_pos_embds": False,
            "attention_head_size": 8,
            "feed_forward_size": 64,
            "attn_layers": ["local", "lsh"],
            "num_buckets": 4,
            "lsh_attn_chunk_length": 8,
            "local_attn_chunk_length": 8,
            "pad_token_id": 0,
        },
    ),
    # decoders that are not causal unless they generate: a label's first token is predicted from those after it
    "prophetnet": (
        NO_EMBEDDINGS,
        SPECIAL | {"num_hidden_layers": ..., "num_layers": ..., "num_encoder_layers": 2, "init_std": 0.1},
    ),
    "fsmt": (
        NO_EMBEDDINGS,
        SPECIAL | {"vocab_size": ..., "src_vocab_size": VOCABULARY, "tgt_vocab_size": VOCABULARY, "init_std": 0.1},
    ),
}
NOT_TRIED = {
    "reads images, sound or several inputs": """blt emu3 fuyu gemma3n gemma4 gemma4_unified git got_ocr2
        llama4 mllama moshi moss_transcribe_diarize musicgen musicgen_melody phi4_multimodal qwen3_5 qwen3_5_moe
        qwen4_exp whisper trocr audioflamingo3 glmasr granite_speech granite_speech_plus musicflamingo nemo_speechlm
        qwen2_audio qwen3_asr seamless_m4t seamless_m4t_v2 vibevoice_asr voxtral voxtral_realtime""",
    "assists another model": "gemma4_assistant gemma4_unified_assistant",
    "its configuration does not load without weights": "cohere_compass_text dots3_note dots3_note_text "
    "gemma4_unified_text",
    "takes seconds, however small": "hy_v4 roc_bert cwm",
    "the tokenizer of another family": "gpt-sw3",
}

LABELS = [(5, 9, 0), (5, 17, 0), (5, 0), (31, 2, 8, 0)]
LENGTHS, READS = (14, 3, 9, 14), (0, 1, 1, 1)
SAID = 6  # words generated


def tiny(family, **own):
    """A random model of a family; an option of ... is left to the family."""
    plain = AutoConfig.for_model(family) if family not in NESTED else None
    if plain is None:
        config = AutoConfig.for_model(family, **own)
    else:
        known = {key: value for key, value in SIZES.items() if key in vars(plain) or key in plain.attribute_map}
        extra = SPECIAL if plain.is_encoder_decoder and family in SEQ2SEQ else {}
        options = {key: value for key, value in (known | extra | own).items() if value is not ...}
        config = type(plain)(**options)
    torch.manual_seed(0)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_config(config).eval()
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        setattr(model.generation_config, name, None)
    return model


@pytest.fixture(scope="session")
def tokenizer():
    words = {"<eos>": 0} | {f"w{i}": i for i in range(1, VOCABULARY)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


def texts(lengths=LENGTHS):
    generator = torch.Generator().manual_seed(3)
    return [tuple(torch.randint(3, VOCABULARY, (n,), generator=generator).tolist()) for n in lengths]


def prompts(backbone):
    return 0.5 * torch.randn(2, 5, backbone.identity.hidden_size, generator=torch.Generator().manual_seed(1))


def words_of(model):
    reader = model.get_encoder() if model.config.is_encoder_decoder else model
    return reader.get_input_embeddings()


def embedded(model, prompt, tokens):
    return torch.cat([prompt[None], words_of(model)(torch.tensor([tokens]))], dim=1)


def plain_log_prob(model, prompt, source, label):
    """Log-probability of a label after one row, by one ordinary pass of the model: no padding, cache or mask."""
    if model.config.is_encoder_decoder:
        start = torch.tensor([[model.config.decoder_start_token_id, *label[:-1]]])
        embeds = embedded(model, prompt, source)
        seen = torch.ones(embeds.shape[:2], dtype=torch.long)
        logits = model(inputs_embeds=embeds, attention_mask=seen, decoder_input_ids=start, use_cache=False).logits[0]
    else:
        whole = model(inputs_embeds=embedded(model, prompt, (*source, *label[:-1])), use_cache=False).logits[0]
        logits = whole[len(prompt) + len(source) - 1 :]
    return logits.float().log_softmax(-1).gather(1, torch.tensor(label)[:, None]).sum()


def generated(model, count, beams, **inputs):
    (row,) = model.generate(
        **inputs, do_sample=False, num_beams=beams, max_new_tokens=count, pad_token_id=1, eos_token_id=0
    ).tolist()
    start = len(inputs["input_ids"][0]) if "input_ids" in inputs else 0
    out = row[1 if model.config.is_encoder_decoder else start :]
    return tuple(out[: out.index(0) + 1] if 0 in out else out)


def said(model, prompt, source, count=SAID):
    """What greedy decoding says, up to the end of the sequence or `count` tokens."""
    if model.config.model_type in BY_HAND:
        words = ()
        while len(words) < count and words[-1:] != (0,):
            embeds = embedded(model, prompt, (*source, *words))
            words += (int(model(inputs_embeds=embeds, use_cache=False).logits[0, -1].argmax()),)
        return words
    embeds = embedded(model, prompt, source)
    return generated(model, count, 1, inputs_embeds=embeds, attention_mask=torch.ones(embeds.shape[:2]).long())


def generates(backbone, bank, expected, beams=1):
    """Check what is generated for several rows at once."""
    decoding = Decoding(max_new_tokens=SAID, num_beams=beams)
    together = backbone.generate(bank, torch.tensor(READS), texts(), decoding)
    assert together == [word[:-1] if word[-1] == 0 else word for word in expected]
    assert len(set(together)) > 1


def compare(backbone, model):
    """Losses, gradients, label scores and greedy labels of a backbone, each against the model nobody has touched."""
    sources, index = texts(), torch.tensor(READS)
    bank = prompts(backbone).requires_grad_()
    table = torch.stack(
        [
            torch.stack([plain_log_prob(model, bank[k], source, label) for label in LABELS])
            for k, source in zip(READS, sources, strict=True)
        ]
    )
    own = torch.tensor([0, 2, 3, 1])
    losses = backbone.nll(bank, index, sources, [LABELS[i] for i in own])
    expected = -table.gather(1, own[:, None])[:, 0]
    torch.testing.assert_close(losses, expected, atol=1e-4, rtol=1e-5)
    (gradient,), (reference,) = (torch.autograd.grad(part.sum(), bank) for part in (losses, expected))
    assert (gradient - reference).abs().max() <= 1e-4 * reference.abs().max()
    bank, table = bank.detach(), table.detach()
    scores = backbone.score_labels(bank, index, sources, LABELS)
    torch.testing.assert_close(scores.log_probs, table, atol=1e-4, rtol=1e-5)
    with torch.no_grad():
        words = [said(model, bank[k], source) for k, source in zip(READS, sources, strict=True)]
    generates(backbone, bank, words)
    words = [word[:3] for word in words]
    labels = {*words[:2], (*words[0][:-1], 7), (*words[1][:1], 9, 8), (*words[2][:1], 9)}
    labels = {label for label in labels if 0 not in label[:-1]}
    labels = sorted(label for label in labels if not any(other[: len(label)] == label for other in labels - {label}))
    greedy = backbone.score_labels(bank, index, sources, labels).greedy.tolist()
    starts = [[i for i, label in enumerate(labels) if word[: len(label)] == label] for word in words]
    assert greedy == [found[0] if found else -1 for found in starts]
    assert max(greedy) >= 0


def check_causal(family, ways, own, tokenizer):
    backbone = CausalBackbone(tiny(family, **own), tokenizer, family)
    compare(backbone, tiny(family, **own))
    assert "".join(mark if on else "." for mark, on in zip("STP", backbone.ways[:3], strict=True)) == ways
    assert backbone.ways.own_attention is (family not in SELECT)
    assert backbone.share_prompts is backbone.ways.shared_prompts
    assert generates_from_cache(backbone) is (family not in WHOLE)


@pytest.mark.parametrize("family", COMMON)
def test_common_causal_models(family, tokenizer):
    check_causal(family, *COMMON[family], tokenizer)


@pytest.mark.parametrize("family", RARE)
def test_rare_causal_models(family, tokenizer):
    check_causal(family, *RARE[family], tokenizer)


@pytest.mark.parametrize("family", SEQ2SEQ)
def test_encoder_decoders(family, tokenizer):
    backbone = Seq2SeqBackbone(tiny(family, **SEQ2SEQ[family]), tokenizer, family)
    stock = tiny(family, **SEQ2SEQ[family])
    if family == "bigbird_pegasus":  # as it is itself once it has seen a short text
        stock.model.encoder.set_attention_type("original_full")
    compare(backbone, stock)
    assert not backbone.share_prompts
    ids, encode = torch.tensor(texts((14,))), stock.get_encoder()
    with torch.no_grad():
        said, meant = encode(input_ids=ids)[0], encode(inputs_embeds=backbone.embeddings()[ids])[0]
    torch.testing.assert_close(said, meant)


@pytest.mark.parametrize("family", REFUSED)
def test_families_that_no_prompt_can_be_tuned_on(family, tokenizer):
    words, own = REFUSED[family]
    model = tiny(family, **own)
    kind = Seq2SeqBackbone if model.config.is_encoder_decoder else CausalBackbone
    with pytest.raises(tpv.TpvError, match=rf"^{words}; expected an? .*; got \w+.*; load a") as caught:
        kind(model, tokenizer, family)
    assert "\n" not in str(caught.value)


def test_every_family_is_accounted_for():
    tried = COMMON.keys() | RARE.keys() | SEQ2SEQ.keys() | REFUSED.keys() | set(" ".join(NOT_TRIED.values()).split())
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() | MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.keys()
    assert transformers.__version__ != "5.23.0" or not known ^ tried


@pytest.mark.parametrize(
    "family", ["llama", "gemma2", "gemma3", "bloom", "mamba", "ctrl", "openai-gpt", "t5", "bart", "marian", "nllb-moe"]
)
def test_beams(family, tokenizer):
    """The prompts are words here, since some models take nothing else into a search of their own."""
    own = SEQ2SEQ[family] if family in SEQ2SEQ else COMMON[family][1]
    kind = Seq2SeqBackbone if family in SEQ2SEQ else CausalBackbone
    backbone, stock = kind(tiny(family, **own), tokenizer, family), tiny(family, **own)
    starts, sources = texts((7, 7)), texts()
    rows = [torch.tensor([[*starts[k], *source]]) for k, source in zip(READS, sources, strict=True)]
    with torch.no_grad():
        words = [generated(stock, SAID, 3, input_ids=row, attention_mask=torch.ones_like(row)) for row in rows]
    bank = torch.stack([backbone.embeddings()[torch.tensor(start)] for start in starts])
    generates(backbone, bank, words, beams=3)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_short_labels_in_bf16(family, tokenizer):
    """The end of the sequence is read from a cache alone, with no mask."""
    backbone = Seq2SeqBackbone(tiny(family, **SEQ2SEQ[family]), tokenizer, family, torch.bfloat16)
    bank, index, labels = prompts(backbone), torch.tensor(READS), [(5, 0), (31, 0), (7, 0), (9, 0)]
    scores = backbone.score_labels(bank, index, texts(), labels).log_probs.diagonal()
    torch.testing.assert_close(scores, -backbone.nll(bank, index, texts(), labels), rtol=0.005, atol=0.05)


@pytest.mark.parametrize("family", ["jamba", "lfm2", "llama4_text", "qwen3_next"])
def test_caches_in_bf16(family, tokenizer):
    backbone = CausalBackbone(tiny(family, **COMMON[family][1]), tokenizer, family, torch.bfloat16)
    assert generates_from_cache(backbone)


# --- how rows go through a model ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("family", "way"),
    [(family, way) for family in ("llama", "gpt2", "gemma3_text") for way in ("...", "..P", "S.P", ".TP")]
    + [("bloom", "..P"), ("mamba2", "...")],
)
def test_slower_ways_give_the_same(family, way, tokenizer):
    backbone = CausalBackbone(tiny(family, **COMMON[family][1]), tokenizer, family)
    backbone.ways = Ways(*(mark != "." for mark in way))
    compare(backbone, tiny(family, **COMMON[family][1]))


def test_long_lists_of_labels_go_in_several_passes(tokenizer, monkeypatch):
    backbone = CausalBackbone(tiny("mamba2", **COMMON["mamba2"][1]), tokenizer, "mamba2")
    whole = backbone.score_labels(prompts(backbone), torch.tensor(READS), texts(), LABELS)
    monkeypatch.setattr("tpv.models.causal.SCORED_POSITIONS", 50)
    parts = backbone.score_labels(prompts(backbone), torch.tensor(READS), texts(), LABELS)
    torch.testing.assert_close(whole.log_probs, parts.log_probs, atol=1e-4, rtol=1e-5)
    assert torch.equal(whole.greedy, parts.greedy)


def test_an_architecture_is_tried_once(tokenizer, monkeypatch):
    monkeypatch.setattr("tpv.models.ways._known", {})
    calls = []
    real = CausalBackbone.node_logits
    monkeypatch.setattr(CausalBackbone, "node_logits", lambda *rest: calls.append(1) or real(*rest))
    before = torch.random.get_rng_state()
    model = tiny("llama")
    after = torch.random.get_rng_state()
    for _ in range(2):
        CausalBackbone(model, tokenizer, "llama")
    assert len(calls) == 4  # alone, plain, shared, tree
    assert torch.equal(after, torch.random.get_rng_state())
    assert not torch.equal(before, after)
    CausalBackbone(tiny("llama", num_hidden_layers=1), tokenizer, "llama")
    CausalBackbone(model, tokenizer, "llama", torch.bfloat16)
    assert len(calls) == 12


def test_attention_that_a_model_cannot_take_is_found_out(tokenizer, monkeypatch):
    """DeepSeek V3.2 leaves out its selection of positions where attention is not torch's."""
    monkeypatch.setattr("tpv.models.ways._known", {})
    monkeypatch.setattr("tpv.models.ways.SELECTIONS", ())
    for _ in range(2):  # tried, and known
        backbone = CausalBackbone(tiny("deepseek_v32", **INDEXED), tokenizer, "deepseek_v32")
        assert not backbone.ways.own_attention
        assert backbone.model.config._attn_implementation == "sdpa"


def test_a_model_of_few_positions_can_be_loaded(tokenizer):
    backbone = CausalBackbone(tiny("mistral", max_position_embeddings=16), tokenizer, "short")
    assert all(backbone.ways)


def test_recomputing_keeps_the_label_tree(tokenizer):
    backbone = CausalBackbone(tiny("llama"), tokenizer, "llama", recompute=True)
    assert backbone.ways == Ways(shared_prompts=False, label_tree=True, padding=True)
    assert not backbone.share_prompts
    compare(backbone, tiny("llama"))


def test_prompts_are_left_as_they_are(tokenizer):
    """CTRL scales embeddings in place."""
    backbone = CausalBackbone(tiny("ctrl", **COMMON["ctrl"][1]), tokenizer, "ctrl")
    bank = prompts(backbone)
    backbone.score_labels(bank, torch.tensor(READS), texts(), LABELS)
    assert torch.equal(bank, prompts(backbone))


def test_scores_do_not_depend_on_the_texts_before(tokenizer):
    """BigBird-Pegasus gives up sparse attention for good at the first short text."""
    backbone = Seq2SeqBackbone(tiny("bigbird_pegasus", **SEQ2SEQ["bigbird_pegasus"]), tokenizer, "big")
    bank, long = prompts(backbone), texts((60,))
    first = backbone.score_labels(bank, torch.tensor([0]), long, LABELS).log_probs
    backbone.score_labels(bank, torch.tensor([0]), texts((3,)), LABELS)
    assert torch.equal(first, backbone.score_labels(bank, torch.tensor([0]), long, LABELS).log_probs)


def test_a_decoder_that_is_not_causal_is_refused(tokenizer, monkeypatch):
    monkeypatch.setattr("tpv.models.ways._known", {})
    real = Seq2SeqBackbone.nll
    monkeypatch.setattr(Seq2SeqBackbone, "nll", lambda *rest: 1.5 * real(*rest))
    with pytest.raises(tpv.TpvError, match="the decoder of model 't5' reads words before it predicts them"):
        Seq2SeqBackbone(tiny("t5"), tokenizer, "t5")


# --- what is refused in one line ---------------------------------------------------------------------------
@pytest.mark.parametrize(("family", "most"), [("mpt", POSITIONS), ("led", POSITIONS), ("roberta", POSITIONS - 2)])
def test_more_positions_than_a_model_has(family, most, tokenizer):
    kind, own = (Seq2SeqBackbone, SEQ2SEQ[family]) if family == "led" else (CausalBackbone, (COMMON | RARE)[family][1])
    backbone = kind(tiny(family, **own), tokenizer, family)
    room = most - 5 - 2 * (family != "led")  # prompt, and what labels add
    bank, labels = prompts(backbone), [(5, 9, 0)]
    for length, fits in ((room, True), (room + 1, False)):
        for call in (backbone.nll, backbone.score_labels):
            rows = (bank, torch.tensor([0]), texts((length,)), labels)
            if fits:
                call(*rows)
            else:
                with pytest.raises(tpv.TpvError, match=f"expected at most {most} positions; got 5"):
                    call(*rows)


@pytest.fixture
def saved(tokenizer, tmp_path):
    """A folder with a tiny model, its configuration changed afterwards."""

    def build(family, tokenizer=tokenizer, own=None, **changes):
        folder = tmp_path / family
        tiny(family, **(own or {})).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return folder

    return build


def refused(folder, words, **options):
    with pytest.raises(tpv.TpvError, match=words) as caught:
        tpv.load_backbone(folder, **{"device": "cpu"} | options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("about", "name"),
    [
        ({"quant_method": "gptq", "bits": 4}, "GPTQ"),
        ({"quant_method": "awq", "bits": 4}, "AWQ"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "FP8"),
        ({"quant_method": "mxfp4"}, "MXFP4"),
        ({"quant_method": "abacus"}, "abacus"),
        ({"group_size": 64, "bits": 4}, "unknown method"),
    ],
)
def test_models_quantised_by_others_are_refused(saved, about, name):
    words = rf"is quantized \({name}\), which tpv does not support; expected weights in fp32.* quantized by bitsandbytes, or a GGUF file; got"
    refused(saved("llama", quantization_config=about), words)


def test_models_that_lack_something_are_refused(saved, tokenizer):
    refused(saved("mbart", own={"decoder_start_token_id": ...}), r"has no decoder start token.*configuration")
    endless = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    refused(saved("t5", endless, SPECIAL), "has no end-of-sequence token; name one in its tokenizer")
    refused(saved("llama", endless), "has no end-of-sequence token; name one in its tokenizer")
    refused(saved("gpt2"), "device 'meta' cannot be used; expected cpu, cuda or mps", device="meta")
    refused(saved("bert"), "reads text in both directions; expected a causal model.*; got BertLMHeadModel")


def test_models_that_generate_no_text_are_refused(tokenizer, tmp_path):
    config = AutoConfig.for_model("distilbert", vocab_size=VOCABULARY, dim=32, n_layers=1, n_heads=2, hidden_dim=64)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    refused(tmp_path, "does not generate text; expected a causal model.*; got model type 'distilbert'")


def test_a_tokenizer_with_more_words_than_the_model(saved, tokenizer):
    words = {"<eos>": 0} | {f"w{i}": i for i in range(1, VOCABULARY + 9)}
    large = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    large.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    large = PreTrainedTokenizerFast(tokenizer_object=large, eos_token="<eos>", pad_token=f"w{VOCABULARY + 1}")
    for family, own in (("llama", {}), ("t5", SPECIAL)):
        backbone = tpv.load_backbone(saved(family, large, own), device="cpu")
        assert backbone.pad_id == 0
        (row,) = backbone.encode_sources(["w3 w5"], 10)
        assert row[:2] == (3, 5)
        outside = f"has token 'w{VOCABULARY}', which is not in the model's vocabulary; expected ids below {VOCABULARY}"
        with pytest.raises(tpv.TpvError, match=outside):
            backbone.encode_sources(["w3 w5", f"w3 w{VOCABULARY}"], 10)
        with pytest.raises(tpv.TpvError, match=outside):
            backbone.encode_target(f"w{VOCABULARY}")
    beyond = PreTrainedTokenizerFast(tokenizer_object=large.backend_tokenizer, eos_token=f"w{VOCABULARY}")
    refused(
        saved("gpt2", beyond),
        f"end-of-sequence token .* is not in its vocabulary; .*below {VOCABULARY}; got {VOCABULARY}",
    )


def test_a_backbone_may_be_made_where_no_gradients_are_kept(random_t5, random_causal):
    with torch.no_grad():
        assert random_t5(11).identity.hidden_size == 32
        assert random_causal("llama", 11).share_prompts
