"""In and out of PEFT, against the PEFT that is installed."""

import copy
import hashlib
import json
import warnings

import peft
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toys import teach
from transformers import LlamaConfig, LlamaForCausalLM

import tpv
from tpv import mini
from tpv.compat.half import half_prompt
from tpv.prompts.algebra import SoftPrompt
from tpv.prompts.provenance import Init, ModelIdentity, fingerprint

pytestmark = [  # what PEFT and transformers say to each other
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning"),
]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def wrapped(model, method=peft.PromptTuningConfig, **options):
    """A fresh PEFT model around a copy: PEFT writes into the model that it wraps."""
    defaults = {"task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": 6}
    return peft.get_peft_model(copy.deepcopy(model), method(**(defaults | options))).eval()


def loaded(model, folder):
    return peft.PeftModel.from_pretrained(copy.deepcopy(model), folder).eval()


def edit(folder, **changes):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


@pytest.fixture
def foreign(random_t5, tmp_path):
    """An adapter of plain PEFT on a random T5: rows doubled, model unnamed."""
    torch.manual_seed(3)
    wrapped(random_t5().model).save_pretrained(tmp_path / "foreign")
    return tmp_path / "foreign"


@pytest.fixture
def batch(backbone):
    texts = ["sentence: the plot is dull", "sentence: a feast", "premise: the man is eating an apple in a garden"]
    return backbone.tokenizer(texts, return_tensors="pt", padding=True)


@pytest.fixture
def llama():
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    ).eval()
    table = model.get_input_embeddings().weight.detach()
    return model, ModelIdentity(
        name="llama", fingerprint=fingerprint(table), hidden_size=16, architecture="decoder-only"
    )


# --- out ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("which", ["random", "embedded"])
@torch.no_grad()
def test_peft_computes_what_tpv_computes(which, backbone, random_t5, batch, tmp_path):
    ours = backbone if which == "embedded" else random_t5(1)
    prompt = tpv.SoftPrompt.normal(ours, 5, seed=1)
    prompt.to_peft(tmp_path)
    theirs = loaded(ours.model, tmp_path)
    assert isinstance(theirs, peft.PeftModelForSeq2SeqLM)
    words = ["positive", "negative", "entailment"]
    targets = [ours.encode_target(word) for word in words]
    sources = [
        tuple(row[mask.bool()].tolist()) for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    index = torch.zeros(len(sources), dtype=torch.long)
    for column, target in enumerate(targets):
        decoder = torch.tensor([[0, *target[:-1]]]).expand(len(sources), -1)
        logits = theirs(**batch, decoder_input_ids=decoder).logits
        text = ours.model.get_input_embeddings()(batch["input_ids"])
        by_hand = ours.model(
            inputs_embeds=torch.cat([prompt.tensor.expand(len(sources), -1, -1), text], 1),
            attention_mask=torch.cat([torch.ones(len(sources), 5), batch["attention_mask"]], 1),
            decoder_input_ids=decoder,
        ).logits
        assert torch.allclose(logits, by_hand, atol=1e-4)
        without = ours.model(**batch, decoder_input_ids=decoder).logits
        assert not torch.allclose(logits, without, atol=1e-2)
        expected = (
            logits.log_softmax(-1).gather(2, torch.tensor(target).expand(len(sources), -1)[..., None]).sum((1, 2))
        )
        assert torch.allclose(
            -ours.nll(prompt.tensor[None], index, sources, [target] * len(sources)), expected, atol=1e-4
        )
        scores = ours.score_labels(prompt.tensor[None], index, sources, targets)
        assert torch.allclose(scores.log_probs[:, column], expected, atol=1e-4)


@torch.no_grad()
def test_a_causal_model_reads_the_adapter(llama, tmp_path):
    model, identity = llama
    prompt = SoftPrompt(torch.randn(4, 16), identity, Init(kind="normal", seed=0))
    prompt.to_peft(tmp_path)
    theirs = loaded(model, tmp_path)
    assert isinstance(theirs, peft.PeftModelForCausalLM)
    ids = torch.randint(3, 50, (2, 7))
    embeds = torch.cat([prompt.tensor.expand(2, -1, -1), model.get_input_embeddings()(ids)], 1)
    assert torch.allclose(
        theirs(input_ids=ids, attention_mask=torch.ones_like(ids)).logits, model(inputs_embeds=embeds).logits, atol=1e-4
    )
    said = theirs.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False)
    alone = model.generate(
        inputs_embeds=embeds, attention_mask=torch.ones(2, 11, dtype=torch.long), max_new_tokens=5, do_sample=False
    )
    assert torch.equal(said[:, 7:], alone)
    again = tpv.SoftPrompt.from_peft(tmp_path)
    assert again == prompt
    assert again.model.architecture == "decoder-only"


