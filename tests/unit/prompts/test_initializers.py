"""Initializers: which rows, which seeds, that the record says so, and that `draw` draws what `sample` samples."""

import sys
from dataclasses import dataclass

import pytest
import torch

import tpv
from tpv.prompts import initializers
from tpv.prompts.embeddings import embedding_rms
from tpv.prompts.initializers import Initializer, Normal, Text, Vocabulary, Zero
from tpv.registry import load_plugins


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ids_of(rows, backbone):
    """The vocabulary rows [N] that these values [N, H] are copies of."""
    table = backbone.embeddings()
    return [int((table == row).all(dim=1).nonzero()[0, 0]) for row in rows]


def test_vocabulary_rows_are_distinct_and_named(backbone):
    prompt = tpv.SoftPrompt.sample(backbone, num_tokens=50, seed=4)
    ids = prompt.init.token_ids
    assert len(set(ids)) == 50
    assert prompt.init.seed == 4
    weight = backbone.model.get_input_embeddings().weight
    assert torch.equal(prompt.tensor, weight[list(ids)])
    assert prompt == tpv.SoftPrompt.sample(backbone, num_tokens=50, seed=4)
    assert prompt != tpv.SoftPrompt.sample(backbone, num_tokens=50, seed=5)


def test_only_the_first_5000_ids_are_drawn_unless_a_limit_says_otherwise(random_t5):
    large = random_t5(vocab_size=9000)
    prompt = tpv.SoftPrompt.sample(large, num_tokens=5000, seed=0)
    assert sorted(prompt.init.token_ids) == list(range(5000))
    assert prompt.init.parameters is None  # as in files of 0.1
    with pytest.raises(tpv.TpvError, match="at most 5000"):
        tpv.SoftPrompt.sample(large, num_tokens=5001)
    for limit, expected in ((0, 9000), (7000, 7000), (99_999, 9000)):
        whole = tpv.SoftPrompt.sample(large, num_tokens=expected, seed=0, limit=limit)
        assert sorted(whole.init.token_ids) == list(range(expected))
        assert whole.init.parameters == {"limit": limit}


@pytest.mark.parametrize("limit", [5000, 40, 0])
def test_training_and_sampling_draw_from_the_same_rows(limit, random_t5):
    """One distribution: what `draw` gives a training and what `sample` gives to score on have the same support."""
    large, initializer = random_t5(vocab_size=6000), Vocabulary(limit)
    support = limit or 6000
    drawn = initializer.draw(large, 20, 4 if limit == 40 else 40, generator())
    ids = torch.tensor([ids_of(rows, large) for rows in drawn])
    assert ids.max() < support
    assert all(len(set(row.tolist())) == 20 for row in ids)
    sampled = [initializer.sample(large, 20, seed)[1].token_ids for seed in range(40)]
    assert max(map(max, sampled)) < support
    if limit != 40:  # both reach the upper part of what they may draw from
        assert ids.max() > 0.9 * support < max(map(max, sampled))


def test_draws_are_those_of_their_generator(backbone):
    for initializer in (Vocabulary(), Normal(), Normal(0.5)):
        one, two = (initializer.draw(backbone, 3, 5, generator(1)) for _ in range(2))
        assert one.shape == (5, 3, 128)
        assert torch.equal(one, two)
        assert not torch.equal(one, initializer.draw(backbone, 3, 5, generator(2)))
        assert not torch.equal(one[0], one[1])


@pytest.mark.parametrize("initializer", [Zero(), Text("the man")])
def test_what_has_one_value_cannot_be_drawn_from(initializer, backbone):
    assert not initializer.random
    assert torch.equal(*(initializer.sample(backbone, 4, seed)[0] for seed in (0, 1)))
    with pytest.raises(tpv.TpvError, match=f"'{initializer.kind}' has only one value; expected a random one"):
        initializer.draw(backbone, 4, 2, generator())


def test_a_text_is_repeated_or_truncated(backbone):
    ids = backbone.encode_text("the man is eating")
    whole = tpv.SoftPrompt.from_text(backbone, "the man is eating")
    assert whole.init.token_ids == tuple(ids)
    longer = tpv.SoftPrompt.from_text(backbone, "the man is eating", 10)
    assert longer.init.token_ids == tuple((ids * 3)[:10])
    assert longer.init.detail == "the man is eating"
    assert longer == tpv.SoftPrompt.sample(backbone, 10, init="text", text="the man is eating")
    with pytest.raises(tpv.TpvError, match="at least one token"):
        tpv.SoftPrompt.from_text(backbone, " ")


