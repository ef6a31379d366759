"""Files: what is damaged is refused by name, and nothing is left half-written."""

import json
import os
import struct
import subprocess
import sys
from functools import partial, partialmethod
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import tpv
from tpv import files
from tpv.execution.artifacts import Store
from tpv.prompts import storage
from tpv.prompts.algebra import TaskPromptVector, cosine_matrix
from tpv.prompts.provenance import Component, Init, ModelIdentity


@pytest.fixture
def saved(tmp_path):
    model = ModelIdentity(name="m", fingerprint="f" * 64, hidden_size=4)
    part = Component(task="t", origin="o", init=Init(kind="normal", seed=1), coefficient=1.0)
    vector = TaskPromptVector(torch.randn(5, 4), model, (part,))
    path = tmp_path / "v.safetensors"
    vector.save(path)
    return path


def test_every_single_bit_flip_is_noticed_or_changes_nothing(saved, tmp_path):
    content, original = saved.read_bytes(), TaskPromptVector.load(saved)
    bad = tmp_path / "bad.safetensors"
    refused = 0
    for position in range(len(content)):
        for bit in (0, 5):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            bad.write_bytes(flipped)
            try:
                again = TaskPromptVector.load(bad)
            except tpv.DamagedFileError as error:
                assert "bad.safetensors" in str(error)
                refused += 1
            else:  # a flip in JSON that still spells the same thing
                assert again == original
                assert again.identity() == original.identity()
    assert refused > 1.9 * len(content)


def test_every_truncation_is_refused(saved, tmp_path):
    content = saved.read_bytes()
    bad = tmp_path / "short.safetensors"
    for length in range(len(content)):
        bad.write_bytes(content[:length])
        with pytest.raises(tpv.DamagedFileError, match=r"short\.safetensors"):
            TaskPromptVector.load(bad)


def test_foreign_files_are_refused_by_name(tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(2, 2)}, foreign)
    with pytest.raises(tpv.DamagedFileError, match=r"foreign.*not written by tpv"):
        tpv.SoftPrompt.load(foreign)
    for content in (b"", b"hello", b"\x80\x04K\x01.", struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 2) + b"[]"):
        foreign.write_bytes(content)
        with pytest.raises(tpv.DamagedFileError, match="foreign"):
            tpv.SoftPrompt.load(foreign)
    with pytest.raises(tpv.TpvError, match="cannot be read"):
        tpv.SoftPrompt.load(tmp_path / "none.safetensors")
    with pytest.raises(tpv.TpvError, match="cannot be read"):
        tpv.SoftPrompt.load(tmp_path)


def test_an_identity_that_does_not_read_is_refused(saved, tmp_path):
    tensor = TaskPromptVector.load(saved).tensor
    for identity in ({}, [], {"kind": "TaskPromptVector", "model": 3, "components": []}, {"kind": "Other"}):
        path = tmp_path / "odd.safetensors"
        content = storage.content_hash(tensor, identity)
        save_file(
            {"tensor": tensor}, path, {"format": storage.FORMAT, "identity": json.dumps(identity), "sha256": content}
        )
        with pytest.raises(tpv.DamagedFileError, match=r"odd.*identity cannot be read"):
            TaskPromptVector.load(path)


def test_the_other_kind_is_refused(saved):
    with pytest.raises(tpv.TpvError, match="expected SoftPrompt; got TaskPromptVector"):
        tpv.SoftPrompt.load(saved)


def test_a_failed_write_leaves_the_old_file_and_no_other(saved):
    before = saved.read_bytes()

    def write_half():
        with files.atomic_write(saved) as part:
            part.write_bytes(b"half")
            raise RuntimeError("disk fell off")

    with pytest.raises(RuntimeError, match="fell off"):
        write_half()
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_places_that_cannot_be_written(saved, tmp_path):
    vector = TaskPromptVector.load(saved)
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "v.safetensors", "/proc/nowhere/v.safetensors", "bad\0name.safetensors"):
        with pytest.raises(tpv.TpvError, match="cannot be written"):
            vector.save(path)
    with pytest.raises(tpv.TpvError, match=r"ending in \.safetensors"):
        vector.save(tmp_path / "v.bin")