def test_what_was_exported_comes_back_whole_and_loads_no_model(backbone, tmp_path, monkeypatch):
    init = tpv.SoftPrompt.sample(backbone, 5, seed=2)
    tuned = init.tuned_to(init.tensor + 0.5, "mini/sst2", "rows") + (init.tuned_to(init.tensor - 1, "mini/yelp") - init)
    tuned.to_peft(tmp_path / "new" / "adapter")
    monkeypatch.setattr("tpv.models.load_backbone", None)
    again = tpv.SoftPrompt.from_peft(tmp_path / "new" / "adapter")
    assert again == tuned
    assert again.identity() == tuned.identity()
    assert (again - init).terms == {"mini/sst2": 1.0, "mini/yelp": 1.0}
    assert tpv.SoftPrompt.from_peft(tmp_path / "new" / "adapter", backbone) == tuned


def test_the_adapter_is_plain_peft_with_our_mark(backbone, tmp_path):
    tpv.SoftPrompt.sample(backbone, 5).to_peft(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, WEIGHTS]
    config = peft.PeftConfig.from_pretrained(str(tmp_path))
    assert (config.num_virtual_tokens, config.num_transformer_submodules, config.token_dim) == (5, 1, 128)
    assert (config.task_type, config.base_model_name_or_path) == ("SEQ_2_SEQ_LM", "mini")
    with safe_open(tmp_path / WEIGHTS, "pt") as file:
        assert list(file.keys()) == ["prompt_embeddings"]
        assert file.metadata()["format"] == "pt"


def test_equal_prompts_are_equal_adapters_and_replace_each_other(backbone, tmp_path):
    first, other = (tpv.SoftPrompt.sample(backbone, 5, seed=seed) for seed in (0, 1))
    seen = set()
    for prompt in (first, other, first, first):
        prompt.to_peft(tmp_path)
        assert tpv.SoftPrompt.from_peft(tmp_path) == prompt
        seen.add((tmp_path / WEIGHTS).read_bytes())
    assert len(seen) == 2


def test_the_adapter_of_another_program_is_not_replaced(foreign, backbone):
    before = {path.name: path.read_bytes() for path in foreign.iterdir()}
    with pytest.raises(tpv.TpvError, match=r"an adapter that tpv did not write.*choose another folder"):
        tpv.SoftPrompt.sample(backbone, 5).to_peft(foreign)
    (foreign / WEIGHTS).unlink()
    with pytest.raises(tpv.TpvError, match=r"an adapter that tpv did not write; got adapter_config\.json"):
        tpv.SoftPrompt.sample(backbone, 5).to_peft(foreign)
    assert {path.name: path.read_bytes() for path in foreign.iterdir()} == {
        name: content for name, content in before.items() if name != WEIGHTS
    }


def test_a_place_that_cannot_be_written(backbone, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "x", "bad\0name"):
        with pytest.raises(tpv.TpvError, match="cannot be written"):
            tpv.SoftPrompt.sample(backbone, 5).to_peft(place)


def test_identities_of_encoder_decoder_models_are_written_as_before(tmp_path):
    """Hashes taken before models had an architecture: files of then stay valid, and equal."""
    model = ModelIdentity(name="m", fingerprint="f" * 64, hidden_size=3)
    prompt = SoftPrompt(torch.arange(6.0).reshape(2, 3), model, Init(kind="normal", seed=1))
    assert prompt.digest == "3f677374baf045dd1360a7c55c57649fffb5b5efea6da9300c1afe8821fff75d"
    tuned = prompt.tuned_to(torch.ones(2, 3), "t", "d")
    assert tuned.components[0].origin == "eaa66624e8474714ba9df584eb9660bb133b18caf06085417de2a44a9457f1fb"
    tuned.save(tmp_path / "t.safetensors")
    assert (
        hashlib.sha256((tmp_path / "t.safetensors").read_bytes()).hexdigest()
        == "f7bfa527c49d910f722741b652f4968f5730e7f627f662923bea53d9f4080f0c"
    )
    causal = ModelIdentity(name="m", fingerprint="f" * 64, hidden_size=3, architecture="decoder-only")
    SoftPrompt(prompt.tensor, causal, prompt.init).save(tmp_path / "c.safetensors")
    assert SoftPrompt.load(tmp_path / "c.safetensors").model == causal


