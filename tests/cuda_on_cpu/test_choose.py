"""The rule that picks a CUDA path, on figures of real devices."""

import pytest

H200 = {"multiprocessors": 132, "shared_bytes": 227 * 1024, "cooperative": True}
RTX_5090 = {"multiprocessors": 170, "shared_bytes": 99 * 1024, "cooperative": True}


@pytest.fixture(autouse=True)
def no_path_forced(monkeypatch):
    monkeypatch.delenv("LSTM_KERNELS_CUDA_PATH", raising=False)
    monkeypatch.delenv("LSTM_KERNELS_CUDA_PLAN", raising=False)


@pytest.fixture
def choose(machine):
    def choose(pass_="forward", dtype="bfloat16", T=512, N=16, H=512, P=None, D=1, tf32=True,
               device=H200, variant=""):  # fmt: skip
        return machine.choose(
            pass_, device["multiprocessors"], device["shared_bytes"], device["cooperative"],
            dtype, tf32, T, N, H, H if P is None else P, D, variant,
        )  # fmt: skip

    return choose


@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("H", [40, 129, 256, 512])
def test_small_batches_run_persistent(choose, pass_, dtype, H):
    for N in (1, 4, 8, 16):
        for tf32 in (True, False):
            assert choose(pass_, dtype, N=N, H=H, tf32=tf32).persistent


@pytest.mark.parametrize(
    "case",
    [
        {"dtype": "float64"},
        {"P": 100},
        {"T": 3},
        {"H": 2500},
        {"N": 256, "H": 1024},
        {"device": {**H200, "cooperative": False}},
        {"T": 2**31},
    ],
    ids=str,
)
def test_the_rest_runs_step_by_step(choose, case):
    assert not choose(**case).persistent


@pytest.mark.parametrize("pass_", ["forward", "backward"])
def test_a_variant_of_single_cells_runs_persistent(choose, pass_):
    for variant in ("none", "peephole", "mask"):
        for N in (1, 16):
            assert choose(pass_, N=N, variant=variant).persistent
            assert not choose(pass_, N=N, T=3, variant=variant).persistent
    for variant in ("masks of gates", "norm"):
        assert not choose(pass_, variant=variant).persistent


def test_a_step_of_a_variant_takes_more_launches(choose):
    """So the persistent kernels are worth it for larger products."""
    sizes = [(N, H) for N in (64, 128, 192, 256) for H in (512, 768, 1024, 1280, 1536)]
    chosen = {
        variant: {(N, H) for N, H in sizes if choose(N=N, H=H, variant=variant).persistent}
        for variant in ("", "none", "mask")
    }
    assert chosen[""] == chosen["none"] < chosen["mask"]


def test_the_peepholes_of_a_thread_take_shared_memory(choose):
    for pass_, numbers in (("forward", 3), ("backward", 6)):
        plain, peephole = (choose(pass_, variant=variant) for variant in ("none", "peephole"))
        assert peephole.shared_bytes - plain.shared_bytes == 256 * numbers * 4


def fits(choose, *case, **sizes):
    try:
        choose(*case, **sizes)
    except RuntimeError as error:
        if "W_hh does not fit" in str(error):
            return False
        raise
    return True


@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("device", [H200, RTX_5090], ids=["H200", "RTX 5090"])
@pytest.mark.parametrize("forced", [None, "persistent"])
def test_a_plan_fits_the_device_and_covers_the_layer(choose, pass_, device, forced, monkeypatch):
    if forced:
        monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", forced)
    plans = 0
    for dtype in ("bfloat16", "float32"):
        for N in (1, 8, 9, 63, 64, 256, 1000):
            for H in (1, 40, 129, 512, 777, 1024, 1500, 2048):
                for D in (1, 2):
                    if forced and not fits(choose, pass_, dtype, N=N, H=H, D=D, device=device):
                        continue
                    plan = choose(pass_, dtype, N=N, H=H, D=D, device=device)
                    if not plan.persistent:
                        assert not forced
                        continue
                    plans += 1
                    blocks = plan.slices * plan.groups * D
                    assert blocks <= device["multiprocessors"]
                    assert plan.shared_bytes <= device["shared_bytes"]
                    assert plan.slices * plan.units >= H > (plan.slices - 1) * plan.units
                    assert plan.tiles * plan.tile_rows >= N > (plan.tiles - 1) * plan.tile_rows
                    assert plan.groups <= plan.tiles
                    assert plan.tile_rows % 8 == 0
                    assert 8 <= plan.tile_rows <= 32
                    assert plan.workspace_bytes % 16 == 0
    assert plans > 50


