"""Pushed and pulled through the hub's own client, against a stand-in for the hub on this machine."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants
from markdown_it import MarkdownIt
from safetensors.torch import save as safetensors_bytes

import tpv
from tpv.interop import card, repository
from tpv.outputs.scores import score_predictions
from tpv.prompts.algebra import SoftPrompt
from tpv.prompts.provenance import Init, ModelIdentity

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # the hub's client to its library
TOKEN = "hf_" + "aZ" * 17
WRITES = ("create", "commit", "branch", "PUT")


class StandIn:
    """What of the hub its client asks for: repositories, branches, commits, large files. One owner, `me`."""

    def __init__(self):
        self.repos = {}
        self.large = {}
        self.asked = []
        self.answer_instead = {}  # part of "METHOD /path" -> (status, headers, body)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def commit(self, repo_id, files, branch="main", private=False):
        """Put a commit onto a branch, as somebody else with git would."""
        repo = self.repos.setdefault(repo_id, {"private": private, "branches": {}, "commits": {}, "messages": []})
        now = dict(repo["commits"].get(repo["branches"].get(branch), {})) | files
        sha = hashlib.sha1(f"{repo_id} {len(repo['commits'])}".encode()).hexdigest()
        repo["commits"][sha] = now
        repo["branches"][branch] = sha
        return sha

    def files(self, repo_id="me/vectors", revision="main"):
        repo = self.repos[repo_id]
        return repo["commits"][repo["branches"].get(revision, revision)]

    def card(self, repo_id="me/vectors"):
        return self.files(repo_id)["README.md"].decode()

    def wrote(self):
        return [line for line in self.asked if any(word in line for word in WRITES)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn

    def log_message(self, *_):
        pass

    def handle_any(self):
        self.path = urlsplit(self.path).path
        line = f"{self.command} {self.path}"
        self.hub.asked.append(line)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for part, answer in self.hub.answer_instead.items():
            if part in line:
                return self.say(*answer)
        if (said := self.headers.get("Authorization")) and said != f"Bearer {TOKEN}":
            message = "Invalid credentials in Authorization header"
            return self.say(401, {"X-Error-Message": message}, {"error": message})
        for method, pattern, does in ROUTES:
            match = re.fullmatch(pattern, self.path)
            if method == self.command and match:
                return does(self, *(unquote(group) if group else group for group in match.groups()))
        return self.say(404, {}, {"error": f"the stand-in has no {line}"})

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def say(self, status=200, headers=None, body=None):
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(content)),
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # --- who asks ---
    def logged_in(self):
        return "Authorization" in self.headers

    def may_write(self, owner):
        if not self.logged_in():
            self.say(401, {}, {"error": "Invalid username or password."})
        elif owner != "me":
            self.say(403, {}, {"error": f"You don't have the rights to write under {owner!r}"})
        else:
            return True
        return False

    def found(self, repo_id, revision=None):
        repo = self.hub.repos.get(repo_id)
        if repo is None or (repo["private"] and not self.logged_in()):
            self.say(404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return None, None
        sha = repo["branches"].get(revision or "main", revision if revision in repo["commits"] else None)
        if sha is None:
            self.say(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
            return None, None
        return repo, sha

    # --- what it asks ---
    def create(self):
        asked = json.loads(self.body)
        repo_id = f"{asked['organization']}/{asked['name']}"
        if not self.may_write(asked["organization"]):
            return None
        if repo_id in self.hub.repos:
            return self.say(409, {}, {"error": "You already created this model repo"})
        self.hub.commit(
            repo_id, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=asked.get("visibility") == "private"
        )
        return self.say(body={"url": f"{self.hub.url}/{repo_id}"})

    def info(self, repo_id, revision=None):
        repo, sha = self.found(repo_id, revision)
        if repo is None:
            return None
        files = [
            {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            for name, data in repo["commits"][sha].items()
        ]
        return self.say(
            body={
                "id": repo_id,
                "modelId": repo_id,
                "private": repo["private"],
                "sha": sha,
                "tags": [],
                "siblings": files,
            }
        )

    def tree(self, repo_id, revision):
        repo, sha = self.found(repo_id, revision)
        if repo is not None:
            files = repo["commits"][sha].items()
            return self.say(
                body=[
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files
                ]
            )
        return None

    def validate(self):
        front = yaml.safe_load(json.loads(self.body)["content"].split("---")[1])
        wrong = [key for key in ("base_model", "library_name") if not isinstance(front.get(key, ""), str | list)]
        return self.say(400 if wrong else 200, {}, {"errors": [{"message": key} for key in wrong], "warnings": []})

    def preupload(self, repo_id, revision):
        repo, _ = self.found(repo_id, revision)
        if repo is None or not self.may_write(repo_id.split("/")[0]):
            return None
        names = [file["path"] for file in json.loads(self.body)["files"]]
        modes = [
            {"path": name, "uploadMode": "lfs" if name.endswith(".safetensors") else "regular", "shouldIgnore": False}
            for name in names
        ]
        return self.say(body={"files": modes})

    def batch(self, _):
        objects = [
            {
                "oid": file["oid"],
                "size": file["size"],
                "actions": {"upload": {"href": f"{self.hub.url}/large/{file['oid']}"}},
            }
            for file in json.loads(self.body)["objects"]
        ]
        return self.say(body={"transfer": "basic", "objects": objects})

    def put(self, oid):
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.large[oid] = self.body
        return self.say()

    def commit(self, repo_id, branch):
        repo, sha = self.found(repo_id, branch)
        if repo is None or not self.may_write(repo_id.split("/")[0]):
            return None
        files = {}
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                if value.get("parentCommit", sha) != sha:
                    return self.say(412, {}, {"error": "A commit has happened since. Please refresh and try again."})
                repo["messages"].append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                files[value["path"]] = self.hub.large[value["oid"]]
        oid = self.hub.commit(repo_id, files, branch)
        return self.say(body={"commitUrl": f"{self.hub.url}/{repo_id}/commit/{oid}", "commitOid": oid})

    def branch(self, repo_id, branch):
        repo, sha = self.found(repo_id)
        if repo is None or not self.may_write(repo_id.split("/")[0]):
            return None
        if branch in repo["branches"]:
            return self.say(409, {}, {"error": "exists"})
        repo["branches"][branch] = sha
        return self.say()

    def resolve(self, repo_id, revision, name):
        repo, sha = self.found(repo_id, revision)
        if repo is None:
            return None
        data = repo["commits"][sha].get(name)
        if data is None:
            return self.say(404, {"X-Error-Code": "EntryNotFound"})
        return self.say(200, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": sha}, data)


REPO = r"([^/]+/[^/]+)"
ROUTES = [
    ("HEAD", "/?", Handler.say),
    ("POST", "/api/repos/create", Handler.create),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("GET", f"/api/models/{REPO}", Handler.info),
    ("GET", f"/api/models/{REPO}/revision/([^/]+)", Handler.info),
    ("GET", f"/api/models/{REPO}/tree/([^/]+)", Handler.tree),
    ("POST", f"/api/models/{REPO}/preupload/([^/]+)", Handler.preupload),
    ("POST", f"/api/models/{REPO}/commit/([^/]+)", Handler.commit),
    ("POST", f"/api/models/{REPO}/branch/([^/]+)", Handler.branch),
    ("POST", f"/{REPO}.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", "/large/(.+)", Handler.put),
    ("HEAD", f"/{REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
    ("GET", f"/{REPO}/resolve/([^/]+)/(.+)", Handler.resolve),
]


@pytest.fixture
def hub(monkeypatch):
    """The stand-in, logged in to."""
    stand_in = StandIn()
    monkeypatch.setattr(constants, "ENDPOINT", stand_in.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", stand_in.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its storage has a protocol of its own: plain LFS here
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield stand_in
    stand_in.server.shutdown()
    stand_in.server.server_close()


def log_out(monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere/token")


def prompt_of(name="google-t5/t5-base", tokens=3, seed=1, **more):
    """A prompt of a model that need not be there."""
    model = ModelIdentity(name=name, fingerprint=hashlib.sha256(name.encode()).hexdigest(), hidden_size=4, **more)
    torch.manual_seed(seed)
    return SoftPrompt(torch.randn(tokens, 4), model, Init(kind="vocabulary", seed=seed, token_ids=tuple(range(tokens))))


def vector_of(task, start=None, by=1.0):
    start = start or prompt_of()
    return start.tuned_to(start.tensor + by, task, hashlib.sha256(task.encode()).hexdigest()) - start


@pytest.fixture
def items():
    """A start, a prompt tuned from it, a vector and a sum."""
    start = prompt_of()
    sst2, yelp = vector_of("sst2", start), vector_of("yelp", start, -2.0)
    return {"init": start, "tuned/sst2": start + sst2, "sst2": sst2, "mixed": sst2 - 0.5 * yelp}


def cells(text, title, head=False):
    """The rows of the table under a heading of a card, as a Markdown reader sees them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    texts, here, row, rows = [], False, [], []
    for i, token in enumerate(tokens):
        if token.type == "heading_open":
            here = tokens[i + 1].content == title
        elif here and token.type == "inline" and tokens[i - 1].type in ("td_open", "th_open"):
            texts = "".join(child.content for child in token.children)
            assert all(child.type in ("text", "text_special") for child in token.children), token.content
            row.append(texts)
        elif here and token.type == "tr_close":
            rows.append(row)
            row = []
    return rows[:1] if head else rows[1:]


