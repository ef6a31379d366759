"""Registries: a file outside the package adds an entry, and what is wrong is refused in one line."""

import sys
from pathlib import Path

import pytest
import torch

import tpv
from tpv.errors import TpvError
from tpv.registry import Registry, load_plugins, register

MEDIAN = '''
import tpv

@tpv.register.merge("median")
def median(vectors, *, scale: float = 1.0):
    """The median of the vectors, value by value.

    More about it.
    """
    return scale * vectors.median(dim=0).values
'''


@pytest.fixture
def write(tmp_path):
    """Write a plugin; it is forgotten after the test."""
    written, before = (
        [],
        {name: set(each.names()) for name, each in register.registries().items() if name in ("merge", "initializer")},
    )

    def make(name, text, folder=tmp_path):
        path = folder / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(name)
        return path

    yield make
    for name in written:
        sys.modules.pop(name, None)
    for name, names in before.items():
        registry = register.registries()[name]
        registry.without(*set(registry.names()) - names)


@pytest.fixture
def things():
    return Registry("thing")


# --- plugins ------------------------------------------------------------------------------------------
def test_a_file_outside_the_package_registers_a_merge(write, tmp_path):
    path = write("own_median", MEDIAN)
    before, paths = tpv.register.merge.names(), list(sys.path)
    (module,) = load_plugins(["own_median"], near=tmp_path)
    assert sys.path == paths
    assert Path(module.__file__) == path
    assert tpv.register.merge.names() == [*before, "median"]  # plugins come last
    entry = tpv.register.merge["median"]
    assert (entry.name, entry.module, entry.builtin) == ("median", "own_median", False)
    assert entry.summary == "The median of the vectors, value by value."
    assert entry.checked({}) == {"scale": 1.0}
    assert torch.equal(entry.thing(torch.tensor([[[1.0]], [[2.0]], [[9.0]]])), torch.tensor([[2.0]]))
    assert load_plugins(["own_median"], near=tmp_path) == [module]  # a second time changes nothing


def test_the_source_of_a_plugin_has_a_digest_and_what_comes_with_tpv_has_none(write, tmp_path):
    write("own_one", MEDIAN)
    load_plugins(["own_one"], near=tmp_path)
    first = tpv.register.merge["median"].source_digest
    tpv.register.merge.without("median")
    write("own_two", MEDIAN.replace("More", "Much more"))
    load_plugins(["own_two"], near=tmp_path)
    assert len(first) == 64
    assert tpv.register.merge["median"].source_digest not in (None, first)
    assert tpv.register.merge["ties"].source_digest is None
    assert tpv.register.merge["ties"].builtin


def test_a_plugin_is_found_beside_the_config_then_in_the_working_directory(write, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write("own_place", "WHERE = 'config'", tmp_path / "config")
    write("own_place", "WHERE = 'here'", tmp_path / "here")
    (module,) = load_plugins(["own_place"], near=tmp_path / "config")
    assert module.WHERE == "config"
    del sys.modules["own_place"]
    (module,) = load_plugins(["own_place"])
    assert module.WHERE == "here"
    write("own_package.part", "WHERE = 'inside'", tmp_path / "config")
    (module,) = load_plugins(["own_package.part"], near=tmp_path / "config")
    assert module.WHERE == "inside"
    del sys.modules["own_package"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "own_nowhere",
            "plugin 'own_nowhere' was not found; expected a name as in `import my_module`; got no module of this name in",
        ),
        ("own_nowhere.part", "plugin 'own_nowhere.part' was not found"),
        ("own_file.py", "fails when it is imported|was not found"),
        ("../own", "plugin '../own' is not the name of a Python module"),
        ("own-module", "is not the name of a Python module"),
        ("", "plugin '' is not the name"),
        (".own", "is not the name"),
        (3, "plugin 3 is not the name"),
    ],
)
def test_a_plugin_that_is_not_there(name, words, tmp_path):
    with pytest.raises(TpvError, match=words):
        load_plugins([name], near=tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise RuntimeError('no luck')", "plugin 'own_bad' fails when it is imported; got RuntimeError: no luck"),
        ("def (", "got SyntaxError"),
        (
            "import own_absent_package",
            "fails when it is imported; got ModuleNotFoundError: No module named 'own_absent_package'",
        ),
        ("import sys; sys.exit(3)", "fails when it is imported; got SystemExit: 3"),
        (
            "import tpv\n@tpv.register.merge('ties')\ndef ties(vectors): ...",
            "merge 'ties' is registered already, by tpv.merging.ties; got another one, from own_bad; choose another name",
        ),
        ("import tpv\ntpv.register.merge('Ties')", "name of a merge; expected lower-case letters"),
        (
            "import tpv\n@tpv.register.merge('own')\ndef own(vectors, *, a: 'Nothing' = 0): ...",
            "parameter 'a' of merge 'own'; expected a type that its module imports when it runs; got Nothing",
        ),
    ],
)
def test_a_plugin_that_fails_is_told_in_one_line(text, words, write, tmp_path):
    write("own_bad", text)
    paths = list(sys.path)
    with pytest.raises(TpvError, match=words) as error:
        load_plugins(["own_bad"], near=tmp_path)
    assert "\n" not in str(error.value)
    assert sys.path == paths
    assert "own" not in tpv.register.merge


def test_plugins_are_a_list():
    with pytest.raises(TpvError, match=r"plugins; expected a list of module names; got 'own'; write \['own'\]"):
        load_plugins("own")


