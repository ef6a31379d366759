"""Text from strangers on a page and on a terminal; `python stress/hostile.py` looks at many pages."""

import re

import hostile
import pytest

import tpv
from tpv.errors import plain, scrub
from tpv.prompts.algebra import SoftPrompt
from tpv.reporting.tables import Table, markdown, tex


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    hostile.write(folder, 3)
    return folder


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font:UserWarning")
def test_a_page_of_hostile_names_holds_text_only(page):
    assert hostile.faults(page, browser=False) == []
    assert len((page / "report.html").read_text()) < 2_000_000


@pytest.mark.skipif(hostile.chromium() is None, reason="no Chromium on this machine")
def test_nothing_of_it_runs_loads_or_widens_the_page_in_chromium(page):
    assert hostile.faults(page, widths=hostile.WIDTHS[:1]) == []


@pytest.mark.skipif(hostile.chromium() is None, reason="no Chromium on this machine")
def test_what_would_run_is_noticed(tmp_path):
    (tmp_path / "report.md").write_text("")
    (tmp_path / "report.html").write_text(
        "<!doctype html><title>t</title><body><h1>t</h1><script>document.title = 'owned'; console.log('x');"
        "fetch('http://evil.invalid/x', {mode: 'no-cors'})</script><p style='width: 9999px'>wide</p></body>"
    )
    found = " ".join(hostile.faults(tmp_path, widths=hostile.WIDTHS[:1]))
    for words in ("element script", "title 'owned'", "console: ", "request: ", "at 500 pixels: "):
        assert words in found


def test_every_hostile_text_stays_on_its_line_in_every_format():
    for text in hostile.TEXTS:
        table = Table(text, (text, "b"), [(text, "1"), ("x", text)], name="t")
        assert len(re.findall(r"(?<!\\)\|", markdown(text).replace("\\\\", ""))) == 0
        assert plain(text).isprintable() or set(plain(text)) & {"\u200c", "\u200d"}
        assert "\n" not in markdown(text) + tex(text) + plain(text)
        lines = table.markdown().strip().split("\n")
        assert len(lines) == 6
        assert len(table.tex().strip().split("\n")) == 9


def test_refusals_are_one_line_that_a_terminal_only_shows():
    error = tpv.TpvError("\x1b[2Jfile\0", expected="a\nb", got="\u202e" + "x" * 100_000, fix="\ud800 do")
    assert str(error).startswith(r"\x1b[2Jfile\x00; expected a b; got \u202ex")
    assert str(error).endswith(r"…; \ud800 do")
    assert len(str(error)) < 5_000
    assert str(tpv.TpvError("می\u200cخواهم é 𝒳")) == "می\u200cخواهم é 𝒳"


def test_names_in_files_are_shown_and_not_obeyed(run, backbone, tmp_path):
    start = SoftPrompt.sample(backbone, num_tokens=2, seed=0)
    name = "\x1b[2J[/bold]\u202e task"
    (start.tuned_to(start.tensor + 1, name) - start).save(tmp_path / "v.safetensors")
    code, out, err = run("vector", "show", tmp_path / "v.safetensors")
    assert (code, err) == (0, "")
    assert r"\x1b[2J[/bold]\u202e task" in " ".join(out.split())
    assert "\x1b[2J" not in out + err
    code, out, err = run("vector", "scale", tmp_path / "v.safetensors", "--by", 2, "--out", tmp_path / "w.safetensors")
    assert (code, err) == (0, "")
    assert "\x1b" not in out


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"])
def test_what_logs_somebody_in_is_in_no_refusal(name, monkeypatch):
    monkeypatch.setenv(name, "swordfish99")
    said = str(
        tpv.TpvError(
            "the swordfish99", got="https://me:pw@host/x and s3:/id:pw@bucket and hf_abcdefgh", fix="Bearer x.y"
        )
    )
    assert said == "the …; got https://…@host/x and s3:/…@bucket and hf_…; Bearer …"
    assert scrub("me@example.com, mini/sst2 at 12:30") == "me@example.com, mini/sst2 at 12:30"


def test_a_fault_of_ours_tells_no_secret(run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "swordfish99")

    def fail(*_, **__):
        raise RuntimeError("swordfish99 at https://me:pw@host/x")

    monkeypatch.setattr("tpv.tasks.load_task", fail)
    code, out, err = run("tasks", "mini/sst2")
    assert (code, out) == (1, "")
    assert "RuntimeError: … at https://…@host/x" in err
    assert "Traceback" in err
    assert "swordfish99" not in err
