"""The notebooks and scripts of examples/ run, from the first line to the last."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAST = {"own_merge.py", "vectors.py"}
FILES = sorted((*(ROOT / "examples" / "notebooks").glob("*.py"), *(ROOT / "examples" / "scripts").glob("*.py")))
WRITES = {"label_a_frame.py": "labelled.csv", "sum_of_vectors.py": "vectors/mini-trec.safetensors"}


@pytest.mark.parametrize(
    "file", [pytest.param(file, marks=[] if file.name in FAST else [pytest.mark.slow], id=file.name) for file in FILES]
)
def test_it_runs(file, tmp_path):
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, file],
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()
    if file.name in WRITES:
        assert (tmp_path / WRITES[file.name]).stat().st_size > 100


def test_scripts_are_short_and_listed():
    listed = (ROOT / "examples" / "README.md").read_text()
    for file in FILES:
        assert f"`{file.parent.name}/{file.name}`" in listed
        assert file.parent.name != "scripts" or len(file.read_text().splitlines()) <= 60
