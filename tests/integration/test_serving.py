"""A server answers what tpv.predict and tpv.generate answer, whatever is asked together; and what is put is served."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random

import httpx2
import pytest
from served import TASKS, WORDS
from servers import fill, serving, vector_of

import tpv
from tpv.evaluation.tuned import About, ModelChoice, Tuned
from tpv.outputs.ranking import Calibrator
from tpv.tasks import labels_only


@pytest.fixture(scope="module")
def library(backbone, tmp_path_factory):
    return fill(tmp_path_factory.mktemp("library"), backbone)


@pytest.fixture(scope="module")
def server(backbone, library):
    with serving(backbone, library) as running:
        yield running


@pytest.fixture
def own(backbone, tmp_path):
    """A server whose library a test may change."""
    with serving(backbone, fill(tmp_path / "own", backbone), watch=0.05) as running:
        running.folder = tmp_path / "own"
        yield running


def texts_of(rng, most=8):
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in range(rng.randint(1, most))]


def prompt_of(backbone, library, name):
    return tpv.SoftPrompt.sample(backbone, 4, seed=0) + tpv.Library(library)[name]


def check_equal(table, expected):
    assert table["predicted"].to_pylist() == expected["predicted"].to_pylist()
    assert table["said"].to_pylist() == expected["said"].to_pylist()
    assert table["source"].to_pylist() == expected["source"].to_pylist()
    assert table["probability"].to_pylist() == pytest.approx(expected["probability"].to_pylist(), abs=1e-4)
    for ours, theirs in zip(table["log_probs"].to_pylist(), expected["log_probs"].to_pylist(), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


# --- answers --------------------------------------------------------------------------------------------
def test_random_mixes_get_the_answers_of_predict(backbone, library, server):
    rng = Random(0)
    asked = [(rng.choice(TASKS), texts_of(rng)) for _ in range(60)]
    with ThreadPoolExecutor(12) as pool:
        tables = list(pool.map(lambda one: server.client.predict(one[0].removeprefix("mini/"), one[1]), asked))
    for (name, texts), table in zip(asked, tables, strict=True):
        prompt = prompt_of(backbone, library, name.removeprefix("mini/"))
        check_equal(table, tpv.predict(backbone, tpv.load_task(name), prompt, texts))
    assert server.counts()["tpv_pass_prompts_sum"] > server.counts()["tpv_pass_prompts_count"]


def test_rows_go_through_the_template(backbone, library, server):
    task, prompt = tpv.load_task("mini/mnli"), prompt_of(backbone, library, "mnli")
    rows = [{"premise": "the man is eating", "hypothesis": "a man eats"}]
    table = server.client.predict("mnli", rows)
    expected = tpv.predict(backbone, task, prompt, rows)
    assert table["predicted"].to_pylist() == expected["predicted"].to_pylist()
    assert table["log_probs"].to_pylist()[0] == pytest.approx(expected["log_probs"].to_pylist()[0], abs=1e-4)
    with pytest.raises(tpv.TpvError, match="expected text in premise, hypothesis"):
        server.client.predict("mnli", [{"premise": "x"}])


def test_several_prompts_and_expressions_in_one_request(backbone, library, server):
    vectors, init = tpv.Library(library), tpv.SoftPrompt.sample(backbone, 4, seed=7)
    texts = ["the film is good", "never dull"]
    table = server.client.predict(["sst2", "yelp"], texts, expression="init:7 + 0.8*(sst2 + yelp)", task="mini/sst2")
    assert table["prompt"].to_pylist() == ["sst2"] * 2 + ["yelp"] * 2 + ["init:7 + 0.8*(sst2 + yelp)"] * 2
    prompts = [prompt_of(backbone, library, name) for name in ("sst2", "yelp")]
    prompts.append(init + 0.8 * (vectors["sst2"] + vectors["yelp"]))
    for place, prompt in enumerate(prompts):
        expected = tpv.predict(backbone, tpv.load_task("mini/sst2"), prompt, texts)
        check_equal(table.slice(2 * place, 2).drop_columns("prompt"), expected)


def test_generation(backbone, library, server):
    task, texts = tpv.load_task("mini/new_word"), ["the man is eating", "good"]
    prompts = {name: prompt_of(backbone, library, name) for name in ("sst2", "trec")}
    expected = tpv.generate(backbone, task, prompts, texts, max_new_tokens=6)
    table = server.client.generate(["sst2", "trec"], texts, task="mini/new_word", max_new_tokens=6)
    assert table.to_pydict() == expected.to_pydict()
    beams = {"max_new_tokens": 5, "num_beams": 3}
    one = server.client.generate("sst2", texts, task="mini/new_word", **beams)
    assert one["generated"] == tpv.generate(backbone, task, prompts["sst2"], texts, **beams)["generated"]
    draws = {"max_new_tokens": 5, "do_sample": True, "temperature": 1.5, "seed": 3}
    with ThreadPoolExecutor(3) as pool:
        drawn = list(pool.map(lambda _: server.client.generate("sst2", texts, task="mini/new_word", **draws), range(3)))
    expected = tpv.generate(backbone, task, prompts["sst2"], texts, **draws)["generated"]
    assert all(one["generated"] == expected for one in drawn)


def test_generation_in_pieces(backbone, library, server):
    pieces = []
    options = {"task": "mini/new_word", "max_new_tokens": 12}
    table = server.client.generate("trec", ["the man is eating"], tell=pieces.append, **options)
    whole = server.client.generate("trec", ["the man is eating"], **options)
    assert table.to_pydict() == whole.to_pydict()
    assert "".join(pieces).strip() == whole["generated"].to_pylist()[0]
    with pytest.raises(tpv.TpvError, match="no prompt 'nobody'"):
        server.client.generate("nobody", ["x"], tell=pieces.append)
    with pytest.raises(tpv.TpvError, match="num_beams 1"):
        server.client.generate("trec", ["x"], tell=pieces.append, num_beams=2)


def test_a_task_of_ones_own(backbone, library, server):
    task = {"fields": ["what"], "template": "it is {what}", "labels": ["good", "not"], "cue": ""}
    table = server.client.predict("sst2", [{"what": "a film"}], task=task)
    prompt = prompt_of(backbone, library, "sst2")
    assert table.schema.metadata[b"task"] == b"own"
    expected = tpv.predict(backbone, labels_only(["good", "not"]), prompt, ["it is a film"])
    assert table["log_probs"].to_pylist()[0] == pytest.approx(expected["log_probs"].to_pylist()[0], abs=1e-4)


# --- the library ----------------------------------------------------------------------------------------
def test_what_there_is_to_know(backbone, library, server):
    about = {one["name"]: one for one in server.client.prompts()}
    assert list(about) == ["mnli", "sst2", "trec", "yelp"]
    sst2 = server.as_reader.prompt("sst2")
    assert sst2 == about["sst2"]
    assert sst2["terms"] == {"mini/sst2": 1.0}
    assert sst2["digest"] == prompt_of(backbone, library, "sst2").digest
    assert sst2["vector_digest"] == tpv.Library(library)["sst2"].digest
    assert (sst2["task"], sst2["fields"], sst2["labels"]) == ("mini/sst2", ["sentence"], ["negative", "positive"])


def test_expressions_are_put_and_served_at_once(backbone, own):
    about = own.client.put("folder/mix", "init:7 + 0.8*(sst2 + yelp) - 0.3*mnli", task="mini/sst2")
    table = own.client.predict("folder/mix", ["a good film"])
    vectors = tpv.Library(own.folder)
    prompt = (
        tpv.SoftPrompt.sample(backbone, 4, seed=7) + 0.8 * (vectors["sst2"] + vectors["yelp"]) - 0.3 * vectors["mnli"]
    )
    assert about["digest"] == prompt.digest
    check_equal(table, tpv.predict(backbone, tpv.load_task("mini/sst2"), prompt, ["a good film"]))
    assert tpv.SoftPrompt.load(own.folder / "folder" / "mix.safetensors") == prompt
    assert about["expression"] == "init:7 + 0.8*(sst2 + yelp) - 0.3*mnli"
    own.client.delete("folder/mix")
    with pytest.raises(tpv.TpvError, match="no prompt 'folder/mix'"):
        own.client.predict("folder/mix", ["a good film"])
    assert not (own.folder / "folder").exists()


def test_files_are_put_as_prompts_and_as_vectors(backbone, own, tmp_path):
    prompt = tpv.SoftPrompt.normal(backbone, 6, seed=5)
    own.client.put("files/p", prompt, task="mini/trec")
    check_equal(
        own.client.predict("files/p", ["where is it"]),
        tpv.predict(backbone, tpv.load_task("mini/trec"), prompt, ["where is it"]),
    )
    vector = vector_of(backbone, "mini/qnli", seed=9)
    vector.save(tmp_path / "qnli.safetensors")
    assert own.client.put("qnli", tmp_path / "qnli.safetensors")["kind"] == "vector"
    assert own.client.put("ported", "init:1 + ties(qnli, sst2, density=0.5)", task="mini/qnli")["terms"] is None
    assert own.client.put("qnli", vector_of(backbone, "mini/qnli", seed=10))["kind"] == "vector"
    with pytest.raises(tpv.TpvError, match="is a vector, which expressions use"):
        own.client.put("qnli", prompt)


def test_what_was_put_is_there_after_a_restart(backbone, own, tmp_path):
    puts = {
        "a": own.client.put("a", "init:3 + sst2", task="mini/yelp"),
        "b": own.client.put("b", tpv.SoftPrompt.normal(backbone, 3, seed=1), task="mini/mnli"),
        "c": own.client.put("c", "init:3 + sst2", task={"labels": ["good", "not"], "template": "it: {text}"}),
    }
    before = {name: own.client.predict(name, ["a good film"]) for name in puts}
    own.stop()
    with serving(backbone, own.folder) as again:
        for name, about in puts.items():
            assert again.client.prompt(name) == about
            check_equal(again.client.predict(name, ["a good film"]), before[name])


def test_a_tuned_folder_has_its_task_and_calibrator(backbone, own, tmp_path):
    task, prompt = tpv.load_task("mini/sst2"), tpv.SoftPrompt.normal(backbone, 4, seed=2)
    calibrator = Calibrator(labels=task.labels, temperature=3.0, bias=(0.5, -0.5), rows=9, normalize="context")
    folder = own.folder / "stars"
    folder.mkdir()
    about = About(model=ModelChoice(name="mini"), max_input_length=7, calibrator=calibrator)
    Tuned(task, prompt, about).save(folder)  # first: a prompt that is seen before it has a task would be served without
    prompt.save(folder / "prompt.safetensors")
    prompt.save(folder / "init.safetensors")
    wait_for(lambda: "stars/prompt" in own.catalog.names)
    texts = [" ".join(WORDS), "dull"]
    table = own.client.predict("stars", texts)
    expected = tpv.predict(backbone, task, prompt, texts, calibrator=calibrator, max_input_length=7)
    check_equal(table, expected)
    assert "stars/init" not in own.catalog.names
    with pytest.raises(tpv.TpvError, match="belongs to a tuned folder"):
        own.client.put("stars/prompt", "init:1 + sst2")
    with pytest.raises(tpv.TpvError, match="belongs to a tuned folder"):
        own.client.put("stars/other", "init:1 + sst2")
    with pytest.raises(tpv.TpvError, match="belongs to a tuned folder"):
        own.client.delete("stars/prompt")


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_files_that_others_bring_change_and_remove_are_noticed(backbone, own, random_t5):
    path = own.folder / "late.safetensors"
    first, second = (tpv.SoftPrompt.normal(backbone, 4, seed=seed) for seed in (1, 2))
    first.save(path)
    wait_for(lambda: "late" in own.catalog.names)
    assert own.client.prompt("late")["digest"] == first.digest
    path.write_bytes(path.read_bytes()[:-10])
    wait_for(lambda: "late" in own.catalog.left_out)
    assert own.client.prompt("late")["digest"] == first.digest  # what was whole goes on being served
    second.save(path)
    wait_for(lambda: own.client.prompt("late")["digest"] == second.digest)
    path.unlink()
    wait_for(lambda: "late" not in own.catalog.names)
    tpv.SoftPrompt.normal(random_t5(), 4).save(path)
    wait_for(lambda: "late" in own.catalog.left_out)
    assert "another model" in own.catalog.left_out["late"]


def test_versions_can_be_pinned(backbone, own):
    old = own.client.put("x", "init:1 + sst2")
    assert own.client.predict("x", ["good"], digest=old["digest"]).num_rows == 1
    assert own.client.predict("x", ["good"], digest=old["version"]).num_rows == 1
    new = own.client.put("x", "init:2 + sst2")
    with pytest.raises(tpv.TpvError, match=f"another version now.*got {new['version']}"):
        own.client.predict("x", ["good"], digest=old["digest"])
    again = own.client.put("x", "init:2 + sst2", task="mini/yelp")
    assert again["digest"] == new["digest"]
    assert again["version"] != new["version"]
    assert own.client.predict(["x", "sst2"], ["good"], digest=[new["digest"], own.client.prompt("sst2")["digest"]])


@pytest.mark.parametrize("other", ["http", "memory"])
def test_a_library_at_a_url(backbone, other, tmp_path):
    if other == "http":
        with pytest.raises(tpv.TpvError, match="cannot be opened"), serving(backbone, "no-such-kind://x/y"):
            pass
        return
    from fsspec.implementations.memory import MemoryFileSystem

    url = f"memory://{tmp_path.name}/vectors"
    with serving(backbone, url, watch=0.05) as one, serving(backbone, url, watch=0.05) as two:
        one.client.put("deep/sst2", vector_of(backbone, "mini/sst2"))
        assert one.client.prompt("deep/sst2")["kind"] == "vector"
        wait_for(lambda: "deep/sst2" in two.catalog.names, 2.0)
        put = two.client.put("mix", "init:1 + 0.5*deep/sst2")
        wait_for(lambda: "mix" in one.catalog.names, 2.0)
        assert one.client.prompt("mix") == put
        two.client.put("mix", "init:2 + 0.5*deep/sst2")
        wait_for(lambda: one.client.prompt("mix")["digest"] != put["digest"], 2.0)
        one.client.delete("mix")
        wait_for(lambda: "mix" not in two.catalog.names, 2.0)
        folder = one.catalog.folder
    assert not folder.exists()
    assert [path for path in MemoryFileSystem.store if tmp_path.name in path and path.endswith(".safetensors")] == [
        f"/{tmp_path.name}/vectors/deep/sst2.safetensors"
    ]


# --- load -----------------------------------------------------------------------------------------------
def held(server):
    """Hold the model's thread until the event is set."""
    event, started = threading.Event(), threading.Event()

    def hold():
        started.set()
        event.wait(20)

    server.engine._model.submit(hold)
    started.wait(5)
    return event


