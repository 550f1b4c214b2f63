"""The bugs that are planted still have their places: to look for all is too slow for the tests."""

import mutants
import pytest
import variant_mutants

PLANTED = [*mutants.MUTANTS, *variant_mutants.MUTANTS]


@pytest.mark.parametrize("mutant", PLANTED, ids=lambda mutant: mutant[0])
def test_a_planted_bug_changes_one_place(mutant, tmp_path):
    _, file, old, new = mutant
    mutants.plant(tmp_path, *mutant)  # which ends the program unless `old` stands there once
    assert old != new
    assert old not in (tmp_path / file).read_text() or old in new


def test_every_planted_bug_is_another_one():
    names = [name for name, *_ in PLANTED]
    edits = [tuple(edit) for _, *edit in PLANTED]
    assert len(set(names)) == len(set(edits)) == len(names)