def test_a_saved_file_has_ordinary_permissions(saved):
    umask = os.umask(0)
    os.umask(umask)
    assert saved.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path):
    place = tmp_path / "new" / "deep"

    def fail():
        with files.staged_folder(place) as stage:
            (stage / "a").write_text("half")
            raise tpv.TpvError("no")

    with pytest.raises(tpv.TpvError, match="no"):
        fail()
    assert os.listdir(tmp_path) == []
    place.mkdir(parents=True)
    (place / "a").write_text("old")
    with pytest.raises(tpv.TpvError, match="no"):
        fail()
    assert (place / "a").read_text() == "old"
    with files.staged_folder(place) as stage:
        (stage / "sub").mkdir()
        (stage / "sub" / "b").write_text("b")
        (stage / "a").write_text("new")
    assert sorted(str(p.relative_to(place)) for p in place.rglob("*")) == ["a", "sub", "sub/b"]
    assert (place / "a").read_text() == "new"


SCALE = """
import sys, time
from pathlib import Path
import torch
from tpv.prompts.provenance import Component, Init, ModelIdentity
from tpv.prompts.algebra import TaskPromptVector
from tpv.execution.artifacts import Store
from tpv.prompts.algebra import cosine_matrix
folder, count = Path(sys.argv[1]), int(sys.argv[2])
started = time.perf_counter()
vectors = [TaskPromptVector.load(path) for path in sorted(folder.iterdir())]
matrix = cosine_matrix(vectors)
# The peak of this process alone: getrusage() starts from the peak of the process that started it.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.perf_counter() - started, peak / 2**20, tuple(matrix.shape))
"""


def test_a_thousand_vectors_load_and_compare_within_two_gib(tmp_path):
    """[100, 768] each, in a process of its own; the time is printed, not asserted."""
    model = ModelIdentity(name="m", fingerprint="f" * 64, hidden_size=768)
    for k in range(1000):
        part = Component(task=f"t{k}", origin="o", init=Init(kind="normal", seed=1), coefficient=1.0)
        TaskPromptVector(torch.randn(100, 768), model, (part,)).save(tmp_path / f"{k:04}.safetensors")
    out = subprocess.run(
        [sys.executable, "-c", SCALE, str(tmp_path), "1000"], capture_output=True, text=True, check=True
    ).stdout
    seconds, gib, shape = out.split(maxsplit=2)
    print(f"1,000 vectors: {float(seconds):.1f} s, {float(gib):.2f} GiB")
    assert float(gib) <= 2.0
    assert shape.strip() == "(1000, 1000)"


def test_cosine_matrix_against_float64():
    model = ModelIdentity(name="m", fingerprint="f" * 64, hidden_size=16)
    items = [TaskPromptVector(torch.randn(8, 16) * 10.0**k, model, ()) for k in range(-3, 4)]
    flat = torch.stack([item.tensor.double().flatten() for item in items])
    flat /= flat.norm(dim=1, keepdim=True)
    assert torch.allclose(cosine_matrix(items).double(), flat @ flat.T, atol=1e-6)
    assert torch.equal(cosine_matrix(items), cosine_matrix(items).T)


def test_equal_prompts_are_equal_files(backbone, tmp_path):
    prompt = tpv.SoftPrompt.sample(backbone, 4, seed=1)
    files = set()
    for i in range(20):
        prompt.save(tmp_path / f"{i}.safetensors")
        files.add((tmp_path / f"{i}.safetensors").read_bytes())
    assert len(files) == 1


@pytest.mark.parametrize("make", ["file", "folder", "artifact"])
def test_an_interrupt_while_the_temporary_place_is_made_leaves_nothing(make, tmp_path, monkeypatch):
    place = tmp_path / "new" / "deep"
    writing = {
        "file": lambda: files.atomic_write(place / "v.safetensors"),
        "folder": lambda: files.staged_folder(place),
        "artifact": lambda: Store(place).writing("train", "0" * 32, {}),
    }[make]
    real, made = {name: getattr(Path, name) for name in ("mkdir", "touch")}, []

    def interrupted(name, path, *args, **options):
        real[name](path, *args, **options)
        if ".part" in path.name:
            made.append(path)
            raise KeyboardInterrupt

    for name in real:
        monkeypatch.setattr(Path, name, partialmethod(partial(interrupted, name)))
    with pytest.raises(KeyboardInterrupt), writing():
        pytest.fail("the block was entered")
    assert len(made) == 1
    assert not [path for path in tmp_path.rglob("*") if ".part" in path.name]