def test_a_full_queue_refuses_and_says_when_to_come_again(backbone, library):
    with serving(backbone, library, queue_rows=4) as server, ThreadPoolExecutor(8) as pool:
        free = held(server)
        first = pool.submit(server.client.predict, "sst2", ["good"])
        wait_for(lambda: not server.engine._idle.is_set())  # in the pass that waits for the model
        waiting = pool.submit(server.client.predict, "sst2", ["good"] * 4)
        wait_for(lambda: server.engine.queue.rows == 4)
        answer = server.client._http.post("/v1/predict", json={"prompt": "sst2", "texts": ["good"]})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert "too many rows wait" in answer.json()["error"]["message"]
        patient = tpv.Client(server.url, server.client._http.headers["authorization"].partition(" ")[2], patience=20)
        later = pool.submit(patient.predict, "sst2", ["good"])
        other = pool.submit(server.as_reader.predict, "sst2", ["good"])  # has not had its share
        time.sleep(0.1)
        free.set()
        assert [one.result(20).num_rows for one in (first, waiting, later, other)] == [1, 4, 1, 1]
        assert server.counts()["tpv_refused_rows_total"] >= 1


def test_late_answers(backbone, library):
    with serving(backbone, library, timeout=0.3) as server, ThreadPoolExecutor(8) as pool:
        free = held(server)
        first = pool.submit(server.client._http.post, "/v1/predict", json={"prompt": "sst2", "texts": ["good"]})
        wait_for(lambda: not server.engine._idle.is_set())
        answer = server.client._http.post("/v1/predict", json={"prompt": "sst2", "texts": ["x"] * 9, "timeout": 0.1})
        assert answer.status_code == 504
        assert "an answer in 0.1 s" in answer.json()["error"]["message"]
        assert server.engine.queue.rows == 0
        assert first.result().status_code == 504
        free.set()
        assert server.client.predict("sst2", ["good"]).num_rows == 1


