"""Who may do what, what a request may hold, and where a server writes: nowhere but in its library."""

import json
import os
import socket
import subprocess
import sys
import warnings
from contextlib import suppress

import pytest
from servers import READ, RECORDS, WRITE, fill, serving, vector_of

import tpv
from tpv.evaluation.tuned import ModelChoice
from tpv.serving.app import build
from tpv.serving.keys import ApiKeys
from tpv.serving.settings import ServeSettings

PUT = {"expression": "init:1 + sst2"}


@pytest.fixture(scope="module")
def place(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    fill(folder / "library", backbone)
    (folder / "outside").mkdir()
    (folder / "outside" / "precious.safetensors").write_bytes(b"precious")
    (folder / "library" / "link").symlink_to(folder / "outside")
    return folder


@pytest.fixture(scope="module")
def server(backbone, place):
    with serving(
        backbone, place / "library", limits={"body": 100_000, "rows": 50, "characters": 500, "prompts": 3}
    ) as it:
        yield it


def everything(folder):
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def status_of(client, method, path, **options):
    answer = client._http.request(method, path, **options)
    if not answer.is_success:
        body = answer.json()
        assert list(body) == ["error"]
        assert sorted(body["error"]) == ["message", "status"]
        assert body["error"]["status"] == answer.status_code
        assert "Traceback" not in answer.text
        assert "/tmp" not in answer.text
        assert "\n" not in body["error"]["message"]
    return answer.status_code


# --- keys -----------------------------------------------------------------------------------------------
def test_rights(server):
    ask = {"prompt": "sst2", "texts": ["good"]}
    for client, read, write in ((server.nobody, 401, 401), (server.as_reader, 200, 403), (server.client, 200, 201)):
        assert status_of(client, "POST", "/v1/predict", json=ask) == read
        assert status_of(client, "GET", "/v1/prompts") == read
        assert status_of(client, "GET", "/metrics") == read
        assert status_of(client, "PUT", "/v1/prompts/new", json=PUT) == write
        assert status_of(client, "DELETE", "/v1/prompts/new") == (204 if write == 201 else write)
        assert status_of(client, "GET", "/healthz") == status_of(client, "GET", "/readyz") == 200


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer wrong", f"Basic {WRITE}", WRITE, f"Bearer {WRITE}x", f"Bearer {WRITE[:-1]}", "Bearer \xe9"],
)
def test_wrong_keys(server, header):
    answer = server.nobody._http.get("/v1/prompts", headers={"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "wrong" not in answer.text


def test_every_key_is_compared_whichever_fits(monkeypatch):
    compared = []
    monkeypatch.setattr("tpv.serving.keys.hmac.compare_digest", lambda a, b: bool(compared.append(a)) or a == b)
    keys = ApiKeys(RECORDS)
    for header in (f"Bearer {READ}", f"Bearer {WRITE}", "Bearer nothing", "x", None):
        compared.clear()
        with suppress(tpv.TpvError):
            keys.caller(header, "")
        assert len(compared) == len(RECORDS)


def test_files_of_keys(tmp_path, monkeypatch):
    monkeypatch.delenv("TPV_API_KEY", raising=False)
    path = tmp_path / "keys.toml"
    hashed = "f" * 64
    path.write_text(f'[web]\nkey = "twelve characters"\n[ci]\nsha256 = "{hashed}"\nrights = ["read", "write"]\n')
    keys = ApiKeys.load(path)
    assert keys.caller("Bearer twelve characters", "").name == "web"
    assert not keys.caller("bearer twelve characters", "").writes
    monkeypatch.setenv("TPV_API_KEY", "from the environment")
    assert ApiKeys.load(path).caller("Bearer from the environment", "").writes
    for content in (
        "",
        "web = 3\n",
        '[web]\nkey = "short"\n',
        "[web]\n",
        '[web]\nkey = "twelve characters"\nrights = ["all"]\n',
    ):
        path.write_text(content)
        if not content:
            monkeypatch.delenv("TPV_API_KEY")
        with pytest.raises(tpv.TpvError) as problem:
            ApiKeys.load(path)
        assert "twelve" not in str(problem.value)
    monkeypatch.setenv("TPV_API_KEY", "short")
    with pytest.raises(tpv.TpvError, match="TPV_API_KEY") as problem:
        ApiKeys.load()
    assert "short" not in str(problem.value).replace("too_short", "")


def test_without_keys_nobody_writes_and_nobody_else_reaches_it(backbone, place):
    settings = ServeSettings(model=ModelChoice(name="mini"), library=str(place / "library"), host="0.0.0.0")
    with pytest.raises(tpv.TpvError, match="expected keys"):
        build(settings, backbone, ApiKeys())
    with serving(backbone, place / "library", records=None) as open_one:
        assert status_of(open_one.nobody, "GET", "/v1/prompts") == 200
        assert status_of(open_one.nobody, "PUT", "/v1/prompts/new", json=PUT) == 403
        assert status_of(open_one.nobody, "DELETE", "/v1/prompts/sst2") == 403
        # a page of somebody else whose name leads here
        assert status_of(open_one.nobody, "GET", "/v1/prompts", headers={"Host": "evil.example"}) == 421
        assert status_of(open_one.nobody, "GET", "/", headers={"Host": "localhost"}) == 200


def test_pages_of_other_origins_cannot_write(server):
    url = "/v1/prompts/theirs"
    assert status_of(server.client, "PUT", url, json=PUT, headers={"Origin": "http://evil.example"}) == 403
    assert status_of(server.client, "DELETE", "/v1/prompts/sst2", headers={"Origin": "null"}) == 403
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "PUT"}
    answer = server.client._http.request("OPTIONS", url, headers=asked)
    assert not answer.is_success
    assert not any(name.lower().startswith("access-control") for name in answer.headers)
    same = {"Origin": server.url}
    assert status_of(server.client, "PUT", url, json=PUT, headers=same) == 201
    assert status_of(server.client, "DELETE", url, headers=same) == 204


# --- requests -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"prompt": "sst2"}, 422),
        ({"prompt": "sst2", "texts": []}, 422),
        ({"prompt": "sst2", "texts": [""]}, 422),
        ({"prompt": "sst2", "texts": ["x"], "rows": [{}]}, 422),
        ({"prompt": "sst2", "texts": "x"}, 422),
        ({"prompt": "sst2", "texts": [7]}, 422),
        ({"prompt": "sst2", "texts": [None]}, 422),
        ({"prompt": "sst2", "texts": ["\ud800"]}, 422),
        ({"prompt": "sst2", "texts": ["x" * 501]}, 413),
        ({"prompt": "sst2", "texts": ["x"] * 51}, 413),
        ({"prompt": ["sst2"] * 4, "texts": ["x"]}, 422),
        ({"prompt": "nothing", "texts": ["x"]}, 404),
        ({"prompt": "\0", "texts": ["x"]}, 404),
        ({"prompt": "../../etc/passwd", "texts": ["x"]}, 404),
        ({"prompt": "sst2", "texts": ["x"], "task": "../../etc/passwd"}, 422),
        ({"prompt": "sst2", "texts": ["x"], "task": "/etc/passwd.toml"}, 422),
        ({"prompt": "sst2", "texts": ["x"], "task": {"labels": ["a"]}}, 422),
        ({"prompt": "sst2", "texts": ["x"], "task": {"labels": ["a", "b"], "template": "{text.__class__}"}}, 422),
        ({"prompt": "sst2", "texts": ["x"], "task": {"labels": ["a", "b"], "template": "{text:>999999999}"}}, 422),
        ({"prompt": "sst2", "texts": ["x"], "task": "mini/new_word"}, 422),
        ({"prompt": "sst2", "texts": ["x"], "digest": "0" * 64}, 409),
        ({"prompt": "sst2", "texts": ["x"], "digest": "zz"}, 422),
        ({"prompt": "sst2", "texts": ["x"], "timeout": -1}, 422),
        ({"prompt": "sst2", "texts": ["x"], "more": 1}, 422),
        ({"expression": "__import__('os')", "texts": ["x"], "task": "mini/sst2"}, 422),
        ({"expression": "init:1 + nothing", "texts": ["x"], "task": "mini/sst2"}, 422),
        ({"expression": "sst2", "texts": ["x"], "task": "mini/sst2"}, 422),
        ({"expression": "init:99999999999999999999 + sst2", "texts": ["x"]}, 422),
        ({"expression": "(" * 500, "texts": ["x"]}, 422),
        ([], 422),
        ("x", 422),
        (None, 422),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_requests_that_do_not_fit(server, body, status):
    content = json.dumps(body)
    headers = {"Content-Type": "application/json"}
    assert status_of(server.client, "POST", "/v1/predict", content=content, headers=headers) == status


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 90_000,
        b'{"prompt":' * 9_000,
        b'{"prompt": 1' + b"0" * 5_000 + b"}",
        b'{"prompt": "sst2", "texts": ["x"], "timeout": 1e999}',
        b'{"prompt": "sst2", "texts": ["x"], "timeout": NaN}',
        b"\0" * 100,
    ],
    ids=lambda value: repr(value)[:30],
)
def test_bodies_that_do_not_parse(server, content):
    headers = {"Content-Type": "application/json"}
    for method, path in (("POST", "/v1/predict"), ("POST", "/v1/generate"), ("PUT", "/v1/prompts/new")):
        assert status_of(server.client, method, path, content=content, headers=headers) in (400, 422)
    assert status_of(server.client, "PUT", "/v1/prompts/new", content=content) in (400, 422)


