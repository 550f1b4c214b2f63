"""match on states that were planted."""

import pytest
import torch
from models import states_of
from torch.testing import assert_close

from lstm_kernels import memory


@pytest.fixture
def planted():
    """Noise with one pattern of units 1 and 3 planted thrice: exact, exact, and a bit off."""
    generator = torch.Generator().manual_seed(0)
    cell = torch.randn(60, 3, 5, generator=generator, dtype=torch.float64)
    pattern = cell[10:16, 0][:, [1, 3]]
    cell[30:36, 0, [1, 3]] = pattern
    cell[5:11, 2, [1, 3]] = pattern + 0.1
    return cell


def test_match_finds_what_was_planted_best_first(planted):
    found = memory.match(states_of(planted), [1, 3], (10, 16), top=5)
    places = [(m.recording, m.sequence, m.start, m.stop) for m in found]
    assert places[:2] == [(0, 0, 30, 36), (0, 2, 5, 11)]
    assert found[0].distance == 0
    scale = planted.flatten(0, 1).std(0, correction=0)[[1, 3]]
    assert_close(found[1].distance, (0.1 / scale).square().mean().sqrt().item(), rtol=1e-9, atol=0)
    assert [m.distance for m in found] == sorted(m.distance for m in found)


def test_matches_overlap_neither_each_other_nor_the_selection(planted):
    found = memory.match(states_of(planted), 2, (0, 4), sequence=1, top=30)
    spans = [(1, 0, 4), *((m.sequence, m.start, m.stop) for m in found)]
    assert all(
        a[0] != b[0] or a[2] <= b[1] or b[2] <= a[1] for k, a in enumerate(spans) for b in spans[:k]
    )
    assert len(found) == 30


def test_match_distance_is_the_plain_one(planted):
    """Every window compared by hand, for the best match."""
    found = memory.match(states_of(planted), [0], (20, 23), sequence=2)[0]
    values = planted[..., 0] / planted[..., 0].std(correction=0)
    wanted = values[20:23, 2]
    by_hand = {
        (n, t): (values[t : t + 3, n] - wanted).square().mean().sqrt().item()
        for n in range(3)
        for t in range(58)
        if n != 2 or abs(t - 20) >= 3
    }
    best = min(by_hand, key=by_hand.get)
    assert (found.sequence, found.start) == best
    assert_close(found.distance, by_hand[best], rtol=1e-12, atol=0)


def test_match_searches_a_stream_and_skips_padding(planted):
    lengths = torch.tensor([60, 60, 8])  # the inexact one, 5..10 of sequence 2, is not whole
    first = memory.Recording((planted,), (planted,), lengths=lengths)
    second = states_of(planted[:, 2:])
    found = memory.match([first, second], [1, 3], (10, 16), top=2)
    assert [(m.recording, m.sequence, m.start) for m in found] == [(0, 0, 30), (1, 0, 5)]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([9], (0, 3)), {}, r"units must be in 0\.\.4, got 9"),
        (([], (0, 3)), {}, "units is empty"),
        ((0, (5, 5)), {}, "span must be 0 <= start < stop <= 60"),
        ((0, (50, 61)), {}, "span must be 0 <= start < stop <= 60"),
        ((0, (0, 3)), {"sequence": 3}, r"sequence must be in 0\.\.2, got 3"),
        ((0, (0, 3)), {"layer": 1}, "layer must be less than 1"),
        ((0, (0, 3)), {"state": "gates"}, "state must be 'cell' or 'hidden'"),
        ((0, (0, 3)), {"top": 0}, "top must be at least 1"),
    ],
)
def test_match_bad_input(planted, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        memory.match(states_of(planted), *arguments, **options)
