"""The kit for a lent GPU, in miniature on the CPU, so that it cannot rot."""

import json
import subprocess
import sys

import pytest
from places import ROOT, SHARED


@pytest.mark.slow
def test_the_checks_pass_and_rates_are_measured(tmp_path):
    script = ROOT / "benchmarks" / "gpu.py"
    words = ["--device", "cpu", "--rounds", "1", "--out", tmp_path, "--limit", "500", "--data", tmp_path / "none"]
    done = subprocess.run([sys.executable, script, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()]
    checks = [row for row in rows if row["part"] == "parity"]
    assert {(row["model"], row["precision"]) for row in checks} == {
        (model, precision) for model in ("t5", "llama") for precision in ("fp32", "bf16")
    }
    assert all(row["ok"] for row in checks)
    assert all(row["value"] > 0 for row in rows if row["part"] == "rates")


@pytest.mark.slow
def test_settings_train_and_the_best_is_chosen(tmp_path):
    if not (data := SHARED / "data").is_dir():
        pytest.skip("needs ../shared/data")
    script = ROOT / "benchmarks" / "hold.py"
    words = ["--device", "cpu", "--model", "mini", "--precision", "fp32", "--data", data, "--out", tmp_path]
    words += [
        "--waves",
        "A,D",
        "--seconds",
        "1",
        "--final-seconds",
        "1",
        "--most-steps",
        "30",
        "--rows",
        "20",
        "--final",
    ]
    done = subprocess.run([sys.executable, script, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "hold.jsonl").read_text().splitlines()]
    assert {row["way"] for row in rows} == {"home", "moved", "moved, averaged", "sum"}
    assert {row["seed"] for row in rows if row["split"] == "test"} == {0, 1}
    assert "ordinary" in (tmp_path / "hold.md").read_text()