# --- there and back -------------------------------------------------------------------------------
def test_what_was_pushed_is_pulled(hub, items):
    address = repository.push("me/vectors", items)
    assert address == f"{hub.url}/me/vectors/commit/{hub.repos['me/vectors']['branches']['main']}"
    assert sorted(hub.files()) == sorted([".gitattributes", "README.md", *(f"{name}.safetensors" for name in items)])
    assert hub.repos["me/vectors"]["private"] is False
    back = repository.pull("me/vectors")
    assert back == items
    for name, item in items.items():
        assert type(back[name]) is type(item)
        assert back[name].identity() == item.identity()
        assert back[name].terms == item.terms
        assert torch.equal(back[name].tensor, item.tensor)
    assert back["mixed"].terms == {"sst2": 1.0, "yelp": -0.5}


def test_the_files_are_those_that_save_writes(hub, items, tmp_path):
    repository.push("me/vectors", items)
    items["mixed"].save(tmp_path / "mixed.safetensors")
    assert hub.files()["mixed.safetensors"] == (tmp_path / "mixed.safetensors").read_bytes()


def test_only_our_files_are_downloaded(hub, items):
    repository.push("me/vectors", items)
    hub.commit("me/vectors", {"pytorch_model.bin": b"pickle", "notes.txt": b"n", "run.py": b"import os"})
    hub.asked.clear()
    assert repository.pull("me/vectors") == items
    got = {line.rsplit("/", 1)[-1] for line in hub.asked if "/resolve/" in line}
    assert got == {f"{name.rsplit('/')[-1]}.safetensors" for name in items}


