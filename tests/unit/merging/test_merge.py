"""Merges against PEFT and plain loops, their laws, and the provenance that stays with the result."""

import json
import math
import pickle
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft.utils import merge_utils

import tpv
from tpv.interop.card import escape, write_card
from tpv.merging import merge
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector
from tpv.prompts.provenance import Component, Init, ModelIdentity
from tpv.registry import load_plugins

MODEL = ModelIdentity(name="m", fingerprint="f" * 64, hidden_size=7)
INIT = Init(kind="normal", seed=0)
WEIGHTS = (1.0, 0.5, -2.0)


def vector(tensor, task="a"):
    return TaskPromptVector(tensor, MODEL, (Component(task=task, origin=task, init=INIT, coefficient=1.0),))


def three(seed=0):
    torch.manual_seed(seed)
    return [vector(torch.randn(5, 7), task) for task in "abc"]


def tensors(vectors):
    return [item.tensor for item in vectors]


# --- against PEFT and plain loops --------------------------------------------------------------------
@pytest.mark.parametrize("density", [0.1, 0.2, 0.5, 0.93])
@pytest.mark.parametrize("sign", ["total", "frequency"])
@pytest.mark.parametrize("weights", [WEIGHTS, (1.0, 1.0, 1.0)])
def test_ties_is_that_of_peft(density, sign, weights):
    for seed in range(5):
        vectors = three(seed)
        expected = merge_utils.ties(tensors(vectors), torch.tensor(weights), density, sign)
        merged = merge(vectors, "ties", density=density, weights=weights, majority_sign_method=sign)
        assert torch.equal(merged.tensor, expected)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 7])
def test_dare_is_that_of_peft_from_the_same_seed(density, seed):
    vectors = three()
    torch.manual_seed(seed)
    expected = merge_utils.dare_linear(tensors(vectors), torch.tensor(WEIGHTS), density)
    merged = merge(vectors, "dare", density=density, weights=WEIGHTS, seed=seed)
    assert torch.allclose(merged.tensor, expected, atol=1e-6)
    for sign in ("total", "frequency"):
        torch.manual_seed(seed)
        expected = merge_utils.dare_ties(tensors(vectors), torch.tensor(WEIGHTS), density, sign)
        options = {"density": density, "weights": WEIGHTS, "seed": seed, "majority_sign_method": sign}
        assert torch.equal(merge(vectors, "dare_ties", **options).tensor, expected)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_breadcrumbs_without_a_top_is_the_magnitude_pruning_of_peft(density):
    vectors = three()
    expected = merge_utils.magnitude_prune(tensors(vectors), torch.tensor(WEIGHTS), density)
    assert torch.allclose(
        merge(vectors, "breadcrumbs", density=density, gamma=0.0, weights=WEIGHTS).tensor, expected, atol=1e-6
    )


def test_breadcrumbs_drops_the_largest_and_the_smallest():
    values = torch.arange(1.0, 36.0)[torch.randperm(35, generator=torch.Generator().manual_seed(0))]
    signs = torch.where(torch.arange(35) % 2 == 0, 1.0, -1.0)
    (one,) = [vector((values * signs).reshape(5, 7))]
    kept = merge([one], "breadcrumbs", density=0.6, gamma=0.1).tensor  # 21 of 35, the 3 largest and 11 smallest dropped
    assert sorted(kept.abs()[kept != 0].tolist()) == list(map(float, range(12, 33)))
    assert torch.equal(kept[kept != 0], one.tensor[kept != 0])
    all_but_largest = merge([one], "breadcrumbs", density=0.9, gamma=0.9).tensor  # density has the last word
    assert sorted(all_but_largest.abs()[all_but_largest != 0].tolist()) == list(map(float, range(1, 32)))


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_slerp_against_a_loop_in_double_precision(t):
    one, two, _ = three()
    first, second = one.tensor.double().flatten().tolist(), two.tensor.double().flatten().tolist()
    dot = sum(x * y for x, y in zip(first, second, strict=True))
    angle = math.acos(dot / math.sqrt(sum(x * x for x in first)) / math.sqrt(sum(y * y for y in second)))
    expected = [
        (math.sin((1 - t) * angle) * x + math.sin(t * angle) * y) / math.sin(angle)
        for x, y in zip(first, second, strict=True)
    ]
    assert torch.allclose(merge([one, two], "slerp", t=t).tensor, torch.tensor(expected).reshape(5, 7), atol=1e-6)


