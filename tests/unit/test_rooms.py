"""The order of rooms: which module may import which; and the sizes that keep them livable."""

import ast
from collections import Counter

import pytest
from places import ROOT

SOURCE = ROOT / "src" / "tpv"
ORDER = [
    "errors files hub memory registry progress",
    "prompts",
    "mini",
    "models",
    "tasks",
    "metrics",
    "outputs",
    "evaluation",
    "training",
    "methods",
    "merging",
    "porting",
    "interop",
    "compat",
    "plot",
    "reporting",
    "transfers",
    "estimators",
    "studies",
    "execution",
    "serving",
    "cli",
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms.split()}
# light modules that say what others are told by, and import nothing: anyone may use them
FREE = {"tpv", "tpv.evaluation"}
FILES = sorted(SOURCE.rglob("*.py"))


def name_of(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in FILES}


def imports(path):
    """Every module of tpv that a module imports, those in functions too; what is for type checkers only is not run."""
    tree = ast.parse(path.read_text())
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("tpv"))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tpv"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def room(module):
    return module.split(".")[1]


@pytest.mark.parametrize("module", [name for name in MODULES if name != "tpv"])
def test_a_module_imports_from_its_own_room_or_lower_ones(module):
    for other in imports(MODULES[module]):
        if other not in FREE:
            assert LEVEL[room(other)] <= LEVEL[room(module)], f"{module} imports {other}"


def test_no_circle():
    graph = {name: {other for other in imports(path) if other in MODULES} - FREE for name, path in MODULES.items()}
    # a package's __init__ is imported with each of its modules; that is no use of what it says
    state = {}

    def visit(name, trail):
        if state.get(name) == "done":
            return
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        for other in sorted(graph[name] - {name}):
            visit(other, [*trail, name])
        state[name] = "done"

    for name in sorted(graph):
        visit(name, [])


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_module_above_400_lines_and_no_function_above_60(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            documented = ast.get_docstring(node, clean=False)
            lines = node.end_lineno - node.body[0].lineno + 1 - (documented.count("\n") + 1 if documented else 0)
            assert lines <= 60, f"{node.name}: {lines} lines"


def test_no_more_exceptions_from_rules_than_there_were():
    text = "".join(path.read_text() for path in FILES)
    assert text.count("type: ignore") <= 10
    assert "fmt: skip" not in text
    assert "fmt: off" not in text


def test_job_kinds_are_told_apart_by_the_registry_alone():
    kinds = {"Train", "Vectors", "Attend", "Score", "Search", "Compare", "Measure", "Job", "Member", "Blend", "Initial"}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
                named = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
                assert not named & kinds, f"{path}: {ast.unparse(node)}"


def test_no_two_classes_of_one_name():
    names = Counter(
        node.name
        for path in FILES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_no_command_has_more_than_twelve_parameters():
    for path in (SOURCE / "cli" / "commands").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name == "command":
                assert len(node.args.args) + len(node.args.kwonlyargs) <= 12, path
