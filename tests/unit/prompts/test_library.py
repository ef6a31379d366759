"""Libraries: which vectors are in them, under which names, and that listing reads headers only."""

import json
import os
import shutil
from pathlib import Path
from random import Random

import pytest
import torch
from safetensors.torch import save_file

import tpv
from tpv.errors import UnknownNameError
from tpv.prompts import index, storage
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.prompts.facts import Facts, Reason, facts_of, read_facts
from tpv.prompts.provenance import Component, Init, ModelIdentity, VectorTraining

INDEX = ".tpv-index.json"
FRESH = VectorTraining(starts="vocabulary", parameters={"limit": 5000})
BESIDE = FRESH.model_copy(update={"beside": ("yelp",)})


def model_of(name="toy", width=4):
    return ModelIdentity(name=name, fingerprint=(name.encode().hex() * 64)[:64], hidden_size=width)


def vector_of(task, *, model=None, tokens=3, seed=0, training=None):
    model = model or model_of()
    tensor = torch.randn(tokens, model.hidden_size, generator=torch.Generator().manual_seed(seed))
    init = None if training else Init(kind="vocabulary", seed=seed)
    part = Component(task=task, origin=f"{task} {seed}", init=init, coefficient=1.0, training=training)
    return TaskPromptVector(tensor, model, (part,))


def prompt_of():
    return SoftPrompt(torch.ones(3, 4), model_of(), Init(kind="vocabulary", seed=0))


@pytest.fixture
def vectors():
    return {task: vector_of(task, seed=i) for i, task in enumerate(["sst2", "trec", "yelp"])}


@pytest.fixture
def folder(tmp_path, vectors):
    """A folder with a vector of each task."""
    place = tmp_path / "vectors"
    for name, vector in vectors.items():
        vector.save(place / f"{name}.safetensors")
    return place


@pytest.fixture
def headers_only(monkeypatch):
    """Fail when the values of a file are read."""

    def read(path, *_):
        pytest.fail(f"the values of {path} were read")

    monkeypatch.setattr(storage, "read_safetensors", read)


@pytest.fixture
def read_headers(monkeypatch):
    """The names of the files whose headers are read."""
    names = []

    def read(path, *args):
        names.append(path.name)
        return read_facts(path, *args)

    monkeypatch.setattr(index, "read_facts", read)
    return names


# --- what is in it --------------------------------------------------------------------------------
def test_a_folder_is_a_mapping_from_names_to_vectors(folder, vectors):
    library = tpv.Library(folder)
    assert library.names == list(library) == ["sst2", "trec", "yelp"]
    assert len(library) == 3
    assert dict(library) == vectors
    assert "sst2" in library
    assert "sst3" not in library
    assert 3 not in library
    assert library.get("sst3") is None
    assert library.model == model_of()
    assert library.left_out == {}
    assert repr(library) == "Library(3 vectors of toy)"


def test_a_name_has_the_folders_it_takes_to_tell_files_apart(tmp_path, vectors):
    for place in ("x/sst2", "y/sst2", "y/z/trec", "a/b/yelp", "c/b/yelp", "sst2"):
        vectors[place.rpartition("/")[2]].save(tmp_path / f"{place}.safetensors")
    library = tpv.Library(tmp_path)
    assert set(library.names) == {"sst2", "x/sst2", "y/sst2", "trec", "a/b/yelp", "c/b/yelp"}
    assert library["y/z/trec"] == library["trec"] == vectors["trec"]
    with pytest.raises(UnknownNameError, match="'b/yelp'"):
        library["b/yelp"]
    kept = library.filter(tasks="sst2")
    assert set(kept.names) == {"sst2", "x/sst2", "y/sst2"}