# --- in -------------------------------------------------------------------------------------------
def test_a_foreign_adapter_loses_its_dead_rows(foreign, random_t5, batch):
    ours = random_t5()
    with pytest.warns(tpv.TpvWarning, match="dropped 6 of 12 rows"):
        prompt = tpv.SoftPrompt.from_peft(foreign, ours)
    stored = load_file(foreign / WEIGHTS)["prompt_embeddings"]
    assert torch.equal(prompt.tensor, stored[:6])
    assert prompt.init.kind == "given"
    assert prompt.terms == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = tpv.SoftPrompt.from_peft(foreign, ours, keep_dead_rows=True)
    assert torch.equal(whole.tensor, stored)
    theirs, decoder = loaded(ours.model, foreign), torch.zeros(3, 1, dtype=torch.long)
    with torch.no_grad():
        expected = theirs(**batch, decoder_input_ids=decoder).logits.log_softmax(-1)[:, 0, 1]
        rows = [
            tuple(row[mask.bool()].tolist())
            for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
        ]
        index, eos = torch.zeros(3, dtype=torch.long), [(1,)] * 3
        assert torch.allclose(-ours.nll(prompt.tensor[None], index, rows, eos), expected, atol=1e-4)
        half = half_prompt(ours, 6)  # the layout with dead rows, read as PEFT reads it
        assert torch.allclose(-half.nll(whole.tensor[None], index, rows, eos), expected, atol=1e-4)
        assert not torch.allclose(-ours.nll(whole.tensor[None], index, rows, eos), expected, atol=1e-4)


def test_an_adapter_whose_rows_all_live_keeps_them(random_t5, tmp_path):
    ours = random_t5()
    wrapped(ours.model, num_transformer_submodules=1).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tpv.SoftPrompt.from_peft(tmp_path, ours).num_tokens == 6


def test_submodules_left_open_count_as_peft_counts_them(foreign, random_t5, llama, tmp_path):
    edit(foreign, num_transformer_submodules=None)
    assert loaded(random_t5().model, foreign).prompt_encoder["default"].embedding.weight.shape == (12, 32)
    with pytest.warns(tpv.TpvWarning):
        assert tpv.SoftPrompt.from_peft(foreign, random_t5()).num_tokens == 6
    model, identity = llama
    wrapped(model, task_type="CAUSAL_LM").save_pretrained(tmp_path / "causal")
    edit(tmp_path / "causal", num_transformer_submodules=None)
    start = SoftPrompt(torch.zeros(6, 16), identity, Init(kind="normal", seed=0))
    assert tpv.SoftPrompt.from_peft(tmp_path / "causal", init=start, task="t").num_tokens == 6


def test_half_precision_is_read_as_fp32(foreign, random_t5):
    stored = load_file(foreign / WEIGHTS)["prompt_embeddings"]
    save_file({"prompt_embeddings": stored.bfloat16()}, foreign / WEIGHTS)
    with pytest.warns(tpv.TpvWarning):
        prompt = tpv.SoftPrompt.from_peft(foreign, random_t5())
    assert torch.equal(prompt.tensor, stored[:6].bfloat16().float())


@pytest.mark.filterwarnings("ignore::tpv.TpvWarning")
def test_the_model_comes_from_the_backbone_or_the_start_or_the_name(
    foreign, random_t5, backbone, tmp_path, monkeypatch
):
    monkeypatch.setattr("tpv.models.loading.hub_answers", lambda: False)
    with pytest.raises(tpv.TpvError, match=r"does not say which model.*backbone=\.\.\., or --model"):
        tpv.SoftPrompt.from_peft(foreign)
    edit(foreign, base_model_name_or_path="nobody/nothing")
    with pytest.raises(tpv.TpvError, match=r"'nobody/nothing' is not on this machine.*pass the model.*--model"):
        tpv.SoftPrompt.from_peft(foreign)
    edit(foreign, base_model_name_or_path=str(mini.model_folder()), revision="v2")
    with pytest.raises(tpv.TpvError, match=r"revision 'v2'.*pass the model"):
        tpv.SoftPrompt.from_peft(foreign)
    edit(foreign, revision=None)
    with pytest.raises(tpv.IncompatibleError, match="expected rows of width 128; got 32"):
        tpv.SoftPrompt.from_peft(foreign)
    wrapped(backbone.model).save_pretrained(tmp_path / "mini")
    assert tpv.SoftPrompt.from_peft(tmp_path / "mini").model.fingerprint == backbone.identity.fingerprint
    start = tpv.SoftPrompt.sample(random_t5(), 6)
    assert tpv.SoftPrompt.from_peft(foreign, init=start, task="t").model == start.model


