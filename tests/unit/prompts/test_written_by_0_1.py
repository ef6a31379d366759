"""Files of 0.1, written by its own code, load as they did: same values, same digest, same meaning."""

import json
from pathlib import Path

import pytest
import torch

import tpv
from tpv.prompts import storage
from tpv.prompts.algebra import load_any

FILES = Path(__file__).parent / "written_by_0_1"
SAID = json.loads((FILES / "digests.json").read_text())


@pytest.mark.parametrize("name", SAID)
def test_a_file_of_0_1_reads_and_is_written_the_same(name, tmp_path):
    item = load_any(FILES / f"{name}.safetensors")
    assert item.digest == SAID[name]["digest"]
    assert item.terms == SAID[name]["terms"]
    item.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (FILES / f"{name}.safetensors").read_bytes()


def test_its_vectors_and_prompts_calculate_with_those_of_today(backbone):
    init = tpv.SoftPrompt.sample(backbone, 2, seed=1)
    assert init == tpv.SoftPrompt.load(FILES / "init.safetensors")
    tuned, vector = (
        tpv.SoftPrompt.load(FILES / "tuned.safetensors"),
        tpv.TaskPromptVector.load(FILES / "vector.safetensors"),
    )
    assert tuned - init == vector
    portable = tpv.TaskPromptVector.load(FILES / "portable.safetensors")
    assert vector + 0.5 * portable == tpv.TaskPromptVector.load(FILES / "sum.safetensors")
    (part,) = portable.components
    assert part.init is None
    assert (part.training.starts, part.training.parameters) == ("vocabulary", None)
    assert part.home == "fresh vocabulary initializations; beside mini/mnli; scales 0.5 to 1"


def test_a_start_whose_limit_0_1_did_not_record_is_still_the_same_start(backbone):
    """0.1 could draw from the whole vocabulary and said so nowhere; the ids say which rows they were."""
    old, new = tpv.SoftPrompt.load(FILES / "whole.safetensors"), tpv.SoftPrompt.sample(backbone, 2, seed=4, limit=0)
    assert torch.equal(old.tensor, new.tensor)
    assert old.init.parameters is None
    assert new.init.parameters == {"limit": 0}
    assert (
        (old.tuned_to(old.tensor + 1, "t") - new).terms == (new.tuned_to(old.tensor + 1, "t") - old).terms == {"t": 1.0}
    )
    other = tpv.SoftPrompt.sample(backbone, 2, seed=4, limit=1000)
    with pytest.raises(
        tpv.IncompatibleError, match=r"vocabulary \(limit 0\) seed 4; got vocabulary \(limit 1000\) seed 4"
    ):
        _ = new.tuned_to(new.tensor + 1, "t") - other


@pytest.mark.parametrize("name", ["normal", "text"])
def test_other_initializations_are_spelled_as_before(name, backbone):
    made = {
        "normal": lambda: tpv.SoftPrompt.normal(backbone, 2, seed=3, std=0.5),
        "text": lambda: tpv.SoftPrompt.from_text(backbone, "the man", 2),
    }[name]()
    assert made == tpv.SoftPrompt.load(FILES / f"{name}.safetensors")


def test_an_adapter_of_0_1_is_restored():
    assert tpv.SoftPrompt.from_peft(FILES / "adapter") == tpv.SoftPrompt.load(FILES / "tuned.safetensors")


def test_what_0_1_did_not_have_is_only_written_where_it_says_something():
    for name in SAID:
        _, metadata = storage.read_safetensors(FILES / f"{name}.safetensors")
        assert json.loads(metadata["identity"]) == json.loads(
            json.dumps(load_any(FILES / f"{name}.safetensors").identity())
        )