def test_private_repositories(hub, items, monkeypatch):
    repository.push("me/vectors", items, private=True)
    assert hub.repos["me/vectors"]["private"] is True
    assert repository.pull("me/vectors") == items
    repository.push("me/vectors", {"again": items["sst2"]}, private=True)
    hub.commit("me/open", {".gitattributes": b""})
    hub.asked.clear()
    with pytest.raises(tpv.TpvError, match="me/open is public; expected a private one"):
        repository.push("me/open", items, private=True)
    assert not hub.wrote()
    log_out(monkeypatch)
    with pytest.raises(tpv.TpvError, match="me/vectors does not exist, or is not yours to see"):
        repository.pull("me/vectors")


def test_a_second_push_adds_and_replaces_and_the_card_tells_of_all(hub, items):
    repository.push("me/vectors", items, message="the first")
    repository.push("me/vectors", {"sst2": items["sst2"] * 2, "new": vector_of("trec")})
    back = repository.pull("me/vectors")
    assert back == items | {"sst2": items["sst2"] * 2, "new": vector_of("trec")}
    rows = {row[0]: row for row in cells(hub.card(), "Files")}
    assert set(rows) == {f"{name}.safetensors" for name in back}
    assert rows["sst2.safetensors"][2] == "2 sst2"
    assert hub.repos["me/vectors"]["messages"] == ["the first", f"sst2, new, with tpv {tpv.__version__}"]


def test_branches(hub, items):
    repository.push("me/vectors", items)
    repository.push("me/vectors", {"more": items["sst2"]}, revision="next")
    repository.push("me/vectors", {"most": items["sst2"]}, revision="next")
    assert repository.pull("me/vectors") == items
    assert set(repository.pull("me/vectors", revision="next")) == {*items, "more", "most"}
    first = next(iter(hub.repos["me/vectors"]["commits"]))
    with pytest.raises(tpv.TpvError, match="holds nothing of tpv"):
        repository.pull("me/vectors", revision=first)
    with pytest.raises(tpv.TpvError, match="has no revision 'nope'"):
        repository.pull("me/vectors", revision="nope")


def test_somebody_pushes_at_the_same_time(hub, items, monkeypatch):
    repository.push("me/vectors", items)
    describe = card.write_card

    def slow(*args):
        hub.commit("me/vectors", {"theirs.txt": b"x"})
        return describe(*args)

    monkeypatch.setattr(card, "write_card", slow)
    with pytest.raises(tpv.TpvError, match="was changed meanwhile; push again"):
        repository.push("me/vectors", {"other": items["sst2"]})
    assert "other.safetensors" not in hub.files()


# --- the card -------------------------------------------------------------------------------------
def test_the_card_says_what_the_files_are(hub, items):
    hub.commit("google-t5/t5-base", {"config.json": b"{}"})
    repository.push("me/vectors", items)
    page = ModelCard(hub.card())
    assert page.data.to_dict() == {
        "base_model": "google-t5/t5-base",
        "library_name": "tpv",
        "tags": ["prompt-tuning", "soft-prompt", "task-prompt-vector"],
        "tpv": {"version": tpv.__version__},
    }
    model = items["sst2"].model
    short = f"google-t5/t5-base {model.fingerprint[:8]}"
    start = "vocabulary seed 1"
    assert cells(page.text, "Files") == [
        ["init.safetensors", "soft prompt", "nothing", "3", "4", short, start],
        ["mixed.safetensors", "task prompt vector", "sst2 - 0.5 yelp", "3", "4", short, start],
        ["sst2.safetensors", "task prompt vector", "sst2", "3", "4", short, start],
        ["tuned/sst2.safetensors", "soft prompt", "sst2", "3", "4", short, start],
    ]
    assert cells(page.text, "Models") == [["google-t5/t5-base", "encoder-decoder", "4", model.fingerprint]]
    sources = cells(page.text, "Sources")
    part = items["mixed"].components[1]
    assert ["mixed.safetensors", "yelp", "-0.5", start, part.data[:12], part.origin[:12]] in sources
    assert len(sources) == 4
    assert 'items["mixed"]' in page.text
    assert "to_peft" in page.text
    assert "another initialization" in page.text
    assert "## Scores" not in page.text


@pytest.mark.parametrize(
    "name", ["mini", "smollm2", "{folder}/model", "~/models/t5", "C:\\Users\\me\\t5", "nobody/has-this"]
)
def test_a_model_that_the_hub_does_not_have_is_no_base_model_and_its_path_stays_here(hub, name, tmp_path):
    (tmp_path / "model").mkdir()
    name = name.format(folder=tmp_path)
    prompt = prompt_of(name)
    repository.push("me/vectors", {"start": prompt, "vector": vector_of("sst2", prompt)})
    assert "base_model" not in ModelCard(hub.card()).data.to_dict()
    sent = hub.card().encode() + b"".join(hub.files().values())
    for private in (str(tmp_path), "~/models", "Users"):
        assert private.encode() not in sent
    back = repository.pull("me/vectors")["start"]
    assert back == prompt
    assert back.model.name == {"~/models/t5": "t5", "C:\\Users\\me\\t5": "t5"}.get(
        name, name.removeprefix(f"{tmp_path}/")
    )


