"""Expressions over vectors: what they mean, and what they refuse."""

import pytest

import tpv
from tpv.merging import merge
from tpv.merging.formulas import DEEPEST, LONGEST, MOST_PARTS, parse

WORDS = {"sst2": 1, "yelp": 2, "mnli": 3, "my-task.v2/deep": 4, "2-hop": 5, "7b": 6}


@pytest.fixture(scope="module")
def vectors(backbone):
    init = tpv.SoftPrompt.sample(backbone, 4, seed=0)
    return {
        name: init.tuned_to(init.tensor + tpv.SoftPrompt.normal(backbone, 4, seed=seed).tensor, name) - init
        for name, seed in WORDS.items()
    }


@pytest.fixture(scope="module")
def calculated(backbone, vectors):
    def calculate(text):
        return parse(text).value(
            vectors.__getitem__, lambda seed, tokens: tpv.SoftPrompt.sample(backbone, tokens or 6, seed)
        )

    return calculate


def start(backbone, seed=7):
    return tpv.SoftPrompt.sample(backbone, 4, seed)


def test_the_expression_of_the_readme(backbone, vectors, calculated):
    a, b, c = vectors["sst2"], vectors["yelp"], vectors["mnli"]
    assert calculated("init:7 + 0.8*(sst2 + yelp) - 0.3*mnli") == start(backbone) + 0.8 * (a + b) - 0.3 * c


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("sst2", lambda v: v["sst2"]),
        ("-sst2", lambda v: -v["sst2"]),
        ("+sst2 - -yelp", lambda v: v["sst2"] + v["yelp"]),
        ("sst2*2", lambda v: 2.0 * v["sst2"]),
        ("2*sst2 / 4", lambda v: v["sst2"] * 2.0 / 4.0),
        ("(1 + 0.5/2) * sst2", lambda v: 1.25 * v["sst2"]),
        ("1e-1*sst2", lambda v: 0.1 * v["sst2"]),
        (".5*sst2", lambda v: 0.5 * v["sst2"]),
        ("my-task.v2/deep - yelp", lambda v: v["my-task.v2/deep"] - v["yelp"]),
        ('"2-hop" + 7b', lambda v: v["2-hop"] + v["7b"]),
        ("ties(sst2, yelp, density=0.2)", lambda v: merge([v["sst2"], v["yelp"]], "ties", density=0.2)),
        (
            "ties(2*sst2, yelp, density=1, weights=[1, -0.5], majority_sign_method=frequency)",
            lambda v: merge(
                [2.0 * v["sst2"], v["yelp"]], "ties", density=1, weights=[1, -0.5], majority_sign_method="frequency"
            ),
        ),
        (
            "0.5*mean(sst2, slerp(yelp, mnli))",
            lambda v: 0.5 * merge([v["sst2"], merge([v["yelp"], v["mnli"]], "slerp")], "mean"),
        ),
        ("dare(sst2, yelp, density=0.5, seed=3)", lambda v: merge([v["sst2"], v["yelp"]], "dare", density=0.5, seed=3)),
    ],
)
def test_values(text, means, vectors, calculated):
    assert calculated(text) == means(vectors)


def test_untuned_prompts_have_the_length_of_what_is_named(calculated):
    assert calculated("init:7 + sst2").num_tokens == 4
    assert calculated("init:7").num_tokens == 6


def test_names_in_order():
    assert parse("init:1 + yelp + ties(sst2, yelp) * 2").names == ["yelp", "sst2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got its end"),
        ("sst2 +", "got its end"),
        ("sst2 yelp", "'yelp' at character 6"),
        ("(sst2", "closing bracket"),
        ("sst2)", r"'\)' at character 5"),
        ("init:7 + init:8", "prompt can only be added to a vector"),
        ("2 + sst2", r"number \+ vector"),
        ("2 * init:7", r"number \* prompt"),
        ("sst2 * yelp", r"vector \* vector"),
        ("2 / sst2", "number / vector"),
        ("sst2 / 0", "divisor other than 0"),
        ("(1 / 0) * sst2", "divisor other than 0"),
        ("1e999 * sst2", "finite"),
        ("1e308 * 10 * sst2", "finite"),
        ("nothing(sst2)", "unknown merge 'nothing'"),
        ("ties(2)", "got a prompt or a number"),
        ("ties(init:7)", "got a prompt or a number"),
        ("ties()", "a name, a number"),
        ("ties(sst2, density=0.2, yelp)", "PARAMETER=VALUE"),
        ("ties(sst2, density=0.2, density=0.3)", "got twice"),
        ("ties(sst2, density=2)", "density"),
        ("ties(sst2, shrink=2)", "unknown parameter 'shrink'"),
        ("ties(sst2, weights=[1,)", "a number"),
        ("sst2.__class__(yelp)", "unknown merge"),
        ("__import__('os').system('id')", "names, numbers, brackets"),
        ("eval(sst2)", "unknown merge 'eval'"),
        ("sst2; yelp", "';'"),
        ("sst2 if yelp else mnli", "'if'"),
        ("[sst2]", "a name, a number"),
        ("lambda: 0", "':'"),
        ("sst2\x00", "names, numbers"),
        ("init:-1", "':' at character 5"),
        ("init:7x + sst2", "':' at character 5"),
        ("ﬁ + sst2", "names, numbers"),
        ("١*sst2", "names, numbers"),
    ],
)
def test_refusals(text, message, calculated):
    with pytest.raises(tpv.TpvError, match=message):
        calculated(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * (DEEPEST + 1) + "sst2" + ")" * (DEEPEST + 1),
        "-" * (MOST_PARTS + 1) + "sst2",
        "+".join(["sst2"] * (MOST_PARTS + 1)),
        "ties(" * 200 + "sst2" + ")" * 200,
        "x" * (LONGEST + 1),
        "1" * (LONGEST + 1),
        '"' * 100,
        None,
        7,
        ["sst2"],
    ],
    ids=str,
)
def test_limits(text):
    with pytest.raises(tpv.TpvError):
        parse(text)


def test_a_vector_is_no_prompt(vectors):
    with pytest.raises(tpv.TpvError, match="expected a prompt; got a vector; add it to an initialization"):
        parse("sst2").prompt(vectors.__getitem__, None)
    with pytest.raises(tpv.TpvError, match="got a number"):
        parse("2 * 3").prompt(vectors.__getitem__, None)
