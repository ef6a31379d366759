"""Models in 4 and 8 bits against plain ones with the same numbers as weights."""

import copy
import json

import pytest
import torch

import tpv
from tpv.interop.card import _models

pytest.importorskip("bitsandbytes", reason="needs the extra big")

TEXTS = ["the man is eating an apple", "not good", "the plot is good and the cast is not"]
KINDS = {"bnb-4bit": "bitsandbytes nf4, double quantization", "bnb-8bit": "bitsandbytes int8"}


@pytest.fixture(scope="module")
def folder(random_causal, tmp_path_factory):
    """A small Llama as a folder."""
    made, path = random_causal("llama"), tmp_path_factory.mktemp("llama")
    with torch.no_grad():  # smooth, so that what 8 bits round of activations stays small
        for layer in made.model.model.layers.parameters():
            layer.mul_(0.4 if layer.ndim == 2 else 1.0)
    made.model.save_pretrained(path)
    made.tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def plain(folder):
    return tpv.load_backbone(folder, device="cpu")


@pytest.fixture(scope="module", params=KINDS)
def quantized(request, folder):
    return tpv.load_backbone(folder, device="cpu", quantization=request.param)


def dequantized(quantized, plain):
    """A plain model with the numbers that the layers of a quantised one stand for."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    model = copy.deepcopy(plain.model)
    count = 0
    for name, layer in quantized.model.named_modules():
        if isinstance(layer, Linear4bit):
            weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        elif isinstance(layer, Linear8bitLt):
            kept = layer.weight if layer.state.CB is None else layer.state
            weight = kept.CB.float() * kept.SCB[:, None] / 127
        else:
            continue
        model.get_submodule(name).weight.data.copy_(weight)
        count += 1
    assert count == 3 * 7  # the projections of every layer
    return tpv.models.CausalBackbone(model, plain.tokenizer, "dequantised")


def loss(backbone, bank):
    sources = backbone.encode_sources(TEXTS, 64)
    targets = [backbone.encode_target(word) for word in ("good", "bad", "not at all")]
    return backbone.nll(bank, torch.tensor([1, 0, 1]), sources, targets)


def bank_of(backbone, seed=0):
    starts = (tpv.SoftPrompt.sample(backbone, 4, seed=seed + more).tensor for more in range(2))
    return torch.stack(list(starts)).requires_grad_()


def gradient(backbone, bank):
    (found,) = torch.autograd.grad(loss(backbone, bank).sum(), bank)
    return found


def test_loss_and_gradient_are_those_of_the_numbers_that_the_weights_stand_for(quantized, plain):
    reference, bank = dequantized(quantized, plain), bank_of(plain)
    # 8 bits: each layer's input is rounded, too, which no gradient sees
    near = 1e-4 if "nf4" in quantized.identity.quantization else 0.1
    right, found = gradient(reference, bank), gradient(quantized, bank)
    assert found.dtype == torch.float32
    assert (found - right).norm() < near * right.norm()
    assert (gradient(plain, bank) - right).norm() > 0.01 * right.norm()  # the rounding itself is seen
    assert torch.allclose(loss(quantized, bank), loss(reference, bank), rtol=near)
    assert not any(weight.requires_grad for weight in quantized.model.parameters())


def test_the_gradient_is_the_slope_also_after_scoring(quantized, plain):
    """bitsandbytes packs weights for passes without a gradient, and has no backward pass for what it packed."""
    bank = bank_of(plain, seed=5)
    before = gradient(quantized, bank)
    words = [quantized.encode_target(word) for word in ("good", "bad")]
    quantized.score_labels(bank.detach(), torch.tensor([1]), quantized.encode_sources(TEXTS[:1], 64), words)
    after = gradient(quantized, bank)
    torch.testing.assert_close(after, before)
    way = after / after.norm()
    # in 8 bits, small steps drown in the rounding of activations
    step, near = (5e-3, 0.01) if "nf4" in quantized.identity.quantization else (0.2, 0.1)
    up, down = (loss(quantized, (bank + size * way).detach().requires_grad_()).sum() for size in (step, -step))
    slope = (up - down).item() / (2 * step)
    assert slope == pytest.approx(after.norm().item(), rel=near)


def test_scores_of_labels_are_the_losses(quantized, plain):
    bank = bank_of(plain)
    sources = quantized.encode_sources(TEXTS, 64)
    words = [quantized.encode_target(word) for word in ("good", "bad", "not at all")]
    scores = quantized.score_labels(bank.detach(), torch.tensor([1, 0, 1]), sources, words).log_probs
    assert torch.allclose(-scores.diagonal(), loss(quantized, bank), rtol=0.03)


def test_a_model_in_few_bits_is_another_model_and_says_so(quantized, plain):
    kind = quantized.identity.quantization
    assert kind in KINDS.values()
    assert kind in str(quantized.identity)
    assert quantized.identity.fingerprint != plain.identity.fingerprint
    assert quantized.weights_digest() != plain.weights_digest()
    prompt = tpv.SoftPrompt.sample(quantized, 4, seed=0)
    assert torch.equal(prompt.tensor, tpv.SoftPrompt.sample(plain, 4, seed=0).tensor)
    with pytest.raises(tpv.TpvError, match="model"):
        prompt - tpv.SoftPrompt.sample(plain, 4, seed=0)
    assert kind in _models({"a.safetensors": prompt})
    assert json.loads(prompt.model.model_dump_json())["quantization"] == kind
    assert "quantization" not in plain.identity.model_dump()  # files of plain models stay as they were


def test_a_folder_saved_quantised_loads_as_it_is(quantized, plain, tmp_path):
    quantized.model.save_pretrained(tmp_path)
    quantized.tokenizer.save_pretrained(tmp_path)
    assert "quantization_config" in json.loads((tmp_path / "config.json").read_text())
    again = tpv.load_backbone(tmp_path, device="cpu")
    assert again.identity.fingerprint == quantized.identity.fingerprint
    assert again.weights_digest() == quantized.weights_digest()
    bank = bank_of(plain)
    torch.testing.assert_close(gradient(again, bank), gradient(quantized, bank))
    with pytest.raises(tpv.TpvError, match="is quantized already; got quantization 'bnb-8bit'; leave it out"):
        tpv.load_backbone(tmp_path, device="cpu", quantization="bnb-8bit")


def test_precision_is_what_quantised_layers_calculate_in(folder, plain):
    from bitsandbytes.nn import Linear4bit

    half = tpv.load_backbone(folder, device="cpu", quantization="bnb-4bit", precision="bf16")
    layers = [layer for layer in half.model.modules() if isinstance(layer, Linear4bit)]
    assert {layer.compute_dtype for layer in layers} == {torch.bfloat16}
    assert half.model.dtype == torch.bfloat16
    full = tpv.load_backbone(folder, device="cpu", quantization="bnb-4bit")
    assert half.identity.fingerprint == full.identity.fingerprint
    bank = bank_of(plain)
    found, right = gradient(half, bank), gradient(full, bank)
    assert found.dtype == torch.float32
    assert (found - right).norm() < 0.3 * right.norm()


def test_a_prompt_is_tuned_on_an_encoder_decoder_in_four_bits(tmp_path, toy_task, run):
    task = toy_task(["good", "bad"], rows=40)
    backbone = tpv.load_backbone("mini", device="cpu", quantization="bnb-4bit")
    start = tpv.SoftPrompt.sample(backbone, 4, seed=0)
    recipe = tpv.Recipe(steps=30, lr=0.5, select="last")
    tuned = tpv.fit(backbone, task, start, recipe)
    before, after = (tpv.evaluate(backbone, task, prompt, "train").loss for prompt in (start, tuned))
    assert after < 0.7 * before
    made = ("tune", "--train", tmp_path / "toy.csv", "--labels", "good,bad", "--steps", 2, "--tokens", 3)
    code, out, err = run(*made, "--out", tmp_path / "tuned", "--device", "cpu", "--quantization", "bnb-4bit")
    assert code == 0, (out, err)
    assert tpv.SoftPrompt.load(tmp_path / "tuned" / "prompt.safetensors").model == backbone.identity
    code, out, err = run("predict", tmp_path / "tuned", "a fine film", "--device", "cpu")  # as tuned, without an option
    assert code == 0, (out, err)


def test_what_cannot_be_loaded_is_refused(folder, monkeypatch):
    with pytest.raises(tpv.TpvError, match="quantization; expected 'bnb-4bit' or 'bnb-8bit'; got 'int3'"):
        tpv.load_backbone(folder, device="cpu", quantization="int3")
    monkeypatch.setattr("tpv.errors.find_spec", lambda name: None if name == "bitsandbytes" else object())
    words = r"in 4 or 8 bits; expected the package bitsandbytes; got none; pip install 'tpv\[big\]'"
    with pytest.raises(tpv.TpvError, match=words):
        tpv.load_backbone(folder, device="cpu", quantization="bnb-4bit")


def test_without_bitsandbytes_a_quantised_folder_says_what_to_install(folder, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(folder, tmp_path / "kept")
    config = json.loads((folder / "config.json").read_text())
    about = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    (tmp_path / "kept" / "config.json").write_text(json.dumps(config | {"quantization_config": about}))
    monkeypatch.setattr("tpv.errors.find_spec", lambda name: None if name == "bitsandbytes" else object())
    with pytest.raises(tpv.TpvError, match=r"expected the package bitsandbytes; got none; pip install 'tpv\[big\]'"):
        tpv.load_backbone(tmp_path / "kept", device="cpu")
