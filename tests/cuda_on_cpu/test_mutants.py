"""The bugs that are planted still have their places: to look for all is too slow for the tests."""

import mutants
import pytest
import variant_mutants


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant[0])
def test_a_planted_bug_changes_one_place(mutant, tmp_path):
    _, file, old, new = mutant
    mutants.plant(tmp_path, *mutant)  # which ends the program unless `old` stands there once
    assert old != new
    assert old not in (tmp_path / file).read_text() or old in new


def test_every_planted_bug_is_another_one():
    names = [name for name, *_ in mutants.MUTANTS]
    edits = [tuple(edit) for _, *edit in mutants.MUTANTS]
    assert len(set(names)) == len(set(edits)) == len(names)


@pytest.mark.parametrize("mutant", variant_mutants.MUTANTS, ids=lambda mutant: mutant[0])
def test_a_bug_planted_in_a_variant_changes_one_place(mutant, tmp_path):
    _, file, old, new = mutant
    folder = variant_mutants.plant(tmp_path, *mutant)
    assert old != new
    assert old not in (folder / file).read_text() or old in new
