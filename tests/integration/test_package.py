"""What `pip install tpv` gets: the wheel and the sdist hold what they should, and the wheel works where the clone is not."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked(folder):
    """Files of the repository below a folder, as git knows them."""
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split("\n")) - {""}


def test_package_data_are_all_there():
    """Every file below src/tpv that is no Python is named by a pattern of pyproject.toml."""
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["tpv"]
    named = {path for pattern in patterns for path in (ROOT / "src" / "tpv").glob(pattern) if path.is_file()}
    data = {ROOT / path for path in tracked("src/tpv") if not path.endswith(".py")}
    assert data <= named, sorted(data - named)


def test_hints_name_extras_that_exist():
    extras = set(PROJECT["project"]["optional-dependencies"])
    texts = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    hinted = {
        name
        for path in texts
        for found in re.findall(r"tpv\[([\w,]+)\]", path.read_text())
        for name in found.split(",")
    }
    assert hinted
    assert hinted <= extras, hinted - extras


def test_versions_agree():
    import tpv

    version = PROJECT["project"]["version"]
    assert tpv.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert newest is not None
    assert newest[1] == version


@pytest.mark.slow
def test_a_wheel_works_in_an_environment_of_its_own(tmp_path):
    """It has the embedded model; dependencies are borrowed from this environment, tpv is not."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", ROOT]
    subprocess.run(build, check=True, capture_output=True, timeout=600)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert {path.removeprefix("src/") for path in tracked("src/tpv")} <= inside
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked("src/tpv") | {"LICENSE", "README.md", "pyproject.toml"} <= packed

    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", wheel]
    subprocess.run(install, check=True, timeout=300)
    # dependencies of this environment, but not the editable tpv that a finder in it would give
    here = Path(pytest.__file__).parents[1]
    env = {**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"}

    def run(*command):
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1200)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    home = run(python, "-c", "import tpv; print(tpv.__file__)").strip()
    assert home.startswith(str(tmp_path / "env"))
    assert "tpv" in run(tmp_path / "env" / "bin" / "tpv", "doctor")
    said = run(tmp_path / "env" / "bin" / "tpv", "quickstart", "--out", tmp_path / "quick")
    assert "Exact match on test" in said
    assert (tmp_path / "quick" / "report.html").is_file()