def test_slerp_of_unit_vectors_stays_on_the_sphere_and_halves_the_angle():
    one, two = (item / item.norm() for item in three()[:2])
    middle = merge([one, two], "slerp")
    assert middle.norm() == pytest.approx(1.0, abs=1e-6)
    assert middle.cosine(one) == pytest.approx(middle.cosine(two), abs=1e-6)
    assert math.acos(middle.cosine(one)) == pytest.approx(math.acos(one.cosine(two)) / 2, abs=1e-5)


# --- laws ---------------------------------------------------------------------------------------------
numbers = st.floats(-1e3, 1e3, width=32)
any_vector = st.lists(numbers, min_size=35, max_size=35).map(lambda v: vector(torch.tensor(v).reshape(5, 7)))


@given(any_vector, st.sampled_from(["linear", "mean", "ties", "dare", "dare_ties", "breadcrumbs"]), st.integers(1, 4))
def test_merging_copies_of_a_vector(one, method, count):
    """Whatever keeps all values and averages gives the vector back; whatever adds gives so many times it."""
    whole = {} if method in ("linear", "mean") else {"density": 1.0}
    merged = merge([one] * count, method, **whole).tensor
    adds = method in ("linear", "dare", "breadcrumbs")
    assert torch.allclose(merged, one.tensor * (count if adds else 1), rtol=1e-5)


@given(any_vector)
def test_the_mean_of_one_is_itself(one):
    assert merge([one], "mean") == merge([one]) == one


def test_a_weighted_sum_is_that_of_the_algebra():
    a, b, c = three()
    assert merge([a, b, c]) == a + b + c
    assert merge([a, b, c], weights=[1.0, 0.5, -2.0]) == 1.0 * a + 0.5 * b + -2.0 * c
    assert merge([a, b], "mean") == (a + b) / 2
    assert merge([a, b, c], weights=[1, 0, 1]).terms == {"a": 1.0, "c": 1.0}
    assert merge([a + b, b], "mean").terms == {"a": 0.5, "b": 1.0}
    assert merge([a, a], weights=[1.0, -1.0]).terms == {}


@given(any_vector, any_vector)
def test_slerp_ends_where_its_vectors_are(one, two):
    if one.norm() < 1e-3 or two.norm() < 1e-3 or abs(one.cosine(two)) > 0.999:
        return
    assert torch.allclose(merge([one, two], "slerp", t=0.0).tensor, one.tensor)
    assert torch.allclose(merge([one, two], "slerp", t=1.0).tensor, two.tensor)


def test_slerp_of_one_direction_is_a_straight_line():
    one = three()[0]
    assert torch.allclose(merge([one, 3 * one], "slerp", t=0.5).tensor, 2 * one.tensor)


def test_dare_depends_on_its_seed_alone():
    vectors = three()
    torch.manual_seed(1)
    one = merge(vectors, "dare", seed=3)
    torch.manual_seed(2)
    assert merge(vectors, "dare", seed=3) == one
    assert merge(vectors, "dare", seed=4) != one
    kept = merge(vectors[:1], "dare", density=0.5, rescale=False).tensor
    assert torch.equal(kept[kept != 0], vectors[0].tensor[kept != 0])
    assert 5 < int((kept != 0).sum()) < 30


@pytest.mark.parametrize("method", [one.name for one in tpv.register.merge if not one.about.get("learns")])
def test_a_merge_does_not_change_what_it_merges(method):
    vectors = three()[:2]
    before = [item.tensor for item in vectors]
    once, twice = merge(vectors, method), merge(vectors, method)
    assert once == twice
    assert all(map(torch.equal, before, tensors(vectors)))


def test_at_least_one_value_is_kept():
    one = vector(torch.arange(35.0).reshape(5, 7))
    assert int((merge([one], "ties", density=1e-6).tensor != 0).sum()) == 1


