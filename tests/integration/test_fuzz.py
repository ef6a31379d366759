"""A few malformed files for every reader; `python stress/fuzz.py --times 10000` tries many."""

import hashlib
import json
import os
import pickle
import shutil
from random import Random

import fuzz
import mutations
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tpv
from tpv.studies.config import read_config
from tpv.tasks import load_task

FEW = {"runs": 12, "checkpoints": 60, "prompts": 200}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    monkeypatch.setattr("tpv.models.loading.hub_answers", lambda: False)


@pytest.mark.parametrize("name", fuzz.READERS)
def test_what_is_malformed_is_read_or_refused_and_nothing_else_happens(name, tmp_path):
    outcomes = {fuzz.attempt(fuzz.READERS[name], Random(f"{name} {i}"), tmp_path) for i in range(FEW.get(name, 100))}
    assert "refused" in outcomes <= {"read", "refused"}


@pytest.mark.parametrize("name", ["prompts", "adapters", "tasks", "data"])
def test_what_hypothesis_finds_is_read_or_refused_too(name, tmp_path):
    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.randoms(use_true_random=False))
    def attempted(rng):
        fuzz.attempt(fuzz.READERS[name], rng, tmp_path)

    attempted()


# --- the watch itself -----------------------------------------------------------------------------
MISCHIEF = {
    "another exception": (lambda rng, case: {}["key"], "KeyError"),
    "a file elsewhere": (lambda rng, case: (case.parent / "elsewhere").write_text(""), "Mischief: open"),
    "a folder elsewhere": (lambda rng, case: (case.parent / "elsewhere").mkdir(), "Mischief: os.mkdir"),
    "a way out": (
        lambda rng, case: (case / "out").symlink_to("..") or (case / "out" / "x").write_text(""),
        "Mischief: open",
    ),
    "a process": (lambda rng, case: os.system("true"), r"Mischief: os\.system"),
    "the network": (lambda rng, case: __import__("socket").getaddrinfo("example.invalid", 80), "Mischief: socket"),
    "swallowed": (lambda rng, case: [os.system("true")] if rng else None, "Mischief"),
    "a refusal of many lines": (lambda rng, case: (_ for _ in ()).throw(_many_lines()), "no line"),
}


def _many_lines():
    error = tpv.TpvError("x")
    error.args = ("a\nb",)
    return error


@pytest.mark.parametrize("name", MISCHIEF)
def test_mischief_is_noticed(name, tmp_path):
    read, words = MISCHIEF[name]
    with pytest.raises(fuzz.Failure, match=words):
        fuzz.attempt(fuzz.Reader(lambda rng, case: None, read), Random(0), tmp_path)


def test_a_reader_that_does_not_come_back_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SLOW", 0.2)
    monkeypatch.setattr(fuzz, "STUCK", 50)
    with pytest.raises(fuzz.Failure, match="TooSlow"):
        fuzz.attempt(
            fuzz.Reader(lambda rng, case: None, lambda rng, case: [None for _ in iter(int, 1)]), Random(0), tmp_path
        )


def test_a_reader_that_waits_for_ever_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "STUCK", 0.2)
    with pytest.raises(fuzz.Failure, match="TooSlow"):
        fuzz.attempt(
            fuzz.Reader(lambda rng, case: os.mkfifo(case / "pipe"), lambda rng, case: (case / "pipe").read_bytes()),
            Random(0),
            tmp_path,
        )


def test_every_hostile_pickle_would_run_if_it_were_read_without_care(tmp_path, monkeypatch):
    """The canaries sing: otherwise nothing would be shown by their silence."""
    monkeypatch.chdir(tmp_path)
    for call in fuzz.EVIL[:4]:
        pickle.loads(pickle.dumps(call))
        assert (tmp_path / "executed").exists()
        (tmp_path / "executed").unlink()