@pytest.mark.filterwarnings("ignore::tpv.TpvWarning")
def test_with_its_start_an_adapter_gives_a_vector(foreign, random_t5, subtests):
    ours = random_t5()
    start = tpv.SoftPrompt.sample(ours, 6)
    tuned = tpv.SoftPrompt.from_peft(foreign, init=start, task="sst2")
    assert (tuned - start).terms == {"sst2": 1.0}
    assert torch.equal((tuned - start).tensor, load_file(foreign / WEIGHTS)["prompt_embeddings"][:6] - start.tensor)
    whole = tpv.SoftPrompt.from_tensor(ours, torch.zeros(12, 32))
    assert tpv.SoftPrompt.from_peft(foreign, init=whole, task="sst2", keep_dead_rows=True).num_tokens == 12
    for name, (arguments, words) in {
        "init only": ({"init": start}, "both init and task"),
        "task only": ({"task": "sst2"}, "both init and task"),
        "no name": ({"init": start, "task": " "}, "expected a name"),
        "dead rows in the start": ({"init": whole, "task": "t"}, r"expected \[12, 32\]; got \[6, 32\].*keep_dead_rows"),
        "dead rows in the adapter": ({"init": start, "task": "t", "keep_dead_rows": True}, r"got \[12, 32\]"),
        "another model": ({"init": start, "task": "t", "backbone": random_t5(1)}, "belongs to another model"),
    }.items():
        with subtests.test(name), pytest.raises(tpv.TpvError, match=words):
            tpv.SoftPrompt.from_peft(foreign, **arguments)
    ours_again = start.tuned_to(start.tensor + 1, "mine")
    ours_again.to_peft(foreign.parent / "own")
    assert (tpv.SoftPrompt.from_peft(foreign.parent / "own", init=start, task="sst2") - start).terms == {"sst2": 1.0}
    other = tpv.SoftPrompt.sample(ours, 6, seed=9)
    with pytest.raises(
        tpv.IncompatibleError, match="had another initialization; expected vocabulary seed 0; got vocabulary seed 9"
    ):
        tpv.SoftPrompt.from_peft(foreign.parent / "own", init=other, task="sst2")


def test_a_prompt_of_another_model_is_refused(backbone, random_t5, foreign, tmp_path, llama):
    tpv.SoftPrompt.sample(backbone, 5).to_peft(tmp_path / "own")
    with pytest.raises(tpv.IncompatibleError, match=r"another model; expected random 0.*got mini"):
        tpv.SoftPrompt.from_peft(tmp_path / "own", random_t5())
    with pytest.raises(tpv.IncompatibleError, match=r"does not fit model mini.*expected rows of width 128; got 32"):
        tpv.SoftPrompt.from_peft(foreign, backbone)
    model, identity = llama
    wrapped(model, task_type="CAUSAL_LM").save_pretrained(tmp_path / "causal")
    start = SoftPrompt(
        torch.zeros(6, 16), identity.model_copy(update={"architecture": "encoder-decoder"}), Init(kind="text")
    )
    with pytest.raises(tpv.IncompatibleError, match=r"another kind of model; expected SEQ_2_SEQ_LM.*got CAUSAL_LM"):
        tpv.SoftPrompt.from_peft(tmp_path / "causal", init=start, task="t")


OTHER_METHODS = {
    "LORA": (peft.LoraConfig, {"r": 2, "target_modules": ["q", "v"]}),
    "PREFIX_TUNING": (peft.PrefixTuningConfig, {"num_virtual_tokens": 3}),
    "P_TUNING": (peft.PromptEncoderConfig, {"num_virtual_tokens": 3, "encoder_hidden_size": 8}),
    "MULTITASK_PROMPT_TUNING": (peft.MultitaskPromptTuningConfig, {"num_virtual_tokens": 3, "num_tasks": 2}),
}