def test_names_are_shown_and_do_nothing(hub):
    task = "a|b <script>alert(1)</script> [x](http://evil) `code` **bold** \n# head ![i](j) {{ x }} www.evil.org"
    start = SoftPrompt(
        torch.ones(2, 4), prompt_of(": *t5* | # \n---\nlicense: x").model, Init(kind="text", detail="it's | <b>\n\n---")
    )
    repository.push("me/vectors_of_mine", {"x": vector_of(task, start), "_under_": start})
    page = ModelCard(hub.card("me/vectors_of_mine"))
    assert set(page.data.to_dict()) == {"library_name", "tags", "tpv"}
    rendered = MarkdownIt("commonmark").enable("table").parse(page.text)
    kinds = {child.type for token in rendered for child in token.children or ()}
    assert not {"html_inline", "link_open", "image"} & (kinds | {token.type for token in rendered})
    assert "html_block" not in {token.type for token in rendered}
    rows = cells(page.text, "Files")
    assert [row[0] for row in rows] == ["_under_.safetensors", "x.safetensors"]
    assert rows[1][2] == " ".join(task.split())
    headings = [rendered[i + 1].content for i, token in enumerate(rendered) if token.type == "heading_open"]
    assert headings[1:] == ["Files", "Models", "Sources", "Use", "Limits"]
    assert "evil" not in page.text.split("```python")[1].split("```")[0]


def test_the_code_of_the_card_runs(hub, backbone, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start = tpv.SoftPrompt.sample(backbone, 4, seed=3)
    repository.push("me/vectors", {"sst2": start.tuned_to(start.tensor + 0.1, "mini/sst2") - start})
    (block,) = re.findall(r"```python\n(.*?)```", hub.card(), flags=re.S)
    names = {}
    exec(block, names)
    assert names["prompt"].terms == {"mini/sst2": 1.0}
    assert "exact_match" in capsys.readouterr().out
    assert tpv.SoftPrompt.from_peft("adapter") == names["prompt"]


def test_what_others_wrote_into_the_front_matter_stays(hub, items):
    hub.commit(
        "me/vectors", {"README.md": b"---\nlicense: mit\ntags:\n- reviews\n---\n"}
    )  # as the hub's own page makes it
    repository.push("me/vectors", items)
    repository.push("me/vectors", {"x": items["sst2"]})
    data = ModelCard(hub.card()).data.to_dict()
    assert data["license"] == "mit"
    assert data["tags"] == ["prompt-tuning", "soft-prompt", "task-prompt-vector", "reviews"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"---\nlicense: mit\n---\n# My model\n", "a model card that tpv did not write"),
        (b"# My model\n", "a model card that tpv did not write"),
        (b"---\nlibrary_name: peft\n---\n", "a model card that tpv did not write"),
        (b"---\n: [\n---\n", "front matter of README.md of me/vectors does not read"),
        (b"---\nlibrary_name: tpv\ntpv:\n  scores:\n  - file: 1\n---\n", "the scores in the front matter"),
        (b"\xff\xfe\x00", "README.md of me/vectors does not read"),
    ],
)
def test_a_card_that_is_not_ours_is_not_replaced(hub, items, content, words):
    hub.commit("me/vectors", {"README.md": content})
    with pytest.raises(tpv.TpvError, match=words) as error:
        repository.push("me/vectors", items)
    assert "\n" not in str(error.value)
    assert hub.files() == {"README.md": content}
    assert not hub.wrote()


# --- scores ---------------------------------------------------------------------------------------
@pytest.fixture
def scored(backbone, toy_task):
    """A task, two starts, a vector from the first, and the scores of what they make."""
    task = toy_task(["good", "bad"])
    starts = [tpv.SoftPrompt.sample(backbone, 4, seed=seed) for seed in (0, 1)]
    vector = starts[0].tuned_to(starts[0].tensor + 0.5, "toy") - starts[0]
    prompts = [starts[0], starts[0] + vector, starts[1] + vector, starts[1] + 0.5 * vector]
    return task, starts, vector, tpv.evaluate(backbone, task, prompts)


def test_scores_go_to_what_they_were_measured_on(hub, scored):
    _, starts, vector, scores = scored
    repository.push("me/vectors", {"vector": vector, "tuned": starts[0] + vector}, scores=scores)
    rows = cells(hub.card(), "Scores")
    assert [row[:5] for row in rows] == [
        ["tuned.safetensors", "as it is", "toy", "test", str(scores[0].n)],
        ["vector.safetensors", "vocabulary seed 0", "toy", "test", str(scores[0].n)],
        ["vector.safetensors", "vocabulary seed 1", "toy", "test", str(scores[0].n)],
    ]
    for row, score in zip(rows, (scores[1], scores[1], scores[2]), strict=True):
        expected = (score.exact_match, score.positive_f1, score.macro_f1, score.invalid_rate, score.majority)
        assert row[5:] == [f"{value:.3f}" for value in expected]
    kept = ModelCard(hub.card()).data.to_dict()["tpv"]["scores"]
    assert [entry["exact_match"] for entry in kept] == [
        scores[1].exact_match,
        scores[1].exact_match,
        scores[2].exact_match,
    ]