def test_several_sources(tmp_path, folder, vectors):
    shutil.copytree(folder, tmp_path / "more")
    os.remove(tmp_path / "more" / "trec.safetensors")
    library = tpv.Library([folder, str(tmp_path / "more"), vectors["sst2"] * 2, {"mine": vectors["yelp"]}])
    assert library.names == ["vectors/sst2", "trec", "vectors/yelp", "more/sst2", "more/yelp", "sst2", "mine"]
    assert library["sst2"] == 2 * vectors["sst2"]
    assert library["mine"] == vectors["yelp"]
    assert tpv.Library([folder, folder / "sst2.safetensors"]).names == ["sst2", "trec", "yelp"]
    assert tpv.Library(vectors).names == list(vectors)
    assert tpv.Library([vectors["sst2"], vectors["sst2"] * 2]).names == ["sst2", "sst2-2"]
    assert tpv.Library([tpv.Library(folder), {"more": vectors["trec"]}]).names == ["sst2", "trec", "yelp", "more"]
    assert tpv.Library(folder / "sst2.safetensors")["sst2"] == vectors["sst2"]
    assert len(tpv.Library()) == len(tpv.Library([])) == 0


def test_what_is_no_vector_of_the_model_is_counted_and_left_out(folder):
    vector_of("far", model=model_of("other", 6)).save(folder / "deep" / "far.safetensors")
    vector_of("long", tokens=5).save(folder / "long.safetensors")
    prompt_of().save(folder / "start.safetensors")
    save_file({"weight": torch.ones(2, 2)}, folder / "foreign.safetensors")
    content = (folder / "sst2.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(content[:-1])
    (folder / "text.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    (folder / "none.safetensors").symlink_to("nowhere")
    (folder / ".work.safetensors").write_bytes(content)
    (folder / "notes.txt").write_text("x")
    os.mkfifo(folder / "pipe.safetensors")
    left = {
        "damaged": ["cut.safetensors", "text.safetensors"],
        "not written by tpv": ["foreign.safetensors"],
        "not readable": ["none.safetensors", "pipe.safetensors"],
        "holding a prompt": ["start.safetensors"],
    }
    library = tpv.Library(folder)
    assert library.names == ["long", "sst2", "trec", "yelp", "far"]
    assert library.left_out == left
    assert library.model is None
    for model in (model_of(), "toy", model_of().fingerprint[:8]):
        mine = tpv.Library(folder, model=model)
        assert mine.names == ["long", "sst2", "trec", "yelp"]
        assert mine.left_out == left | {"of another model": ["far"]}
        assert mine.model == model_of()
    few = mine.filter(num_tokens=3)
    assert few.names == ["sst2", "trec", "yelp"]
    assert few.left_out["of another number of tokens"] == ["long"]
    assert repr(few).endswith("1 of another model, 1 of another number of tokens)")
    assert len(mine) == 4


def test_a_backbone_says_which_model(backbone, tmp_path):
    init = SoftPrompt.sample(backbone, 3)
    (init.tuned_to(init.tensor + 1, "sst2") - init).save(tmp_path / "sst2.safetensors")
    vector_of("trec").save(tmp_path / "trec.safetensors")
    assert tpv.Library(tmp_path, model=backbone).names == ["sst2"]
    assert tpv.Library(tmp_path).filter(model=backbone).left_out == {"of another model": ["trec"]}


def test_filters(vectors):
    items = vectors | {
        "portable": vector_of("sst2", training=FRESH),
        "beside": vector_of("trec", training=BESIDE),
        "half": 0.5 * vectors["sst2"],
        "sum": vectors["sst2"] + vectors["trec"],
        "ties": tpv.merge([vector_of("sst2", training=FRESH), vector_of("yelp", training=BESIDE)], "ties"),
    }
    library = tpv.Library(items)
    assert library.filter(portable=True).names == ["portable", "beside", "ties"]
    assert library.filter(portable=False).names == ["sst2", "trec", "yelp", "half", "sum"]
    assert library.filter(tasks="sst2").names == ["sst2", "portable", "half"]
    assert library.filter(tasks=["sst2", "trec"]).names == ["sst2", "trec", "portable", "beside", "half", "sum"]
    both = library.filter(tasks=["sst2", "yelp"], portable=True)
    assert both.names == ["portable", "ties"]
    assert both.left_out == {"of other tasks": ["trec", "beside", "sum"], "not portable": ["sst2", "yelp", "half"]}
    assert library.filter().names == library.names


# --- what is said of it ---------------------------------------------------------------------------
def test_describe(folder, vectors):
    (vectors["sst2"] - 0.5 * vectors["yelp"]).save(folder / "deep" / "sum.safetensors")
    vector_of("trec", training=FRESH).save(folder / "deep" / "fresh.safetensors")
    vector_of("trec", training=BESIDE).save(folder / "deep" / "beside.safetensors")
    tpv.merge(list(vectors.values()), "ties").save(folder / "deep" / "ties.safetensors")
    library = tpv.Library(folder)
    rows = {row["name"]: row for row in library.describe().to_pylist()}
    assert list(rows) == library.names
    for name, row in rows.items():
        assert row["digest"] == library[name].digest
        assert row["terms"] == library[name].expression
        assert row["num_tokens"] == 3
        assert (row["model"], row["fingerprint"]) == ("toy", model_of().fingerprint)
        assert TaskPromptVector.load(row["path"]) == library[name]
        assert row["scores"] is None
    modes = {"sst2": "ordinary", "sum": "merged", "fresh": "portable", "beside": "composable", "ties": "merged"}
    assert {name: rows[name]["mode"] for name in modes} == modes
    assert rows["sum"]["tasks"] == ["sst2", "yelp"]
    assert rows["ties"]["tasks"] == ["sst2", "trec", "yelp"]
    assert rows["sum"]["init"] == "vocabulary seed 0; vocabulary seed 2"
    assert rows["fresh"]["init"] == "fresh vocabulary (limit 5000) initializations"
    empty = tpv.Library().describe()
    assert len(empty) == 0
    assert empty.column_names == library.describe().column_names
    in_memory = tpv.Library(vectors).describe().to_pylist()
    assert [row["digest"] for row in in_memory] == [vector.digest for vector in vectors.values()]
    assert {row["path"] for row in in_memory} == {None}


def test_listing_reads_no_values(folder, vectors, headers_only):
    library = tpv.Library(folder, model="toy").filter(tasks=["sst2", "trec"], portable=False)
    assert library.names == ["sst2", "trec"]
    rows = library.describe(digests=False).to_pylist()
    assert [row["terms"] for row in rows] == ["sst2", "trec"]
    assert [row["digest"] for row in rows] == [None, None]


def test_values_that_are_damaged_are_noticed_when_they_are_read(folder, vectors):
    content = bytearray((folder / "sst2.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "sst2.safetensors").write_bytes(content)
    library = tpv.Library(folder)
    assert library.describe()["digest"].to_pylist() == [None, vectors["trec"].digest, vectors["yelp"].digest]
    with pytest.raises(tpv.DamagedFileError, match=r"sst2\.safetensors is damaged"):
        library["sst2"]


def test_a_file_that_becomes_another_vector_is_not_given_out(folder):
    library = tpv.Library(folder)
    vector_of("sst2", model=model_of("other", 6)).save(folder / "sst2.safetensors")
    with pytest.raises(tpv.TpvError, match=r"sst2\.safetensors is not the vector that was listed"):
        library["sst2"]


def test_what_a_header_says_is_what_the_vector_is(folder, vectors):
    for name, vector in vectors.items():
        known = facts_of(vector.model, vector.num_tokens, vector.components)
        assert read_facts(folder / f"{name}.safetensors") == known


def test_every_flipped_bit_of_a_header_is_read_or_is_a_reason(folder, tmp_path):
    content = (folder / "sst2.safetensors").read_bytes()
    bad = tmp_path / "bad.safetensors"
    rng = Random(0)
    for _ in range(1500):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        bad.write_bytes(flipped if rng.random() < 0.8 else flipped[: rng.randrange(len(content))])
        found = read_facts(bad)
        assert isinstance(found, Facts | Reason)
        if isinstance(found, Facts):  # what the header cannot show, the values do
            try:
                vector = TaskPromptVector.load(bad)
            except tpv.TpvError:
                continue
            assert found == facts_of(vector.model, vector.num_tokens, vector.components)


# --- the index ------------------------------------------------------------------------------------
def test_only_files_that_changed_are_read_again(folder, vectors, read_headers):
    tpv.Library(folder)
    assert sorted(read_headers) == ["sst2.safetensors", "trec.safetensors", "yelp.safetensors"]
    read_headers.clear()
    assert dict(tpv.Library(folder)) == vectors
    assert read_headers == []
    (2 * vectors["trec"]).save(folder / "trec.safetensors")
    vectors["yelp"].save(folder / "new" / "yelp.safetensors")
    os.remove(folder / "sst2.safetensors")
    library = tpv.Library(folder)
    assert sorted(read_headers) == ["trec.safetensors", "yelp.safetensors"]
    assert library.entry("trec").facts.terms == "2 trec"
    assert set(json.loads((folder / INDEX).read_text())["files"]) == {
        "trec.safetensors",
        "yelp.safetensors",
        "new/yelp.safetensors",
    }


def test_digests_are_calculated_once(folder, vectors, monkeypatch):
    table = tpv.Library(folder).describe()
    monkeypatch.setattr(storage, "read_safetensors", lambda path, *_: pytest.fail(f"{path} was read"))
    assert tpv.Library(folder).describe() == table


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 2, "files": {}}',
        b'{"format": 1, "files": {"sst2.safetensors": {"size": "x"}}}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_a_damaged_index_is_ignored_and_written_anew(folder, vectors, content, read_headers):
    tpv.Library(folder)
    good = json.loads((folder / INDEX).read_text())
    (folder / INDEX).write_bytes(content)
    read_headers.clear()
    assert dict(tpv.Library(folder)) == vectors
    assert len(read_headers) == 3
    assert json.loads((folder / INDEX).read_text()) == good


def test_an_index_that_lies_gives_out_no_vector(folder):
    tpv.Library(folder)
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(text.replace('"terms":"sst2"', '"terms":"trec"'))
    with pytest.raises(tpv.DamagedFileError, match=r"sst2\.safetensors is not the vector that was listed"):
        tpv.Library(folder)["sst2"]


def test_an_index_that_is_a_link_or_a_pipe_harms_nothing(folder, tmp_path, vectors):
    (tmp_path / "precious").write_text("precious")
    (folder / INDEX).symlink_to(tmp_path / "precious")
    assert dict(tpv.Library(folder)) == vectors
    assert (tmp_path / "precious").read_text() == "precious"
    os.remove(folder / INDEX)
    os.mkfifo(folder / INDEX)
    assert dict(tpv.Library(folder)) == vectors


def test_a_folder_that_cannot_be_written_needs_no_index(folder, vectors, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    assert dict(tpv.Library(folder)) == vectors
    assert len(tpv.Library(folder).describe()) == 3
    assert not (folder / INDEX).exists()
    with pytest.raises(tpv.TpvError, match="cannot be written; got Read-only"):
        tpv.Library(folder).add(vectors["sst2"] * 2, "twice")


def test_an_empty_folder_gets_no_index(tmp_path):
    assert len(tpv.Library(tmp_path)) == 0
    assert os.listdir(tmp_path) == []


# --- adding ---------------------------------------------------------------------------------------
def test_adding_writes_a_file(folder, vectors):
    library = tpv.Library(folder)
    new = vector_of("mini/ag news", seed=9)
    assert library.add(new) == "mini-ag-news"
    assert library.add(2 * new, "deep/twice") == "deep/twice"
    assert TaskPromptVector.load(folder / "mini-ag-news.safetensors") == new
    assert library["deep/twice"] == 2 * new
    again = tpv.Library(folder)
    assert set(again.names) == {*vectors, "mini-ag-news", "twice"}
    assert again["deep/twice"] == 2 * new
    assert {row["name"]: row["digest"] for row in library.describe().to_pylist()}["mini-ag-news"] == new.digest


def test_adding_to_a_library_in_memory(vectors):
    library = tpv.Library()
    for vector in vectors.values():
        library.add(vector)
    assert dict(library) == vectors
    assert library.folder is None


def test_the_first_vector_says_which_model(tmp_path):
    library = tpv.Library(tmp_path)
    library.add(vector_of("sst2"))
    with pytest.raises(tpv.IncompatibleError, match="another model than the library; expected toy"):
        library.add(vector_of("trec", model=model_of("other")))
    named = tpv.Library(model=model_of())
    with pytest.raises(tpv.IncompatibleError, match="another model"):
        named.add(vector_of("trec", model=model_of("other")))
    assert tpv.Library(tmp_path).names == ["sst2"]


@pytest.mark.parametrize(
    "name", ["../out", "/tmp/out", "a/../../out", "..", "", " ", ".hidden", "a\\b", "a\0b", "a b", "x" * 300, "-rf"]
)
def test_a_name_that_is_no_safe_one_is_refused(folder, vectors, name, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    library = tpv.Library(folder)
    with pytest.raises(tpv.TpvError, match="inside the library"):
        library.add(vectors["sst2"], name)
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != INDEX] == before


def test_a_link_out_of_the_folder_is_refused(folder, vectors, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "out").symlink_to(tmp_path / "elsewhere")
    library = tpv.Library(folder)
    with pytest.raises(tpv.TpvError, match="leads out of the library"):
        library.add(vectors["sst2"], "out/sst2")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_nothing_is_replaced(folder, vectors):
    library = tpv.Library(folder)
    for name in ("sst2", "SST2", "sst2.safetensors"):
        with pytest.raises(tpv.TpvError, match="already"):
            library.add(vectors["trec"], name)
    vectors["sst2"].save(folder / "meanwhile.safetensors")  # by somebody else
    with pytest.raises(tpv.TpvError, match=r"meanwhile\.safetensors cannot be written; got File exists"):
        library.add(vectors["trec"], "meanwhile")
    assert TaskPromptVector.load(folder / "meanwhile.safetensors") == vectors["sst2"]
    assert dict(library) == vectors
    assert not list(folder.glob("*.part"))


def test_a_file_system_without_hard_links(folder, vectors, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    library = tpv.Library(folder)
    assert library[library.add(2 * vectors["sst2"], "twice")] == 2 * vectors["sst2"]
    vectors["sst2"].save(folder / "meanwhile.safetensors")
    with pytest.raises(tpv.TpvError, match="File exists"):
        library.add(vectors["trec"], "meanwhile")


# --- refusals -------------------------------------------------------------------------------------
def test_unknown_names(folder):
    with pytest.raises(UnknownNameError, match="no vector 'sst' in the library; did you mean 'sst2'") as caught:
        tpv.Library(folder)["sst"]
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, tpv.TpvError)
    with pytest.raises(tpv.TpvError, match="the library is empty"):
        tpv.Library()["sst"]
    with pytest.raises(tpv.TpvError, match="of a model called 'ty'; did you mean 'toy'"):
        tpv.Library(folder, model="ty")


def test_two_models_of_one_name(tmp_path):
    models = [model_of(), model_of().model_copy(update={"fingerprint": "e" * 64})]
    library = tpv.Library({str(i): vector_of("t", model=model) for i, model in enumerate(models)})
    with pytest.raises(tpv.TpvError, match=r"several models are called 'toy'.*eeeeeeeeeeee"):
        library.filter(model="toy")
    assert library.filter(model="e" * 12).names == ["1"]


def test_sources_that_are_none(tmp_path, folder, vectors, monkeypatch):
    monkeypatch.setattr("tpv.interop.repository.hub_answers", lambda: False)
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "gone", str(tmp_path / "gone"), "gone", "a/b/c", "../x", "a\0b", "gone/"):
        with pytest.raises(tpv.TpvError, match="no library at"):
            tpv.Library(place)
    with pytest.raises(tpv.TpvError, match=r"library x+ cannot be read"):
        tpv.Library("x" * 300)
    with pytest.raises(tpv.TpvError, match=r"no folder me/vectors is here, and .* hub cannot be reached"):
        tpv.Library("me/vectors")
    (tmp_path / "bad.safetensors").write_text("x")
    with pytest.raises(tpv.DamagedFileError):
        tpv.Library(tmp_path / "bad.safetensors")
    for wrong in ([3], 3, {"a": 3}, {3: vectors["sst2"]}, {"a": prompt_of()}, [prompt_of()]):
        with pytest.raises(tpv.TpvError, match="expected"):
            tpv.Library(wrong)
    with pytest.raises(tpv.TpvError, match="expected a backbone, its identity or its name; got int"):
        tpv.Library(folder, model=3)
    with pytest.raises(tpv.TpvError, match="vector to add to a library; expected a TaskPromptVector"):
        tpv.Library().add(prompt_of())