@pytest.mark.parametrize("name", OTHER_METHODS)
def test_other_methods_are_refused_by_name(name, random_t5, tmp_path):
    method, options = OTHER_METHODS[name]
    ours = random_t5()
    peft.get_peft_model(ours.model, method(task_type="SEQ_2_SEQ_LM", **options)).save_pretrained(tmp_path)
    with pytest.raises(tpv.TpvError, match=f"another method; expected PROMPT_TUNING; got {name}") as error:
        tpv.SoftPrompt.from_peft(tmp_path, ours)
    assert "\n" not in str(error.value)


def weights(folder, tensors):
    save_file(tensors, folder / WEIGHTS)


BROKEN = {
    "no folder": (lambda f: f.rename(f.with_name("away")), "adapter folder .*foreign does not exist"),
    "no config": (lambda f: (f / CONFIG).unlink(), "is not a PEFT adapter.*got no adapter_config.json"),
    "config is a folder": (
        lambda f: ((f / CONFIG).unlink(), (f / CONFIG).mkdir()),
        "adapter_config.json cannot be read",
    ),
    "config cut": (lambda f: (f / CONFIG).write_text((f / CONFIG).read_text()[:-9]), "adapter_config.json is damaged"),
    "config of bytes": (lambda f: (f / CONFIG).write_bytes(b"\xff\xfe\xfa"), "adapter_config.json is damaged"),
    "config nested": (lambda f: (f / CONFIG).write_text("[" * 99999), "adapter_config.json is damaged"),
    "config a list": (lambda f: (f / CONFIG).write_text("[]"), "not a PEFT config"),
    "config without method": (
        lambda f: edit(f, peft_type=None),
        "not a PEFT config; expected an object with 'peft_type'",
    ),
    "classifier": (lambda f: edit(f, task_type="SEQ_CLS"), "another kind of task.*got 'SEQ_CLS'"),
    "odd task": (lambda f: edit(f, task_type=["SEQ_2_SEQ_LM"]), "another kind of task"),
    "rows unsaid": (
        lambda f: edit(f, num_virtual_tokens=None),
        "num_virtual_tokens; expected a whole number from 1; got None",
    ),
    "rows true": (lambda f: edit(f, num_virtual_tokens=True), "num_virtual_tokens"),
    "rows negative": (lambda f: edit(f, num_virtual_tokens=-6), "num_virtual_tokens"),
    "other count": (lambda f: edit(f, num_virtual_tokens=7), "do not fit each other; expected 14 rows.*got 12"),
    "other doubling": (
        lambda f: edit(f, num_transformer_submodules=1),
        "do not fit each other; expected 6 rows.*got 12",
    ),
    "tripled": (lambda f: edit(f, num_transformer_submodules=3), "num_transformer_submodules; expected 1 or 2; got 3"),
    "causal doubled": (lambda f: edit(f, task_type="CAUSAL_LM"), "num_transformer_submodules; expected 1; got 2"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "holds no weights; expected adapter_model.safetensors"),
    "weights cut": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-4]), "damaged or no safetensors"),
    "weights text": (
        lambda f: (f / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1"),
        "damaged or no safetensors",
    ),
    "other key": (
        lambda f: weights(f, {"soft_prompt": torch.zeros(12, 32)}),
        "one tensor named 'prompt_embeddings'; got soft_prompt",
    ),
    "two keys": (
        lambda f: weights(f, {"prompt_embeddings": torch.zeros(12, 32), "head": torch.zeros(1)}),
        "got head, prompt_embeddings",
    ),
    "three axes": (
        lambda f: weights(f, {"prompt_embeddings": torch.zeros(2, 6, 32)}),
        r"expected floating-point \[P, H\]",
    ),
    "whole numbers": (
        lambda f: weights(f, {"prompt_embeddings": torch.zeros(12, 32).long()}),
        "expected floating-point",
    ),
    "NaN": (lambda f: weights(f, {"prompt_embeddings": torch.full((12, 32), torch.nan)}), "384 values that are not"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_read_is_refused_in_one_line(name, foreign, random_t5):
    damage, words = BROKEN[name]
    damage(foreign)
    with pytest.raises(tpv.TpvError, match=words) as error:
        tpv.SoftPrompt.from_peft(foreign, random_t5())
    assert "\n" not in str(error.value)
    assert "foreign" in str(error.value)


def test_a_pickle_is_not_read_but_what_to_do_is_said(foreign, random_t5):
    model = random_t5().model
    expected = load_file(foreign / WEIGHTS)["prompt_embeddings"]
    torch.save(load_file(foreign / WEIGHTS), foreign / "adapter_model.bin")
    (foreign / WEIGHTS).unlink()
    with pytest.raises(tpv.TpvError, match=r"as a pickle, which is not read.*save_pretrained\(folder\) again"):
        tpv.SoftPrompt.from_peft(foreign, random_t5())
    loaded(model, foreign).save_pretrained(foreign)  # does as told
    with pytest.warns(tpv.TpvWarning):
        assert torch.equal(tpv.SoftPrompt.from_peft(foreign, random_t5()).tensor, expected[:6])


def test_an_export_that_was_altered_is_noticed(backbone, tmp_path):
    tpv.SoftPrompt.sample(backbone, 5).to_peft(tmp_path)
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    content[-2] ^= 1
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(tpv.DamagedFileError, match="does not match its hash"):
        tpv.SoftPrompt.from_peft(tmp_path)


# --- there and back -------------------------------------------------------------------------------
def said(model, backbone, task, split):
    """What a PEFT model generates on a split, as text."""
    texts = []
    rows = task.examples(split)
    for first in range(0, len(rows), 100):
        inputs = backbone.tokenizer(
            [row.source for row in rows[first : first + 100]], return_tensors="pt", padding=True
        )
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        texts += backbone.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return texts


def exact_match(texts, task, split):
    return sum(text == row.target for text, row in zip(texts, task.examples(split), strict=True)) / len(texts)


@pytest.mark.filterwarnings("ignore::tpv.TpvWarning")
def test_trained_by_peft_moved_by_tpv_scored_by_both(backbone, tmp_path):
    """A vector out of a PEFT training, put on another start, runs in PEFT and scores there as it does here."""
    task, split = tpv.load_task("mini/sst2"), "validation"
    torch.manual_seed(0)
    model = wrapped(backbone.model, num_virtual_tokens=10, prompt_tuning_init="SAMPLE_VOCAB")
    model.save_pretrained(tmp_path / "start")
    rows = task.examples("train")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.3, weight_decay=1e-5)
    for step in range(40):
        taken = rows[16 * step : 16 * step + 16]
        inputs = backbone.tokenizer([row.source for row in taken], return_tensors="pt", padding=True)
        labels = backbone.tokenizer([row.target for row in taken], return_tensors="pt", padding=True)["input_ids"]
        model(**inputs, labels=labels.masked_fill(labels == backbone.pad_id, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(tmp_path / "tuned")

    start = tpv.SoftPrompt.from_peft(tmp_path / "start")  # finds the embedded model by its path
    tuned = tpv.SoftPrompt.from_peft(tmp_path / "tuned", init=start, task="mini/sst2")
    vector = tuned - start
    assert vector.terms == {"mini/sst2": 1.0}
    scores = tpv.evaluate(backbone, task, tuned, split)
    assert exact_match(said(model, backbone, task, split), task, split) == pytest.approx(scores.exact_match)
    assert scores.exact_match > tpv.evaluate(backbone, task, start, split).exact_match + 0.2

    moved = tpv.SoftPrompt.sample(backbone, 10, seed=5) + vector
    moved.to_peft(tmp_path / "moved")
    again = loaded(backbone.model, tmp_path / "moved")
    scores = tpv.evaluate(backbone, task, moved, split)
    texts = said(again, backbone, task, split)
    assert exact_match(texts, task, split) == pytest.approx(scores.exact_match)
    assert 0.0 < scores.exact_match < 1.0
    predicted = scores.predictions["said"].to_pylist()
    assert [text if text in task.labels else None for text in texts] == predicted
    assert tpv.SoftPrompt.from_peft(tmp_path / "moved") == moved


@pytest.mark.filterwarnings("ignore::tpv.TpvWarning")
def test_peft_trains_on_from_our_export(random_t5, toy_task, tmp_path):
    """An export is a place to start from: PEFT trains every row of it, and the difference is a vector."""
    ours, task = random_t5(), toy_task(["good", "not good"])
    teach(ours, task, steps=5)
    start = tpv.SoftPrompt.sample(ours, 4)
    start.to_peft(tmp_path / "start")
    model = loaded(ours.model, tmp_path / "start")
    model.prompt_encoder.requires_grad_(True)  # PEFT loads prompts for inference only
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    inputs = ours.tokenizer(["good"], return_tensors="pt")
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    optimizer.step()
    model.save_pretrained(tmp_path / "tuned", save_embedding_layers=False)  # else it looks its model up on the hub
    vector = tpv.SoftPrompt.from_peft(tmp_path / "tuned", init=start, task="toy") - start
    assert vector.terms == {"toy": 1.0}
    assert (vector.tensor.abs().amax(1) > 0).all()


# --- the command ----------------------------------------------------------------------------------
def test_import_and_export_by_command(run, backbone, tmp_path):
    init = tpv.SoftPrompt.sample(backbone, 5, seed=4)
    init.save(tmp_path / "init.safetensors")
    code, out, err = run("export", tmp_path / "init.safetensors", "--peft", tmp_path / "adapter")
    assert (code, err) == (0, "")
    assert "adapter" in out
    assert run("import", tmp_path / "adapter", "--out", tmp_path / "back")[0] == 0
    assert tpv.SoftPrompt.load(tmp_path / "back" / "prompt.safetensors") == init

    wrapped(backbone.model, num_virtual_tokens=5).save_pretrained(tmp_path / "theirs")
    code, out, err = run("import", tmp_path / "theirs", "--model", "mini", "--out", tmp_path / "a")
    assert code == 0
    assert err.startswith("warning: ")
    assert "dropped 5 of 10 rows" in err
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["prompt.safetensors"]
    for start in (tmp_path / "init.safetensors", tmp_path / "adapter"):
        code, out, err = run("import", tmp_path / "theirs", "--start", start, "--task", "sst2", "--out", tmp_path / "b")
        assert code == 0, err
        vector = tpv.TaskPromptVector.load(tmp_path / "b" / "vector.safetensors")
        assert vector.terms == {"sst2": 1.0}
        assert tpv.SoftPrompt.load(tmp_path / "b" / "prompt.safetensors") - init == vector
    code, _, err = run("import", tmp_path / "theirs", "--keep-dead-rows", "--out", tmp_path / "c")
    assert (code, err) == (0, "")
    assert tpv.SoftPrompt.load(tmp_path / "c" / "prompt.safetensors").num_tokens == 10


@pytest.mark.usefixtures("backbone")
def test_bad_imports_are_one_line_and_leave_nothing(run, foreign, tmp_path, subtests):
    (tmp_path / "empty").mkdir()
    cases = {
        "no model": ([foreign], "pass the model it was trained on"),
        "wrong model": ([foreign, "--model", "mini"], "does not fit model mini"),
        "start without task": ([foreign, "--start", foreign], "--init and --task, or neither"),
        "task without start": ([foreign, "--task", "t"], "--init and --task, or neither"),
        "empty": ([tmp_path / "empty"], "holds nothing to import"),
        "missing": ([tmp_path / "none"], "cannot be read"),
        "a file": ([foreign / WEIGHTS], "cannot be read"),
    }
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for name, (args, words) in cases.items():
        with subtests.test(name):
            code, out, err = run("import", *args, "--out", tmp_path / "out")
            assert (code, out) == (2, "")
            assert err.startswith("error: ")
            assert err.count("\n") == 1
            assert words in err
            assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_bad_exports(run, foreign, backbone, tmp_path):
    prompt = tpv.SoftPrompt.sample(backbone, 5)
    prompt.save(tmp_path / "p.safetensors")
    (prompt.tuned_to(prompt.tensor + 1, "t") - prompt).save(tmp_path / "v.safetensors")
    for args, words in (
        ([tmp_path / "p.safetensors"], "expected --peft FOLDER"),
        ([tmp_path / "p.safetensors", "--peft", foreign], "tpv did not write"),
        ([tmp_path / "v.safetensors", "--peft", tmp_path / "x"], "expected SoftPrompt; got TaskPromptVector"),
    ):
        code, out, err = run("export", *args)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err
    assert not (tmp_path / "x").exists()
