"""label on states that were planted."""

import math

import pytest
import torch
from models import states_of
from torch.testing import assert_close

from lstm_kernels import memory


def test_label_finds_the_unit_that_follows_it():
    torch.manual_seed(0)
    inside = torch.rand(200, 6) < 0.3
    cell = torch.randn(200, 6, 4, dtype=torch.float64)
    cell[..., 2] = -inside.double()  # goes down inside
    hidden = torch.randn(200, 6, 4, dtype=torch.float64)
    hidden[..., 1] = inside + 0.5 * hidden[..., 1]
    found = memory.label(states_of(cell, hidden), inside)
    assert found.metric == "AUC"
    assert found.best[0] == (1.0, "cell", 0, 2)
    assert found.best[1][1:] == ("hidden", 0, 1)
    # Two normals of deviation 1/2, one apart: AUC = Phi(1 / (0.5 sqrt 2)) = 0.921
    assert_close(found.hidden[0][1].item(), 0.921, rtol=0, atol=0.03)
    assert (found.cell[0][[0, 1, 3]] - 0.5).abs().max() < 0.1


def test_label_correlation():
    torch.manual_seed(1)
    position = torch.rand(100, 4, dtype=torch.float64)
    cell = torch.randn(100, 4, 3, dtype=torch.float64)
    cell[..., 0] = 3 - 2 * position
    found = memory.label(states_of(cell), position)
    assert found.metric == "correlation"
    assert_close(found.cell[0][0].item(), 1.0, rtol=1e-12, atol=0)
    assert found.cell[0][1:].abs().max() < 0.3


def test_scores_are_of_held_out_data():
    """Noise: the best of 2000 units on one half is nothing on the other."""
    torch.manual_seed(2)
    cell = torch.randn(50, 2, 2000)
    found = memory.label(states_of(cell), torch.rand(50, 2) < 0.5)
    best = torch.tensor([unit.score for unit in found.best[:20]])
    assert abs(best.mean() - 0.5) < 0.08  # 20 AUCs of 50 steps: a deviation of 0.018


def test_auc_counts_ties_half():
    cell = torch.tensor([0.0, 1, 1, 2])[:, None, None].expand(4, 2, 1)
    labels = torch.tensor([False, True, False, True])[:, None].expand(4, 2)
    found = memory.label(states_of(cell), labels)
    # pairs (positive, negative): 1>0, 1=1, 2>0, 2>1 -> 3.5 of 4
    assert found.cell[0].item() == 3.5 / 4


def test_label_bad_input():
    states = states_of(torch.randn(5, 2, 3))
    with pytest.raises(ValueError, match=r"labels must be \(T, N\) = \(5, 2\)"):
        memory.label(states, torch.ones(2, 5))
    with pytest.raises(TypeError, match="labels must be bool or floating"):
        memory.label(states, torch.ones(5, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels holds NaN"):
        memory.label(states, torch.full((5, 2), math.nan))
    with pytest.raises(ValueError, match="labels are all the same"):
        memory.label(states, torch.ones(5, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="labels are all the same"):
        memory.label(states, torch.ones(5, 2))