def test_a_score_stays_as_long_as_its_file_does(hub, scored):
    _, starts, vector, scores = scored
    repository.push("me/vectors", {"vector": vector, "tuned": starts[0] + vector}, scores=scores[1])
    repository.push("me/vectors", {"other": starts[1]})
    assert [row[0] for row in cells(hub.card(), "Scores")] == ["tuned.safetensors", "vector.safetensors"]
    repository.push("me/vectors", {"vector": vector * 2}, scores=[])
    assert [row[0] for row in cells(hub.card(), "Scores")] == ["tuned.safetensors"]
    repository.push("me/vectors", {"tuned": starts[0] - vector})
    assert "## Scores" not in hub.card()


def test_scores_of_something_else_are_refused(hub, scored, items):
    *_, scores = scored
    with pytest.raises(tpv.TpvError, match=r"scores belong to none of the files; .*got 4 of others"):
        repository.push("me/vectors", items, scores=scores)
    plain = scores[0].predictions.replace_schema_metadata()
    with pytest.raises(tpv.TpvError, match="do not say which prompt they are of"):
        repository.push("me/vectors", items, scores=[tpv.Scores(1.0, 0.5, 0.1, 3, plain)])
    assert not hub.repos


def test_scores_by_command(hub, run, scored, backbone, tmp_path):
    task, starts, vector, _ = scored
    starts[1].save(tmp_path / "start.safetensors")
    starts[0].save(tmp_path / "bare.safetensors")
    vector.save(tmp_path / "vector.safetensors")
    task_file = tmp_path / "toy.csv"
    own = ("--train", task_file, "--labels", "good,bad", "--device", "cpu")
    table = tmp_path / "scores.parquet"
    code, _, err = run(
        "evaluate",
        tmp_path / "start.safetensors",
        tmp_path / "bare.safetensors",
        "--vector",
        tmp_path / "vector.safetensors",
        "--predictions",
        table,
        "--split",
        "validation",
        *own,
    )
    assert code == 0, err
    code, _, err = run("push", "me/vectors", tmp_path / "vector.safetensors", "--scores", table)
    assert (code, err) == (0, "")
    rows = cells(hub.card(), "Scores")
    expected = [tpv.evaluate(backbone, task, start + vector, "validation") for start in starts]
    assert [row[1:6] for row in rows] == [
        [f"vocabulary seed {seed}", "toy", "validation", str(score.n), f"{score.exact_match:.3f}"]
        for seed, score in enumerate(expected)
    ]
    # the scores of start + vector are not those of the start, whatever the files are called
    code, _, err = run("push", "me/other", tmp_path / "start.safetensors", "--scores", table)
    assert code == 2
    assert "belong to none of the files" in err
    assert "me/other" not in hub.repos


def test_scores_that_do_not_read(scored, tmp_path, run, hub, items):
    *_, scores = scored
    items["sst2"].save(tmp_path / "v.safetensors")
    plain = scores[0].predictions
    about = dict(plain.schema.metadata)
    with_name = plain.add_column(0, "prompt", [["p"] * plain.num_rows])
    pq.write_table(plain, tmp_path / "python.parquet")
    pq.write_table(with_name.replace_schema_metadata({b"task": b"toy"}), tmp_path / "old.parquet")
    pq.write_table(with_name.replace_schema_metadata(about | {b"scored": b"[1]"}), tmp_path / "list.parquet")
    pq.write_table(
        with_name.replace_schema_metadata(about | {b"scored": b'{"p": {}}', b"labels": b"x"}),
        tmp_path / "labels.parquet",
    )
    (tmp_path / "text.parquet").write_text("no parquet")
    for name, words in {
        "python": "does not say which prompts it scores",
        "old": "does not say which prompts it scores",
        "list": "its predictions do not read",
        "labels": "its predictions do not read",
        "text": "damaged or no Parquet file",
        "missing": "cannot be read",
    }.items():
        code, _, err = run("push", "me/vectors", tmp_path / "v.safetensors", "--scores", tmp_path / f"{name}.parquet")
        assert (code, err.count("\n")) == (2, 1), err
        assert words in err
    assert not hub.repos


@pytest.fixture
def text_scored(backbone, tmp_path):
    """A vector of a text task, what it makes, and the scores of that; the gold texts mark a final answer."""
    rows = [{"line": f"the sum of {i} and {i % 3}", "gist": f"it is #### {i + i % 3}"} for i in range(30)]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = tpv.load_task(path, text="line", target="gist")
    start = tpv.SoftPrompt.sample(backbone, 4)
    vector = start.tuned_to(start.tensor + 0.5, "sums") - start
    table = tpv.evaluate(backbone, task, start + vector).predictions
    said = [f"is the sum {i}? it{' so' * i} #### {gold[-2:]}" for i, gold in enumerate(table["gold"].to_pylist())]
    said[0] = table["gold"][0].as_py()
    return (
        start,
        vector,
        score_predictions(table.set_column(table.column_names.index("predicted"), "predicted", [said])),
    )


TEXT_HEAD = ["token F1", "ROUGE-1", "ROUGE-2", "ROUGE-L", "BLEU", "chrF", "final answer"]