def test_clients_that_go_away_leave_the_queue(backbone, library):
    with serving(backbone, library) as server, ThreadPoolExecutor(1) as pool:
        free = held(server)
        first = pool.submit(server.client.predict, "sst2", ["good"])
        wait_for(lambda: not server.engine._idle.is_set())
        headers = server.client._http.headers
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(
                f"{server.url}/v1/predict", json={"prompt": "yelp", "texts": ["x"] * 9}, headers=headers, timeout=0.3
            )
        wait_for(lambda: server.engine.queue.rows == 0)
        free.set()
        assert first.result().num_rows == 1
        wait_for(lambda: server.counts()["tpv_cancelled_requests_total"] == 1)


def test_a_server_that_stops_answers_what_it_accepted(backbone, library):
    with serving(backbone, library) as server, ThreadPoolExecutor(8) as pool:
        free = held(server)
        asked = [pool.submit(server.client.predict, "sst2", ["good"] * 3)]
        wait_for(lambda: not server.engine._idle.is_set())  # in the pass that waits for the model
        asked += [pool.submit(server.client.predict, "sst2", ["good"] * 3) for _ in range(3)]
        wait_for(lambda: server.engine.queue.rows == 9)
        server.server.should_exit = True
        time.sleep(0.3)
        free.set()
        assert [one.result(20).num_rows for one in asked] == [3] * 4
        server.thread.join(10)
        assert not server.thread.is_alive()