def test_long_bodies_are_not_read(server):
    assert status_of(server.client, "PUT", "/v1/prompts/new", content=b"x" * 100_001) == 413

    def pieces():
        for _ in range(50):
            yield b"x" * 10_000

    assert status_of(server.client, "PUT", "/v1/prompts/new", content=pieces()) == 413
    with socket.create_connection(("127.0.0.1", server.port)) as plain:
        plain.sendall(b"PUT /v1/prompts/a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999999\r\n\r\n")
        assert plain.recv(1000).split(b" ")[1] in (b"400", b"413")


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/v1/prompts/..%2F..%2Foutside%2Fx", (404, 422)),
        ("/v1/prompts/%2e%2e/%2e%2e/x", (404, 405, 422)),
        ("/v1/prompts/%2Fetc%2Fx", (422,)),
        ("/v1/prompts/a%00b", (422,)),
        ("/v1/prompts/a%0Ab", (404, 422)),
        ("/v1/prompts/.hidden", (422,)),
        ("/v1/prompts/a/.hidden", (422,)),
        ("/v1/prompts/a//b", (422,)),
        ("/v1/prompts/a.safetensors", (422,)),
        ("/v1/prompts/link/precious", (409,)),
        ("/v1/prompts/link/other", (409,)),
        ("/v1/prompts/SST2", (409,)),
        ("/v1/prompts/" + "x" * 300, (422,)),
        ("/v1/prompts/" + "/".join("x" * 50), (201, 422)),
        ("/v1/prompts/", (404, 405, 422)),
        ("/v1/prompts/%ff", (422,)),
        ("/v1/prompts/a%5C..%5Cb", (422,)),
    ],
)
def test_names_stay_in_the_library(server, place, path, statuses):
    before = everything(place)
    for options in ({"json": PUT}, {"content": b"x" * 100}):
        assert status_of(server.client, "PUT", path, **options) in statuses
        server.client._http.request("DELETE", path)
    assert everything(place) == before