def test_a_text_task_has_scores_of_text(hub, text_scored):
    _, vector, score = text_scored
    repository.push("me/texts", {"sums": vector}, scores=score)
    values = (score.token_f1, score.rouge1, score.rouge2, score.rouge_l, score.bleu, score.chrf, score.final_answer)
    assert len({f"{value:.3f}" for value in values}) == len(values)
    head, row = (cells(hub.card("me/texts"), "Scores", head=part)[0] for part in (True, False))
    assert head == ["file", "added to", "task", "split", "n", "exact match", *TEXT_HEAD, "majority"]
    shown = [f"{value:.3f}" for value in (score.exact_match, *values, score.majority)]
    assert row == ["sums.safetensors", "vocabulary seed 0", "sums", "test", str(score.n), *shown]
    (kept,) = ModelCard(hub.card("me/texts")).data.to_dict()["tpv"]["scores"]
    names = ("token_f1", "rouge1", "rouge2", "rouge_l", "bleu", "chrf", "final_answer")
    assert kept["text"] == dict(zip(names, values, strict=True))
    assert "macro_f1" not in kept
    assert "the label words or the text of the task" in hub.card("me/texts")


def test_scores_of_labels_and_of_text_on_one_page(hub, text_scored, scored):
    _, vector, score = text_scored
    _, _, other, scores = scored
    repository.push("me/texts", {"sums": vector}, scores=score)
    before = cells(hub.card("me/texts"), "Scores")
    repository.push("me/texts", {"toy": other}, scores=scores)
    rows = cells(hub.card("me/texts"), "Scores")
    assert [row[0] for row in rows] == ["toy.safetensors"] * 2 + ["file", "sums.safetensors"]
    assert rows[-1:] == before
    kept = ModelCard(hub.card("me/texts")).data.to_dict()["tpv"]["scores"]
    assert ["text" in entry for entry in kept] == [True, False, False]


def test_a_metric_of_another_program_is_shown_as_text(hub, text_scored):
    _, vector, score = text_scored
    repository.push("me/texts", {"sums": vector}, scores=score)
    name = "a|b <script>[x](http://y)"
    text = hub.card("me/texts").replace("      bleu:", f"      {json.dumps(name)}:")
    hub.commit("me/texts", hub.files("me/texts") | {"README.md": text.encode()})
    repository.push("me/texts", {"more": vector * 2})
    (head,) = cells(hub.card("me/texts"), "Scores", head=True)
    assert head[6:] == [*(word for word in TEXT_HEAD if word != "BLEU"), name, "majority"]


# --- refusals -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "repo_id", ["vectors", "a/b/c", "me/", "/vectors", "me/..", "me/a--b", "me/a b", "", "me/x.git", "../x", TOKEN]
)
def test_a_bad_name_of_a_repository(hub, items, repo_id):
    for call in (lambda: repository.push(repo_id, items), lambda: repository.pull(repo_id)):
        with pytest.raises(tpv.TpvError, match=r"name of a repository; expected OWNER/NAME") as error:
            call()
        assert TOKEN not in str(error.value)
    assert not hub.asked


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".hidden",
        "../x",
        "a/../b",
        "/x",
        "a//b",
        "a b",
        "x.safetensors",
        "a.safetensors/b",
        "é",
        "x\n",
        "a\\b",
        "c:x",
        "dot.",
        "-" * 90,
    ],
)
def test_a_name_that_could_not_be_a_file(hub, items, name):
    with pytest.raises(tpv.TpvError, match="of a file; expected letters, digits"):
        repository.push("me/vectors", {name: items["sst2"]})
    assert not hub.asked


def test_things_that_are_not_pushed(hub, items):
    for what, words in (
        ({}, "nothing to push"),
        ({"x": torch.ones(2, 4)}, "'x' cannot be pushed; expected a SoftPrompt or a TaskPromptVector; got Tensor"),
        ({"sst2": items["sst2"], "SST2": items["sst2"]}, "differ in case only; got 'sst2' and 'SST2'"),
    ):
        with pytest.raises(tpv.TpvError, match=words):
            repository.push("me/vectors", what)
    with pytest.raises(tpv.TpvError, match="message of the commit; expected some words"):
        repository.push("me/vectors", items, message=" ")
    with pytest.raises(tpv.TpvError, match="revision; expected a branch"):
        repository.push("me/vectors", items, revision="")
    assert not hub.asked


def test_no_network(monkeypatch, items):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    for call in (lambda: repository.push("me/vectors", items), lambda: repository.pull("me/vectors")):
        with pytest.raises(tpv.TpvError, match="hub cannot be reached; check the network"):
            call()


def test_no_token(hub, items, monkeypatch):
    log_out(monkeypatch)
    with pytest.raises(
        tpv.TpvError, match=r"cannot push to me/vectors: you are not logged in; log in with `hf auth login`"
    ):
        repository.push("me/vectors", items)
    with pytest.raises(tpv.TpvError, match="me/vectors does not exist, or is not yours to see; check the name"):
        repository.pull("me/vectors")
    assert not hub.repos


def test_a_bad_token_and_no_permission(hub, items, monkeypatch):
    with pytest.raises(tpv.TpvError, match="you may not write to them/vectors; got You don't have the rights"):
        repository.push("them/vectors", items)
    bad = "hf_" + "Qx" * 17
    monkeypatch.setenv("HF_TOKEN", bad)
    for call in (lambda: repository.push("me/vectors", items), lambda: repository.pull("me/vectors")):
        with pytest.raises(tpv.TpvError, match="does not accept your token") as error:
            call()
        assert bad not in str(error.value)
    assert not hub.repos


