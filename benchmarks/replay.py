"""Searches replayed over recorded candidates: what a rule saves, and whether it keeps the best.

`python -m benchmarks.replay [--orders 200] [DATA …]` races the candidates of `replay.parquet` in
random orders of candidates and folds by the real `Search`, whose sampler is the recorded list,
writes `replay.json` (data sets that are not named stay) and draws `docs/images/racing.png`.

- saved: 1 − released cells ÷ cells of full cross-validation; a cancelled cell counts in full.
- kept: the chosen candidate is full cross-validation's winner or tied with it: neither the
  patients' bootstrap of the difference of their means (400 draws, paired) nor the corrected
  resampled t test over folds (Nadeau & Bengio 2003) says at 5 %, one-sided, that it is worse.
- regret: AUC of the winner minus AUC of the chosen one, means over all folds.
- makespan: against full cross-validation on as many workers; durations are lognormal, a factor of
  the candidate (σ 0.5) times one of the cell (σ 0.15).

A repeatable search has the same journal for any number of workers, so each order is searched once
and timed three times from its journal (`makespan`); `arrival` repeats `paired` without
`repeatable`, for which every number of workers is a search of its own.

How the rule is made, its bound and its priors, was chosen on simulated tables and on `CHOSEN_ON`
only; the other data sets were not looked at before.
"""

import argparse
import heapq
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

from orchestrator.search.resampling import resampled_scores
from orchestrator.search.search import Search

HERE = Path(__file__).parent
PICTURE = HERE.parent / "docs/images/racing.png"
CHOSEN_ON = ("breast cancer", "diabetes", "wine")
WORKERS = (1, 4, 16)
RULES = ("paired", "forgiving", "aggressive", "one fold")
ARRIVAL_ORDERS = 10  # of 200

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """AUC of each candidate's folds, (candidates, k), and resampled, (candidates, k, draws)."""

    data: str
    scores: Floats
    draws: NDArray[np.float32]


def tables(wanted: Sequence[str]) -> list[Table]:
    """The recorded data sets, in 5 and in 10 folds."""
    rows = pd.read_parquet(HERE / "replay.parquet")
    found = []
    for (data, k), part in rows.groupby(["data", "folds"]):
        if wanted and data not in wanted:
            continue
        shape = (part["candidate"].nunique(), k)
        scores, draws = np.empty(shape), np.empty((*shape, 400), np.float32)
        for (candidate, fold), cell in part.groupby(["candidate", "fold"]):
            odds = cell["score"].to_numpy(np.float64)
            scores[candidate, fold], draws[candidate, fold] = resampled_scores(
                cell["label"].to_numpy(np.int64),
                np.stack([-odds / 2, odds / 2], axis=1)[None],
                cell["group"].to_numpy(),
                "auc",
                ("no", "yes"),
                seed=int(fold),
            )
        found.append(Table(str(data), scores, draws))
    return found


# --- one search -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    racing: str
    candidates: int | None = None
    cells: int | None = None
    patience: int | None = None
    bound: float = 0.05
    repeatable: bool = True
    lag: int = 8
    finalists: None = None


@dataclass
class Recorded:
    """The list of candidates as sampler and journal of a search."""

    count: int
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    foresees: int = 0

    def suggest(self, number: int) -> tuple[int, dict[str, Any]] | None:
        return (0, {}) if number < self.count else None

    def recall(self, *_: Any) -> None: ...

    def told(self, *_: Any) -> None: ...

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows.extend(rows)


def search(
    settings: Settings,
    scores: Floats,
    draws: NDArray[np.float32],
    durations: Floats,
    workers: int = 1,
    foresees: int = 0,
) -> tuple[Search, list[Mapping[str, Any]], float]:
    """A search over a table, driven to its end: it, its journal and its makespan.

    Workers that would idle train what is likely to be asked for, as rayfold's do.
    """
    recorded = Recorded(len(scores), foresees=foresees)
    found = Search(
        settings,
        scores.shape[1],
        [("0", 0)],
        recorded,
        recorded,
        lambda candidate, fold: (float(scores[candidate, fold]), draws[candidate, fold]),
        lambda number, *_: (str(number), number),
    )
    released: dict[tuple[int, int], Any] = {}
    done: set[tuple[int, int]] = set()
    running: list[tuple[float, tuple[int, int]]] = []
    now = 0.0
    while found.ended is None:
        running = [(end, at) for end, at in running if not _unwanted(found, released, at)]
        heapq.heapify(running)
        while len(running) < workers:
            step, at = found.take(), None
            if step is not None:
                at = (step.candidate, step.fold)
                released[at] = step
                if at in done:
                    found.finished(step)
            elif found.ended is None:
                given = {at for _, at in running} | done
                at = next((each for each in found.likely() if each not in given), None)
            if at is None:
                break
            if at not in done and all(at != each for _, each in running):
                heapq.heappush(running, (now + durations[at], at))
        if running:
            now, at = heapq.heappop(running)
            done.add(at)
            if at in released:
                found.finished(released[at])
    return found, recorded.rows, now