def test_gaussian_rows_are_as_wide_as_the_embeddings(backbone):
    prompt = tpv.SoftPrompt.normal(backbone, num_tokens=400, seed=1)
    rms = float(backbone.embeddings().square().mean().sqrt())
    assert embedding_rms(backbone) == rms
    assert prompt.tensor.std() == pytest.approx(rms, rel=0.05)
    assert Normal().draw(backbone, 40, 10, generator()).std() == pytest.approx(rms, rel=0.05)
    assert tpv.SoftPrompt.normal(backbone, 400, seed=1, std=0.5).tensor.std() == pytest.approx(0.5, rel=0.05)
    for std in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(tpv.TpvError, match="positive"):
            tpv.SoftPrompt.normal(backbone, 4, std=std)


@pytest.mark.parametrize("count", [0, -1, 2.0, True, "3"])
def test_a_prompt_has_at_least_one_row(backbone, count):
    for make in (tpv.SoftPrompt.sample, tpv.SoftPrompt.normal):
        with pytest.raises(tpv.TpvError, match="number of prompt tokens"):
            make(backbone, count)
    for initializer in (Vocabulary(), Normal()):
        with pytest.raises(tpv.TpvError, match="number of prompt tokens"):
            initializer.draw(backbone, count, 1, generator())


@pytest.mark.parametrize("seed", [-1, 2**70, 1.5, True, None])
def test_a_seed_is_a_whole_number(backbone, seed):
    for make in (tpv.SoftPrompt.sample, tpv.SoftPrompt.normal):
        with pytest.raises(tpv.TpvError, match="seed of an initialization"):
            make(backbone, 3, seed=seed)


@pytest.mark.parametrize("limit", [-1, 1.5, True, "5"])
def test_a_limit_is_a_whole_number(limit):
    with pytest.raises(tpv.TpvError, match="limit of a vocabulary initialization"):
        Vocabulary(limit)


def test_a_given_tensor_is_known_by_its_hash(backbone):
    tensor = torch.randn(3, backbone.identity.hidden_size)
    one, two = tpv.SoftPrompt.from_tensor(backbone, tensor), tpv.SoftPrompt.from_tensor(backbone, tensor + 1)
    assert one.init.kind == "given"
    assert one.init != two.init
    with pytest.raises(tpv.IncompatibleError, match="does not fit"):
        tpv.SoftPrompt.from_tensor(backbone, torch.randn(3, 5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vocabulary", Vocabulary()),
        ("vocabulary:limit=0", Vocabulary(0)),
        ("normal", Normal()),
        ("normal:std=0.5", Normal(0.5)),
        ("text:the man, a = b", Text("the man, a = b")),
        ("zero", Zero()),
    ],
)
def test_spellings_on_the_command_line(text, expected):
    assert initializers.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zeros", r"unknown initializer 'zeros'; expected vocabulary, normal, text, zero; did you mean 'zero'\?"),
        ("vocabulary:limt=0", r"unknown parameter 'limt', did you mean 'limit'\?"),
        ("vocabulary:limit", r"expected vocabulary:key=value,key=value; got 'vocabulary:limit'"),
        ("vocabulary:limit=many", "limit: input should be a valid integer.*got 'many'"),
        ("normal:std=0", "expected a positive number; got 0.0"),
        ("zero:a=1", "unknown parameter 'a', it has no parameters"),
        ("text", "text is missing"),
    ],
)
def test_spellings_that_are_refused_before_a_model_is_loaded(text, words):
    with pytest.raises(tpv.TpvError, match=words):
        initializers.parse(text)


def test_a_name_or_an_initializer_and_not_parameters_twice(backbone):
    assert tpv.SoftPrompt.sample(backbone, 3, 1, init=Normal(0.5)) == tpv.SoftPrompt.sample(
        backbone, 3, 1, "normal", std=0.5
    )
    with pytest.raises(tpv.TpvError, match="parameters of an initializer"):
        tpv.SoftPrompt.sample(backbone, 3, 1, init=Normal(0.5), std=0.5)


