"""Maps between embedding spaces: exact laws, and independent references."""

import numpy as np
import pytest
import torch
from rotated import rotated
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge

import tpv
from tpv.porting.anchors import Anchors, anchors_of
from tpv.porting.copy import copy
from tpv.porting.procrustes import procrustes
from tpv.porting.projector import Known, projector
from tpv.porting.relative import relative
from tpv.porting.ridge import ridge
from tpv.porting.sparse import sparse

GAUSS = torch.Generator().manual_seed(0)
X = torch.randn(60, 8, generator=GAUSS)
Y = torch.randn(60, 8, generator=GAUSS)
NEW = torch.randn(5, 8, generator=GAUSS)
LINEAR = {"procrustes": procrustes, "ridge": ridge, "relative": relative}


def rotation(size, seed=0):
    return torch.tensor(ortho_group.rvs(size, random_state=seed), dtype=torch.float32)


@pytest.mark.parametrize("method", LINEAR)
@pytest.mark.parametrize("scale", ["match", "fit"])
def test_a_known_rotation_and_scale_are_recovered(method, scale):
    turn = 7.0 * rotation(8)
    found = LINEAR[method](Anchors(X, X @ turn), scale=scale)
    torch.testing.assert_close(found.prompt(NEW), NEW @ turn, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.vector(NEW), NEW @ turn, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", ["procrustes", "ridge"])
def test_a_shift_moves_prompts_and_no_vectors(method):
    turn, shift = 0.1 * rotation(8), torch.arange(8.0)
    found = LINEAR[method](Anchors(X + 3.0, (X + 3.0) @ turn + shift))
    torch.testing.assert_close(found.prompt(NEW), NEW @ turn + shift, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.vector(NEW), NEW @ turn, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("narrow", "wide"), [(8, 12), (12, 8)])
def test_procrustes_of_unlike_widths(narrow, wide):
    turn = rotation(12)[:narrow, :wide]
    rows = torch.randn(60, narrow, generator=GAUSS)
    found = procrustes(Anchors(rows, rows @ turn), scale="fit").matrix
    small = min(narrow, wide)
    gram = found @ found.T if narrow < wide else found.T @ found
    torch.testing.assert_close(gram / gram[0, 0], torch.eye(small), atol=1e-5, rtol=1e-5)
    if narrow < wide:  # all of it fits, so that the map is known
        torch.testing.assert_close(found, turn, atol=1e-4, rtol=1e-4)


def standard(rows):
    rows = rows.double().numpy() - rows.double().numpy().mean(0)
    return rows / np.sqrt((rows**2).sum(1).mean())


def sizes():
    spread = [np.sqrt(((side - side.mean(0)) ** 2).sum(1).mean()) for side in (X.double().numpy(), Y.double().numpy())]
    return spread[1] / spread[0]


def test_procrustes_is_that_of_scipy_and_of_the_singular_vectors():
    found = procrustes(Anchors(X, Y), scale="fit").matrix.double().numpy()
    u, _, v = np.linalg.svd(standard(X).T @ standard(Y))
    np.testing.assert_allclose(found, sizes() * u @ v, atol=1e-5)
    np.testing.assert_allclose(found, sizes() * orthogonal_procrustes(standard(X), standard(Y))[0], atol=1e-5)


def test_ridge_is_that_of_scikit_learn_and_of_the_normal_equations():
    found = ridge(Anchors(X, Y), alpha=0.5, scale="fit").matrix.double().numpy()
    x, y = standard(X), standard(Y)
    np.testing.assert_allclose(found, sizes() * np.linalg.solve(x.T @ x + 0.5 * np.eye(8), x.T @ y), atol=1e-5)
    np.testing.assert_allclose(found, sizes() * Ridge(0.5, fit_intercept=False).fit(x, y).coef_.T, atol=1e-5)


def test_ridge_chooses_its_penalty_by_rows_left_out():
    def error(alpha):  # one row left out at a time
        x, y = standard(X), standard(Y)
        keep = ~np.eye(60, dtype=bool)
        guesses = [Ridge(alpha, fit_intercept=False).fit(x[rest], y[rest]).predict(x[~rest]) for rest in keep]
        return ((np.concatenate(guesses) - y) ** 2).mean()

    best = min([10.0**k for k in range(-8, 4)], key=error)
    torch.testing.assert_close(ridge(Anchors(X, Y)).matrix, ridge(Anchors(X, Y), alpha=best).matrix)


def test_relative_with_orthonormal_anchors_takes_each_anchor_to_its_own():
    a, b = rotation(8, 1), rotation(8, 2)
    found = relative(Anchors(a, b))
    torch.testing.assert_close(found.prompt(a), b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.prompt(NEW), (NEW @ a.T) @ b, atol=1e-5, rtol=1e-5)


def test_relative_finds_the_row_whose_similarities_a_search_finds():
    """The closed form against what the paper does: gradient steps on the cosine of the two lists of cosines."""
    found = relative(Anchors(X, Y)).prompt(NEW)
    unit = [torch.nn.functional.normalize(side, dim=1) for side in (X, Y)]
    wanted = torch.nn.functional.normalize(NEW, dim=1) @ unit[0].T
    searched = torch.randn(5, 8, generator=GAUSS).requires_grad_()
    optimizer = torch.optim.Adam([searched], lr=0.05)
    for _ in range(800):
        loss = -torch.cosine_similarity(torch.nn.functional.normalize(searched, dim=1) @ unit[1].T, wanted).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.cosine_similarity(found, searched.detach()).min() > 0.999


@pytest.mark.parametrize("method", LINEAR)
def test_mapped_anchors_are_as_large_as_the_targets_own(method):
    noise = Anchors(X, 20 * Y)  # nothing explains it, so that a fit shrinks
    center = method != "relative"
    found = LINEAR[method](noise)
    mapped, own = found.prompt(X) - found.offset, 20 * Y - found.offset
    torch.testing.assert_close(mapped.square().sum(1).mean(), own.square().sum(1).mean(), rtol=1e-4, atol=0.0)
    if center:
        smaller = LINEAR[method](noise, scale="fit")
        assert (smaller.prompt(X) - smaller.offset).norm() <= (1 + 1e-5) * mapped.norm()


def test_sparse_looks_tokens_up():
    x, y = torch.randn(60, 48, generator=GAUSS), torch.randn(60, 32, generator=GAUSS)
    found = sparse(Anchors(x, 5 * y), terms=2)
    rows = torch.stack([2 * x[3] - 0.5 * x[40], x[7]])
    wanted = torch.stack([10 * y[3] - 2.5 * y[40], 5 * y[7]])
    torch.testing.assert_close(found.prompt(rows), wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.vector(rows), wanted, atol=1e-4, rtol=1e-4)


def test_sparse_picks_the_best_single_token():
    found = sparse(Anchors(X, Y), terms=1)
    units = X / X.norm(dim=1, keepdim=True)
    for row in NEW:  # by hand
        fits = units @ row
        best = int(fits.abs().argmax())
        code = fits[best] / X[best].norm()
        rest = ridge(Anchors(X, Y), scale="fit").vector((row - code * X[best])[None])[0]
        torch.testing.assert_close(found.prompt(row[None])[0], code * Y[best] + rest, atol=1e-5, rtol=1e-5)


def test_copy_cuts_fills_up_and_scales():
    wide = torch.randn(30, 12, generator=GAUSS)
    assert torch.equal(copy(Anchors(X, wide)).prompt(NEW), torch.cat([NEW, torch.zeros(5, 4)], 1))
    back = copy(Anchors(wide, X)).vector(wide)
    assert torch.equal(back, wide[:, :8])
    scaled = copy(Anchors(X, 3 * X), rescale=True).prompt(NEW)
    torch.testing.assert_close(scaled, 3 * NEW)


def test_a_projector_learns_a_map_that_is_not_linear():
    rows = torch.randn(400, 8, generator=GAUSS)
    twisted = rows @ rotation(8) + torch.tanh(2 * rows)
    anchors = Anchors(rows[:60], rows[:60] @ rotation(8))
    known = Known(list(rows[:360].split(20)), list(twisted[:360].split(20)), None, None)
    learned = projector(anchors, known, steps=400).prompt(rows[360:])
    linear = procrustes(Anchors(rows[:360], twisted[:360])).prompt(rows[360:])
    error = [(guess - twisted[360:]).square().mean() for guess in (learned, linear)]
    assert error[0] < 0.5 * error[1]
    assert not learned.requires_grad


@pytest.mark.parametrize("method", ["procrustes", "ridge", "relative", "copy", "sparse"])
def test_to_the_same_model_nothing_changes(method, backbone):
    init = tpv.SoftPrompt.sample(backbone, 4, seed=0)
    vector = init.tuned_to(tpv.SoftPrompt.normal(backbone, 4, seed=1).tensor, "t") - init
    for item in (init, vector):
        moved = tpv.port(item, backbone, backbone, method=method)
        torch.testing.assert_close(moved.tensor, item.tensor, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("method", ["procrustes", "ridge", "relative", "sparse"])
def test_on_a_rotated_model_a_ported_prompt_answers_the_same(method, backbone):
    """End to end: the second model computes the same in another basis, at another scale."""
    turn = rotation(backbone.identity.hidden_size)
    second = rotated(backbone, turn, scale=0.25)
    task = tpv.load_task("mini/sst2").limited({"test": 20}, 0)
    prompt = tpv.SoftPrompt.from_text(backbone, "sentiment of the movie among other words", 8)
    assert prompt.model.fingerprint != second.identity.fingerprint
    moved = tpv.port(prompt, backbone, second, method=method)
    torch.testing.assert_close(moved.tensor, 0.25 * prompt.tensor @ turn, atol=1e-4, rtol=1e-3)
    before = tpv.evaluate(backbone, task, prompt, "test").predictions["log_probs"].to_pylist()
    after = tpv.evaluate(second, task, moved, "test").predictions["log_probs"].to_pylist()
    np.testing.assert_allclose(after, before, atol=2e-2)
    copied = tpv.evaluate(second, task, tpv.port(prompt, backbone, second, method="copy"), "test")
    assert np.abs(np.array(copied.predictions["log_probs"].to_pylist()) - before).max() > 0.5


def test_anchors_are_the_tokens_that_both_have(backbone, random_causal):
    other = random_causal()
    here, there = backbone.pieces(), other.pieces()
    found = anchors_of(backbone, other, None)
    shared = {" the", "a", "."} & here.keys() & there.keys()
    assert " the" in shared  # SentencePiece writes ▁the, byte-level BPE Ġthe
    assert len(found) == len(here.keys() & there.keys())
    row = backbone.embeddings()[backbone.encode_text("the")[0]]
    (place,) = (found.source == row).all(1).nonzero().flatten().tolist()
    assert torch.equal(found.target[place], other.embeddings()[other.encode_text(" the")[0]])
    assert len(anchors_of(backbone, other, 7)) == 7


def test_texts_as_anchors_are_means_of_their_tokens(backbone, random_causal):
    other = random_causal()
    found = anchors_of(backbone, other, ["the movie", "zebra"])
    for side, model in ((found.source, backbone), (found.target, other)):
        for row, text in zip(side, ["the movie", "zebra"], strict=True):
            rows = [model.embeddings()[i] for i in model.encode_text(text)]
            torch.testing.assert_close(row, sum(rows) / len(rows))
    assert "</s>" not in backbone.pieces()
