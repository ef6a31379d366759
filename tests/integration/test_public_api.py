"""The documented code runs as it is written."""

import re

import pytest
from places import ROOT, SHARED

import tpv

README = ROOT / "README.md"


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.S)


def test_the_readme_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = python_blocks(README)
    names = {}
    exec(block, names)
    untuned, tuned, _ = (float(x) for x in re.findall(r"exact_match=([\d.]+)", capsys.readouterr().out))
    assert tuned > untuned
    assert tpv.TaskPromptVector.load(tmp_path / "runs" / "sst2.safetensors") == names["vector"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared design page, which is not here")
def test_the_design_example_runs(tmp_path, monkeypatch, backbone):
    monkeypatch.chdir(tmp_path)
    block = python_blocks(SHARED / "DESIGN.md")[0]
    init = tpv.SoftPrompt.sample(backbone, num_tokens=20, seed=5)
    names = {"another_vector": init.tuned_to(init.tensor * 1.1, "mini/yelp") - init}  # the block leaves it open
    exec(block, names)
    assert names["vector"].terms == {"mini/sst2": 1.0}
    assert names["blend"].terms == {"mini/sst2": 0.5, "mini/yelp": 0.5}
    assert names["scores"].n == 400
    assert (tmp_path / "sst2.safetensors").is_file()


def test_every_public_name_is_there_and_documented():
    for name in tpv.__all__:
        assert getattr(tpv, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = tpv.nope


def test_relative_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
