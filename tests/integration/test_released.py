"""The authors' released files: what they hold, and that nothing in them runs."""

import io
import os
import pickle
import warnings
from collections import OrderedDict

import peft
import pytest
import torch

import tpv
from tpv.interop.released import read_released, second_half_is_dead

pytestmark = [  # what torch, PEFT and transformers say to each other
    pytest.mark.filterwarnings("ignore:.*TorchScript archive:UserWarning"),
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]
P, H = 10, 32


def write(folder, origin, init, **tuned):
    place = folder / f"origin_{origin}"
    place.mkdir(parents=True, exist_ok=True)
    torch.save({"prompt_embeddings": init}, place / f"origin_{origin}.bin")
    for task, tensor in tuned.items():
        torch.save(tensor, place / f"{task}.bin")


def trained(init, shrink=0.97, dead=True):
    """A prompt whose first half moved; the second only decayed, or moved too."""
    moved = init + torch.randn_like(init)
    return torch.cat([moved[: P // 2], init[P // 2 :] * shrink if dead else moved[P // 2 :]])


@pytest.fixture
def ours(random_t5):
    return random_t5()


@pytest.fixture
def folder(tmp_path):
    """Two origins in the authors' layout, one with two tasks."""
    torch.manual_seed(0)
    place = tmp_path / "released"
    for origin, tasks in ((10, ["sst2_text"]), (2, ["qnli_text", "mnli_text"])):
        init = torch.randn(P, H) * 5
        write(place, origin, init, **{task: trained(init) for task in tasks})
        (place / f"origin_{origin}" / "README.md").write_text("not a prompt")
    return place


def stored(folder, name):
    value = torch.load(folder / name, weights_only=True)
    return value["prompt_embeddings"] if isinstance(value, dict) else value


# --- what is read ---------------------------------------------------------------------------------
def test_prompts_starts_and_vectors_by_origin_and_task(folder, ours):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = read_released(folder, ours, keep_dead_rows=True)
    assert [(r.origin, r.task) for r in records] == [(2, "mnli_text"), (2, "qnli_text"), (10, "sst2_text")]
    for record in records:
        place = f"origin_{record.origin}"
        init, tuned = stored(folder, f"{place}/{place}.bin"), stored(folder, f"{place}/{record.task}.bin")
        assert torch.equal(record.init.tensor, init)
        assert torch.equal(record.tuned.tensor, tuned)
        assert torch.equal(record.vector.tensor, tuned - init)
        assert record.vector.terms == {record.task: 1.0}
        assert record.init.terms == {}
        assert record.init.init.kind == "given"
        assert record.init.init.detail.split()[0] == place
        assert record.init.model == ours.identity
    mnli, qnli, sst2 = records
    assert mnli.init == qnli.init
    assert mnli.init.init != sst2.init.init
    assert (sst2.init + (mnli.vector + qnli.vector)).terms == {"mnli_text": 1.0, "qnli_text": 1.0}
    with pytest.raises(tpv.IncompatibleError, match=r"different initializations.*origin_2"):
        _ = mnli.tuned - sst2.init


def test_dead_halves_are_dropped_with_a_note(folder, ours):
    with pytest.warns(
        tpv.TpvWarning, match=r"dropped the second half of 3 prompts and 2 initializations \(the last 5 rows"
    ):
        records = read_released(folder, ours)
    whole = read_released(folder, ours, keep_dead_rows=True)
    for record, full in zip(records, whole, strict=True):
        assert torch.equal(record.init.tensor, full.init.tensor[:5])
        assert torch.equal(record.tuned.tensor, full.tuned.tensor[:5])
        assert torch.equal(record.vector.tensor, full.vector.tensor[:5])
        assert record.init.init.detail != full.init.init.detail


def test_where_a_second_half_was_trained_all_rows_stay(folder, ours):
    write(folder, 2, init := stored(folder, "origin_2/origin_2.bin"), qnli_text=trained(init, dead=False))
    with pytest.warns(tpv.TpvWarning, match=r"in 1 of 3 prompts.*released/origin_2/qnli_text\.bin"):
        records = read_released(folder, ours)
    assert [record.tuned.num_tokens for record in records] == [P, P, P]
    for origin, task in ((2, "qnli_text"), (2, "mnli_text"), (10, "sst2_text")):
        init = stored(folder, f"origin_{origin}/origin_{origin}.bin")
        write(folder, origin, init, **{task: trained(init, dead=False)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {record.init.num_tokens for record in read_released(folder, ours)} == {P}


def test_what_counts_as_dead():
    torch.manual_seed(0)
    init = torch.randn(P, H) * 5
    for shrink in (1.0, 0.9999, 0.83, 0.1):
        assert second_half_is_dead(init, trained(init, shrink))
    rounded = trained(init)
    rounded[P // 2 :] *= 1 + 1e-4 * torch.randn(P // 2, H)  # as far as fp32 steps go astray
    assert second_half_is_dead(init, rounded)
    for shrink in (0.0, -0.5, 1.01, 2.0):
        assert not second_half_is_dead(init, trained(init, shrink))
    one_value = trained(init)
    one_value[-1, -1] += 1.0
    assert not second_half_is_dead(init, one_value)
    assert not second_half_is_dead(init, trained(init, dead=False))
    slightly = trained(init)
    slightly[P // 2 :] += 0.05 * torch.randn(P // 2, H)
    assert not second_half_is_dead(init, slightly)
    barely = init + 1e-4 * torch.randn(P, H)  # both halves moved, only not far
    assert not second_half_is_dead(init, barely)
    assert not second_half_is_dead(init[:-1], trained(init)[:-1])
    zeros = torch.cat([init[: P // 2], torch.zeros(P // 2, H)])
    assert not second_half_is_dead(zeros, zeros + 1)


def test_what_peft_leaves_dead_is_found_dead(ours, tmp_path):
    """The layout as it comes about: PEFT's doubling, AdamW's decay, both halves saved."""
    torch.manual_seed(1)
    model = peft.get_peft_model(ours.model, peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=4))
    table = model.prompt_encoder["default"].embedding.weight
    init, inputs = table.detach().clone(), ours.tokenizer(["the man is eating"], return_tensors="pt")
    optimizer = torch.optim.AdamW([table], lr=0.3, weight_decay=1e-3)
    for _ in range(30):
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    write(tmp_path, 0, init, sst2=table.detach().clone())
    with pytest.warns(tpv.TpvWarning, match="the last 4 rows"):
        (record,) = read_released(tmp_path, ours)
    assert torch.equal(record.tuned.tensor, table[:4])
    assert torch.allclose(table[4:], init[4:] * (1 - 3e-4) ** 30)
    assert not torch.equal(table[4:], init[4:])


def test_links_and_hidden_files(folder, ours, tmp_path):
    (folder / "origin_2").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "._mnli_text.bin").write_bytes(b"\0\5\x16\7")
    (folder / "origin_2").symlink_to(tmp_path / "elsewhere")
    (folder / "origin_x").mkdir()
    (folder / "origin_7").write_text("a file")
    assert len(read_released(folder, ours, keep_dead_rows=True)) == 3


# --- what is refused ------------------------------------------------------------------------------
class Payload:
    """Unpickled without care, it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("which", ["origin_2", "mnli_text"])
@pytest.mark.parametrize("kind", ["zip", "plain pickle", "old torch.save", "beside the prompt"])
def test_code_in_a_pickle_does_not_run(which, kind, folder, ours, tmp_path):
    trap, file = tmp_path / "trap", folder / "origin_2" / f"{which}.bin"
    payload = {"prompt_embeddings": stored(folder, f"origin_2/{which}.bin"), "x": Payload(trap)}
    if kind != "beside the prompt":
        payload = Payload(trap)
    if kind == "plain pickle":
        file.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, file, _use_new_zipfile_serialization=kind != "old torch.save")
    with pytest.raises(tpv.DamagedFileError, match=rf"{which}\.bin is ") as error:
        read_released(folder, ours)
    assert "\n" not in str(error.value)
    assert not trap.exists()
    if kind == "plain pickle":
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert trap.exists()  # the trap was a good one


def old_pickle(f):
    torch.save(
        stored(f, "origin_2/mnli_text.bin"), f / "origin_2" / "mnli_text.bin", _use_new_zipfile_serialization=False
    )


def replace(value, name="mnli_text"):
    return lambda f: torch.save(value, f / "origin_2" / f"{name}.bin")


def cut(f):
    file = f / "origin_2" / "mnli_text.bin"
    file.write_bytes(file.read_bytes()[:-200])


def scripted(f):
    """TorchScript: also a zip, also read by torch.load, and nothing but code."""

    class Prompt(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(Prompt()), buffer)
    (f / "origin_2" / "mnli_text.bin").write_bytes(buffer.getvalue())


good = torch.ones(P, H)
REFUSED = {
    "old torch.save": (old_pickle, r"mnli_text\.bin is not a file of torch\.save.*an old pickle"),
    "text": (
        lambda f: (f / "origin_2" / "mnli_text.bin").write_text("hello"),
        r"mnli_text\.bin is not a file of torch\.save",
    ),
    "empty": (
        lambda f: (f / "origin_2" / "mnli_text.bin").write_bytes(b""),
        r"mnli_text\.bin is not a file of torch\.save",
    ),
    "cut": (cut, r"mnli_text\.bin is damaged"),
    "TorchScript": (scripted, r"mnli_text\.bin is damaged or holds more than tensors"),
    "a module": (replace(torch.nn.Linear(2, 2)), "holds more than tensors"),
    "a bare start": (replace(good, "origin_2"), r"origin_2\.bin is not a released initialization.*got Tensor"),
    "other keys": (replace({"prompt": good}, "origin_2"), r"not a released initialization.*a dict of \['prompt'\]"),
    "more keys": (replace({"prompt_embeddings": good, "lr": 0.3}, "origin_2"), "not a released initialization"),
    "a list for a start": (replace({"prompt_embeddings": [[1.0] * H]}, "origin_2"), "bare fp32 tensor.*got list"),
    "a tuned dict": (replace({"prompt_embeddings": good}), "bare fp32 tensor.*got dict"),
    "a state dict": (replace(OrderedDict(w=good)), "bare fp32 tensor.*got OrderedDict"),
    "a parameter": (replace(torch.nn.Parameter(good)), "bare fp32 tensor"),
    "half": (replace(good.half()), r"got torch\.float16 \[10, 32\]"),
    "double": (replace(good.double()), r"got torch\.float64"),
    "whole": (replace(good.long()), r"got torch\.int64"),
    "sparse": (replace(good.to_sparse()), "bare fp32 tensor"),
    "meta": (replace(torch.empty(P, H, device="meta")), "bare fp32 tensor"),
    "one axis": (replace(good[0]), r"got torch\.float32 \[32\]"),
    "no rows": (replace(good[:0]), "rows; expected from 1 to 100000; got 0"),
    "a claim of size": (replace(torch.ones(1, H).expand(10**12, H)), "rows; expected from 1 to 100000"),
    "width": (replace(torch.ones(P, H + 1)), r"mnli_text\.bin does not fit model random 0.*width 32; got 33"),
    "another P": (replace(torch.ones(P - 2, H)), r"mnli_text\.bin and its initialization.*\[10, 32\]; got \[8, 32\]"),
    "NaN": (replace(good * torch.nan), r"mnli_text\.bin; expected finite values; got 320 values"),
    "NaN in a start": (replace({"prompt_embeddings": good / 0}, "origin_2"), r"origin_2\.bin; expected finite values"),
    "no start": (
        lambda f: (f / "origin_2" / "origin_2.bin").unlink(),
        r"origin_2 lacks its initialization; expected origin_2\.bin",
    ),
    "no tuned": (lambda f: (f / "origin_10" / "sst2_text.bin").unlink(), "origin_10 holds no tuned prompt"),
    "empty origin": (lambda f: (f / "origin_3").mkdir(), "origin_3 lacks its initialization"),
    "no origins": (
        lambda f: [path.rename(path.with_name(f"x{path.name}")) for path in f.glob("origin_*")],
        "expected folders origin_0",
    ),
    "no folder": (lambda f: f.rename(f.with_name("released-away")), "released cannot be read"),
    "a folder for a file": (
        lambda f: ((f / "origin_2" / "mnli_text.bin").unlink(), (f / "origin_2" / "mnli_text.bin").mkdir()),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_in_one_line(name, folder, ours):
    damage, words = REFUSED[name]
    damage(folder)
    with pytest.raises(tpv.TpvError, match=words) as error:
        read_released(folder, ours, keep_dead_rows=True)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700


def test_every_flipped_byte_is_refused_or_gives_a_prompt(folder, ours):
    """Damage anywhere ends in a refusal or in finite numbers, never in another exception."""
    file = folder / "origin_2" / "mnli_text.bin"
    content = file.read_bytes()
    for position in range(0, len(content), 7):
        file.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
        try:
            records = read_released(folder, ours, keep_dead_rows=True)
        except tpv.TpvError as error:
            assert "mnli_text.bin" in str(error)
        else:
            assert all(record.tuned.tensor.isfinite().all() for record in records)


# --- the command ----------------------------------------------------------------------------------
def test_import_by_command(run, backbone, tmp_path):
    torch.manual_seed(0)
    for origin in (0, 1):
        init = torch.randn(P, 128)
        write(tmp_path / "released", origin, init, sst2=trained(init), qnli=trained(init))
    code, out, err = run("import", tmp_path / "released", "--model", "mini", "--out", tmp_path / "out")
    assert code == 0, err
    assert err.startswith("warning: ")
    assert "keep_dead_rows" in err
    names = [
        f"origin_{i}/{name}"
        for i in (0, 1)
        for name in (
            "init.safetensors",
            "qnli.prompt.safetensors",
            "qnli.vector.safetensors",
            "sst2.prompt.safetensors",
            "sst2.vector.safetensors",
        )
    ]
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")) == names
    assert out.count("wrote ") == 10
    init = tpv.SoftPrompt.load(tmp_path / "out" / "origin_1" / "init.safetensors")
    prompt = tpv.SoftPrompt.load(tmp_path / "out" / "origin_1" / "sst2.prompt.safetensors")
    vector = tpv.TaskPromptVector.load(tmp_path / "out" / "origin_1" / "sst2.vector.safetensors")
    assert prompt - init == vector
    assert vector.terms == {"sst2": 1.0}
    assert init.model == backbone.identity
    code, _, err = run("import", tmp_path / "released", "-m", "mini", "--keep-dead-rows", "--out", tmp_path / "whole")
    assert (code, err) == (0, "")
    assert tpv.SoftPrompt.load(tmp_path / "whole" / "origin_1" / "init.safetensors").num_tokens == P


def test_bad_imports_are_one_line_and_leave_nothing(run, folder, tmp_path, subtests):
    cases = {
        "no model": ([], "pass --model"),
        "another model": (["--model", "mini"], "does not fit model mini"),
        "a start": (["--model", "mini", "--start", folder], "hold their initializations and tasks"),
        "a task": (["--model", "mini", "--task", "t"], "hold their initializations and tasks"),
    }
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    for name, (args, words) in cases.items():
        with subtests.test(name):
            code, out, err = run("import", folder, *args, "--out", tmp_path / "out")
            assert (code, out) == (2, "")
            assert err.startswith("error: ")
            assert err.count("\n") == 1
            assert words in err
            assert sorted(str(path) for path in tmp_path.rglob("*")) == before