def test_uploads_are_checked_as_files_are(server, backbone, random_t5, place, tmp_path):
    before = everything(place)
    good = (
        vector_of(backbone, "mini/sst2").save(tmp_path / "v.safetensors") or (tmp_path / "v.safetensors").read_bytes()
    )
    tpv.SoftPrompt.normal(random_t5(), 4).save(tmp_path / "other.safetensors")
    for content in (
        good[:-1],
        good + b"x",
        good[:200] + b"\x01" + good[201:],
        good.replace(b"mini/sst2", b"mini/sst3"),
        good[-64:],
        b"\xff" * 8 + good[8:],
        (tmp_path / "other.safetensors").read_bytes(),
        b"{}" + good,
    ):
        assert status_of(server.client, "PUT", "/v1/prompts/new", content=content) == 422
    assert status_of(server.client, "PUT", "/v1/prompts/new?task=nothing", content=good) == 422
    assert status_of(server.client, "PUT", "/v1/prompts/new?task=../../x.toml", content=good) == 422
    form = {"files": {"file": good}}
    assert status_of(server.client, "PUT", "/v1/prompts/new", **form) == 415
    assert everything(place) == before
    assert status_of(server.client, "PUT", "/v1/prompts/new", content=good) == 201
    assert status_of(server.client, "PUT", "/v1/prompts/new", content=good) == 200
    assert status_of(server.client, "DELETE", "/v1/prompts/new") == 204


def test_a_file_whose_use_was_altered_is_not_served(server, backbone, place):
    server.client.put("used", "init:1 + sst2", task="mini/trec")
    path = place / "library" / "used.safetensors"
    content = path.read_bytes()
    server.client.delete("used")
    assert content.count(b"mini/trec") >= 1
    changed = content.replace(b"mini/trec", b"mini/tref")
    assert status_of(server.client, "PUT", "/v1/prompts/used", content=changed) == 422
    assert server.client._http.put("/v1/prompts/used", content=content).json()["task"] == "mini/trec"
    server.client.delete("used")


