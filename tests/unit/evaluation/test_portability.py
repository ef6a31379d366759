"""What is said of a vector beforehand, against scoring it by hand."""

import numpy as np
import pytest

import tpv
from tpv.evaluation.portability import interference, portability, unseen_inits


@pytest.fixture(scope="module")
def vectors(backbone):
    tasks = [tpv.load_task(name).limited({"validation": 40}, 0) for name in ("mini/sst2", "mini/trec")]
    recipe = tpv.Recipe(steps=30, batch_size=8, lr=0.3, warmup_steps=3, select="last")
    return tasks, tpv.fit_vectors(backbone, tasks, recipe, num_tokens=5, callback=lambda _: None)


def test_portability_is_scored_on_unseen_inits(backbone, vectors):
    (task, _), (vector, _) = vectors
    found = portability(backbone, vector, task, inits=3)
    starts = unseen_inits(backbone, 5, 3)
    assert len({start.digest for start in starts}) == 3
    by_hand = [tpv.evaluate(backbone, task, start + vector, "validation") for start in starts]
    assert found.scores == tuple(score.exact_match for score in by_hand)
    assert found.majority == by_hand[0].majority
    norms = [float(np.linalg.norm(start.tensor.double().numpy())) for start in starts]
    assert found.norm_ratio == pytest.approx(float(np.linalg.norm(vector.tensor.double().numpy())) / np.mean(norms))


def test_interference_of_pairs(backbone, vectors):
    tasks, taus = vectors
    matrix = interference(backbone, taus, tasks, inits=2)
    starts = unseen_inits(backbone, 5, 2)
    for i, task in enumerate(tasks):
        for j in range(2):
            total = taus[i] if i == j else taus[0] + taus[1]
            scores = tpv.evaluate(backbone, task, [start + total for start in starts], "validation")
            assert matrix[i, j] == pytest.approx(np.mean([score.exact_match for score in scores]))
    with pytest.raises(tpv.TpvError, match="one a vector"):
        interference(backbone, taus, tasks[:1])
    with pytest.raises(tpv.TpvError, match="at least 1"):
        portability(backbone, taus[0], tasks[0], inits=0)
