"""What a search costs by itself, on simulated candidates: `python -m benchmarks.search_costs`.

- lag: makespan of repeatable searches against those that look at whatever is finished, 60
  candidates × 5 folds, durations lognormal (σ 0.5 of a candidate, 0.15 of its cells). Candidates
  are the same in both; what a sampler learns less from an older past is not in it.
- scale: 5,000 candidates × 5 folds on 256 slots: time of `take()`, which decides, suggests and
  hands out one step, and the process's memory; calls into which a full pass of Python's garbage
  collector falls stand apart. The sampler is a list: Optuna's time comes on top.

Writes `search_costs.json`.
"""

import gc
import heapq
import json
import resource
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.replay import WORKERS, Floats, Recorded, Settings, search
from orchestrator.search.search import Search

LAGS = (4, 8, 12, 16, 24, 32)
SAMPLERS = {"random": 16, "learning": 0}  # suggestions that it may make beforehand
ORDERS = 40
DRAWS = 400


def simulated(count: int, k: int, seed: int) -> tuple[Floats, Floats]:
    """Scores, (count, k), and durations: most candidates are near the best, some far below."""
    rng = np.random.default_rng(seed)
    levels = 0.85 - np.abs(rng.normal(0, 0.06, (count, 1)))
    scores = levels + rng.normal(0, 0.02, (1, k)) + rng.normal(0, 0.02, (count, k))
    return scores, rng.lognormal(0, 0.5, (count, 1)) * rng.lognormal(0, 0.15, (count, k))


def lags() -> list[dict[str, Any]]:
    """Mean makespan and released cells over simulated tables, by sampler, workers and lag, each
    relative to a search that is not repeatable.
    """
    rows: dict[tuple[str, int, str], list[tuple[float, int]]] = {}
    for order in range(ORDERS):
        scores, durations = simulated(60, 5, order)
        draws = np.random.default_rng(order).normal(0, 0.02, (*scores.shape, DRAWS))
        draws = (scores[..., None] + draws).astype(np.float32)
        for (sampler, foresees), workers in product(SAMPLERS.items(), WORKERS):
            for lag in (None, *LAGS):
                settings = Settings("paired", repeatable=lag is not None, lag=lag or 0)
                found, _, took = search(settings, scores, draws, durations, workers, foresees)
                released = len(found.standings.releases)
                rows.setdefault((sampler, workers, str(lag)), []).append((took, released))
    means = {key: np.mean(values, axis=0) for key, values in rows.items()}
    return [
        {
            **{"sampler": sampler, "workers": workers, "lag": lag},
            "makespan": float(took / means[sampler, workers, "None"][0]),
            "cells": float(cells / means[sampler, workers, "None"][1]),
        }
        for (sampler, workers, lag), (took, cells) in means.items()
    ]


def scale(count: int = 5000, k: int = 5, slots: int = 256) -> dict[str, float]:
    """Milliseconds of a processor for `take()`, and megabytes, over a whole search, lag 512."""
    scores, durations = simulated(count, k, 0)
    shared = np.random.default_rng(0).normal(0, 0.02, DRAWS).astype(np.float32)
    recorded = Recorded(count)
    machine = Search(
        Settings("paired", lag=2 * slots),
        k,
        [("0", 0)],
        recorded,
        recorded,
        lambda c, f: (float(scores[c, f]), np.float32(scores[c, f]) + np.roll(shared, c)),
        lambda number, *_: (str(number), number),
    )
    running: list[tuple[float, int, Any]] = []
    took, collecting, now = [], [0.0], 0.0
    while True:
        while len(running) < slots:
            before, full = time.process_time(), gc.get_stats()[2]["collections"]
            step = machine.take()
            collected = gc.get_stats()[2]["collections"] > full
            (collecting if collected else took).append(time.process_time() - before)
            if step is None:
                break
            heapq.heappush(running, (now + durations[step.candidate, step.fold], step.number, step))
        if not running:
            break
        now, _, step = heapq.heappop(running)
        machine.finished(step)
    milliseconds = 1000 * np.array(took)
    return {
        **{
            "candidates": count,
            "folds": k,
            "slots": slots,
            "steps": len(machine.standings.releases),
        },
        "take_ms_mean": float(milliseconds.mean()),
        "take_ms_99": float(np.quantile(milliseconds, 0.99)),
        "take_ms_most": float(milliseconds.max()),
        "take_ms_most_collecting": 1000 * max(collecting),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    found = {"scale": scale(), "lag": lags()}
    Path(__file__).with_name("search_costs.json").write_text(json.dumps(found, indent=1) + "\n")
    json.dump(found, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