# --- provenance ---------------------------------------------------------------------------------------
def test_a_merge_knows_its_method_parameters_and_sources():
    a, b, c = three()
    merged = tpv.merge([a, 2 * b - c], method="ties", density=0.4)
    record = merged.provenance
    assert record == json.loads(json.dumps(record))
    assert record["method"] == "ties"
    assert record["parameters"] == {"density": 0.4, "weights": None, "majority_sign_method": "total"}
    first, second = record["sources"]
    assert first["digest"] == a.digest
    assert second["digest"] == (2 * b - c).digest
    assert (second["method"], second["parameters"]) == ("linear", {"weights": [2.0, -1.0]})
    assert [part["task"] for part in second["sources"]] == ["b", "c"]
    assert merged.expression == "ties(a, 2 b - c)"
    assert repr(merged) == "TaskPromptVector([5, 7] of m, ties(a, 2 b - c))"
    with pytest.raises(tpv.TpvError, match=r"a merge has no terms; .*got ties\(a, 2 b - c\); read \.provenance"):
        _ = merged.terms


def test_a_weighted_sum_has_terms_and_a_provenance_too():
    a, b, _ = three()
    total = a - 0.5 * b
    assert total.provenance["method"] == "linear"
    assert total.provenance["parameters"] == {"weights": [1.0, -0.5]}
    assert [(part["task"], part["init"]["seed"]) for part in total.provenance["sources"]] == [("a", 0), ("b", 0)]
    assert repr(total) == "TaskPromptVector([5, 7] of m, terms={'a': 1.0, 'b': -0.5})"
    prompt = SoftPrompt(torch.zeros(5, 7), MODEL, INIT)
    assert prompt.provenance == {"method": "linear", "parameters": {"weights": []}, "sources": []}
    assert prompt.expression == "0"


def test_calculating_with_a_merge_keeps_what_went_in(tmp_path):
    a, b, c = three()
    merged = merge([a, b], "slerp", t=0.3)
    init = SoftPrompt(torch.ones(5, 7), MODEL, INIT)
    mixed = c - 0.5 * merged
    assert mixed.expression == "c - 0.5 slerp(a, b)"
    assert [part["method"] for part in mixed.provenance["sources"] if "method" in part] == ["slerp"]
    assert (merged + merged) / 2 == merged
    assert (mixed + 0.5 * merged).terms == {"c": 1.0}
    prompt = init + mixed
    assert prompt.expression == mixed.expression
    assert (prompt - init).provenance == mixed.provenance
    assert repr(prompt) == "SoftPrompt([5, 7] of m, c - 0.5 slerp(a, b))"
    tuned = (init + merged).tuned_to(torch.zeros(5, 7), "d")
    assert tuned.expression == "d + slerp(a, b)"
    assert (tuned - (init + merged)).terms == {"d": 1.0}
    for item, name in ((mixed, "v"), (prompt, "p")):
        item.save(tmp_path / f"{name}.safetensors")
        again = type(item).load(tmp_path / f"{name}.safetensors")
        assert again == item
        assert again.identity() == item.identity()
        assert again.provenance == item.provenance
        assert pickle.loads(pickle.dumps(item)) == item
    prompt.to_peft(tmp_path / "adapter")
    assert SoftPrompt.from_peft(tmp_path / "adapter").provenance == prompt.provenance


def test_a_merge_of_merges_keeps_the_whole_tree(tmp_path):
    a, b, c = three()
    outer = merge([merge([a, b], "ties", density=0.5), c], "dare", seed=9)
    assert outer.expression == "dare(ties(a, b), c)"
    inner = outer.provenance["sources"][0]
    assert (inner["method"], inner["parameters"]["density"]) == ("ties", 0.5)
    outer.save(tmp_path / "v.safetensors")
    assert TaskPromptVector.load(tmp_path / "v.safetensors").provenance == outer.provenance


def test_two_merges_that_differ_are_two_components():
    a, b, _ = three()
    one, two = merge([a, b], "ties", density=0.3), merge([a, b], "ties", density=0.6)
    assert one != two
    assert len((one + two).components) == 2
    assert len((one + one).components) == 1
    assert {one, two, merge([a, b], "ties", density=0.3)} == {one, two}