# --- names --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["Ties", "two words", "1st", "_own", "a-b", "", None, 3])
def test_names_that_cannot_be(name, things):
    with pytest.raises(TpvError, match="name of a thing; expected lower-case letters, digits and underscores"):
        things(name)


def test_a_name_is_taken_once_and_a_module_may_be_imported_again(things):
    def make(qualname, module="own"):
        def thing(): ...

        thing.__qualname__, thing.__module__ = qualname, module
        return thing

    things("one")(make("one"))
    again = make("one")
    assert things("one")(again) is again
    assert things["one"].thing is again
    for other in (make("two"), make("one", "elsewhere")):
        with pytest.raises(TpvError, match=r"thing 'one' is registered already, by own"):
            things("one")(other)
    assert things["one"].thing is again


def test_unknown_names_list_what_there_is():
    with pytest.raises(
        TpvError, match=r"unknown merge 'dear_ties'; expected linear, mean, .*; did you mean 'dare_ties'"
    ):
        tpv.register.merge["dear_ties"]
    with pytest.raises(
        TpvError,
        match=r"unknown merge 'harmonic'; expected linear, .*; if a plugin registers it, load the plugin first",
    ):
        tpv.register.merge["harmonic"]
    with pytest.raises(TpvError, match="unknown merge 3"):
        tpv.register.merge[3]
    with pytest.raises(TpvError, match="unknown thing 'a'; if a plugin"):
        Registry("thing")["a"]


def test_the_order_is_that_asked_for_then_that_of_registration(things):
    for name, order in (("last", 30), ("first", 1), ("second", 1), ("middle", 7)):
        things(name, order=order)(lambda: None)
    assert things.names() == ["first", "second", "middle", "last"] == [entry.name for entry in things]
    assert "first" in things
    assert "third" not in things
    things.without("first")
    assert "first" not in things


def test_what_comes_with_tpv_is_found_when_it_is_first_needed(write, tmp_path, monkeypatch):
    write("own_home.__init__", "")
    write("own_home.bad", "raise RuntimeError('not yet')")
    monkeypatch.syspath_prepend(tmp_path)
    home = Registry("thing", "own_home")
    for _ in range(2):  # a failure stays one, and does not become an empty list
        with pytest.raises(RuntimeError, match="not yet"):
            home.names()
    sys.modules.pop("own_home", None)


# --- parameters ---------------------------------------------------------------------------------------
FUNCTION = """
from __future__ import annotations
from typing import TYPE_CHECKING, Annotated, Literal
from pydantic import Field
import tpv
if TYPE_CHECKING:
    from torch import Tensor
@tpv.register.merge("own")
def own(vectors: Tensor, *, size: Annotated[int, Field(ge=1)], mode: Literal["a", "b"] = "a") -> Tensor: ...
"""
DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal
from pydantic import Field
import tpv
@tpv.register.merge("own")
@dataclass(frozen=True)
class Own:
    kind: ClassVar[str] = "x"
    size: Annotated[int, Field(ge=1)]
    mode: Literal["a", "b"] = "a"
    hidden: int = field(init=False, default=0)
"""
PYDANTIC = """
from typing import Annotated, Literal
from pydantic import BaseModel, Field
import tpv
@tpv.register.merge("own")
class Own(BaseModel):
    size: Annotated[int, Field(ge=1)]
    mode: Literal["a", "b"] = "a"
"""
EXPLICIT = """
from typing import Annotated, Literal
from pydantic import BaseModel, Field
import tpv
class Settings(BaseModel):
    size: Annotated[int, Field(ge=1)]
    mode: Literal["a", "b"] = "a"
@tpv.register.merge("own", parameters=Settings)
def own(vectors, **values): ...
"""


@pytest.mark.parametrize(
    "text", [FUNCTION, DATACLASS, PYDANTIC, EXPLICIT], ids=["function", "dataclass", "pydantic", "explicit"]
)
def test_parameters_are_declared_once_in_any_of_these_ways(text, write, tmp_path):
    write("own_parameters", text)
    load_plugins(["own_parameters"], near=tmp_path)
    entry = tpv.register.merge["own"]
    assert list(entry.parameters.model_fields) == ["size", "mode"]
    assert entry.checked({"size": 3}) == {"size": 3, "mode": "a"}
    assert entry.checked({"size": "3", "mode": "b"}) == {"size": 3, "mode": "b"}  # as the command line gives them
    with pytest.raises(TpvError) as error:
        entry.checked({"size": 0, "mode": "c", "moed": "b"})
    assert str(error.value) == (
        "invalid parameters of merge 'own'; got unknown parameter 'moed', did you mean 'mode'?; "
        "size: input should be greater than or equal to 1, got 0; mode: input should be 'a' or 'b', got 'c'"
    )
    with pytest.raises(TpvError, match=r"invalid parameters of \[merges\] 2; got size is missing"):
        entry.checked({}, where="[merges] 2")


def test_defaults_that_are_made_are_made_anew(things):
    from dataclasses import dataclass, field

    @things("one")
    @dataclass
    class One:
        values: list = field(default_factory=list)

    first, second = things["one"].checked({})["values"], things["one"].checked({})["values"]
    assert first == second == []
    assert first is not second


def test_what_declares_nothing_takes_nothing(things):
    @things("plain")
    class Plain:
        """A class."""

    things("function")(lambda vectors: vectors)
    for name in ("plain", "function"):
        assert things[name].checked({}) == {}
        with pytest.raises(TpvError, match="unknown parameter 'a', it has no parameters"):
            things[name].checked({"a": 1})
    assert things["plain"].summary == "A class."
    assert things["function"].summary == ""
