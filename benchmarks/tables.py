"""`python -m benchmarks.tables FOLDER`: the README's table from the results in a folder.

`all_results` makes the tables of the documentation's benchmarks page.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README_RESULTS = RESULTS / "amd-epyc-family-25-model-17-2-cores"

# What people do without this library, what they do with it, and the group and peer that compare.
TODAY = [
    (
        "Loop over `nn.LSTMCell` to get every `c_t`",
        "`return_states=True`",
        "states",
        "nn.LSTMCell loop",
    ),
    (
        "Split and pad sequences where episodes end",
        "`reset=`",
        "reset",
        "nn.LSTM, splitting and padding",
    ),
    ("Pack padded batches for `nn.LSTM`", "`lengths=`", "lengths", "nn.LSTM, packing and padding"),
    ("Call `nn.LSTM` for one step at a time", "the same call", "single", "nn.LSTM"),
    ("Run `nn.LSTM` in bfloat16, float16 or float64", "the same call", "narrow", "nn.LSTM"),
    ("Train `nn.LSTM` in float32", "the same call", "training", "nn.LSTM"),
]

# The machines whose results are committed, the newest revision first.
MACHINES = {
    "amd-epyc-family-25-model-17-2-cores": "AMD EPYC, Zen 4 (AVX-512), 2 cores",
    "amd-epyc-family-25-model-17-2-cores-avx2": "The same machine, all libraries limited to AVX2",
    "amd-epyc-family-25-model-1-2-cores": "AMD EPYC, Zen 3 (AVX2), 2 cores",
    "intel-xeon-family-6-model-207-2-cores": "Intel Xeon, Emerald Rapids (AMX), 2 cores",
    "intel-xeon-family-6-model-207-16-cores": "The same processor, 16 cores",
}


def load(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of a folder by group.

    Raises:
        FileNotFoundError: the folder holds no results.
    """
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    if not any("summary" in result for result in results.values()):
        raise FileNotFoundError(f"no results in {folder}")
    return results


def readme_lines(folder: Path) -> Iterator[str]:
    """The README's table: per row of TODAY, the mean speed-up and the worst case."""
    results = load(folder)
    yield "| What you do today | With lstm_kernels | Speed-up | Worst case |"
    yield "| --- | --- | --- | --- |"
    for today, ours, group, name in TODAY:
        (peer,) = (p for p in results[group]["summary"] if p["peer"] == name)
        yield f"| {today} | {ours} | {peer['mean']:.1f}x | {peer['worst']:.2f}x |"


