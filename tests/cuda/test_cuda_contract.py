"""What a CUDA user relies on: streams, graphs, devices, no waiting, the same bits every time."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from gpu_support import PATHS, pair, random
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import lstm_kernels

pytestmark = pytest.mark.cuda
DTYPES = (torch.float32, torch.bfloat16)


@pytest.fixture(params=PATHS)
def path(request, monkeypatch):
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", request.param)
    monkeypatch.setattr(torch.backends.cudnn.rnn, "fp32_precision", "tf32")
    return request.param


def gradients(module, x, **options):
    module.zero_grad()
    output, _, states = module(x, return_gates=True, **options)
    (output.double().sum() + states.cell[0].double().square().sum()).backward()
    return [output.detach(), *states.cell, *(p.grad.clone() for p in module.parameters())]


def packed_gradients(module, packed):
    module.zero_grad()
    output = module(packed)[0].data
    output.double().square().sum().backward()
    return [output.detach(), *(p.grad.clone() for p in module.parameters())]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_same_bits_every_time(path, dtype):
    ours, _ = pair(dtype, 64, 200, 2, bidirectional=True)
    x = random(30, 33, 64, dtype=dtype)
    first = gradients(ours, x)
    for _ in range(5):
        assert all(map(torch.equal, gradients(ours, x), first))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_second_backward_gives_the_same_gradients(path, dtype):
    """Nothing that was saved is written to."""
    ours, _ = pair(dtype, 32, 128)
    x = random(12, 9, 32, dtype=dtype).requires_grad_()
    output = ours(x)[0].square().sum()
    first = torch.autograd.grad(output, [x, *ours.parameters()], retain_graph=True)
    second = torch.autograd.grad(output, [x, *ours.parameters()])
    assert all(map(torch.equal, first, second))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_nothing_waits_for_the_device(path):
    """Neither forward nor backward, ragged or not."""
    ours, _ = pair(torch.bfloat16, 32, 128)
    both_ways, _ = pair(torch.bfloat16, 32, 128, bidirectional=True)
    x = random(12, 9, 32, dtype=torch.bfloat16)
    packed = pack_padded_sequence(x, torch.tensor([12, 9, 9, 7, 5, 3, 3, 2, 1]))
    lengths = torch.randint(1, 13, (9,), device="cuda")
    reset = torch.rand(12, 9, device="cuda") < 0.2
    gradients(ours, x)
    packed_gradients(both_ways, packed)
    torch.cuda.set_sync_debug_mode("error")
    try:
        gradients(ours, x)
        packed_gradients(ours, packed)
        packed_gradients(both_ways, packed)
        gradients(ours, x, lengths=lengths)
        gradients(ours, x, reset=reset)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_work_is_queued_on_the_current_stream(path):
    """Input that another kernel of the same stream is still writing is waited for."""
    ours, _ = pair(torch.float32, 64, 128)
    x = random(20, 8, 64)
    expected = ours(x)[0]
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    results = []
    for stream in streams:
        with torch.cuda.stream(stream):
            late = torch.zeros_like(x)
            torch.cuda._sleep(20_000_000)
            late.copy_(x)
            results.append(ours(late)[0])
    torch.cuda.synchronize()
    assert all(torch.equal(got, expected) for got in results)


def test_threads_of_the_host_may_call_at_once(path):
    """Also where their kernels need different amounts of shared memory."""
    sizes = ((64, 256), (16, 1500), (3, 2000), (64, 512))
    modules = [pair(torch.bfloat16, 32, hidden)[0] for _, hidden in sizes]
    inputs = [random(6, batch, 32, dtype=torch.bfloat16) for batch, _ in sizes]
    expected = [module(x)[0].detach() for module, x in zip(modules, inputs, strict=True)]

    def run(k):
        with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream()):
            same = [torch.equal(modules[k](inputs[k])[0], expected[k]) for _ in range(50)]
        return all(same)

    torch.cuda.synchronize()
    with ThreadPoolExecutor(len(sizes)) as pool:
        assert all(pool.map(run, range(len(sizes))))


def test_streams_of_different_priority_do_not_starve_each_other(path):
    """Each launch needs most of the device, and other work holds some of it."""
    ours, _ = pair(torch.bfloat16, 128, 1024)
    x = random(20, 8, 128, dtype=torch.bfloat16)
    a = random(2048, 2048, dtype=torch.bfloat16)
    streams = [torch.cuda.Stream(priority=p) for p in (0, -1, 0, -1)]
    side = torch.cuda.Stream()
    with torch.no_grad():
        expected = ours(x)[0]
        torch.cuda.synchronize()

        def run(stream):
            with torch.no_grad(), torch.cuda.stream(stream):
                return all(torch.equal(ours(x)[0], expected) for _ in range(50))

        with ThreadPoolExecutor(len(streams)) as pool:
            results = pool.map(run, streams)
            with torch.cuda.stream(side):
                for _ in range(100):
                    a @ a
            assert all(results)
    torch.cuda.synchronize()


def test_other_kernels_may_hold_the_device(path):
    """Long work on other streams delays, and neither deadlocks nor changes a bit."""
    ours, _ = pair(torch.bfloat16, 128, 1024)
    x = random(50, 16, 128, dtype=torch.bfloat16)
    expected = ours(x)[0]
    a = random(4096, 4096, dtype=torch.bfloat16)
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    for _ in range(20):
        with torch.cuda.stream(side):
            a @ a
        assert torch.equal(ours(x)[0], expected)
    torch.cuda.synchronize()


@pytest.mark.parametrize("size", [(1, 1, 512), (20, 8, 256), (20, 64, 256)])
def test_a_captured_graph_computes_on_what_its_buffers_hold(path, size):
    T, batch, hidden = size
    ours, _ = pair(torch.bfloat16, hidden, hidden)
    buffer = random(T, batch, hidden, dtype=torch.bfloat16)
    other = random(T, batch, hidden, dtype=torch.bfloat16, seed=9)
    with torch.no_grad():
        expected = ours(other)[0]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            ours(buffer)  # cuBLAS makes its workspaces before capture
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = ours(buffer)[0]
        buffer.copy_(other)
        for _ in range(3):  # counters between blocks start from zero at every replay
            graph.replay()
            assert torch.equal(output, expected)


def test_a_captured_training_step(path):
    ours, _ = pair(torch.float32, 48, 96)
    x = random(10, 6, 48)
    with torch.no_grad():
        expected = ours(x)[0]
    graphed = torch.cuda.make_graphed_callables(ours, (x.clone(),))
    output, _ = graphed(x)
    output.sum().backward()
    got = [p.grad.clone() for p in ours.parameters()]
    assert torch.equal(output.detach(), expected)
    ours.zero_grad()
    reference = lstm_kernels.LSTM(48, 96, device="cuda")
    reference.load_state_dict(ours.state_dict())
    reference(x)[0].sum().backward()
    assert all(map(torch.equal, got, [p.grad for p in reference.parameters()]))


def test_a_captured_training_step_on_packed_rows(path):
    """Its gradients are those of the rows that the buffer holds at replay."""
    ours, _ = pair(torch.bfloat16, 32, 64, bidirectional=True)
    x = random(10, 6, 32, dtype=torch.bfloat16)
    packed = pack_padded_sequence(x, torch.tensor([10, 8, 8, 5, 2, 1]))
    other = random(*packed.data.shape, dtype=torch.bfloat16, seed=9)
    expected = packed_gradients(ours, PackedSequence(other, packed.batch_sizes))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        packed_gradients(ours, packed)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = ours(packed)[0].data
        captured = torch.autograd.grad(output.double().square().sum(), ours.parameters())
    packed.data.copy_(other)
    graph.replay()
    assert all(map(torch.equal, [output, *captured], expected))


def test_a_captured_cell():
    native = nn.LSTMCell(256, 512, device="cuda")
    ours = lstm_kernels.LSTMCell.from_native(native)
    x, h, c = random(1, 256), random(1, 512), random(1, 512, seed=2)
    with torch.no_grad():
        expected = ours(x, (h, c))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = ours(x, (h, c))
        graph.replay()
        assert all(map(torch.equal, got, expected))


def test_the_device_of_the_tensors_is_used():
    """With another device current; on every device there is."""
    for index in range(torch.cuda.device_count()):
        module = lstm_kernels.LSTM(8, 16, device=f"cuda:{index}")
        with torch.cuda.device((index + 1) % torch.cuda.device_count()):
            output = module(torch.ones(3, 2, 8, device=f"cuda:{index}"))[0]
            output.sum().backward()
        assert output.device.index == index
        native = module.to_native()(torch.ones(3, 2, 8, device=f"cuda:{index}"))[0]
        torch.testing.assert_close(output, native, rtol=0, atol=5e-3)


def test_tensors_on_two_devices_are_refused():
    module = lstm_kernels.LSTM(8, 16, device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        module(torch.ones(3, 2, 8))
    with pytest.raises(RuntimeError, match="device"):
        module(torch.ones(3, 2, 8, device="cuda"), (torch.ones(1, 2, 16), torch.ones(1, 2, 16)))
    with pytest.raises((RuntimeError, ValueError), match="device"):
        module(torch.ones(3, 2, 8, device="cuda"), lengths=torch.tensor([1, 2]))


def test_an_unknown_path_is_refused(monkeypatch):
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "fast")
    with pytest.raises(RuntimeError, match="'persistent' or 'step', got 'fast'"):
        lstm_kernels.LSTM(8, 16, device="cuda")(torch.ones(3, 2, 8, device="cuda"))


def test_a_forced_path_is_the_one_that_runs(path):
    """By the profiler's names of the kernels, and an error where it cannot."""
    ours, _ = pair(torch.bfloat16, 32, 128)
    x = random(12, 9, 32, dtype=torch.bfloat16)
    gradients(ours, x)
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities, acc_events=True) as profile:
        gradients(ours, x)
        torch.cuda.synchronize()
    names = [event.key for event in profile.key_averages()]
    for kernel in ("persistent_forward_kernel", "persistent_backward_kernel"):
        assert any(kernel in name for name in names) == (path == "persistent")
    if path == "persistent":
        with pytest.raises(RuntimeError, match="float64 has no tensor core instruction"):
            ours.double()(x.double())