def test_parameters_are_complete_and_ready_for_json():
    assert Vocabulary().parameters == {"limit": 5000}
    assert Normal().parameters == {"std": None}
    assert Text("a").parameters == {"text": "a"}
    assert [each.kind for each in (Vocabulary(), Normal(), Text("a"), Zero())] == tpv.register.initializer.names()


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A module outside the package that registers a function and a class."""
    (tmp_path / "own_starts.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "import torch\n"
        "import tpv\n"
        "from tpv.prompts.initializers import Initializer\n"
        "@tpv.register.initializer('uniform')\n"
        "def uniform(backbone, num_tokens, seed, *, width: float = 1.0):\n"
        "    'Uniform values.'\n"
        "    generator = torch.Generator().manual_seed(seed)\n"
        "    return width * torch.rand(num_tokens, backbone.identity.hidden_size, generator=generator)\n"
        "@tpv.register.initializer('ones')\n"
        "@dataclass(frozen=True)\n"
        "class Ones(Initializer):\n"
        "    'Ones.'\n"
        "    factor: float = 1.0\n"
        "    def sample(self, backbone, num_tokens, seed):\n"
        "        return torch.full((num_tokens, backbone.identity.hidden_size), self.factor), self.record(seed)\n"
        "@tpv.register.initializer('narrow')\n"
        "def narrow(backbone, num_tokens, seed):\n"
        "    return torch.zeros(num_tokens, 1)\n"
        "@tpv.register.initializer('odd')\n"
        "@dataclass(frozen=True)\n"
        "class Odd:\n"
        "    a: int = 0\n"
    )
    load_plugins(["own_starts"], near=tmp_path)
    yield
    tpv.register.initializer.without("uniform", "ones", "narrow", "odd")
    sys.modules.pop("own_starts")


@pytest.mark.usefixtures("plugin")
def test_a_plugin_registers_a_function_or_a_class(backbone, tmp_path):
    assert tpv.register.initializer.names()[-4:] == ["uniform", "ones", "narrow", "odd"]
    prompt = tpv.SoftPrompt.sample(backbone, 4, seed=2, init="uniform", width=3.0)
    assert prompt.tensor.max() > 2
    assert (prompt.init.kind, prompt.init.seed, prompt.init.parameters) == ("uniform", 2, {"width": 3.0})
    assert tpv.SoftPrompt.sample(backbone, 4, init="uniform").init.parameters is None
    prompt.save(tmp_path / "p.safetensors")
    tpv.register.initializer.without("uniform")
    assert tpv.SoftPrompt.load(tmp_path / "p.safetensors") == prompt  # the record is data, and needs no plugin
    assert tpv.SoftPrompt.sample(backbone, 2, init="ones", factor=2.0).init.parameters == {"factor": 2.0}


@pytest.mark.usefixtures("plugin")
def test_draws_of_a_plugin_are_samples_at_seeds_of_the_generator(backbone):
    made = initializers.parse("uniform:width=2")
    assert isinstance(made, Initializer)
    assert made.parameters == {"width": 2.0}
    one, two = (made.draw(backbone, 3, 4, generator(1)) for _ in range(2))
    assert one.shape == (4, 3, 128)
    assert torch.equal(one, two)
    assert not torch.equal(one[0], one[1])
    assert 1.5 < one.max() <= 2


@pytest.mark.usefixtures("plugin")
def test_a_plugin_that_is_wrong_is_told_what_is_expected(backbone):
    with pytest.raises(
        tpv.TpvError, match=r"return value of initializer 'narrow'; expected a tensor \[2, 128\]; got \[2, 1\]"
    ):
        tpv.SoftPrompt.sample(backbone, 2, init="narrow")
    with pytest.raises(
        tpv.TpvError, match=r"initializer 'odd' of own_starts; expected a function, or a subclass of .*Initializer"
    ):
        tpv.SoftPrompt.sample(backbone, 2, init="odd")


def test_a_subclass_needs_no_draw_of_its_own(backbone):
    @tpv.register.initializer("shifted")
    @dataclass(frozen=True)
    class Shifted(Initializer):
        by: float = 1.0

        def sample(self, backbone, num_tokens, seed):
            return Normal(1.0).sample(backbone, num_tokens, seed)[0] + self.by, self.record(seed)

    try:
        drawn = Shifted(5.0).draw(backbone, 20, 8, generator())
        assert float(drawn.mean()) == pytest.approx(5.0, abs=0.1)
    finally:
        tpv.register.initializer.without("shifted")
