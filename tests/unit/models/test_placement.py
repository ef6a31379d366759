"""Models spread over devices: what is kept on disk changes no number, and maps that do not fit are refused."""

import gc

import pytest
import torch

import tpv
from tpv.evaluation.tuned import ModelChoice
from tpv.models.generation import Decoding

LAYERS = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
SPLIT = LAYERS | {"model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk"}
TEXTS = ["the man is eating an apple", "not good", "the plot is good and the cast is not"]


@pytest.fixture(scope="module")
def folder(random_causal, tmp_path_factory):
    """A small Llama as a folder."""
    made, path = random_causal("llama"), tmp_path_factory.mktemp("llama")
    made.model.save_pretrained(path)
    made.tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def plain(folder):
    return tpv.load_backbone(folder, device="cpu")


def results(backbone, start):
    """Losses, their gradient, scores of labels, hidden states and generated tokens of a few rows."""
    bank = torch.stack([start.tensor, start.tensor.flip(0)]).requires_grad_()
    index, sources = torch.tensor([1, 0, 1]), backbone.encode_sources(TEXTS, 64)
    words = [backbone.encode_target(word) for word in ("good", "bad", "not at all")]
    losses = backbone.nll(bank, index, sources, words)
    losses.sum().backward()
    fixed = bank.detach()
    scores = backbone.score_labels(fixed, index, sources, words)
    numbers = losses.detach(), bank.grad, scores.log_probs, backbone.hidden(fixed, index, sources, [0.5, 1.0])
    return numbers, backbone.generate(fixed, index, sources, Decoding(max_new_tokens=3))


@pytest.mark.parametrize(
    ("device_map", "options"),
    [("auto", {}), (SPLIT, {}), ({"": "disk"}, {}), ({"": "disk"}, {"gradient_checkpointing": True})],
    ids=["auto", "half on disk", "all on disk", "recomputed"],
)
def test_a_spread_model_gives_the_numbers_of_one_in_one_place(folder, plain, device_map, options):
    spread = tpv.load_backbone(folder, device_map=device_map, **options)
    away = [name for name, weight in spread.model.named_parameters() if weight.device.type == "meta"]
    on_disk = (
        {"layers.0", "layers.1", "layers.2", "lm_head"} if device_map == {"": "disk"} else {"layers.1", "layers.2"}
    )
    assert [any(part in name for name in away) for part in sorted(on_disk)] == [device_map != "auto"] * len(on_disk)
    start = tpv.SoftPrompt.sample(plain, 4, seed=0)
    assert tpv.SoftPrompt.sample(spread, 4, seed=0) == start
    (numbers, said), (expected, words) = results(spread, start), results(plain, start)
    for found, right in zip(numbers, expected, strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
    assert numbers[1].dtype == torch.float32
    assert said == words
    assert spread.identity.fingerprint == plain.identity.fingerprint
    assert spread.weights_digest() == plain.weights_digest()
    assert spread.ways == (plain.ways._replace(shared_prompts=False) if options else plain.ways)


def test_an_encoder_decoder_is_tuned_with_its_weights_on_disk(backbone, toy_task):
    spread, task = tpv.load_backbone("mini", device_map={"": "disk"}), toy_task(["good", "bad"])
    start = tpv.SoftPrompt.sample(backbone, 4, seed=0)
    one, other = (tpv.fit(model, task, start, tpv.Recipe(steps=3, lr=0.3)) for model in (backbone, spread))
    assert (one.tensor - start.tensor).abs().max() > 0.1
    torch.testing.assert_close(one.tensor, other.tensor, rtol=1e-3, atol=1e-4)


def test_the_folder_for_weights_goes_with_the_model(folder, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spread = tpv.load_backbone(folder, device_map=SPLIT)
    assert len(list(tmp_path.iterdir())) == 1
    del spread
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(tpv.TpvError, match=r"cannot be loaded onto these devices.*lm_head"):
        tpv.load_backbone(folder, device_map={name: place for name, place in SPLIT.items() if name != "lm_head"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("device_map", "more", "words"),
    [
        ("auto", {"device": "cpu"}, "device and device_map; expected one of them"),
        ("automatic", {}, "device_map; expected auto, balanced.*or a dict; got 'automatic'"),
        ({}, {}, "device_map; expected 'auto', or a dict"),
        ({0: "cpu"}, {}, "device_map; expected names of modules as keys; got 0"),
        ({"": 99}, {}, "device_map, module ''; expected a device of this machine .*; got 99"),
        ({"": True}, {}, "device_map, module ''; expected a GPU's number, 'cpu' or 'disk'; got True"),
        ({"": "meta"}, {}, "device 'meta' cannot be used"),
        ({"": "moon"}, {}, "device 'moon' cannot be used"),
        ({"": "disk"}, {"quantization": "bnb-4bit"}, "quantized layers cannot be kept in memory or on the disk"),
    ],
)
def test_maps_that_do_not_fit_are_refused(folder, device_map, more, words):
    with pytest.raises(tpv.TpvError, match=words) as caught:
        tpv.load_backbone(folder, device_map=device_map, **more)
    assert "\n" not in str(caught.value)


def test_copies_of_tied_weights_in_two_places_are_refused():
    with pytest.raises(
        tpv.TpvError, match=r"one place for decoder\.embed_tokens\.weight and shared\.weight, which are"
    ):
        tpv.load_backbone("mini", device_map={"shared": "cpu", "lm_head": "cpu", "encoder": "cpu", "decoder": "disk"})


def test_without_accelerate_it_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr("tpv.errors.find_spec", lambda name: None if name == "accelerate" else object())
    with pytest.raises(tpv.TpvError, match=r"device_map; expected the package accelerate; .*pip install 'tpv\[big\]'"):
        tpv.load_backbone(folder, device_map="auto")
    tpv.load_backbone(folder, device="cpu")


def test_a_map_on_the_command_line_and_in_a_config(folder, run, tmp_path, toy_task):
    from tpv.studies.settings import Model

    toy_task(["good", "bad"])
    (tmp_path / "map.json").write_text('{"": "disk"}')
    rows = ("--train", tmp_path / "toy.csv", "--labels", "good,bad")
    train = ("tune", *rows, "--model", folder, "--steps", 2, "--tokens", 3)
    where = ("--out", tmp_path / "tuned", "--device-map", tmp_path / "map.json")
    code, out, err = run(*train, *where)
    assert (code, err.count("Traceback")) == (0, 0), (out, err)
    choice = ModelChoice(name=str(folder)).load(device="cpu").identity
    assert tpv.SoftPrompt.load(tmp_path / "tuned" / "prompt.safetensors").model.fingerprint == choice.fingerprint
    code, _, err = run(*train, "--out", tmp_path / "other", "--device-map", "automatic")
    assert (code, "expected auto, balanced" in err) == (2, True)
    code, _, err = run(*train, "--out", tmp_path / "other", "--device-map", "missing.json")
    assert (code, "device map missing.json" in err) == (2, True)
    assert Model(name="mini", device_map={"encoder": 0, "decoder": "disk"}).device_map == {
        "encoder": 0,
        "decoder": "disk",
    }
