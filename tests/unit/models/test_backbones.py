"""The encoder-decoder backbone against PEFT and the stock model, and how loading fails."""

import json
import shutil
import warnings

import pytest
import torch
from peft import PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import tpv
from tpv import mini
from tpv.prompts.provenance import fingerprint


def reference_losses(backbone, prompt, rows, parameter=None):
    """Each row alone through the stock model: prompt, text, labels; no padding anywhere."""
    losses = []
    for source, target in rows:
        embeds = backbone.model.get_input_embeddings()(torch.tensor([source]))
        joined = torch.cat([(prompt if parameter is None else parameter)[None], embeds], 1)
        out = backbone.model(inputs_embeds=joined, labels=torch.tensor([target]))
        losses.append(out.loss * len(target))
    return torch.stack(losses)


@pytest.fixture
def rows(random_t5):
    backbone = random_t5()
    texts = ["the man is eating.", "a", "the plot is good and the cast is not bad at all in the garden"]
    words = ["good", "Educational Institution", "Sci/Tech is good"]
    return list(zip(backbone.encode_sources(texts, 256), map(backbone.encode_target, words), strict=True))


def test_nll_and_its_gradient_equal_the_stock_model_row_by_row(random_t5, rows):
    backbone = random_t5()
    bank = torch.stack([tpv.SoftPrompt.sample(backbone, 6, seed=s).tensor for s in range(2)]).requires_grad_()
    index = torch.tensor([1, 0, 1])
    losses = backbone.nll(bank, index, *zip(*rows, strict=True))
    losses.sum().backward()
    leaf = bank.detach().clone().requires_grad_()
    expected = torch.cat([reference_losses(backbone, leaf[k], [row]) for k, row in zip(index, rows, strict=True)])
    expected.sum().backward()
    assert torch.allclose(losses, expected, atol=1e-5)
    assert torch.allclose(bank.grad, leaf.grad, atol=1e-6)
    assert all(weight.grad is None for weight in backbone.model.parameters())


def test_the_prompt_is_read_as_peft_reads_it(random_t5, rows):
    """Same loss and gradient as `PeftModelForSeq2SeqLM` with one transformer submodule."""
    backbone = random_t5()
    prompt = tpv.SoftPrompt.sample(backbone, 6, seed=0)
    config = PromptTuningConfig(task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=6, num_transformer_submodules=1)
    peft_model = get_peft_model(backbone.model, config).eval()
    weight = peft_model.prompt_encoder["default"].embedding.weight
    weight.data.copy_(prompt.tensor)
    sources, targets = zip(*rows, strict=True)
    width, tall = max(map(len, sources)), max(map(len, targets))
    ids = torch.tensor([[*s, *[0] * (width - len(s))] for s in sources])
    labels = torch.tensor([[*t, *[-100] * (tall - len(t))] for t in targets])
    loss = peft_model(input_ids=ids, attention_mask=(ids != 0).long(), labels=labels).loss
    loss.backward()
    bank = prompt.tensor[None].requires_grad_()
    ours = backbone.nll(bank, torch.zeros(3, dtype=torch.long), sources, targets).sum() / sum(map(len, targets))
    ours.backward()
    assert ours.item() == pytest.approx(loss.item(), abs=1e-5)
    assert torch.allclose(bank.grad[0], weight.grad, atol=1e-6)


def test_texts_are_cut_with_their_end_token_kept(backbone):
    (cut,) = backbone.encode_sources(["the man is eating an apple in the kitchen"], 5)
    assert len(cut) == 5
    assert cut[-1] == backbone.tokenizer.eos_token_id