def test_one_bad_row_does_not_spoil_the_pass_of_others(backbone, library, monkeypatch):
    with serving(backbone, library) as server, ThreadPoolExecutor(8) as pool:
        own = type(backbone).score_labels

        def score(self, bank, index, sources, labels):
            if any(len(source) > 40 for source in sources):
                raise tpv.TpvError("prompt and text do not fit")
            return own(self, bank, index, sources, labels)

        monkeypatch.setattr(type(backbone), "score_labels", score)
        free = held(server)
        asked = [pool.submit(server.client.predict, "sst2", ["good" * (1 + 99 * (i == 2))]) for i in range(4)]
        time.sleep(0.3)
        free.set()
        for i, one in enumerate(asked):
            if i == 2:
                with pytest.raises(tpv.TpvError, match="do not fit"):
                    one.result()
            else:
                assert one.result().num_rows == 1


def test_a_prompt_that_changes_under_load_never_answers_with_a_mixture(backbone, own):
    versions = ["init:1 + sst2", "init:2 + 3*sst2"]
    texts, task = ["a good film", "never dull and not good"] * 6, tpv.load_task("mini/sst2")
    expected = {}
    for text in versions:
        digest = own.client.put("x", text)["digest"]
        prompt = tpv.SoftPrompt.load(own.folder / "x.safetensors")
        expected[digest] = tpv.predict(backbone, task, prompt, texts)["log_probs"].to_pylist()
    stop, wrong, seen = threading.Event(), [], set()

    def ask():
        while not stop.is_set():
            answer = own.client._http.post("/v1/predict", json={"prompt": "x", "texts": texts})
            if answer.status_code == 404:
                continue
            (result,) = answer.json()["results"]
            seen.add(result["digest"])
            for row, right in zip(result["predictions"], expected[result["digest"]], strict=True):
                if list(row["log_probs"].values()) != pytest.approx(right, abs=1e-4):
                    wrong.append(result["digest"])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(40):
        own.client.put("x", versions[i % 2])
        if i % 5 == 0:
            own.client.delete("x")
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert seen == set(expected)
