"""Our attention is as exact as that of torch and `transformers`, and used only where it is meant to be."""

import copy

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, MT5Config, MT5ForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward

import tpv
from tpv import mini
from tpv.models import Seq2SeqBackbone, attention


class Layer(torch.nn.Module):
    def __init__(self, groups, causal):
        super().__init__()
        self.num_key_value_groups, self.is_causal = groups, causal


def inputs(groups, keys=12, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(1)
    shapes = ((3, 4, 8, 16), (3, 4 // groups, keys, 16), (3, 4 // groups, keys, 16))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def masks():
    generator = torch.Generator().manual_seed(2)
    seen = torch.rand(3, 1, 8, 12, generator=generator) < 0.6
    seen[..., 0] = True
    additive = torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill(~seen, torch.finfo(torch.bfloat16).min)
    bias = torch.randn(1, 4, 8, 12, generator=generator).bfloat16()
    return {"bool": (seen, None), "additive": (additive, None), "bias": (None, bias), "both": (seen, bias)}


def gradients(function, layer, tensors, mask, bias):
    output = function(layer, *tensors, mask, scaling=0.3, position_bias=bias)[0]
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape).to(output.dtype)
    return [output.detach(), *torch.autograd.grad((output * weights).sum(), tensors)]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("kind", ["bool", "additive", "bias", "both", "causal"])
def test_it_is_as_exact_as_the_fused_kernel(groups, kind):
    mask, bias = (None, None) if kind == "causal" else masks()[kind]
    tensors = inputs(groups, keys=8 if kind == "causal" else 12)
    layer = Layer(groups, causal=kind == "causal")
    exact = [tensor.detach().double().requires_grad_() for tensor in tensors]
    wide = [None if part is None else part.double() if part.is_floating_point() else part for part in (mask, bias)]
    reference = gradients(sdpa_attention_forward, layer, exact, *wide)
    fused = gradients(sdpa_attention_forward, layer, tensors, mask, bias)
    mine = gradients(attention._attention, layer, tensors, mask, bias)
    for ours, theirs, true in zip(mine, fused, reference, strict=True):
        error, allowed = (float((part.double() - true).norm() / true.norm()) for part in (ours, theirs))
        assert error < max(0.01, 2 * allowed)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_next_position_after_a_cache_sees_all_of_it(groups):
    query, key, value = (tensor.detach() for tensor in inputs(groups))
    layer = Layer(groups, causal=True)
    mine = attention._attention(layer, query[:, :, -1:], key, value, None)[0]
    theirs = sdpa_attention_forward(layer, query[:, :, -1:], key, value, None)[0]
    torch.testing.assert_close(mine, theirs, atol=0.02, rtol=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_elsewhere_it_is_the_fused_kernel(dtype, monkeypatch):
    calls = []

    def counted(*arguments, **options):
        calls.append(1)
        return sdpa_attention_forward(*arguments, **options)

    monkeypatch.setattr(attention, "sdpa_attention_forward", counted)
    layer, mask = Layer(2, False), masks()["bool"][0]
    tensors = inputs(2, dtype=dtype)
    attention._attention(layer, *tensors, mask)
    assert len(calls) == (dtype == torch.float32)
    attention._attention(layer, *tensors, mask, dropout=0.1)
    assert len(calls) == 1 + (dtype == torch.float32)
    monkeypatch.setattr(attention, "MOST_SCORES", 8)
    attention._attention(layer, *tensors, mask)
    assert len(calls) == 2 + (dtype == torch.float32)


def test_models_that_do_not_use_the_fused_kernel_keep_their_own(random_causal):
    model = random_causal("llama").model
    assert model.config._attn_implementation == attention.NAME
    model.set_attn_implementation("eager")
    attention.set_attention(model)
    assert model.config._attn_implementation == "eager"


@pytest.fixture(params=["t5", "mt5"])
def patched_and_stock(request, random_t5):
    """A backbone, and its model as `transformers` makes it."""
    backbone = random_t5(num_heads=2, d_kv=16)
    if request.param == "t5":
        stock = type(backbone.model)(copy.deepcopy(backbone.model.config))
    else:
        config = {key: value for key, value in backbone.model.config.to_dict().items() if key != "model_type"}
        stock = MT5ForConditionalGeneration(MT5Config(**config))
        backbone = Seq2SeqBackbone(copy.deepcopy(stock), backbone.tokenizer, "mt5")
    stock.load_state_dict(backbone.model.state_dict())
    return backbone, stock.eval().requires_grad_(False)


def counted(monkeypatch):
    calls = []
    real = attention._unprojected

    def count(*arguments):
        calls.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(attention, "_unprojected", count)
    return calls


@pytest.mark.parametrize("said", [1, 3, 12])
def test_reading_the_encoder_without_keys_and_values_changes_nothing(patched_and_stock, said, monkeypatch):
    backbone, stock = patched_and_stock
    calls = counted(monkeypatch)
    generator = torch.Generator().manual_seed(said)
    embeds = torch.randn(3, 40, 32, generator=generator)
    mask = torch.arange(40)[None] < torch.tensor([[40], [25], [7]])
    words = torch.randint(2, 600, (3, said), generator=generator)
    found = []
    for model in (backbone.model, stock):
        leaf = embeds.clone().requires_grad_()
        logits = model(inputs_embeds=leaf, attention_mask=mask.long(), decoder_input_ids=words, use_cache=False).logits
        (logits * torch.linspace(-1, 1, logits.numel()).view(logits.shape)).sum().backward()
        found.append((logits.detach(), leaf.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-4)
    layers = backbone.model.config.num_decoder_layers
    assert len(calls) == (layers if said < 12 else 0)  # 12 x (1 / 40 + 1 / 16) > 1: more work, so not done


def test_generation_with_a_cache_is_the_stock_models(patched_and_stock, monkeypatch):
    backbone, stock = patched_and_stock
    calls = counted(monkeypatch)
    ids = torch.randint(2, 600, (2, 30), generator=torch.Generator().manual_seed(0))
    outputs = [model.generate(ids, max_new_tokens=5, do_sample=False) for model in (backbone.model, stock)]
    assert torch.equal(*outputs)
    assert not calls


def test_labels_are_scored_as_with_a_cache_of_keys_and_values(random_t5, monkeypatch):
    backbone = random_t5(num_heads=2, d_kv=16)
    prompt = tpv.SoftPrompt.sample(backbone, 30, 0).tensor[None]
    sources = backbone.encode_sources(["the man is eating.", "a", "the plot is good and the cast is not"], 256)
    labels = [backbone.encode_target(word) for word in ("good", "Educational Institution")]
    calls = counted(monkeypatch)
    found = backbone.score_labels(prompt, torch.zeros(3, dtype=torch.long), sources, labels)
    assert calls
    monkeypatch.setattr(attention, "reads_encoder", lambda _: False)
    monkeypatch.setattr(backbone, "_reads_unprojected", False)
    before = len(calls)
    plain = backbone.score_labels(prompt, torch.zeros(3, dtype=torch.long), sources, labels)
    assert len(calls) == before
    torch.testing.assert_close(found.log_probs, plain.log_probs, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.greedy, plain.greedy)


def test_quantised_or_wrapped_projections_are_left_alone(random_t5):
    cross = random_t5().model.decoder.block[0].layer[1].EncDecAttention
    assert attention.reads_encoder(cross)
    cross.k = torch.nn.Sequential(cross.k)
    assert not attention.reads_encoder(cross)
    assert not attention.reads_encoder(random_t5().model.encoder.block[0].layer[0].SelfAttention)


def test_speed_changes_no_result():
    """A prompt of 50 steps, and what it says, as without anything of ours in the model."""
    fast = tpv.load_backbone("mini", device="cpu")
    plain = copy.copy(fast)
    plain.model = AutoModelForSeq2SeqLM.from_pretrained(mini.model_folder()).eval().requires_grad_(False)
    plain._embed, plain._head = plain.model.get_input_embeddings(), plain.model.get_output_embeddings()
    plain._reads_unprojected = False
    task = tpv.load_task("mini/trec", seed=0)
    start = tpv.SoftPrompt.sample(fast, 20, 0)
    recipe = tpv.Recipe(steps=50, batch_size=16, lr=0.3, select="last")
    ours, theirs = (tpv.fit(model, task, [start], recipe, callback=lambda _: None)[0] for model in (fast, plain))
    distance = (ours.tensor - theirs.tensor).norm() / (theirs - start).norm()
    assert distance < 1e-3
    said = [tpv.evaluate(model, task, ours, "test").predictions for model in (fast, plain)]
    assert said[0]["said"].equals(said[1]["predicted"])