def test_the_fingerprint_is_of_weights_not_of_names_or_precision(random_t5, tmp_path):
    one, same, other = random_t5(0), random_t5(0), random_t5(1)
    assert one.identity.fingerprint == same.identity.fingerprint != other.identity.fingerprint
    shutil.copytree(mini.model_folder(), tmp_path / "copy")
    copy = tpv.load_backbone(tmp_path / "copy")
    half = tpv.load_backbone("mini", precision="bf16")
    assert copy.identity.fingerprint == half.identity.fingerprint == tpv.load_backbone("mini").identity.fingerprint
    assert copy.identity.name != half.identity.name
    flat = torch.arange(12.0).reshape(3, 4)
    assert fingerprint(flat) != fingerprint(flat.reshape(4, 3))


def test_a_backbone_loaded_in_bf16_scores(backbone):
    half = tpv.load_backbone("mini", precision="bf16", device="cpu")
    prompt, task = tpv.SoftPrompt.sample(backbone, 5), tpv.load_task("mini/sst2")
    one, two = (tpv.evaluate(model, task, prompt, "validation") for model in (backbone, half))
    assert two.loss == pytest.approx(one.loss, rel=0.1)
    assert prompt == tpv.SoftPrompt.sample(half, 5)  # a start has one value, whatever the model runs in


@pytest.mark.parametrize("there", [True, False])
def test_bf16_on_a_processor_without_its_instructions_is_told(monkeypatch, there):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: there)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        tpv.load_backbone("mini", precision="bf16", device="cpu")
        tpv.load_backbone("mini", device="cpu")
    assert [str(one.message)[:23] for one in told] == [] if there else ["bf16 is slower than fp32"[:23]]


def test_models_that_cannot_be_loaded_say_why(tmp_path, monkeypatch):
    monkeypatch.setattr("tpv.models.loading.hub_answers", lambda: False)

    def broken(name, change):
        folder = tmp_path / name
        shutil.copytree(mini.model_folder(), folder)
        change(folder)
        return folder

    def edit(folder, **values):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    def without_decoder(folder):
        weights = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in weights.items() if not name.startswith("decoder.block.1")}
        save_file(kept, folder / "model.safetensors", {"format": "pt"})

    def only_pickle(folder):
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")

    def gguf(architecture, cut=None):
        from gguf import GGUFWriter

        path = tmp_path / f"{architecture}.gguf"
        writer = GGUFWriter(path, architecture)
        writer.add_block_count(1)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        path.write_bytes(path.read_bytes()[:cut])
        return path

    monkeypatch.setenv("TPV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tpv.models.gguf.PACKAGE", "no_such_package")
    notes = tmp_path / "notes.gguf"
    notes.write_text("not a model")
    cases = [
        ("no-such-model-anywhere", "not on this machine and the Hugging Face hub cannot be reached.*'mini'"),
        (tmp_path / "missing", "does not exist"),
        (broken("weights", lambda folder: (folder / "model.safetensors").unlink()), "no usable safetensors weights"),
        (broken("pickle", only_pickle), r"pickled weights only.*expected \*.safetensors; got pytorch_model.bin"),
        (
            broken("cut", lambda folder: (folder / "model.safetensors").write_bytes(b"12345")),
            "no usable safetensors weights",
        ),
        (broken("tokenizer", lambda folder: [f.unlink() for f in folder.glob("tokenizer*")]), "no usable tokenizer"),
        (broken("part", without_decoder), "do not fit its configuration; got missing keys: decoder"),
        (broken("shape", lambda folder: edit(folder, d_ff=100)), "no usable safetensors weights|do not fit"),
        (broken("config", lambda folder: (folder / "config.json").write_text("{")), "no usable configuration"),
        (broken("causal", lambda folder: edit(folder, model_type="gpt2", is_encoder_decoder=False)), "do not fit"),
        (broken("unknown", lambda folder: edit(folder, model_type="abacus")), "no usable configuration.*abacus"),
        (gguf("abacus"), "cannot be converted; got .*abacus"),
        (gguf("llama", cut=40), "cannot be converted"),
        (notes, "is not GGUF"),
        (tmp_path / "none.gguf", "cannot be read"),
        ("nul\0name", "does not exist|is no path"),
        ("n" * 5000, "is no path|not on this machine"),
        ("smollm2", "is not installed.*make real"),
    ]
    for name, words in cases:
        with pytest.raises(tpv.TpvError, match=words) as caught:
            tpv.load_backbone(name)
        assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").iterdir())  # nothing half-made is kept
    with pytest.raises(tpv.TpvError, match=r"revision 'v2'.*got a local model"):
        tpv.load_backbone("mini", revision="v2")
    with pytest.raises(tpv.TpvError, match=r"encoder-decoder.*drop chat"):
        tpv.load_backbone("mini", chat=True)
    with pytest.raises(tpv.TpvError, match="activations of T5 overflow"):
        tpv.load_backbone("mini", precision="fp16")
    with pytest.raises(tpv.TpvError, match="device"):
        tpv.load_backbone("mini", device="abacus")


