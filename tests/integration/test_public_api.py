"""The documented code runs as it is written."""

import ast
import re

import pytest
from places import ROOT, SHARED

import tpv

LATER = {"generate", "transfer", "PromptClassifier", "port"}  # names that issues to come will build
README = ROOT / "README.md"


def python_blocks(path):
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.S)


def test_the_readme_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = (block for block in python_blocks(README) if "tuned - init" in block)
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
    other = init.tuned_to(init.tensor * 1.1, "mini/yelp") - init
    third = init.tuned_to(init.tensor * 0.9, "mini/trec") - init
    third.save("vectors/trec.safetensors")
    names = {  # what the block leaves open
        "another_vector": other,
        "v1": other,
        "v2": third,
        "v3": other + third,
        "recipe": tpv.Recipe(steps=2, batch_size=4, select="last"),
        "tasks": [tpv.load_task("mini/sst2"), tpv.load_task("mini/trec")],
    }
    later = []
    for statement in ast.parse(block).body:
        code = ast.unparse(statement)
        used = {node.attr for node in ast.walk(statement) if isinstance(node, ast.Attribute)}
        if used & LATER or "target='summary'" in code:  # a task whose output is text
            later.append(code)
            continue
        exec(code, names)
    assert names["vector"].terms == {"mini/sst2": 1.0}
    assert names["blend"].terms == {"mini/sst2": 0.5, "mini/yelp": 0.5}
    assert names["scores"].n == 400
    assert names["table"]["source"].to_pylist() == ["a fine film"]
    assert names["merged"].provenance["method"] == "ties"
    assert len(names["vectors"]) == 2
    assert names["library"].names == ["trec"]
    assert len(later) < len(ast.parse(block).body) / 2, later


def test_every_public_name_is_there_and_documented():
    for name in tpv.__all__:
        assert getattr(tpv, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = tpv.nope


def test_relative_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target