def test_autocast_gives_its_dtype():
    """nn.LSTM gives float16 whatever autocast is set to."""
    ours, native = pair(torch.float32, 16, 32)
    x = random(5, 3, 16)
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cuda", dtype):
            output, wanted = ours(x)[0], native(x)[0]
        assert output.dtype == dtype
        torch.testing.assert_close(output.float(), wanted.float(), rtol=0, atol=2e-2)


def test_out_of_memory_is_an_error_and_nothing_else():
    ours, _ = pair(torch.float32, 64, 256)
    x = random(4, 8, 64)
    expected = ours(x)[0]
    total = torch.cuda.get_device_properties(0).total_memory
    huge = torch.empty(1, 1, 64, device="cuda").expand(total // 256 // 4, 8, 64)
    with torch.no_grad(), pytest.raises(RuntimeError, match="memory"):
        ours(huge, return_gates=True)
    torch.cuda.empty_cache()
    assert torch.equal(ours(x)[0], expected)


def test_many_steps(path):
    """T = 65,536: each half from the state of the other."""
    ours, _ = pair(torch.bfloat16, 16, 64)
    x = random(65536, 4, 16, dtype=torch.bfloat16)
    with torch.no_grad():
        output, last = ours(x)
        half, middle = ours(x[:32768])
        rest, end = ours(x[32768:], middle)
    assert output.isfinite().all()
    assert torch.equal(output[:32768], half)
    # c is handed over rounded to 16 bits, which a forgetting cell has lost after some steps
    torch.testing.assert_close(output[-1], rest[-1], rtol=0, atol=3e-2)
    torch.testing.assert_close(last, end, rtol=0, atol=6e-2)


def test_more_elements_than_32_bits_count(path):
    """T*N*H > 2^31: the last rows are those of a short run from the same state."""
    T, batch, hidden = 33_600, 64, 1024
    need = 40 << 30
    if torch.cuda.mem_get_info()[0] < need:
        pytest.skip("needs 40 GiB of free device memory")
    ours, _ = pair(torch.bfloat16, 8, hidden)
    x = random(1, batch, 8, dtype=torch.bfloat16).expand(T, batch, 8)
    with torch.no_grad():
        output, (h_n, _) = ours(x)
        assert output.numel() > 2**31
        assert torch.equal(output[-1], h_n[0])
        # the same input for ever settles, well before the 32-bit boundary, and stays settled
        torch.testing.assert_close(output[-1], output[1000], rtol=0, atol=3e-2)
        assert output[-1].abs().max() > 0.01
