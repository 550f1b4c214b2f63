"""overlap on states whose share in each other is known."""

import pytest
import torch
from models import states_of
from torch.testing import assert_close

from lstm_kernels import memory


def test_overlap_is_the_part_that_a_linear_map_reads():
    torch.manual_seed(0)
    cell = torch.randn(60, 30, 4, dtype=torch.float64)
    hidden = cell.clone()
    hidden[..., 1] += torch.randn(60, 30)  # half of its variance is its own
    hidden[..., 2] = torch.randn(60, 30)
    hidden[..., 3] = 5.0
    found = memory.overlap(states_of(cell, hidden))
    # 1,800 steps: the deviation of an R2 of 1/2 is 0.02
    expected = torch.tensor([1.0, 0.5, 0.0, 1.0], dtype=torch.float64)
    assert_close(found.hidden_from_cell[0], expected, rtol=0, atol=0.06)
    expected = torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.float64)
    assert_close(found.cell_from_hidden[0], expected, rtol=0, atol=0.06)
    assert found.steps == 1800


@pytest.mark.slow
def test_a_network_reads_an_even_function():
    torch.manual_seed(1)
    cell = torch.randn(60, 30, 2)
    states = states_of(cell, cell.square())
    assert memory.overlap(states).hidden_from_cell[0].abs().max() < 0.03
    network = memory.overlap(states, probe="mlp")
    assert network.hidden_from_cell[0].min() > 0.9
    assert network.cell_from_hidden[0].max() < 0.05  # the sign is lost


def test_overlap_of_padded_sequences_of_two_layers():
    torch.manual_seed(2)
    cell = torch.randn(9, 12, 3)
    states = memory.Recording(
        (cell * 2, cell), (cell, cell.roll(1, 0)), lengths=torch.arange(12) % 9 + 1
    )
    found = memory.overlap(states)
    assert found.steps == int((torch.arange(12) % 9 + 1).sum())
    assert found.hidden_from_cell[0].min() > 1 - 1e-6
    assert repr(found).startswith("Overlap(layers=2, steps=51, probe='linear', hidden_from_cell=(1")


def test_bad_input():
    states = states_of(torch.randn(3, 2, 4))
    with pytest.raises(ValueError, match="probe must be one of"):
        memory.overlap(states, probe="forest")
    with pytest.raises(ValueError, match="too little data"):
        memory.overlap(states)
