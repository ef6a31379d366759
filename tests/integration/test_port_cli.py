"""`tpv port` from files to files."""

import pytest
import torch
from transformers import AutoTokenizer

import tpv
from tpv import mini

P = 4


@pytest.fixture(scope="module")
def second(tmp_path_factory, random_t5):
    """A folder with another model."""
    folder = tmp_path_factory.mktemp("models") / "second"
    random_t5(seed=2).model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(mini.model_folder()).save_pretrained(folder)
    return folder


@pytest.fixture
def files(tmp_path, backbone):
    init = tpv.SoftPrompt.sample(backbone, P, seed=0)
    folder = tmp_path / "vectors"
    folder.mkdir()
    for seed, name in enumerate(("sst2", "yelp"), 1):
        tuned = init.tuned_to(tpv.SoftPrompt.normal(backbone, P, seed=seed).tensor, f"mini/{name}")
        (tuned - init).save(folder / f"{name}.safetensors")
    tuned.save(tmp_path / "prompt.safetensors")
    return folder


def test_a_vector_and_a_folder_of_them(run, files, second, backbone, tmp_path):
    code, out, _ = run(
        "port", files / "sst2.safetensors", "--from", "mini", "--to", second, "-o", tmp_path / "a.safetensors"
    )
    assert code == 0
    assert "wrote" in out
    target = tpv.load_backbone(second, device="cpu")
    wanted = tpv.port(tpv.TaskPromptVector.load(files / "sst2.safetensors"), backbone, target)
    assert tpv.TaskPromptVector.load(tmp_path / "a.safetensors") == wanted
    both = [files / "sst2.safetensors", files / "yelp.safetensors"]
    code, *_ = run(
        "port",
        *both,
        "--from",
        "mini",
        "--to",
        second,
        "--method",
        "ridge",
        "--set",
        "alpha=1",
        "-p",
        6,
        "-o",
        tmp_path / "out",
    )
    assert code == 0
    found = tpv.Library(tmp_path / "out", model=target)
    assert sorted(found) == ["sst2", "yelp"]
    assert found["yelp"].num_tokens == 6
    assert found["yelp"].components[0].port.parameters["alpha"] == 1.0


def test_rows_without_labels(run, files, second, tmp_path):
    rows = tmp_path / "rows.csv"
    texts = [row.source.removeprefix("sentence: ") for row in tpv.load_task("mini/sst2").examples("train")[:6]]
    rows.write_text("text\n" + "\n".join(f'"{text}"' for text in texts) + "\n")
    options = ["--task", "mini/sst2", "--unlabelled", rows, "--teacher", "source", "--steps", 2, "--batch-size", 3]
    fields = tpv.load_task("mini/sst2").spec.fields
    options += ["--text", "text"] if fields != ("text",) else []
    out = tmp_path / "p.safetensors"
    code, _, err = run("port", tmp_path / "prompt.safetensors", "--from", "mini", "--to", second, *options, "-o", out)
    assert code == 0, err
    adapted = tpv.SoftPrompt.load(out).components[0].port.adapted
    assert (adapted.rows, adapted.steps, adapted.teacher) == (6, 2, "source")


def test_a_projector_from_a_folder_of_known_tasks(run, files, second, tmp_path):
    shape = ["--from", "mini", "--to", second, "--method", "projector", "--set", "steps=2", "--known-from", files]
    code, _, err = run("port", files / "sst2.safetensors", *shape, "-o", tmp_path / "a.safetensors")
    assert code == 0, err
    run(
        "port", *sorted(files.iterdir()), "--from", "mini", "--to", second, "--method", "copy", "-o", tmp_path / "known"
    )
    code, _, err = run(
        "port", files / "sst2.safetensors", *shape, "--known-to", tmp_path / "known", "-o", tmp_path / "b.safetensors"
    )
    assert code == 0, err
    a, b = (tpv.TaskPromptVector.load(tmp_path / f"{name}.safetensors") for name in "ab")
    assert not torch.equal(a.tensor, b.tensor)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from", "SECOND"], "belongs to another model"),
        (["--method", "none"], "unknown map"),
        (["--method", "projector"], "pairs of what is known"),
        (["--known-to", "x"], "--known-from with it"),
        (["--anchors", "no-such-file"], "a number, or a text file"),
        (["--teacher", "source"], "--task, --train or --unlabelled"),
        (["--unlabelled", "x.csv"], "--task NAME and --teacher source"),
        (["-p", "0"], "num_tokens"),
    ],
)
def test_mistakes(options, said, run, files, second, tmp_path):
    options = [str(second) if option == "SECOND" else option for option in options]
    start = [] if "--from" in options else ["--from", "mini"]
    out = tmp_path / "a.safetensors"
    code, _, err = run("port", files / "sst2.safetensors", *start, "--to", second, *options, "-o", out)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1
    assert not out.exists()
