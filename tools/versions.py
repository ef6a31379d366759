"""Test tpv with the lowest, or the newest, versions that pyproject.toml allows.

    python tools/versions.py lowest
    python tools/versions.py newest -- tests/unit tests/integration/test_cli.py -n 2

The environment is new and goes away afterwards. What follows `--` is handed to pytest; by default the unit tests run.
torch is that of constraints.txt in both, because PyPI's other builds of it bring several GB of CUDA. Tools that
only develop tpv (pytest, ruff, mypy and so on) are those of constraints.txt, too.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
TESTS = ["tests/unit", "-m", "not slow", "-q", "-p", "no:cacheprovider"]
EXTRAS = ["serve", "gguf", "skops", "big"]  # whose ranges are tested beside those of tpv itself


def pins(path: Path = ROOT / "constraints.txt") -> dict[str, str]:
    """The exact versions of a constraints file, by name."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return {name.lower(): version for name, _, version in (line.partition("==") for line in lines if line)}


def ranges() -> tuple[list[Requirement], list[Requirement]]:
    """What tpv and its extras need, and what else its tests need."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(one for extra in EXTRAS for one in extras[extra])]
    names = {Requirement(one).name for one in needed}
    tools = [one for one in extras["dev"] if Requirement(one).name not in names]
    return [Requirement(one) for one in needed], [Requirement(one) for one in tools]


def lowest(requirement: Requirement) -> str:
    """The lower end of a range, as a pin."""
    (bound,) = (one.version for one in requirement.specifier if one.operator == ">=")
    return f"{requirement.name}=={bound}"


def constraints(which: str) -> list[str]:
    """Pins for one end of all ranges."""
    needed, tools = ranges()
    pinned = pins()
    fixed = [f"{name}=={pinned[name]}" for name in ("torch", *(tool.name.lower() for tool in tools))]
    if which == "newest":
        return fixed
    return [*fixed, *(lowest(one) for one in needed if one.name != "torch")]


def main() -> int:
    """Make the environment and run the tests in it; the exit code is pytest's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("which", choices=["lowest", "newest"])
    parser.add_argument("tests", nargs="*", help="arguments of pytest, after --; by default the unit tests")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, "bin", "python")
        listed = Path(folder, "constraints.txt")
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        listed.write_text("\n".join(constraints(arguments.which)) + "\n", encoding="utf-8")
        print(listed.read_text(encoding="utf-8"), end="", flush=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", listed]
        subprocess.run([*install, "-e", ".[dev]"], cwd=ROOT, check=True)
        subprocess.run([python, "-m", "pip", "freeze", "--exclude-editable"], check=True)
        return subprocess.run([python, "-m", "pytest", *(arguments.tests or TESTS)], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
