"""A little of what `make stress` does at length, each script in a process of its own, as it is run by hand."""

import subprocess
import sys

import pytest
from places import ROOT


@pytest.mark.parametrize(
    "line",
    [
        ["growth", "--times", "30"],
        ["canaries"],
        pytest.param(["full_disk", "--times", "1"], marks=pytest.mark.slow),
        pytest.param(["namespaces", "--times", "2"], marks=pytest.mark.slow),
        pytest.param(["clocks", "--times", "2"], marks=pytest.mark.slow),
        pytest.param(["damage", "--times", "1"], marks=pytest.mark.slow),
        pytest.param(["drivers", "--times", "2"], marks=pytest.mark.slow),
    ],
    ids=lambda line: line[0],
)
def test_a_script_that_is_hard_on_tpv_finds_nothing(line):
    script = ROOT / "stress" / f"{line[0]}.py"
    ended = subprocess.run([sys.executable, str(script), *line[1:]], capture_output=True, text=True)
    if ended.returncode == 77:
        pytest.skip(ended.stdout.strip().splitlines()[-1])
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]


def test_the_benchmark_of_files_checks_every_row():
    script = ROOT / "benchmarks" / "files.py"
    ended = subprocess.run([sys.executable, str(script), "--rows", "50"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "50 rows in the output, in their order" in ended.stdout
