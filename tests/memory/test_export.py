"""States survive files bit for bit, and become a tidy table."""

import sys
from functools import partial

import pytest
import torch
from torch.testing import assert_close

import lstm_kernels
from lstm_kernels import memory

X = torch.randn(6, 3, 2, generator=torch.Generator().manual_seed(0))


def held(recording):
    return recording.hidden, recording.cell, recording.gates


def recordings():
    torch.manual_seed(0)
    two = lstm_kernels.LSTM(2, 4, 2, bidirectional=True, batch_first=True, dtype=torch.bfloat16)
    packed = torch.nn.utils.rnn.pack_sequence([X[:k, 0] for k in (2, 6, 3)], enforce_sorted=False)
    yield memory.record(two, X.bfloat16())
    yield memory.record(lstm_kernels.LSTM(2, 4, proj_size=3), packed)
    yield memory.record(lstm_kernels.LSTM(2, 4), X[:, 0], gates=False)


@pytest.mark.parametrize("name", ["states.pt", "states.safetensors"])
def test_what_is_saved_is_loaded(tmp_path, name):
    for recording in recordings():
        memory.save(recording, tmp_path / name)
        found = memory.load(tmp_path / name)
        assert_close(held(found), held(recording), rtol=0, atol=0)
        assert_close(found.lengths, recording.lengths, rtol=0, atol=0)
        assert found.layout == recording.layout


def test_a_name_of_another_format_is_refused(tmp_path):
    recording = next(recordings())
    with pytest.raises(ValueError, match=r"writes \.safetensors, or .* \.pt, .* got \.h5"):
        memory.save(recording, tmp_path / "states.h5")
    assert not [*tmp_path.iterdir()]
    for name in ("states", "states.pth", "states.bin"):
        memory.save(recording, tmp_path / name)
        assert_close(held(memory.load(tmp_path / name)), held(recording), rtol=0, atol=0)


def test_plain_states_are_saved(tmp_path):
    states = lstm_kernels.LSTM(2, 4)(X, return_gates=True)[2]
    memory.save(states, tmp_path / "states.pt")
    assert_close(held(memory.load(tmp_path / "states.pt")), tuple(states), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["other.pt", "other.safetensors"])
def test_other_files_are_refused(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save({"weight": X}, path)
    else:
        pytest.importorskip("safetensors.torch").save_file({"weight": X}, path)
    with pytest.raises(ValueError, match=r"holds no states written by lstm_kernels\.memory\.save"):
        memory.load(path)


def test_table_has_a_row_per_step_sequence_and_unit():
    lstm = lstm_kernels.LSTM(2, 4, 2, bidirectional=True)
    recording = memory.record(lstm, X)
    table = memory.to_pandas(recording)
    assert len(table) == 6 * 3 * 2 * 2 * 4
    row = table.query("step == 4 and sequence == 1 and layer == 1 and direction == 1 and unit == 2")
    assert row.cell.item() == recording.cell[1][4, 1, 4 + 2].item()
    assert row.hidden.item() == recording.hidden[1][4, 1, 4 + 2].item()
    gates = recording.gates[1][4, 1, 1, :, 2].tolist()
    assert row[["input", "forget", "candidate", "output"]].iloc[0].tolist() == gates


def test_table_leaves_out_padding_and_absent_columns():
    _, projected, alone = recordings()
    table = memory.to_pandas(projected)
    assert len(table) == (2 + 6 + 3) * 4
    assert table.groupby("sequence").step.max().tolist() == [1, 5, 2]
    assert "hidden" not in table
    assert "forget" in table
    assert set(memory.to_pandas(alone)) == {
        "step",
        "sequence",
        "layer",
        "direction",
        "unit",
        "cell",
        "hidden",
    }


def test_bfloat16_becomes_numbers():
    first, *_ = recordings()
    assert memory.to_pandas(first).cell.dtype == "float32"


@pytest.mark.parametrize("package", ["pandas", "safetensors"])
def test_missing_packages_are_named(tmp_path, monkeypatch, package):
    for module in [m for m in sys.modules if m.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    recording = memory.record(lstm_kernels.LSTM(2, 4), X)
    save = partial(memory.save, path=tmp_path / "states.safetensors")
    with pytest.raises(ImportError, match=f"pip install {package}"):
        (memory.to_pandas if package == "pandas" else save)(recording)