def summary_lines(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Per group and peer, the ratios over all rows."""
    yield "| group | against | geometric mean | worst | rows |"
    yield "| --- | --- | --- | --- | --- |"
    for group, result in results.items():
        for peer in result.get("summary", ()):
            yield (
                f"| {group} | {peer['peer']} | {peer['mean']:.2f}x "
                f"| {peer['worst']:.2f}x | {peer['rows']} |"
            )


def row_lines(result: dict[str, Any]) -> Iterator[str]:
    """Every row of a group."""
    if "ratios" not in result["rows"][0]:
        yield "| case | ours, saved | at the peak | nn.LSTM, saved | at the peak |"
        yield "| --- | --- | --- | --- | --- |"
        for row in result["rows"]:
            sizes = [row[who][k] for who in ("ours", "nn.LSTM") for k in ("saved", "peak")]
            cells = " | ".join(f"{size / 2**20:.1f} MiB" for size in sizes)
            yield f"| T={row['T']} N={row['N']} H={row['H']} | {cells} |"
        return
    peers = [peer["peer"] for peer in result["summary"]]
    yield f"| case | threads | ours | {' | '.join(peers)} | of bound |"
    yield "| --- " * (len(peers) + 4) + "|"
    for row in result["rows"]:
        line = [row["label"], str(row["threads"]), duration(row["seconds"]["ours"])]
        for peer in peers:
            ratio = row["ratios"].get(peer)
            line.append(
                f"{ratio['median']:.2f}x ({ratio['low']:.2f} to {ratio['high']:.2f})"
                if ratio
                else ""
            )
        line.append(f"{row['fraction']:.0%}" if row.get("fraction") else "")
        yield f"| {' | '.join(line)} |"


def isolated_lines(result: dict[str, Any]) -> Iterator[str]:
    """Calls that do not stand in a tight loop: mean and worst of seven shapes."""
    yield "| before each call, or at the same time | best | p99 | whole |"
    yield "| --- | --- | --- | --- |"
    for condition, found in result["conditions"].items():
        ratios = found["ratios"].values()
        line = " | ".join(f"{r['geomean']:.2f}x, {r['worst']:.2f}x" for r in ratios)
        yield f"| {condition} | {line} |"


def duration(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def all_results() -> str:
    """All committed results as Markdown, links as from docs/."""
    lines = []
    for name, title in MACHINES.items():
        results = load(RESULTS / name)
        lines += [f"## {title}", ""]
        lines += [f"* {fact}" for fact in facts(results)]
        lines += ["", *summary_lines(results), ""]
        if "isolated" in results:
            lines += ["**Calls outside a tight loop** (see above):", ""]
            lines += [*isolated_lines(results["isolated"]), ""]
        if (RESULTS / name / "training.png").exists():
            lines += [
                "Time of a training step of `nn.LSTM` over ours, shape by shape:",
                "",
                f"![Training step of nn.LSTM over ours](../benchmarks/results/{name}/training.png)",
                "",
            ]
        for group, result in results.items():
            if "summary" not in result:
                continue
            source = f"../benchmarks/results/{name}/{group}.json"
            lines += [f'??? note "{group}: {result["question"]}"', ""]
            lines += [f"    {line}" for line in row_lines(result)]
            lines += ["", f"    [{group}.json]({source})", ""]
    return "\n".join(lines)


def facts(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    measured = [result for result in results.values() if "summary" in result]
    machine = measured[0]["machine"]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}"
    yield ", ".join(f"{name} {machine[name]}" for name in ("torch", "onnxruntime", "python"))
    revisions = ", ".join(dict.fromkeys(f"`{each['machine']['revision']}`" for each in measured))
    command = results.get("training", measured[0])["command"]
    yield f"measured at revision {revisions}, command `{command}`"


def gpu_lines(folder: Path) -> list[str]:
    """Of a folder of gpu.py: a step of one layer, and how many times as long nn.LSTM takes."""
    rows = json.loads((folder / "gpu.json").read_text())["rows"]
    kinds = (
        ("one layer", "bfloat16"),
        ("one layer", "tf32"),
        ("fp16 where cuDNN is persistent", "float16"),
    )
    lines = [
        "| dtype | H | N | forward, us a step | nn.LSTM | training, us a step | nn.LSTM |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for question, dtype in kinds:
        of = [r for r in rows if r["question"] == question and r["dtype"] == dtype]
        for forward, training in zip(of[::2], of[1::2], strict=True):
            cells = [dtype, str(forward["H"]), str(forward["N"])]
            for row in (forward, training):
                cells += [f"{row['microseconds_per_step']:.2f}", f"{row['ratio']:.2f}x"]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def gpu_bounds(folder: Path) -> list[str]:
    """Of the same: what the steps are made of that are not three times as fast as nn.LSTM's."""
    results = json.loads((folder / "gpu.json").read_text())
    rows, floor = results["rows"], results["floor"]

    def kernels(row: dict[str, Any], name: str, who: str = "ours") -> float:
        """Microseconds in all kernels of a call whose name contains this."""
        of = row["kernels"].get(who, ())
        return float(sum(kernel["microseconds"] for kernel in of if name in kernel["name"]))

    def per_step(row: dict[str, Any], name: str, who: str = "ours") -> float:
        return kernels(row, name, who) / int(row["T"])

    def span(values: Iterable[float], digits: int = 2) -> str:
        few = sorted(value for value in values if value)
        return f"{few[0]:.{digits}f} to {few[-1]:.{digits}f}" if few else ""

    H, tile_rows, units = 1024, 32, 16
    large = {
        row["dtype"]: [per_step(row, f"persistent_{which}") for which in ("forward", "backward")]
        for row in rows
        if row["question"] == "one layer" and (row["N"], row["H"], row["training"]) == (64, H, True)
    }
    whole = large["bfloat16"]
    tiles = floor["microseconds of a product as the persistent kernels do it"]
    products = [
        tiles[f"H={H} bfloat16, {which}, {tile_rows} rows"]
        for which in ("forward of 16 units", "backward")
    ]
    exchange = floor["microseconds of an exchange, by blocks"]["132"]
    rate = floor["operations per microsecond of mma.sync, per multiprocessor"]["bfloat16"]
    fastest = 2 * 4 * H * units * tile_rows / rate
    parts = {
        "the kernel in bfloat16": whole,
        "alone, the products of 32 rows, with what they read from L2": products,
        "alone, an exchange between 132 blocks": [exchange] * 2,
        "what is left: cells, inputs, barriers": [
            a - b - exchange for a, b in zip(whole, products, strict=True)
        ],
        "the same products at the rate of `mma.sync`": [fastest] * 2,
        "the kernel in TF32": large["tf32"],
    }
    lines = ["| H = 1024, N = 64: us a step | forward | backward |", "| --- | --- | --- |"]
    lines += [f"| {part} | {a:.2f} | {b:.2f} |" for part, (a, b) in parts.items()]

    profiled = [row for row in rows if "kernels" in row and not row["training"]]
    small = [row for row in profiled if row["question"] == "never slower" and row["H"] == 40]
    in_full = [row for row in small if row["dtype"] == "float32"]
    others = [row for row in small if row["dtype"] != "float32"]

    def outside(of: list[dict[str, Any]], who: str) -> str:
        return span((row["milliseconds"][who] * 1e3 - kernels(row, "", who) for row in of), 0)

    theirs = [row for row in small if kernels(row, "blockPersist", "nn.LSTM")]
    lines += [
        "| H = 40, forward, T = 128 | the kernel, us a step | outside of kernels, us a call |",
        "| --- | --- | --- |",
        f"| ours, 16 bits and TF32 | {span(per_step(r, 'persistent_forward') for r in others)} "
        f"| {outside(others, 'ours')} |",
        f"| ours, float32 in full | {span(per_step(r, 'persistent_forward') for r in in_full)} "
        f"| {outside(in_full, 'ours')} |",
        "| cuDNN, all of a layer in one block | "
        f"{span(per_step(r, 'blockPersist_fp', 'nn.LSTM') for r in theirs)} "
        f"| {outside(theirs, 'nn.LSTM')} |",
    ]

    cells = [row for row in profiled if row["question"] == "single step in a graph"]
    steps = 20  # of a graph
    of_kernel = [kernels(row, "fused_forward") / steps for row in cells]
    gaps = [row["microseconds_per_step"] - k for row, k in zip(cells, of_kernel, strict=True)]
    lines += [
        "| one step in a CUDA graph, N = 1 | us a step |",
        "| --- | --- |",
        f"| the kernel | {span(of_kernel)} |",
        f"| until the next one starts | {span(gaps)} |",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    try:
        print("\n".join(readme_lines(options.folder)))
    except FileNotFoundError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