def _unwanted(found: Search, released: Mapping[tuple[int, int], Any], at: tuple[int, int]) -> bool:
    """Whether a cell that runs is not to be finished."""
    if at in released:
        return found.cancelled(released[at])
    return at[0] < len(found.candidates) and found.candidates[at[0]].out


def makespan(rows: Sequence[Mapping[str, Any]], durations: Floats, workers: int) -> float:
    """How long the steps of a repeatable search's journal take on so many workers."""
    ends: list[float] = []  # of all releases
    busy: list[float] = []
    known = 0.0  # when the outcomes are there that were looked at so far
    for row in rows:
        if row["event"] == "finished":
            known = max(known, ends[row["release"]])
        elif row["event"] == "released":
            while busy and busy[0] <= known:
                heapq.heappop(busy)
            start = known if len(busy) < workers else heapq.heappop(busy)
            known = max(known, start)
            ends.append(start + durations[row["candidate"], row["fold"]])
            heapq.heappush(busy, ends[-1])
    return max(ends)


def one_fold(scores: Floats) -> list[Mapping[str, Any]]:
    """The journal of a search that gives everyone one fold, and the best one there all."""
    best = int(scores[:, 0].argmax())
    first = [{"event": "released", "candidate": c, "fold": 0} for c in range(len(scores))]
    seen = [{"event": "finished", "release": c} for c in range(len(scores))]
    rest = [{"event": "released", "candidate": best, "fold": f} for f in range(1, scores.shape[1])]
    return [*first, *seen, *rest]


# --- many -----------------------------------------------------------------------------------------


def tied(table: Table, chosen: int, winner: int) -> bool:
    """Whether nothing says that the chosen candidate is worse than the winner."""
    k = table.scores.shape[1]
    resampled = (table.draws[winner].astype(np.float64) - table.draws[chosen]).mean(axis=0)
    differences = table.scores[winner] - table.scores[chosen]
    error = np.sqrt(differences.var(ddof=1) * (1 / k + 1 / (k - 1)))
    by_folds = differences.mean() <= student.ppf(0.95, k - 1) * error
    return bool(by_folds and np.quantile(resampled, 0.05) <= 0)


def replay(table: Table, orders: int) -> list[dict[str, Any]]:
    """One row per rule: means over the orders."""
    outcomes: dict[str, list[list[float]]] = {}
    count, k = table.scores.shape
    _, all_rows, _ = search(Settings("off"), table.scores, table.draws, np.ones(table.scores.shape))
    for order in range(orders):
        rng = np.random.default_rng(order)
        candidates, folds = rng.permutation(count), rng.permutation(k)
        durations = rng.lognormal(0, 0.5, (count, 1)) * rng.lognormal(0, 0.15, (count, k))
        scores, draws = (a[candidates][:, folds] for a in (table.scores, table.draws))
        full = [makespan(all_rows, durations, workers) for workers in WORKERS]
        for rule in RULES:
            if rule == "one fold":
                rows, chosen = one_fold(scores), int(scores[:, 0].argmax())
            else:
                found, rows, _ = search(Settings(rule), scores, draws, durations)
                chosen = found.winner if found.winner is not None else 0
            spans = [makespan(rows, durations, w) / f for w, f in zip(WORKERS, full, strict=True)]
            row = _outcome(table, sum(r["event"] == "released" for r in rows), candidates[chosen])
            outcomes.setdefault(rule, []).append([*row, *spans])
        if order < ARRIVAL_ORDERS:
            settings = Settings("paired", repeatable=False)
            for workers, base in zip(WORKERS, full, strict=True):
                found, rows, span = search(settings, scores, draws, durations, workers)
                number = sum(r["event"] == "released" for r in rows)
                row = _outcome(table, number, candidates[found.winner or 0])
                outcomes.setdefault(f"arrival {workers}", []).append([*row, span / base])
    return [_summary(table, rule, np.array(values)) for rule, values in outcomes.items()]


