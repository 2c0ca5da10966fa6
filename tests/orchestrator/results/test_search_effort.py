"""What a search took and saved: accounts of tables whose sums are known."""

import pandas as pd
import pytest

from orchestrator.results.search_effort import Work, account


def cells(*rows: tuple[str, str, int, str, int, float]) -> pd.DataFrame:
    """candidate, architecture, fold, state, epochs, hours."""
    columns = ["candidate", "architecture", "fold", "state", "epochs", "seconds_total"]
    table = pd.DataFrame(rows, columns=columns).assign(device="CPU", taken_from="")
    table["seconds_total"] *= 3600
    return table


def test_what_was_not_needed_costs_what_its_like_did() -> None:
    table = cells(
        ("a", "small", 0, "done", 10, 1.0),
        ("a", "small", 1, "done", 20, 3.0),
        ("a", "small", 2, "stopped", 0, 0.0),  # its candidate's mean: 15 epochs, 2 hours
        ("b", "small", 0, "stopped", 6, 0.5),  # halted; its architecture's: 15, 2
        ("c", "large", 0, "done", 100, 10.0),
        ("d", "huge", 0, "stopped", 0, 0.0),  # all there are: 130 / 3, 14 / 3
        ("d", "huge", 1, "running", 3, 0.1),
    )
    effort = account(table, 3, [(4, 0.5 * 3600), (0, 0.0)])
    assert effort.run == Work(3, 130, 14)
    assert effort.broken_off == Work(2, 10, 1)
    assert effort.saved.cells == 3
    assert effort.saved.epochs == pytest.approx(15 + 15 + 130 / 3 - 10)
    assert effort.saved.hours == pytest.approx(2 + 2 + 14 / 3 - 1)
    assert effort.full.cells == 6
    assert effort.full.hours == pytest.approx(14 + 2 + 2 + 14 / 3)
    assert effort.unit == "device-hours"


def test_cells_of_others_and_further_repeats_are_told_apart() -> None:
    table = cells(
        ("a", "small", 0, "done", 10, 1.0),
        ("a", "small", 1, "done", 10, 2.0),
        ("a", "small", 2, "done", 10, 4.0),
        ("a", "small", 3, "stopped", 0, 0.0),
    )
    table.loc[1, "taken_from"] = "runs/earlier"
    effort = account(table.assign(device="NVIDIA H200"), 2)
    assert (effort.run.hours, effort.taken.hours, effort.further.hours) == (1, 2, 4)
    assert effort.saved == Work(0, 0, 0)
    assert effort.full == Work(2, 20, 3)
    assert effort.unit == "GPU-hours"


def test_nothing_is_estimated_from_nothing() -> None:
    effort = account(cells(("a", "small", 0, "stopped", 0, 0.0)), 2)
    assert (effort.run, effort.saved) == (Work(0, 0, 0), Work(1, 0, 0))