def test_a_causal_model_in_a_folder_is_loaded(random_causal, tmp_path):
    made = random_causal("llama")
    made.model.save_pretrained(tmp_path)
    made.tokenizer.save_pretrained(tmp_path)
    loaded = tpv.load_backbone(tmp_path, device="cpu")
    assert loaded.weights_digest() == made.weights_digest()
    assert loaded.identity.fingerprint == made.identity.fingerprint
    task, prompt = tpv.load_task("mini/sst2").limited({"test": 20}, 0), tpv.SoftPrompt.sample(made, 4)
    assert tpv.evaluate(loaded, task, prompt).loss == tpv.evaluate(made, task, prompt).loss
    chatty = tpv.load_backbone(str(tmp_path), device="cpu", chat=True, gradient_checkpointing=True)
    assert tpv.evaluate(chatty, task, prompt).loss != tpv.evaluate(made, task, prompt).loss


def test_a_gguf_file_is_converted_once(random_causal, tmp_path, monkeypatch):
    from gguf import GGUFWriter

    monkeypatch.setenv("TPV_CACHE", str(tmp_path / "cache"))
    made = random_causal("llama")
    config, tokenizer = made.model.config, made.tokenizer
    path = tmp_path / "small.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    words = [tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))]
    writer.add_token_list(words)
    writer.add_token_types([3 if i < 2 else 1 for i in range(len(words))])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, value in made.model.state_dict().items():
        stem = name.removesuffix(".weight")
        if stem in top:
            new = top[stem]
        else:
            _, _, layer, part = stem.split(".", 3)
            new = f"blk.{layer}.{names[part]}"
        writer.add_tensor(f"{new}.weight", _interleaved(value, new, config).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = AutoTokenizer.from_pretrained

    def mistaken(*args, **kwargs):  # as transformers 5.17 read a file's special tokens
        found = read(*args, **kwargs)
        if "gguf_file" in kwargs:
            found.eos_token = words[5]
        return found

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", mistaken)
    loaded = tpv.load_backbone(path, device="cpu")
    assert loaded.tokenizer.eos_token_id == made.tokenizer.eos_token_id
    assert loaded.identity.name == str(path)
    assert torch.equal(loaded.embeddings(), made.embeddings())
    task, prompt = tpv.load_task("mini/sst2").limited({"test": 20}, 0), tpv.SoftPrompt.sample(made, 4)
    one, two = (tpv.evaluate(model, task, prompt) for model in (loaded, made))
    assert one.loss == pytest.approx(two.loss, rel=1e-5)
    (folder,) = (tmp_path / "cache").iterdir()
    before = (folder / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr("tpv.models.gguf._convert", lambda *_: pytest.fail("converted again"))
    tpv.load_backbone(path, device="cpu")
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def _interleaved(value, name, config):
    """Queries and keys as llama.cpp's own converter stores them: the two halves of a head's rotation interleaved."""
    if not name.endswith(("attn_q", "attn_k")):
        return value.contiguous()
    heads = config.num_attention_heads if name.endswith("attn_q") else config.num_key_value_heads
    parts = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
    return parts.swapaxes(1, 2).reshape(value.shape).contiguous()
