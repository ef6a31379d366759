"""The laws of the algebra, and what it refuses."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tpv
from tpv.prompts.algebra import SoftPrompt, TaskPromptVector, expression
from tpv.prompts.provenance import Component, Init, ModelIdentity

MODEL = ModelIdentity(name="m", fingerprint="f" * 64, hidden_size=3)
OTHER = ModelIdentity(name="m", fingerprint="e" * 64, hidden_size=3)
INIT = Init(kind="vocabulary", seed=0, token_ids=(1, 2))

numbers = st.floats(-1e3, 1e3, width=32)
tensors = st.lists(numbers, min_size=6, max_size=6).map(lambda v: torch.tensor(v).reshape(2, 3))
scales = st.floats(-8, 8).filter(lambda s: s == 0 or abs(s) > 1e-3)


def make_vector(tensor, task="a", origin=None):
    part = Component(task=task, origin=origin or task, init=INIT, coefficient=1.0)
    return TaskPromptVector(tensor, MODEL, (part,))


def make_prompt(tensor, init=INIT, model=MODEL):
    return SoftPrompt(tensor, model, init)


vectors = st.builds(make_vector, tensors, st.sampled_from(["a", "b", "c"]))
prompts = st.builds(make_prompt, tensors)


@given(vectors, vectors)
def test_addition_commutes(a, b):
    assert a + b == b + a
    assert hash(a + b) == hash(b + a)


@given(vectors, vectors, vectors)
def test_addition_associates_up_to_rounding(a, b, c):
    left, right = (a + b) + c, a + (b + c)
    assert torch.allclose(left.tensor, right.tensor, atol=1e-3)
    assert left.terms == right.terms


@given(tensors, tensors)
def test_init_plus_difference_is_tuned(start, end):
    init = make_prompt(start)
    tuned = init.tuned_to(end, "task")
    back = init + (tuned - init)
    scale = max(1.0, float(end.abs().max()), float(start.abs().max()))
    assert (back.tensor - tuned.tensor).abs().max() <= 1e-6 * scale
    assert back.terms == tuned.terms == {"task": 1.0}
    assert (tuned - init).terms == {"task": 1.0}


@given(vectors)
def test_a_vector_minus_itself_is_zero(v):
    zero = v - v
    assert not zero.tensor.any()
    assert zero.terms == {}
    assert zero == v * 0 - v * 0 == -zero == 0 * v
    assert hash(-zero) == hash(zero)


@given(vectors)
def test_negation_and_halving(v):
    negated = -v
    assert -negated == v
    assert v + v == 2 * v
    assert (v + v) / 2 == v
    assert v * 0.5 == 0.5 * v == v / 2


@given(vectors, vectors, prompts, scales)
def test_scaling_distributes(a, b, prompt, s):
    assert torch.allclose((s * (a + b)).tensor, (s * a + s * b).tensor, atol=1e-2, rtol=1e-4)
    assert a.apply(prompt, s).tensor.equal((prompt + s * a).tensor)
    assert prompt + a == a + prompt
    assert torch.equal((prompt - a).tensor, (prompt + -a).tensor)
    assert ((s * a).terms == {}) == (s == 0)


@given(st.lists(vectors, min_size=1, max_size=5))
def test_sum_is_repeated_addition(items):
    total = items[0]
    for item in items[1:]:
        total = total + item
    assert sum(items) == total


@given(vectors, vectors)
def test_cosine_and_norm_against_float64(a, b):
    one, two = a.tensor.double().flatten(), b.tensor.double().flatten()
    assert a.norm() == pytest.approx(float(one.norm()), rel=1e-6)
    if one.any() and two.any() and float(one.norm()) > 1e-15 and float(two.norm()) > 1e-15:
        assert a.cosine(b) == pytest.approx(float(one @ two / one.norm() / two.norm()), abs=1e-5)


@settings(max_examples=30)
@given(item=st.one_of(vectors, prompts, st.builds(lambda p, v: p + v, prompts, vectors)))
def test_save_and_load_is_bit_exact(item, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "item.safetensors"
    item.save(path)
    again = type(item).load(path)
    assert torch.equal(again.tensor.view(torch.int32), item.tensor.view(torch.int32))
    assert again == item
    assert again.identity() == item.identity()


def test_terms_tell_sums_from_differences():
    a, b = make_vector(torch.ones(2, 3), "a"), make_vector(torch.ones(2, 3), "b")
    assert (a + b).terms == {"a": 1.0, "b": 1.0}
    assert (a - b).terms == {"a": 1.0, "b": -1.0}
    assert (b + a).terms == (a + b).terms
    assert len({a + b, a - b, b + a, b - a}) == 3
    assert expression((0.5 * a - b).terms) == "0.5 a - b"
    assert expression({}) == "0"
    assert (0.1 * a + 0.2 * a - 0.3 * a).terms == {}
    assert (1e-20 * a).terms == {"a": 1e-20}


def test_two_trainings_of_one_task_are_two_components_and_one_term():
    one, two = make_vector(torch.ones(2, 3), "a", "x"), make_vector(torch.ones(2, 3), "a", "y")
    assert len((one + two).components) == 2
    assert (one + two).terms == {"a": 2.0}
    assert (one - two).terms == {}
    assert len((one - two).components) == 2


def test_further_tuning_adds_a_term_and_keeps_the_start():
    init = make_prompt(torch.zeros(2, 3))
    first = init.tuned_to(torch.ones(2, 3), "a")
    second = first.tuned_to(2 * torch.ones(2, 3), "b")
    assert second.terms == {"a": 1.0, "b": 1.0}
    assert (second - first).terms == {"b": 1.0}
    assert (second - init).terms == {"a": 1.0, "b": 1.0}
    assert second.init == init.init


def test_values_cannot_be_changed_from_outside():
    source = torch.ones(2, 3)
    vector = make_vector(source)
    source.zero_()
    vector.tensor.zero_()
    assert vector.tensor.sum() == 6
    assert vector.tensor.dtype == torch.float32
    assert make_vector(torch.ones(2, 3, dtype=torch.float64)).tensor.dtype == torch.float32
    for name in ("components", "model", "tensor", "anything"):
        with pytest.raises(tpv.TpvError, match=f"cannot be changed; got an assignment to .{name}"):
            setattr(vector, name, ())
    assert copy.deepcopy(vector) == pickle.loads(pickle.dumps(vector)) == vector


def test_the_models_name_decides_nothing_its_fingerprint_does():
    renamed = ModelIdentity(name="elsewhere/m", fingerprint=MODEL.fingerprint, hidden_size=3)
    prompt, moved = make_prompt(torch.ones(2, 3)), make_prompt(torch.ones(2, 3), model=renamed)
    assert prompt == moved
    foreign = make_prompt(torch.ones(2, 3), model=OTHER)
    assert prompt != foreign
    for act in (lambda: prompt - foreign, lambda: foreign + make_vector(torch.ones(2, 3))):
        with pytest.raises(tpv.IncompatibleError, match=r"different models.*(f{12}.*e{12}|e{12}.*f{12})"):
            act()


def test_numpy_scalars_scale_too():
    vector = make_vector(torch.ones(2, 3))
    assert np.float32(0.5) * vector == vector * 0.5 == vector * np.float64(0.5)


VECTOR, PROMPT = make_vector(torch.ones(2, 3)), make_prompt(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: PROMPT + PROMPT, "prompt can only be added to a vector"),
        (lambda: VECTOR + 1, r"vector can only be added.*TaskPromptVector \+ int"),
        (lambda: 1 + VECTOR, r"int \+ TaskPromptVector"),
        (lambda: VECTOR + 0, r"TaskPromptVector \+ int"),
        (lambda: 0.0 + VECTOR, r"float \+ TaskPromptVector"),
        (lambda: sum([PROMPT, PROMPT]), "prompt can only be added"),
        (lambda: VECTOR - PROMPT, "only a vector can be subtracted"),
        (lambda: PROMPT - 1, "can be subtracted from a prompt"),
        (lambda: PROMPT * 2, "prompt cannot be scaled"),
        (lambda: 2 * PROMPT, "prompt cannot be scaled"),
        (lambda: -PROMPT, "prompt cannot be negated"),
        (lambda: True * VECTOR, "finite real number; got True"),
        (lambda: VECTOR * 1j, "finite real number"),
        (lambda: VECTOR * "2", "finite real number"),
        (lambda: VECTOR * math.nan, "finite real number"),
        (lambda: VECTOR * math.inf, "finite real number"),
        (lambda: VECTOR * 10**400, "finite real number"),
        (lambda: 0 - VECTOR, r"int - TaskPromptVector"),
        (lambda: 2 / VECTOR, "divided by a vector"),
        (lambda: VECTOR / 0, "divisor other than 0"),
        (lambda: VECTOR.apply(PROMPT, True), "finite real number"),
        (lambda: VECTOR.apply(VECTOR), "applied to a prompt"),
        (lambda: VECTOR * 3e38 * 10, "finite values"),
        (lambda: make_vector(torch.full((2, 3), math.nan)), "expected finite values; got 6"),
        (lambda: make_vector(torch.ones(3)), r"shape \[P, H\]"),
        (lambda: make_vector(torch.ones(0, 3)), r"shape \[P, H\]"),
        (lambda: make_vector(torch.ones(2, 4)), r"expected \[P, 3\]; got \[2, 4\]"),
        (lambda: VECTOR + make_vector(torch.ones(1, 3)), r"different shapes; expected \[2, 3\]; got \[1, 3\]"),
        (lambda: (VECTOR - VECTOR).cosine(VECTOR), "zero vector"),
        (lambda: VECTOR.cosine(PROMPT), "another TaskPromptVector"),
        (lambda: PROMPT - make_prompt(torch.ones(2, 3), Init(kind="normal", seed=3)), "different initializations"),
    ],
)
def test_refusals_say_what_is_wrong(act, words):
    with pytest.raises(tpv.TpvError, match=words):
        act()