# --- what was found -------------------------------------------------------------------------------
def test_nested_and_dotted_toml_is_refused_at_once(tmp_path):
    (tmp_path / "own.toml").write_bytes(mutations.as_toml(fuzz.TASK))
    for text in (
        "a = " + "[" * 50_000,
        "a." * 20_000 + "a = 1",
        r'"\"".' * 9_000 + "a = 1",
        "x = {b = 1, " + "a . " * 20_000 + "a = 1}",
        "[" + '"a" . ' * 20_000 + "a]",
        "x = 1\n" * 2**18,
    ):
        (tmp_path / "bad.toml").write_text(text)
        for read in (read_config, load_task):
            with fuzz.watched(tmp_path), pytest.raises(tpv.TpvError, match=r"bad\.toml is (not TOML|too long)"):
                read(tmp_path / "bad.toml")
    (tmp_path / "rows.csv").write_text(fuzz.CSV)
    many = fuzz.TASK | {
        "instruct": "{text}, word. " + "A word, and another. " * 2000 + "word. " * 90 + "x" * 100_000 + "." * 200
    }
    (tmp_path / "own.toml").write_bytes(mutations.as_toml(many))
    assert load_task(tmp_path / "own.toml", style="instruct").examples("test")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_never_ends_is_not_read(kind, tmp_path, backbone):
    def place(path):
        path.unlink(missing_ok=True)
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
        return path

    adapter = tmp_path / "adapter"
    tpv.SoftPrompt.sample(backbone, num_tokens=2, seed=0).to_peft(adapter)
    shutil.copytree(adapter, tmp_path / "other")
    place(adapter / "adapter_config.json")
    place(tmp_path / "other" / "adapter_model.safetensors")
    (tmp_path / "released" / "origin_0").mkdir(parents=True)
    for name in ("origin_0", "sst2"):
        place(tmp_path / "released" / "origin_0" / f"{name}.bin")
    reads = {
        "prompt": lambda: tpv.SoftPrompt.load(place(tmp_path / "p.safetensors")),
        "config": lambda: read_config(place(tmp_path / "c.toml")),
        "task": lambda: load_task(place(tmp_path / "t.toml")),
        "data": lambda: load_task(place(tmp_path / "d.csv")),
        "adapter": lambda: tpv.SoftPrompt.from_peft(adapter),
        "weights": lambda: tpv.SoftPrompt.from_peft(tmp_path / "other"),
        "released": lambda: fuzz.released.read_released(tmp_path / "released", backbone),
    }
    for read in reads.values():
        with fuzz.watched(tmp_path), pytest.raises(tpv.TpvError, match="not a regular file"):
            read()


def test_scores_whose_column_names_are_no_text_are_refused(tmp_path):
    path = tmp_path / "scores.parquet"
    path.write_bytes(fuzz.scored().replace(b"predicted", b"pred\xffcted"))
    with pytest.raises(tpv.TpvError, match=r"scores\.parquet (is damaged|does not say)"):
        fuzz.card_scores.read_scores(path)


def test_scores_that_say_something_else_are_refused(tmp_path):
    table = pq.read_table(fuzz.io.BytesIO(fuzz.scored()))
    about = dict(table.schema.metadata)
    (who,) = json.loads(about[b"scored"]).values()
    identity = who["identity"]
    for odd in (
        3,
        [],
        {},
        who | {"digest": 1},
        {"digest": "x"},
        who | {"identity": identity | {"init": None}},
        who | {"identity": identity | {"components": 3}},
        who | {"identity": identity | {"model": []}},
    ):
        about[b"scored"] = json.dumps({"p": odd}).encode()
        pq.write_table(table.replace_schema_metadata(about), tmp_path / "scores.parquet")
        with pytest.raises(tpv.TpvError, match="predictions do not read"):
            fuzz.card_scores.read_scores(tmp_path / "scores.parquet")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("*/*/predictions.parquet", b"PAR1 nonsense PAR1", {}),
        ("*/*/trainings.json", b'[{"steps": {}}]', {}),
        ("search/*/grid.parquet", None, {"scale": "wide"}),
    ],
)
def test_an_artifact_that_is_whole_and_makes_no_sense_is_refused_by_its_place(file, content, said, tmp_path):
    shutil.copytree(fuzz.run_folder(), tmp_path / "run")
    path = sorted((tmp_path / "run" / "jobs").glob(file))[0]
    path.write_bytes(content or path.read_bytes())
    record = json.loads((path.parent / "record.json").read_text()) | said
    record["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    fuzz._write_sealed(path.parent / "record.json", record)
    with pytest.raises(tpv.DamagedFileError, match=rf"{path.parent.name} does not contain what a job writes"):
        fuzz.write_results(fuzz.open_run(tmp_path / "run"), tmp_path / "out")


def test_a_manifest_without_one_of_its_tasks_is_refused(tmp_path):
    shutil.copytree(fuzz.run_folder(), tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    gone = sorted(manifest["tasks"])[0]
    del manifest["tasks"][gone]
    fuzz._write_sealed(tmp_path / "run" / "run.json", manifest)
    with pytest.raises(tpv.DamagedFileError, match=rf"run\.json is damaged; expected the rows of {gone}"):
        fuzz.open_run(tmp_path / "run")


def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path):
    content = fuzz.checkpoint_file()
    for position in range(len(content) - 1, 8, -len(content) // 40):
        (tmp_path / "c.safetensors").write_bytes(
            content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        )
        with pytest.raises(tpv.TpvError, match=r"checkpoint .*c\.safetensors"):
            fuzz._train(tmp_path / "c.safetensors")


@pytest.mark.parametrize("value", [10**400, 1e308, -(10**400)])
def test_epochs_beyond_every_number_are_refused(value):
    with pytest.raises(tpv.TpvError, match="epochs must be a positive finite number"):
        tpv.Recipe(epochs=value)