def test_a_library_that_is_not_a_folder_is_not_written_to(backbone, tmp_path):
    vector_of(backbone, "mini/sst2").save(tmp_path / "one.safetensors")
    with serving(backbone, tmp_path / "one.safetensors") as server:
        assert server.client.predict("one", ["good"]).num_rows == 1
        assert status_of(server.client, "PUT", "/v1/prompts/new", json={"expression": "init:1 + one"}) == 403


def test_what_goes_wrong_inside_is_not_told(server, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("secret /tmp/place")

    monkeypatch.setattr("tpv.serving.service.Service.similarity", fail)
    assert status_of(server.client, "GET", "/v1/similarity") == 500
    assert "secret" in capsys.readouterr().out


def test_the_page_loads_nothing_from_elsewhere(server):
    answer = server.nobody._http.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]
    for mark in ("http://", "https://", "//cdn", "@import", "url(", "innerHTML", "insertAdjacentHTML", "eval("):
        assert mark not in answer.text.replace("http://www.w3.org/2000/svg", "")


# --- the command ----------------------------------------------------------------------------------------
def test_the_command_serves_and_predict_asks_it(run, place, tmp_path):
    told = os.environ | {"TPV_API_KEY": "a key for the command", "PYTHONPATH": os.pathsep.join(sys.path)}
    line = [sys.executable, "-m", "tpv.cli", "serve", "--library", str(place / "library"), "--port", "0"]
    process = subprocess.Popen(line, env=told, stderr=subprocess.PIPE, text=True)
    try:
        words = process.stderr.readline().split()
        assert words[:3] == ["serving", "4", "prompts"]
        url = words[4]
        with pytest.MonkeyPatch.context() as patch:
            code, _, err = run("predict", "--server", url, "sst2", "a good film")
            assert (code, "this server takes a key" in err) == (2, True)
            patch.setenv("TPV_API_KEY", "a key for the command")
            code, out, err = run("predict", "--server", url, "sst2", "a good film", "never dull")
            assert (code, err) == (0, "")
            assert [line.split("\t")[2] for line in out.splitlines()] == ["a good film", "never dull"]
            code, out, _ = run("predict", "--server", url, "init:1 + 0.5*sst2", "--task", "mini/sst2", "good", "--json")
            assert list(json.loads(out)["log_probs"]) == ["negative", "positive"]
            (tmp_path / "in.csv").write_text("premise,hypothesis\na man eats,he eats\nb,c\n")
            code, _, err = run(
                "predict", "--server", url, "mnli", "--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv"
            )
            assert (code, err.startswith(f"wrote {tmp_path / 'out.csv'}: labelled 2 of 2 rows")) == (0, True)
            assert (tmp_path / "out.csv").read_text().splitlines()[0] == "premise,hypothesis,label,probability"
            for wrong in (["--labels", "a,b"], ["--model", "mini"], ["--normalize", "tokens"]):
                code, _, err = run("predict", "--server", url, "sst2", "x", *wrong)
                assert (code, err.count("\n"), "--server" in err) == (2, 1, True)
            assert run("predict", "--server", url, "nothing", "x")[0] == 2
        process.terminate()
        assert process.wait(20) == 0
        assert "a key for the command" not in process.stderr.read()
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "expected keys"),
        (["--keys", "nothing.toml"], "cannot be read"),
        (["--replicas", "2"], "--executor ray"),
        (["--port", "99999"], "--port"),
        (["--model", "./nothing"], "does not exist"),
    ],
)
def test_commands_that_do_not_fit(run, place, options, message, monkeypatch):
    monkeypatch.delenv("TPV_API_KEY", raising=False)
    code, _, err = run("serve", "--library", place / "library", *options)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_port_that_is_taken(run, place):
    with socket.create_server(("127.0.0.1", 0)) as taken, warnings.catch_warnings():
        code, _, err = run("serve", "--library", place / "library", "--port", taken.getsockname()[1])
    assert code == 2
    assert "choose another --port" in err


def test_no_server(run):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    code, _, err = run("predict", "--server", f"http://127.0.0.1:{port}", "sst2", "x")
    assert (code, err.count("\n"), "cannot be reached" in err) == (2, 1, True)
    for url in ("nonsense", "http://[", "http://a b"):
        with pytest.raises(tpv.TpvError):
            tpv.Client(url).prompts()
