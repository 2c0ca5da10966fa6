"""`python -m benchmarks [rounds]`: run everything, print a table, write benchmarks/results.json."""

import json
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import cells, explain, grid, memory, store


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = [
        line.split(":", 1)[1].strip()
        for line in info.read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{package: version(package) for package in ("rayfold", "ray", "tensorflow", "keras")},
        "date": datetime.now(UTC).date().isoformat(),
    }


def table(results: dict[str, Any]) -> Table:
    g, b, m = results["grid"], results["grid"]["breakdown"], results["memory"]
    rows = [
        (
            f"sequential Keras script ÷ rayfold ({g['work']})",
            f"{g['sequential_over_rayfold']:.1f}×",
        ),
        ("plain Tune script ÷ rayfold", f"{g['plain_tune_over_rayfold']:.1f}×"),
        (
            "rayfold: wall time, and lower bound (pure steps ÷ workers)",
            f"{b['wall']:.0f} s, {b['lower_bound']:.0f} s",
        ),
        *(
            (f"rayfold: {name}, per worker", f"{seconds:.1f} s")
            for name, seconds in b["per_worker"].items()
        ),
        (
            f"steady state: share of the lower bound ({b['warm_cells']} warm cells)",
            f"{b['steady_state_share_of_bound']:.0%}",
        ),
        *(
            (f"overhead of a warm cell, {name}", f"{seconds:.2f} s")
            for name, seconds in b["warm_overhead_per_cell"].items()
        ),
        ("a no-op cell, between finishes", f"{results['noop']['seconds_per_cell']:.2f} s"),
        (
            "the driver after a tenth of these cells, and after all",
            " and ".join(f"{size:.0f} MB" for size in results["noop"]["driver_mb"]),
        ),
        ("decoding PNG ÷ reading the store", f"{results['store']['decode_over_read']:.0f}×"),
        (
            "private memory of a second reader",
            f"{results['store']['private_share_of_second_reader']:.1%} of the data",
        ),
        (
            f"private memory of a trial on {m['few']['store']:.0f} and on {m['many']['store']:.0f} "
            "MB of images",
            f"{mean(m['few']['private']):.0f} MB and {mean(m['many']['private']):.0f} MB",
        ),
    ]
    gradcam, export = results["explain"]["gradcam"], results["explain"]["export"]
    rows += [
        (
            f"Grad-CAM of all classes ÷ forward pass, {explain.MODEL} at {explain.SIZE} px: {way}",
            f"{times:.2f}×",
        )
        for way, times in gradcam["over_forward"].items()
        if way != "forward"
    ]
    rows.append(
        (
            "exported images (maps, Parquet, overlays) ÷ forward passes",
            f"{export['export_over_forward']:.0%}",
        )
    )
    drawn = Table(
        "measure",
        "result",
        title=f"{results['machine']['processor']}, {results['machine']['cores']} cores",
    )
    for row in rows:
        drawn.add_row(*row)
    return drawn


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    results: dict[str, Any] = {"machine": machine(), "store": store.measure()}
    results |= {"memory": memory.measure(), "noop": cells.noop_cells()}
    with tempfile.TemporaryDirectory() as folder:
        results["grid"] = grid.compare(Path(folder), rounds)
    results["explain"] = {"gradcam": explain.methods(), "export": explain.export()}
    Path(__file__).with_name("results.json").write_text(
        json.dumps(results, indent=1) + "\n", "utf-8"
    )
    Console(width=120).print(table(results))


if __name__ == "__main__":
    main()
