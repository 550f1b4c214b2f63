"""`python -m benchmarks.tables FOLDER`: the README's table from the results in a folder.

`all_results` makes the tables of the documentation's benchmarks page.
"""

import argparse
import json
from collections.abc import Iterator
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
    machines = [result["machine"] for result in results.values() if "summary" in result]
    machine = machines[0]
    yield f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}"
    yield ", ".join(f"{name} {machine[name]}" for name in ("torch", "onnxruntime", "python"))
    revisions = ", ".join(dict.fromkeys(f"`{each['revision']}`" for each in machines))
    yield f"measured at revision {revisions}, command `{results['training']['command']}`"


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
