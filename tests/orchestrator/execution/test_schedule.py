"""Makespan and warmth of the schedule, in a simulation of workers with a clock of its own."""

import heapq
import random
import tracemalloc
from collections import Counter

import pytest

from orchestrator.execution.schedule import Schedule, WaitingCell

SETUP = 60.0


def simulate(
    waiting: list[WaitingCell], slots: int, seconds: dict[str, float]
) -> tuple[float, int, Counter[str]]:
    """Run all waiting on `slots` workers that keep their last two architectures; makespan, set-ups,
    times each cell ran.
    """
    schedule = Schedule(waiting, SETUP)
    free: list[tuple[float, int]] = [(0.0, worker) for worker in range(slots)]
    warm: list[list[str]] = [[] for _ in range(slots)]
    running: dict[int, WaitingCell] = {}
    ran: Counter[str] = Counter()
    end, setups = 0.0, 0
    while free:
        now, worker = heapq.heappop(free)
        end = max(end, now)
        if worker in running:
            cell = running.pop(worker)
            schedule.release(cell, seconds[cell.key])
        cell = schedule.take(warm[worker])
        if cell is None:
            continue
        ran[cell.key] += 1
        cold = cell.architecture not in warm[worker]
        setups += cold
        warm[worker] = [
            *(a for a in warm[worker] if a != cell.architecture),
            str(cell.architecture),
        ][-2:]
        running[worker] = cell
        heapq.heappush(free, (now + seconds[cell.key] + (SETUP if cold else 0), worker))
    return end, setups, ran


def grid(
    rng: random.Random, cells: dict[str, int], true_cost: dict[str, float], wrong_by: float
) -> tuple[list[WaitingCell], dict[str, float]]:
    """Cells with estimates that are off by a factor per architecture, and with the spread of early
    stopping.
    """
    waiting, seconds = [], {}
    for architecture, count in cells.items():
        factor = rng.uniform(1 / wrong_by, wrong_by)
        for index in range(count):
            key = f"{architecture}/{index}"
            waiting.append(WaitingCell(key, architecture, true_cost[architecture] * factor))
            seconds[key] = true_cost[architecture] * rng.uniform(0.6, 1.0)
    return waiting, seconds


@pytest.mark.parametrize("seed", range(5))
def test_two_thousand_cells_on_64_slots_end_within_ten_percent_of_the_ideal(seed: int) -> None:
    rng = random.Random(seed)
    cost = {"B0": 240.0, "V2B0": 300.0, "ResNet50": 420.0, "B4": 1500.0, "B7": 5400.0}
    cells = {"B0": 700, "V2B0": 600, "ResNet50": 400, "B4": 200, "B7": 100}
    waiting, seconds = grid(rng, cells, cost, wrong_by=2.0)
    rng.shuffle(waiting)
    tracemalloc.start()
    makespan, setups, ran = simulate(waiting, 64, seconds)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    ideal = sum(seconds.values()) / 64
    assert set(ran.values()) == {1}
    assert len(ran) == 2000
    assert makespan <= 1.10 * ideal, (makespan / ideal, setups)
    assert peak < 5e6


def test_few_short_cells_keep_their_workers_warm() -> None:
    waiting = [WaitingCell(f"{a}/{i}", a, 20.0) for a in ("A", "B") for i in range(5)]
    makespan, setups, _ = simulate(waiting, 2, {cell.key: 20.0 for cell in waiting})
    assert setups == 2
    assert makespan == SETUP + 5 * 20


def test_two_models_of_unlike_cost_get_a_worker_each() -> None:
    waiting = [
        WaitingCell(f"{a}/{i}", a, cost) for a, cost in (("A", 14.0), ("B", 8.0)) for i in range(5)
    ]
    _, setups, _ = simulate(waiting, 2, {cell.key: cell.cost for cell in waiting})
    assert setups <= 3  # B's worker may lend a hand at the end


def test_the_costliest_start_first() -> None:
    waiting = [
        *(WaitingCell(f"small/{i}", "small", 10.0) for i in range(20)),
        *(WaitingCell(f"big/{i}", "big", 900.0) for i in range(4)),
    ]
    schedule = Schedule(waiting, SETUP)
    first = [schedule.take() for _ in range(2)]
    assert [cell.architecture for cell in first if cell] == ["big", "big"]


def test_nobody_idles_while_cells_wait() -> None:
    schedule = Schedule([WaitingCell("a", "A", 1.0), WaitingCell("b", "B", 1.0)], SETUP)
    assert schedule.take(["A"]) is not None
    assert schedule.take(["A"]) is not None  # another architecture, but work
    assert schedule.take(["A"]) is None


def test_measured_cells_correct_the_estimate() -> None:
    waiting = [WaitingCell(f"a{i}", "A", 10.0) for i in range(3)] + [WaitingCell("b", "B", 10.0)]
    schedule = Schedule(waiting, SETUP)
    first = schedule.take()
    assert first is not None
    schedule.release(first, 40.0)
    assert [schedule.expected(cell) for cell in waiting] == [
        40.0
    ] * 4  # B has only its estimate and the pace of A


def test_a_failed_cell_waits_behind_the_others() -> None:
    schedule = Schedule([WaitingCell("a0", "A", 1.0), WaitingCell("a1", "A", 1.0)], SETUP)
    first = schedule.take()
    assert first is not None
    schedule.release(first, None)
    schedule.put_back(first)
    assert [cell.key for cell in (schedule.take(["A"]), schedule.take(["A"])) if cell] == [
        "a1",
        "a0",
    ]
    assert schedule.expected(first) == 1.0
