"""Residual, low-rank and ultra-low-dimensional prompt tuning, against plain loops of `torch.nn` modules."""

import pytest
import torch
from literal import Rows, descend, row_nll
from torch import nn

import tpv
from tpv.methods.ultra_low import UltraLow

RECIPE = tpv.Recipe(steps=8, batch_size=4, lr=0.1, warmup_steps=2, select="last", weight_decay=0.0)
P, H = 4, 32
CLOSE = {"atol": 2e-3, "rtol": 2e-3}


@pytest.fixture
def setting(random_t5, toy_task):
    backbone = random_t5(1)
    return backbone, toy_task(["good", "not good"], 22), tpv.SoftPrompt.sample(backbone, P, 7)


def ours(setting, method, recipe=RECIPE, **parameters):
    backbone, task, init = setting
    return tpv.fit(backbone, task, init, recipe, method=method, parameters=parameters, callback=lambda _: None)


def loop(setting, parameters, prompt):
    backbone, task, _ = setting
    descend(parameters, lambda *row: row_nll(backbone, prompt(), *row), Rows(backbone, task, RECIPE), RECIPE)
    return prompt().detach()


def random(rank, seed):
    return torch.randn(rank, H, generator=torch.Generator().manual_seed(seed)) / rank**0.5


def test_residual(setting):
    torch.manual_seed(5)
    network = nn.Sequential(nn.Linear(H, 6), nn.ReLU(), nn.Linear(6, H), nn.LayerNorm(H))
    nn.init.zeros_(network[3].weight)
    rows = nn.Parameter(setting[2].tensor)
    expected = loop(setting, [rows, *network.parameters()], lambda: rows + network(rows))
    found = ours(setting, "residual", bottleneck=6, speed=1.0, seed=5)
    torch.testing.assert_close(found.tensor, expected, **CLOSE)
    assert (network[3].weight.abs() > 0.01).any()  # the network has taken part


def test_the_speed_of_a_network_is_a_learning_rate_of_its_own(setting, monkeypatch):
    backbone, task, init = setting
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)  # it would see weights divided by it
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(H, 6), nn.ReLU(), nn.Linear(6, H), nn.LayerNorm(H))
    nn.init.zeros_(network[3].weight)
    rows = nn.Parameter(init.tensor)
    optimizer = torch.optim.AdamW([{"params": [rows]}, {"params": network.parameters()}], weight_decay=0.0)
    batches = Rows(backbone, task, RECIPE)
    for step in range(RECIPE.steps):
        batch = batches.batch()
        total = sum(row_nll(backbone, rows + network(rows), *row) for row in batch)
        (total / sum(len(target) for _, target in batch)).backward()
        for group, factor in zip(optimizer.param_groups, (1.0, 0.05), strict=True):
            group["lr"] = factor * RECIPE.lr_at(step, RECIPE.steps)
        optimizer.step()
        optimizer.zero_grad()
    found = ours(setting, "residual", bottleneck=6, speed=0.05)
    torch.testing.assert_close(found.tensor, (rows + network(rows)).detach(), **CLOSE)


def test_low_rank(setting):
    start = setting[2].tensor
    a, b = nn.Parameter(torch.zeros(P, 2)), nn.Parameter(random(2, 3))
    expected = loop(setting, [a, b], lambda: start + a @ b)
    found = ours(setting, "low_rank", rank=2, seed=3)
    torch.testing.assert_close(found.tensor, expected, **CLOSE)
    assert torch.linalg.matrix_rank(found.tensor - start, rtol=1e-4) == 2


@pytest.mark.parametrize("align", [True, False])
def test_ultra_low(setting, align):
    start, projection = setting[2].tensor, random(3, 1)
    codes = nn.Parameter(torch.zeros(P, 3))
    scale, shift = nn.Parameter(torch.ones(H)), nn.Parameter(torch.zeros(H))
    trained = [codes, scale, shift] if align else [codes]
    expected = loop(setting, trained, lambda: start + scale * (codes @ projection) + shift)
    found = ours(setting, "ultra_low", dimensions=3, seed=1, align=align)
    torch.testing.assert_close(found.tensor, expected, **CLOSE)


def test_sums_of_codes_are_codes_of_sums(setting, toy_task, random_t5):
    backbone, task, init = setting
    other = toy_task(["man", "garden"], 20, "other")
    one, two = (
        tpv.fit(backbone, each, init, RECIPE, method="ultra_low", parameters={"align": False}, callback=lambda _: None)
        - init
        for each in (task, other)
    )
    method = UltraLow(align=False)
    codes = method.codes(one) + method.codes(two)
    assert codes.shape == (P, 2)
    torch.testing.assert_close(codes, method.codes(one + two), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(codes @ method.projection(H), (one + two).tensor, atol=1e-4, rtol=1e-3)
    for wrong in (UltraLow(seed=1), UltraLow(dimensions=1)):
        with pytest.raises(tpv.TpvError, match="has no codes"):
            wrong.codes(one)


@pytest.mark.parametrize(
    ("method", "parameters", "count"),
    [
        ("residual", {"bottleneck": 6}, P * H + 2 * 6 * H + 6 + H + 2 * H),
        ("low_rank", {"rank": 3}, 3 * (P + H)),
        ("ultra_low", {"dimensions": 3}, 3 * P + 2 * H),
        ("ultra_low", {"dimensions": 3, "align": False}, 3 * P),
    ],
)
def test_each_begins_at_the_initialization_and_has_so_many_parameters(setting, method, parameters, count):
    backbone, task, init = setting
    trainee = tpv.register.method[method].thing(**parameters).begin(backbone, task, init, RECIPE)
    assert torch.equal(trainee.prompt(), init.tensor)
    assert sum(one.numel() for one in trainee.parameters) == count


def test_a_bank_gives_what_each_alone_gives_and_the_best_checkpoint_is_kept(setting):
    backbone, task, init = setting
    recipe = tpv.Recipe(steps=8, batch_size=4, lr=0.1, warmup_steps=2, eval_every=2)
    other = tpv.SoftPrompt.sample(backbone, P, 8)
    for method in ("residual", "low_rank", "ultra_low"):
        bank = tpv.fit(backbone, task, [init, other], recipe, method=method, callback=lambda _: None)
        for prompt, start in zip(bank, (init, other), strict=True):
            alone = tpv.fit(backbone, task, start, recipe, method=method, callback=lambda _: None)
            torch.testing.assert_close(prompt.tensor, alone.tensor, atol=1e-3, rtol=1e-3)
            assert (prompt - start).terms == {"toy": 1.0}


def test_refusals(setting):
    with pytest.raises(tpv.TpvError, match="rank of low_rank; expected at most 4; got 5"):
        ours(setting, "low_rank", rank=5)
    with pytest.raises(tpv.TpvError, match="dimensions of ultra_low"):
        ours(setting, "ultra_low", dimensions=33)
    with pytest.raises(tpv.TpvError, match="greater than or equal to 1"):
        ours(setting, "residual", bottleneck=0)