@pytest.mark.parametrize(
    ("part", "answer", "words"),
    [
        ("GET /api/models", (404, {"X-Error-Code": "RepoNotFound"}, {}), "does not exist, or is not yours to see"),
        ("GET /api/models", (403, {"X-Error-Code": "GatedRepo"}, {}), "is gated; ask for access on its page"),
        (
            "GET /api/models",
            (403, {}, {"error": f"no scope for {TOKEN}"}),
            "you may not read me/vectors; got no scope for …",
        ),
        (
            "GET /api/models",
            (418, {}, {"error": "Bearer abc123 at https://me:pw@host/x"}),
            "status 418: Bearer … at https://…@host/x",
        ),
        ("GET /api/models", (429, {}, {}), "takes no more requests"),
        ("GET /api/models", (200, {}, b"<html>login"), "exchange with the hub about me/vectors failed"),
        ("/resolve/", (403, {"X-Error-Message": "blocked"}, {}), "you may not read me/vectors; got blocked"),
        ("/resolve/", (404, {"X-Error-Code": "EntryNotFound"}, {}), "refused me/vectors; got status 404"),
        ("/tree/", (410, {}, {"error": "gone\nfor good"}), "status 410: gone for good"),
    ],
)
def test_what_the_hub_refuses_is_one_line_without_secrets(hub, items, run, tmp_path, part, answer, words):
    repository.push("me/vectors", items)
    hub.answer_instead[part] = answer
    code, out, err = run("pull", "me/vectors", "--out", tmp_path / "new" / "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert TOKEN not in err
    assert "abc123" not in err
    assert "pw@" not in err
    assert not (tmp_path / "new").exists()


def damaged(items):
    content = bytearray(repository.storage.saved_bytes(items["sst2"]))
    content[-2] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "make", "words"),
    [
        ("bad.safetensors", lambda _: b"garbage", "bad.safetensors of me/vectors is damaged or no safetensors file"),
        ("empty.safetensors", lambda _: b"", "empty.safetensors of me/vectors is damaged or no safetensors file"),
        (
            "model.safetensors",
            lambda _: safetensors_bytes({"w": torch.ones(2)}),
            "model.safetensors of me/vectors is damaged or was not written by tpv",
        ),
        (
            "a/flipped.safetensors",
            damaged,
            "a/flipped.safetensors of me/vectors is damaged: its content does not match its hash",
        ),
        (
            "../x.safetensors",
            lambda i: repository.storage.saved_bytes(i["sst2"]),
            "at no safe name; .*got '../x.safetensors'",
        ),
        ("/etc/x.safetensors", lambda i: repository.storage.saved_bytes(i["sst2"]), "at no safe name"),
        ("a/../../x.safetensors", lambda i: repository.storage.saved_bytes(i["sst2"]), "at no safe name"),
        ("..\\x.safetensors", lambda i: repository.storage.saved_bytes(i["sst2"]), "at no safe name"),
        (".safetensors", lambda i: repository.storage.saved_bytes(i["sst2"]), "at no safe name"),
        ("x.SAFETENSORS", lambda i: repository.storage.saved_bytes(i["sst2"]), "at no safe name"),
        ("SST2.safetensors", lambda i: repository.storage.saved_bytes(i["sst2"]), "differ in case only"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_by_name(hub, items, run, tmp_path, name, make, words):
    repository.push("me/vectors", items)
    hub.commit("me/vectors", {name: make(items)})
    before = dict(hub.files())
    code, out, err = run("pull", "me/vectors", "--out", tmp_path / "in" / "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert re.search(words, err), err
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(tpv.DamagedFileError if "case" not in words else tpv.TpvError, match=words):
        repository.pull("me/vectors")
    with pytest.raises(tpv.TpvError, match=words):  # nor is it described as one of ours
        repository.push("me/vectors", {"other": items["sst2"]})
    assert hub.files() == before


def test_a_model_is_not_downloaded(hub, items, monkeypatch):
    repository.push("me/vectors", items)
    monkeypatch.setattr(repository, "LARGEST", 100)
    hub.asked.clear()
    with pytest.raises(
        tpv.DamagedFileError, match=r"init.safetensors of me/vectors is no file of tpv; expected at most"
    ):
        repository.pull("me/vectors")
    assert not [line for line in hub.asked if "/resolve/" in line]


# --- the commands ---------------------------------------------------------------------------------
def test_push_and_pull_by_command(hub, run, items, tmp_path):
    for place, name in (("a", "init"), ("a", "sst2"), ("b", "mixed")):
        items[name].save(tmp_path / f"{place}/{'vector' if name != 'init' else name}.safetensors")
    code, out, err = run(
        "push",
        "me/vectors",
        tmp_path / "a/init.safetensors",
        f"sst2={tmp_path}/a/vector.safetensors",
        f"sums/mixed={tmp_path}/b/vector.safetensors",
        "--private",
        "--message",
        "hello",
    )
    assert (code, err) == (0, "")
    assert "pushed sums/mixed.safetensors: TaskPromptVector" in out
    assert out.splitlines()[-1].startswith(f"wrote {hub.url}/me/vectors/commit/")
    assert TOKEN not in out
    assert hub.repos["me/vectors"]["private"]
    assert hub.repos["me/vectors"]["messages"] == ["hello"]
    (tmp_path / "out").mkdir()
    code, out, err = run("pull", "me/vectors", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.count("wrote ") == 3
    got = {str(p.relative_to(tmp_path / "out")): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert set(got) == {"init.safetensors", "sst2.safetensors", "sums/mixed.safetensors"}
    assert tpv.TaskPromptVector.load(got["sums/mixed.safetensors"]) == items["mixed"]
    assert got["sst2.safetensors"].read_bytes() == (tmp_path / "a/vector.safetensors").read_bytes()
    hub.asked.clear()
    code, out, err = run("pull", "me/vectors", "--out", tmp_path / "out")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "exists already; expected a new folder" in err
    assert not hub.asked


def test_bad_pushes_by_command(hub, run, items, tmp_path):
    items["sst2"].save(tmp_path / "a/vector.safetensors")
    items["mixed"].save(tmp_path / "b/vector.safetensors")
    (tmp_path / "text.safetensors").write_text("no")
    for args, words in (
        ([], "Missing argument"),
        ([tmp_path / "a/vector.safetensors", tmp_path / "b/vector.safetensors"], "two files are called 'vector'"),
        ([tmp_path / "text.safetensors"], "text.safetensors is damaged or no safetensors file"),
        ([tmp_path / "none.safetensors"], "cannot be read"),
        ([f"x={tmp_path}/none.safetensors"], "cannot be read"),
        ([f"../x={tmp_path}/a/vector.safetensors"], "name '../x' of a file"),
        ([f"={tmp_path}/a/vector.safetensors"], "name '' of a file"),
    ):
        code, out, err = run("push", "me/vectors", *args)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert words in err
    assert not hub.asked


def test_the_command_as_it_is_installed(hub, items, tmp_path):
    """With the address in HF_ENDPOINT, in a process of its own: what it says, and to whom, is all there is."""
    items["sst2"].save(tmp_path / "sst2.safetensors")
    env = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
    }

    def call(*args, **more):
        done = subprocess.run(
            [sys.executable, "-m", "tpv.cli", *args], env=env | more, capture_output=True, text=True, cwd=tmp_path
        )
        assert TOKEN not in done.stdout + done.stderr
        return done

    done = call("push", "me/vectors", "sst2.safetensors")
    assert (done.returncode, done.stderr) == (0, "")
    assert repository.pull("me/vectors") == {"sst2": items["sst2"]}
    hub.answer_instead["GET /api/models"] = (500, {"X-Error-Message": f"token {TOKEN} failed"}, b"")
    done = call("pull", "me/vectors", "--out", "got")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "status 500: token … failed" in done.stderr
    assert not (tmp_path / "got").exists()


# --- libraries ------------------------------------------------------------------------------------
def test_a_repository_is_a_library(hub, scored, items, run):
    _, starts, vector, scores = scored
    mine = {"vector": vector, "deep/twice": vector * 2, "tuned": starts[0] + vector}
    repository.push("me/vectors", mine, scores=scores)
    library = tpv.Library("me/vectors")
    assert set(library.names) == {"twice", "vector"}
    assert library["deep/twice"] == library["twice"] == vector * 2
    assert library.left_out == {"holding a prompt": ["tuned.safetensors"]}
    rows = {row["name"]: row for row in library.describe().to_pylist()}
    assert rows["vector"]["digest"] == vector.digest
    assert rows["vector"]["path"] == "hf://me/vectors/vector.safetensors"
    assert [(score["start"], score["exact_match"]) for score in rows["vector"]["scores"]] == [
        ("vocabulary seed 0", scores[1].exact_match),
        ("vocabulary seed 1", scores[2].exact_match),
    ]
    assert rows["twice"]["scores"] is None
    both = tpv.Library(["me/vectors", {"vector": items["sst2"]}], model=vector.model)
    assert both.names == ["twice", "vectors/vector"]
    assert both.left_out["of another model"] == ["vector"]
    code, out, err = run("library", "show", "me/vectors", "vector")
    assert (code, err) == (0, "")
    assert f"exact match {scores[1].exact_match:.3f}" in out


def test_a_card_that_does_not_read_costs_a_library_its_scores_only(hub, items):
    repository.push("me/vectors", items)
    for text in (b"# Mine\n\nMy page.\n", b"---\n: {\n---\n", b"\xff", b"x" * (2**20 + 1)):
        hub.commit("me/vectors", {"README.md": text})
        hub.asked.clear()
        library = tpv.Library("me/vectors")
        assert set(library.names) == {"mixed", "sst2"}
        assert library.describe()["scores"].to_pylist() == [None, None]
    assert not any("README.md" in line for line in hub.asked)  # the last was too large to fetch


def test_a_repository_with_a_bad_file_is_no_library(hub, items):
    repository.push("me/vectors", items)
    hub.commit("me/vectors", {"sst2.safetensors": b"x"})
    with pytest.raises(tpv.DamagedFileError, match=r"sst2\.safetensors of me/vectors is damaged"):
        tpv.Library("me/vectors")
    with pytest.raises(tpv.TpvError, match=r"no folder me/none is here, and .* me/none does not exist"):
        tpv.Library("me/none")
