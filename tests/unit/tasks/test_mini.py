"""The embedded tasks and model: splits apart, nothing held out in the pretraining data."""

import hashlib
import importlib.util
import itertools
import json
from collections import Counter

import pytest
from places import ROOT
from safetensors import safe_open

import tpv
from tpv import mini
from tpv.tasks import task_specs
from tpv.tasks.spec import GeneratedSource

TOOL = ROOT / "tools" / "pretrain_mini.py"
CARD = mini.model_folder() / "README.md"


@pytest.fixture(scope="module")
def pretraining():
    spec = importlib.util.spec_from_file_location("pretrain_mini", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_twelve_tasks_of_the_paper_are_there():
    specs = {name: spec for name, spec in task_specs().items() if isinstance(spec.source, GeneratedSource)}
    specs = {name: spec for name, spec in specs.items() if spec.output != "text"}
    assert {f"mini/{name}" for name in (*mini.SOURCES, *mini.TARGETS)} == set(specs)
    for name, spec in specs.items():
        assert spec.role == ("source" if name.removeprefix("mini/") in mini.SOURCES else "target")


@pytest.mark.parametrize("name", mini.GENERATORS)
def test_splits_never_share_a_text_and_every_label_occurs(name):
    task = tpv.load_task(f"mini/{name}")
    seen = {split: {e.source for e in task.examples(split)} for split in ("train", "validation", "test")}
    assert [len(task.examples(split)) for split in seen] == [len(texts) for texts in seen.values()] == [2000, 200, 400]
    for one, two in itertools.combinations(seen.values(), 2):
        assert not one & two
    for split in seen:
        assert len(Counter(e.label for e in task.examples(split))) == len(task.labels)


def test_no_label_contradicts_another_on_the_same_text():
    for name in mini.GENERATORS:
        labels = {}
        for split in ("train", "validation", "test"):
            for example in tpv.load_task(f"mini/{name}").examples(split):
                assert labels.setdefault(example.source, example.label) == example.label


def test_no_held_out_text_is_in_the_pretraining_rows(pretraining):
    """Checked without the filter's own code: by looking for held-out texts inside what the model reads."""
    held_out = set()
    for name in mini.GENERATORS:
        for split in ("validation", "test"):
            held_out |= {" ".join(fields.values()) for fields, _ in mini.splits(name)[split]}
    kinds = Counter()
    for kind, fields, text, _ in itertools.islice(pretraining.rows(), 60_000):
        kinds[kind] += 1
        joined = " ".join(fields.values())
        assert joined not in held_out
        words = joined.split(". ")
        for start, stop in itertools.combinations(range(len(words) + 1), 2):
            assert ". ".join(words[start:stop]).rstrip(".") + "." not in held_out
        assert text
    assert set(kinds) == set(pretraining.WEIGHTS)
    assert not set(kinds) & set(mini.TARGETS)


def test_the_filter_does_remove_something(pretraining):
    forbidden = pretraining.held_out()
    fields, _ = mini.splits("sst2")["test"][0]
    assert pretraining.leaks(fields, forbidden)
    assert pretraining.leaks({"text": f"i saw it. {fields['sentence']} really."}, forbidden)
    assert not pretraining.leaks({"text": "nothing of the kind."}, forbidden)


def test_the_model_is_small_and_its_card_matches_it():
    weights = mini.model_folder() / "model.safetensors"
    with safe_open(weights, "pt") as file:
        count = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert count <= 3_000_000
    assert sum(path.stat().st_size for path in mini.model_folder().iterdir()) <= 6_000_000
    card = CARD.read_text()
    assert hashlib.sha256(weights.read_bytes()).hexdigest() in card
    assert f"{count:,}" in card


def test_the_tokenizer_is_the_one_the_script_builds(pretraining, backbone):
    built = json.loads(pretraining.build_tokenizer().backend_tokenizer.to_str())
    stored = json.loads((mini.model_folder() / "tokenizer.json").read_text())
    assert built["model"] == stored["model"]


@pytest.mark.parametrize(
    "text", ["Sci/Tech", "not_entailment", "Educational Institution", "very negative", "it's 12% off!"]
)
def test_the_tokenizer_gives_back_what_it_reads(backbone, text):
    ids = backbone.encode_target(text)
    assert backbone.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_every_label_word_and_template_is_written_without_unknowns(backbone):
    for spec in task_specs().values():
        for word in spec.labels:
            assert backbone.tokenizer.unk_token_id not in backbone.encode_target(word)
        assert backbone.tokenizer.unk_token_id not in backbone.encode_text(spec.template)
    for name in mini.GENERATORS:
        for example in tpv.load_task(f"mini/{name}").examples("test")[:50]:
            assert backbone.tokenizer.unk_token_id not in backbone.encode_text(example.source)
