"""Bad input raises torch.nn.LSTM's exception types and words; with gradients, before any work.

Where nn.LSTM has its own words (raised by its Python code or its argument checks), the very
message must come out of both; where its words are those of some inner matrix product, or where
it computes nonsense, ours say what was wrong.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.func import functional_call
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import lstm_kernels
from lstm_kernels import LSTM, LSTMCell

T, N, I, H = 5, 2, 3, 4


def z(*shape, **kwargs):
    return torch.zeros(*shape, **kwargs)


def pair(*shape, **kwargs):
    return z(*shape, **kwargs), z(*shape, **kwargs)


X = z(T, N, I)
META = {"device": "meta"}

# What nn.LSTM itself says: type and message must be equal.
SAME_WORDS = {
    "1-D input": (z(I),),
    "4-D input": (z(1, 1, 1, I),),
    "0-D input": (z(()),),
    "float64 input": (X.double(),),
    "integer input": (X.long(),),
    "bool input": (X.bool(),),
    "float8 input": (X.to(torch.float8_e4m3fn),),
    "input_size": (z(T, N, I + 1),),
    "input_size, unbatched": (z(T, I + 1),),
    "2-D states for 3-D input": (X, pair(1, H)),
    "one 2-D state for 3-D input": (X, (z(1, N, H), z(1, H))),
    "3-D states for 2-D input": (z(T, I), pair(1, N, H)),
    "batch of h_0": (X, (z(1, N + 1, H), z(1, N, H))),
    "size of h_0": (X, (z(1, N, H + 1), z(1, N, H))),
    "layers of h_0": (X, (z(2, N, H), z(1, N, H))),
    "size of c_0": (X, (z(1, N, H), z(1, N, H + 1))),
    "batch of c_0": (X, (z(1, N, H), z(1, N + 1, H))),
    "size of h_0, unbatched": (z(T, I), pair(1, H + 1)),
    "h_0 elsewhere": (X, (z(1, N, H, **META), z(1, N, H))),
    "c_0 elsewhere": (X, (z(1, N, H), z(1, N, H, **META))),
    "input elsewhere": (X.to("meta"),),
    "no steps": (z(0, N, I),),
    "no steps, unbatched": (z(0, I),),
    "three states": (X, (*pair(1, N, H), z(1, N, H))),
}

# What nn.LSTM refuses with the same type but in words that do not say what was wrong.
SAME_TYPE = {
    "float64 h_0": (
        (X, (z(1, N, H).double(), z(1, N, H))),
        "hidden tensors are not the same dtype",
    ),
    "float64 c_0": (
        (X, (z(1, N, H), z(1, N, H).double())),
        "hidden tensors are not the same dtype",
    ),
    "integer states": ((X, pair(1, N, H, dtype=torch.long)), "not the same dtype"),
    "one tensor for hx": ((X, z(2, 1, N, H)), "hx must be a tuple"),
    "one state": ((X, (z(1, N, H),)), "index out of range"),
    "None states": ((X, (None, None)), "no attribute 'dim'"),
    "number for hx": ((X, 3), "object"),
    "None for input": ((None,), "no attribute"),
    "list for input": (([1.0],), "no attribute"),
    "array for input": ((np.zeros((T, N, I)),), "no attribute"),
    "array for h_0": ((X, (np.zeros((1, N, H)),) * 2), "no attribute"),
    "sparse input": ((X.to_sparse(),), "dense tensor"),
    "nested input": (
        (torch.nested.nested_tensor([z(5, I), z(4, I)], layout=torch.jagged),),
        "dense tensor, got nested tensor",
    ),
    "packed input_size": (
        (pack_padded_sequence(z(T, N, I + 1), [5, 3]),),
        "Expected 3, got 4",
    ),
    "packed batch of h_0": (
        (pack_padded_sequence(X, [5, 3]), pair(1, N + 1, H)),
        r"Expected hidden\[0\] size \(1, 2, 4\)",
    ),
    "packed size of c_0": (
        (pack_padded_sequence(X, [5, 3]), pair(1, N, H + 1)),
        r"Expected hidden\[0\] size \(1, 2, 4\)",
    ),
    "packed data of 3 dimensions": (
        (PackedSequence(z(8, 2, I), torch.tensor([2, 2, 2, 1, 1])),),
        "input must have 2 dimensions, got 3",
    ),
    "batch_sizes that increase": (
        (PackedSequence(z(8, I), torch.tensor([3, 5])),),
        "never increase",
    ),
    "batch_sizes beyond the data": (
        (PackedSequence(z(8, I), torch.tensor([5, 5])),),
        "sum to 10, but its data has 8 rows",
    ),
    "negative batch_sizes": (
        (PackedSequence(z(3, I), torch.tensor([4, -1])),),
        "positive and never increase",
    ),
    "int32 batch_sizes": (
        (PackedSequence(z(8, I), torch.tensor([5, 3], dtype=torch.int32)),),
        "1-D int64 tensor on the CPU",
    ),
    "unknown keyword": ((X, None, 1), "positional argument"),
}

# What nn.LSTM computes all the same, or refuses by another error than a user needs.
OURS = {
    "packed float64": (
        (pack_padded_sequence(X.double(), [5, 3]),),
        ValueError,
        "does not match weight dtype",
    ),
    "packed 2-D states": (
        (pack_padded_sequence(X, [5, 3]), pair(1, H)),
        RuntimeError,
        "should also be 3-D",
    ),
    "batch_sizes short of the data": (
        (PackedSequence(z(8, I), torch.tensor([5, 2])),),
        RuntimeError,
        "sum to 7, but its data has 8 rows",
    ),
    "no batch_sizes": (
        (PackedSequence(z(0, I), torch.tensor([], dtype=torch.long)),),
        RuntimeError,
        "sequence length to be larger than 0",
    ),
    "batch_sizes of zero": (
        (PackedSequence(z(3, I), torch.tensor([3, 0])),),
        RuntimeError,
        "positive",
    ),
    "indices of another batch": (
        (
            PackedSequence(
                z(8, I), torch.tensor([5, 3]), torch.tensor([0, 1]), torch.tensor([0, 1])
            ),
        ),
        RuntimeError,
        r"sorted_indices must have size \[5\]",
    ),
}

KEYWORDS = {
    "lengths: floating": ({"lengths": z(N)}, TypeError, "int64 or int32"),
    "lengths: bool": ({"lengths": z(N, dtype=torch.bool)}, TypeError, "int64 or int32"),
    "lengths: size": ({"lengths": torch.tensor([1, 2, 3])}, RuntimeError, r"size \[2\], got \[3\]"),
    "lengths: 2-D": ({"lengths": torch.tensor([[1, 2]])}, RuntimeError, r"got \[1, 2\]"),
    "lengths: negative": ({"lengths": torch.tensor([-1, 2])}, ValueError, "got -1 to 2"),
    "lengths: too long": ({"lengths": torch.tensor([5, 6])}, ValueError, "got 5 to 6"),
    "lengths: device": (
        {"lengths": torch.zeros(N, dtype=torch.long, **META)},
        RuntimeError,
        "lengths tensors are not at the same device",
    ),
    "lengths: list": ({"lengths": [1, 2]}, TypeError, "lengths must be a Tensor, got list"),
    "reset: numbers": ({"reset": z(T, N) + 0.5}, ValueError, "hold nothing but 0 and 1; got 0.5"),
    "reset: integers": ({"reset": z(T, N).long() - 1}, ValueError, "but 0 and 1; got -1"),
    "reset: NaN": ({"reset": z(T, N) + float("nan")}, ValueError, "but 0 and 1; got nan"),
    "reset: transposed": ({"reset": z(N, T).bool()}, RuntimeError, r"\[5, 2\] .* got \[2, 5\]"),
    "reset: 1-D": ({"reset": z(T).bool()}, RuntimeError, r"got \[5\]"),
    "reset: device": (
        {"reset": torch.zeros(T, N, dtype=torch.bool, **META)},
        RuntimeError,
        "reset tensors are not at the same device",
    ),
    "reset: list": ({"reset": [[True]]}, TypeError, "reset must be a Tensor, got list"),
}

WEIGHTS = {
    "weight_ih_l0": (z(4 * H, I + 1), "Expected 4, got 3"),
    "weight_hh_l0": (z(4 * H, H + 1), "are not those of an LSTM"),
    "bias_ih_l0": (z(4 * H - 1), r"Expected weight 2 of layer 0 to have size \[16\], got \[15\]"),
    "bias_hh_l0": (z(4 * H, 1), r"weight 3 of layer 0"),
    "weight_ih_l1": (z(4 * H, H + 1), r"weight 0 of layer 1 to have size \[16, 4\]"),
    "weight_hh_l1": (z(4 * H, H).double(), "parameter tensors are not the same dtype"),
    "bias_hh_l1": (z(4 * H, **META), "parameter tensors are not at the same device"),
}

CELL_SAME_WORDS = {
    "3-D input": (z(1, N, I),),
    "0-D input": (z(()),),
    "input_size": (z(N, I + 2),),
    "input_size, unbatched": (z(I + 2),),
    "3-D h": (z(N, I), (z(1, N, H), z(N, H))),
    "3-D c": (z(N, I), (z(N, H), z(1, N, H))),
    "batch of h": (z(N, I), (z(N + 1, H), z(N + 1, H))),
    "batch of c": (z(N, I), (z(N, H), z(N + 1, H))),
    "size of h": (z(N, I), pair(N, H + 1)),
    "size of c": (z(N, I), (z(N, H), z(N, H + 1))),
    "1-D states for 2-D input": (z(N, I), pair(H)),
    "2-D states for 1-D input": (z(I), pair(1, H)),
    "one state": (z(N, I), (z(N, H),)),
    "three states": (z(N, I), (z(N, H),) * 3),
}

CELL_SAME_TYPE = {
    "float64 input": ((z(N, I).double(),), "not the same dtype"),
    "integer input": ((z(N, I).long(),), "not the same dtype"),
    "float64 h": ((z(N, I), (z(N, H).double(), z(N, H))), "hidden tensors are not the same dtype"),
    "input elsewhere": ((z(N, I, **META),), "not at the same device"),
    "h elsewhere": ((z(N, I), (z(N, H, **META), z(N, H))), "not at the same device"),
    "one tensor for hx": ((z(N, I), z(2, N, H)), "hx must be a tuple"),
    "None states": ((z(N, I), (None, None)), "no attribute 'dim'"),
    "number for hx": ((z(N, I), 3), "object"),
    "None for input": ((None,), "no attribute"),
}


@pytest.fixture(params=[True, False], ids=["grad", "no grad"])
def no_work(monkeypatch, request):
    """Fail as soon as an op computes with bad input. Where one is called, it must refuse."""

    def refusing(op):
        def called(*arguments):
            op(*arguments)
            pytest.fail("an op computed with bad input")

        return called

    for name in ("_sequence_forward", "eager_cell_forward"):
        monkeypatch.setattr(lstm_kernels._ops, name, refusing(getattr(lstm_kernels._ops, name)))
    with torch.set_grad_enabled(request.param):
        yield


def raised_by(call):
    with pytest.raises(Exception) as info:  # noqa: PT011
        call()
    return info.value


@pytest.mark.parametrize("name", SAME_WORDS)
def test_same_error_as_nn_lstm(name, no_work):
    args = SAME_WORDS[name]
    theirs, mine = raised_by(lambda: nn.LSTM(I, H)(*args)), raised_by(lambda: LSTM(I, H)(*args))
    assert type(mine) is type(theirs)
    assert str(mine) == str(theirs)


@pytest.mark.parametrize("name", SAME_TYPE)
def test_same_type_of_error_as_nn_lstm_in_clear_words(name, no_work):
    args, words = SAME_TYPE[name]
    theirs = raised_by(lambda: nn.LSTM(I, H)(*args))
    with pytest.raises(type(theirs), match=words):
        LSTM(I, H)(*args)


@pytest.mark.parametrize("name", OURS)
def test_error_where_nn_lstm_has_none_or_a_cryptic_one(name, no_work):
    args, kind, words = OURS[name]
    with pytest.raises(kind, match=words):
        LSTM(I, H)(*args)


@pytest.mark.parametrize("name", KEYWORDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths_and_reset_are_checked(name, batch_first, no_work):
    kwargs, kind, words = KEYWORDS[name]
    x = X
    if batch_first:
        x = x.transpose(0, 1)
        kwargs = {
            key: value.mT if key == "reset" and getattr(value, "dim", lambda: 0)() == 2 else value
            for key, value in kwargs.items()
        }
    with pytest.raises(kind, match=words):
        LSTM(I, H, batch_first=batch_first)(x, **kwargs)


def test_lengths_and_reset_that_contradict_the_input(no_work):
    packed = pack_padded_sequence(X, [5, 3])
    for kwargs in ({"lengths": torch.tensor([5, 3])}, {"reset": z(T, N).bool()}):
        with pytest.raises(ValueError, match="padded input, not a PackedSequence"):
            LSTM(I, H)(packed, **kwargs)
    with pytest.raises(ValueError, match="no meaning for a bidirectional LSTM"):
        LSTM(I, H, bidirectional=True)(X, reset=z(T, N).bool())
    with pytest.raises(RuntimeError, match=r"Expected lengths of size \[1\]"):
        LSTM(I, H)(z(T, I), lengths=torch.tensor([2, 3]))


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_do_not_fit(name, no_work):
    weight, words = WEIGHTS[name]
    with pytest.raises(RuntimeError, match=words):
        functional_call(LSTM(I, H, 2), {name: weight}, (X,))


@pytest.mark.parametrize("name", CELL_SAME_WORDS)
def test_same_error_as_nn_lstm_cell(name, no_work):
    args = CELL_SAME_WORDS[name]
    theirs = raised_by(lambda: nn.LSTMCell(I, H)(*args))
    mine = raised_by(lambda: LSTMCell(I, H)(*args))
    assert type(mine) is type(theirs)
    assert str(mine) == str(theirs)


@pytest.mark.parametrize("name", CELL_SAME_TYPE)
def test_same_type_of_error_as_nn_lstm_cell_in_clear_words(name, no_work):
    args, words = CELL_SAME_TYPE[name]
    theirs = raised_by(lambda: nn.LSTMCell(I, H)(*args))
    with pytest.raises(type(theirs), match=words):
        LSTMCell(I, H)(*args)


@pytest.mark.parametrize(
    ("name", "weight", "words"),
    [
        ("weight_hh", z(4 * H, H + 1), r"weight_ih first dim must be 4 \* hidden_size = 20"),
        ("weight_hh", z(4 * H + 1, H), r"weight_hh first dim must be 4 \* hidden_size = 16"),
        ("weight_ih", z(4 * H, I + 1), "inconsistent input_size: got 3 expected 4"),
        ("bias_ih", z(4 * H - 1), r"Expected bias of size \[16\], got \[15\]"),
        ("weight_hh", z(4 * H, H).double(), "parameter tensors are not the same dtype"),
        ("bias_hh", None, "both b_ih and b_hh, or neither"),
    ],
)
def test_cell_weights_that_do_not_fit(name, weight, words, no_work):
    with pytest.raises(RuntimeError, match=words):
        functional_call(LSTMCell(I, H), {name: weight}, (z(N, I),))


def test_dtypes_and_devices_without_kernels(no_work):
    for dtype in (torch.complex64, torch.complex128):
        with pytest.raises(NotImplementedError, match=f"no kernel for {dtype}"):
            LSTM(I, H, dtype=dtype)(X.to(dtype))
        with pytest.raises(NotImplementedError, match=f"no kernel for {dtype}"):
            LSTMCell(I, H, dtype=dtype)(X[0].to(dtype))


@pytest.mark.parametrize("device", ["mps", "xpu"])
def test_devices_without_kernels(device, no_work):
    """The message says what to do. The tensors have a device, but no memory there."""
    mode = FakeTensorMode()

    def there(*shape):
        return FakeTensor(mode, z(*shape, device="meta"), torch.device(device, 0))

    weights = there(4 * H, I), there(4 * H, H)
    message = rf'no kernel for device {device}:0: .* with \.to\("cpu"\)'
    with mode:
        with pytest.raises(NotImplementedError, match=message):
            lstm_kernels.lstm_cell(there(N, I), (there(N, H), there(N, H)), *weights)
        with pytest.raises(NotImplementedError, match=message):
            lstm_kernels.lstm(there(T, N, I), None, weights)


def test_functional_form_counts_its_weights(no_work):
    w = list(LSTM(I, H).parameters())
    for weights, layers in ((w[:1], 1), (w, 3), (w + w, 1), ([], 1), (w, 0)):
        with pytest.raises(ValueError, match="expected 2, 3, 4 or 5 weights for each"):
            lstm_kernels.lstm(X, None, weights, num_layers=layers)
    with pytest.raises(RuntimeError, match="are not those of an LSTM"):
        lstm_kernels.lstm(X, None, [z(6, I), z(6, 1)])


def test_integers_cannot_be_differentiated(no_work):
    """torch itself refuses a gradient for integers; as input they are refused too."""
    with pytest.raises(RuntimeError, match="only Tensors of floating point"):
        X.long().requires_grad_()
    with pytest.raises(ValueError, match="does not match weight dtype"):
        LSTM(I, H)(X.to(torch.int8))


def test_states_of_another_number_of_layers(no_work):
    for rows in (1, 3):
        for lstm in (LSTM(I, H, 2), LSTM(I, H, 2).prepack()):
            with pytest.raises(RuntimeError, match=rf"size \(2, 2, 4\), got \[{rows}, 2, 4\]"):
                lstm(X, pair(rows, N, H))


def test_what_an_op_says_is_not_shown_where_nn_lstms_words_are():
    with torch.no_grad():
        wrong = raised_by(lambda: LSTM(I, H)(X, pair(1, N + 1, H)))
        wrong_cell = raised_by(lambda: LSTMCell(I, H)(X[0], pair(N + 1, H)))
    for error in (wrong, wrong_cell):
        assert error.__cause__ is None
        assert error.__suppress_context__


def test_out_of_memory_is_torchs_error():
    """A result of 2^60 bytes: refused as torch refuses it, without a crash."""
    weights = [z(4, 1), z(4, 1)]
    endless = z(1, 1, 1).expand(2**30, 2**28, 1)
    with pytest.raises(RuntimeError, match=r"not enough memory|allocate"), torch.no_grad():
        lstm_kernels.lstm(endless, None, weights)


def test_at_least_sixty_bad_inputs():
    tables = (SAME_WORDS, SAME_TYPE, OURS, KEYWORDS, WEIGHTS, CELL_SAME_WORDS, CELL_SAME_TYPE)
    assert sum(map(len, tables)) >= 60


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged], ids=str)
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype")
def test_nested_tensors(batch_first, layout, grad):
    x = torch.nested.nested_tensor([z(5, I), z(4, I)], layout=layout)
    message = "dense tensor, got nested tensor; .* pass a PackedSequence, or a padded tensor and le"
    with torch.set_grad_enabled(grad), pytest.raises(RuntimeError, match=message):
        LSTM(I, H, batch_first=batch_first)(x)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("batch_first", [False, True])
def test_states_with_the_batch_first_are_told_the_order(batch_first, which):
    """As a user of batch_first may expect; where N = D * L nobody can tell (see LSTM.forward)."""
    x = torch.zeros(N, T, I) if batch_first else X
    states = [z(4, N, H), z(4, N, H)]
    states[which] = z(N, 4, H)
    words = r"size \(4, 2, 4\), got \[2, 4, 4\]; states are \(num_layers \* num_directions, batch,"
    with pytest.raises(RuntimeError, match=rf"Expected hidden\[{which}\] {words}"):
        LSTM(I, H, 2, bidirectional=True, batch_first=batch_first)(x, tuple(states))