# --- refusals -----------------------------------------------------------------------------------------
OTHER = ModelIdentity(name="n", fingerprint="e" * 64, hidden_size=7)
A, B, C = three()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: merge([]), "vectors to merge; expected at least one; got none"),
        (lambda: merge(A), r"expected a list of them; got one vector; write \[vector\]"),
        (
            lambda: merge([A, SoftPrompt(A.tensor, MODEL, INIT)]),
            "expected TaskPromptVector; got SoftPrompt; tuned - init",
        ),
        (lambda: merge([A, A.tensor]), "expected TaskPromptVector; got Tensor"),
        (lambda: merge([A, TaskPromptVector(A.tensor, OTHER, ())]), "different models"),
        (lambda: merge([A, vector(torch.ones(4, 7))]), "different shapes"),
        (lambda: merge([A, B, C], "slerp"), "vectors of a slerp; expected exactly 2; got 3"),
        (lambda: merge([A], "slerp"), "exactly 2; got 1"),
        (lambda: merge([A, 0 * A], "slerp"), "a zero vector has no direction"),
        (lambda: merge([A, -A], "slerp"), "opposite directions"),
        (lambda: merge([A, B], weights=[1.0]), "weights of a merge; expected 2, one for each vector; got 1"),
        (lambda: merge([A, B], "ties", weights=[1.0, 2.0, 3.0]), "expected 2, one for each vector; got 3"),
        (lambda: merge([A, B], "tie"), r"unknown merge 'tie'; expected linear, mean, .*; did you mean 'ties'"),
        (
            lambda: merge([A, B], "mean", weights=[1, 1]),
            "invalid parameters of merge 'mean'; got unknown parameter 'weights'",
        ),
        (lambda: merge([A, B], "ties", density=0), "density: input should be greater than 0, got 0"),
        (lambda: merge([A, B], "dare", density=1.5), "density: input should be less than or equal to 1"),
        (lambda: merge([A, B], "slerp", t=2), "t: input should be less than or equal to 1"),
        (lambda: merge([A, B], "dare", seed=-1), "seed: input should be greater than or equal to 0"),
        (lambda: merge([A, B], weights=[3e38, math.inf]), "finite values"),
    ],
)
def test_refusals_say_what_is_wrong(act, words):
    with pytest.raises(tpv.TpvError, match=words):
        act()


def test_all_mistakes_in_parameters_are_told_at_once():
    with pytest.raises(tpv.TpvError) as error:
        merge([A, B], "ties", density=2, wieghts=[1, 1], majority_sign_method="most")
    assert str(error.value) == (
        "invalid parameters of merge 'ties'; got unknown parameter 'wieghts', did you mean 'weights'?; "
        "density: input should be less than or equal to 1, got 2; "
        "majority_sign_method: input should be 'total' or 'frequency', got 'most'"
    )


# --- a merge of one's own -----------------------------------------------------------------------------
@pytest.fixture
def median(tmp_path):
    (tmp_path / "own_merges.py").write_text(
        "import tpv\n"
        "@tpv.register.merge('median')\n"
        "def median(vectors, *, scale: float = 1.0):\n"
        "    'The median of the vectors, value by value.'\n"
        "    return scale * vectors.median(dim=0).values\n"
        "@tpv.register.merge('flat')\n"
        "def flat(vectors):\n"
        "    return vectors.flatten()\n"
    )
    load_plugins(["own_merges"], near=tmp_path)
    yield
    tpv.register.merge.without("median", "flat")
    sys.modules.pop("own_merges")


@pytest.mark.usefixtures("median")
def test_a_merge_from_outside_is_one_like_the_others(tmp_path):
    vectors = three()
    merged = tpv.merge(vectors, "median", scale=2)
    assert torch.equal(merged.tensor, 2 * torch.stack(tensors(vectors)).median(dim=0).values)
    assert merged.provenance["method"] == "median"
    assert merged.provenance["parameters"] == {"scale": 2.0}
    merged.save(tmp_path / "v.safetensors")
    tpv.register.merge.without("median")
    assert TaskPromptVector.load(tmp_path / "v.safetensors") == merged  # reading needs no plugin
    with pytest.raises(tpv.TpvError, match=r"return value of merge 'flat'; expected a tensor \[5, 7\]; got \[105\]"):
        tpv.merge(vectors, "flat")


def test_the_card_of_a_repository_says_what_was_merged():
    a, b, _ = three()
    page = write_card("me/merged", {"both": merge([a, b], "ties")}, [], [], {})
    assert page.count(escape("ties(a, b)")) == 2  # in the tables of files and of sources
    assert "None" not in page