# Of an H200, bfloat16: units per block, rows per tile, tiles per block, exchange.
PLANS = {
    ("forward", 256, 1): (8, 8, 1, "tagged"),
    ("forward", 256, 16): (8, 8, 1, "tagged"),
    ("forward", 256, 64): (16, 8, 1, "tagged"),
    ("forward", 512, 1): (8, 8, 1, "tagged"),
    ("forward", 512, 16): (8, 8, 1, "tagged"),
    ("forward", 512, 64): (16, 16, 1, "tagged"),
    ("forward", 1024, 1): (8, 8, 1, "tagged"),
    ("forward", 1024, 16): (16, 8, 1, "tagged"),
    ("forward", 1024, 64): (16, 32, 1, "counter"),
    ("backward", 512, 1): (16, 8, 1, "tagged"),
    ("backward", 512, 64): (16, 16, 1, "tagged"),
    ("backward", 1024, 64): (16, 32, 1, "counter"),
}


@pytest.mark.parametrize(("case", "expected"), PLANS.items(), ids=str)
def test_plans_of_the_sizes_that_matter(choose, case, expected):
    """A block works on one tile where it can: each costs a chain of waits from end to end."""
    pass_, H, N = case
    plan = choose(pass_, N=N, H=H)
    tiles = -(-plan.tiles // plan.groups)
    assert (plan.units, plan.tile_rows, tiles, plan.exchange) == expected


def test_a_block_has_no_second_tile_unless_it_must(choose):
    for pass_ in ("forward", "backward"):
        for dtype in ("bfloat16", "float32"):
            for H in (40, 129, 256, 512, 768, 1024):
                for N in (1, 8, 9, 16, 32, 63, 64):
                    for D in (1, 2):
                        plan = choose(pass_, dtype, N=N, H=H, D=D)
                        fewest = -(-N // 32)  # tiles of the batch at least
                        if plan.persistent and plan.slices * D * fewest <= 132:
                            assert plan.tiles == plan.groups


def test_the_environment_forces_a_plan(choose, monkeypatch):
    for text, units, rows, exchange in (
        ("16,24", 16, 24, None),
        ("8,8,counter", 8, 8, "counter"),
        ("16,32,tagged", 16, 32, "tagged"),
    ):
        monkeypatch.setenv("LSTM_KERNELS_CUDA_PLAN", text)
        plan = choose(N=64)
        assert (plan.units, plan.tile_rows) == (units, rows)
        assert exchange in (None, plan.exchange)
        assert choose("backward", N=64).tile_rows == rows
    for text in ("8", "fast", "8,8,slow", "8,8,tagged,1", "-8,8", "0,8"):
        monkeypatch.setenv("LSTM_KERNELS_CUDA_PLAN", text)
        with pytest.raises(RuntimeError, match="LSTM_KERNELS_CUDA_PLAN must be UNITS,ROWS"):
            choose()
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "persistent")
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PLAN", "12,8")
    with pytest.raises(RuntimeError, match="LSTM_KERNELS_CUDA_PLAN leaves no plan"):
        choose()


def test_the_environment_forces_a_path(choose, monkeypatch):
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "step")
    assert not choose().persistent
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "persistent")
    assert choose(T=1).persistent
    assert choose(N=256, H=1024).persistent
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "fast")
    with pytest.raises(RuntimeError, match="must be 'persistent' or 'step', got 'fast'"):
        choose()


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ({"dtype": "float64"}, "float64 has no tensor core instruction"),
        ({"P": 100}, "the layer projects"),
        ({"device": {**H200, "cooperative": False}}, "no cooperative launch"),
        ({"T": 2**31}, r"exceeds 2\^30"),
        ({"H": 2500}, "W_hh does not fit"),
    ],
    ids=str,
)
def test_a_forced_path_never_falls_back(choose, monkeypatch, case, reason):
    """Or a test of the persistent path could pass on the other one."""
    monkeypatch.setenv("LSTM_KERNELS_CUDA_PATH", "persistent")
    with pytest.raises(RuntimeError, match=f"LSTM_KERNELS_CUDA_PATH=persistent: .*{reason}"):
        choose(**case)
    monkeypatch.delenv("LSTM_KERNELS_CUDA_PATH")
    assert not choose(**case).persistent


def test_a_driver_older_than_the_runtime_is_named(machine):
    """Of the same major version, any driver runs any CUDA: that is what NVIDIA promises."""
    problem = machine.driver_problem
    for driver in (13000, 13010, 12900, 14000):
        assert problem(12090, driver) == ""
    assert problem(13000, 12040) == (
        "lstm_kernels was built with CUDA 13.0, and the driver of this machine runs CUDA 12.4 at "
        "most. Update the driver, or build lstm_kernels with CUDA 12: set CUDA_HOME to its toolkit"
    )
    assert problem(13010, 0).endswith("CUDA 13.1, and this machine has no NVIDIA driver")