def _outcome(table: Table, cells: int, chosen: int) -> list[float]:
    means = table.scores.mean(axis=1)
    winner = int(means.argmax())
    same = means[chosen] == means[winner]
    kept = same or tied(table, chosen, winner)
    return [1 - cells / table.scores.size, same, kept, means[winner] - means[chosen]]


def _summary(table: Table, rule: str, values: Floats) -> dict[str, Any]:
    mean = values.mean(axis=0)
    workers = WORKERS if len(mean) > 5 else (int(rule.split()[1]),)
    return {
        **{"data": table.data, "k": table.scores.shape[1], "rule": rule, "orders": len(values)},
        **{name: float(mean[i]) for i, name in enumerate(("saved", "same", "kept", "regret"))},
        "regret_95": float(np.quantile(values[:, 3], 0.95)),
        "makespan": {str(w): float(mean[4 + i]) for i, w in enumerate(workers)},
    }


# --- what it comes to -----------------------------------------------------------------------------


def overall(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over data sets and numbers of folds, of all and of those that chose nothing."""
    table = pd.DataFrame(rows)
    table = pd.concat(
        [table, table.pop("makespan").apply(pd.Series).add_prefix("makespan_")], axis=1
    )
    groups = {"all": table, "not chosen on": table[~table["data"].isin(CHOSEN_ON)]}
    return {
        name: json.loads(
            part.drop(columns=["data", "k", "orders"])
            .groupby("rule")
            .mean()
            .to_json(orient="index")
        )
        for name, part in groups.items()
        if len(part)
    }


def picture(rows: Sequence[Mapping[str, Any]]) -> None:
    """Saved × kept: a point per rule and table, their means emphasised."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    colours = dict(zip(RULES, ("#0072b2", "#009e73", "#d55e00", "#7f7f7f"), strict=True))
    figure, (kept, regret) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for rule, colour in colours.items():
        mine = [row for row in rows if row["rule"] == rule]
        for axes, name in ((kept, "kept"), (regret, "regret")):
            x, y = ([row[each] for row in mine] for each in ("saved", name))
            axes.scatter(x, y, s=22, color=colour, alpha=0.45, linewidth=0)
            axes.scatter(
                *(np.mean(x), np.mean(y)),
                s=150,
                color=colour,
                edgecolor="black",
                zorder=3,
                label=rule,
            )
    kept.axhline(0.97, color="0.6", linewidth=0.8, linestyle=":")
    regret.axhline(0.002, color="0.6", linewidth=0.8, linestyle=":")
    kept.set_ylabel("winner of full cross-validation, or tied with it")
    regret.set_ylabel("mean regret in AUC")
    for axes in (kept, regret):
        axes.axvline(0.6, color="0.6", linewidth=0.8, linestyle=":")
        axes.set_xlabel("cells saved")
        axes.spines[["top", "right"]].set_visible(False)
        for axis in (axes.xaxis, axes.yaxis) if axes is kept else (axes.xaxis,):
            axis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    kept.legend(frameon=False, loc="lower left")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", nargs="*")
    parser.add_argument("--orders", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2)
    wanted = parser.parse_args()
    path = HERE / "replay.json"
    before = json.loads(path.read_text())["tables"] if path.exists() else []
    with ProcessPoolExecutor(wanted.processes) as pool:
        found = tables(wanted.data)
        for table, rows in zip(
            found, pool.map(replay, found, [wanted.orders] * len(found)), strict=True
        ):
            key = (table.data, table.scores.shape[1])
            before = [row for row in before if (row["data"], row["k"]) != key] + rows
            before.sort(key=lambda row: (row["data"], row["k"]))
            text = json.dumps({"overall": overall(before), "tables": before}, indent=1)
            path.write_text(text + "\n")
            sys.stdout.write(f"{key}\n")
    picture(before)


if __name__ == "__main__":
    main()
