"""Probes beside scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import tpv
from tpv.evaluation.probe import DEPTHS, Probe, fit_probe


def states_of(gold, informative=(1, 0), width=6, seed=0):
    """Hidden states of which one column alone tells the label."""
    generator = np.random.default_rng(seed)
    states = generator.normal(size=(len(gold), len(DEPTHS), 2, width))
    states[:, informative[0], informative[1], 0] += 6 * np.asarray(gold)
    return torch.from_numpy(states).float()


@pytest.mark.parametrize("labels", [2, 3])
def test_a_probe_is_scikit_learns_logistic_regression(labels):
    gold = np.arange(30) % labels
    states = states_of(gold)
    probe = fit_probe(states, gold.tolist(), labels)
    assert (probe.depth, probe.last) == (1, False)  # the column that tells the label
    values = states[:, 1, 0].double().numpy()
    scaler = StandardScaler().fit(values)
    model = LogisticRegression(C=probe.strength, max_iter=500).fit(scaler.transform(values), gold)
    new = states_of(gold, seed=1)
    theirs = model.predict_log_proba(scaler.transform(new[:, 1, 0].double().numpy()))
    np.testing.assert_allclose(probe.log_probs(new), np.maximum(theirs, np.log(1e-6)), atol=1e-4)


def test_a_label_without_rows_is_never_likely():
    gold = [0, 2] * 6
    states = states_of(gold)
    probe = fit_probe(states, gold, 3)
    log_probs = probe.log_probs(states)
    assert (log_probs[:, 1] <= np.log(1e-6) + 1e-9).all()
    assert (log_probs.argmax(1) == gold).all()


def test_two_rows_are_enough():
    probe = fit_probe(states_of([0, 1]), [0, 1], 2)
    assert probe.depth == len(DEPTHS) - 1
    assert not probe.last


def test_a_probe_survives_being_saved():
    gold = np.arange(12) % 2
    states = states_of(gold)
    probe = fit_probe(states, gold.tolist(), 2)
    again = Probe.of_tensors(probe.tensors(), "a file")
    np.testing.assert_array_equal(again.log_probs(states), probe.log_probs(states))
    for name in ("weight", "depth"):
        with pytest.raises(tpv.DamagedFileError, match="no probe"):
            Probe.of_tensors({key: value for key, value in probe.tensors().items() if key != name}, "a file")
    with pytest.raises(tpv.DamagedFileError, match="no probe"):
        Probe.of_tensors(probe.tensors() | {"scale": torch.ones(2)}, "a file")
