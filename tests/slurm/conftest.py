"""What all tests of this folder share: the lab, and the scenarios that run on it at the same time.

A scenario is a function of the lab that submits jobs and follows them to their end. A test module
names those it asks about in SCENARIOS; they are started together, a few at a time, since most of
their time is waiting. What disturbs whole nodes comes after all of them (test_loss.py).
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.lab import Lab, obstacle, running_lab
from tests.slurm.launcher import uninterrupted

AT_ONCE = 2  # more of them on two cores, and Ray gives up on starting its nodes, after 15 seconds
Outcomes = dict[object, Future[Any]]


@contextmanager
def followed(
    lab: Lab, scenarios: Mapping[object, Callable[[], object]], at_once: int
) -> Iterator[Outcomes]:
    """Run scenarios in threads; the jobs of one that fails are cancelled, so that they are in
    nobody's way.
    """

    def follow(scenario: Callable[[], object]) -> object:
        with lab.own_jobs_cancelled_on_error():
            return scenario()

    pool = ThreadPoolExecutor(at_once)
    outcomes: Outcomes = {
        name: pool.submit(follow, scenario) for name, scenario in scenarios.items()
    }
    try:
        yield outcomes
    finally:
        if not all(each.done() for each in outcomes.values()):
            lab.down()  # nobody waits for them any more; what still runs fails now
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A real SLURM with three nodes; the tests skip where there can be none."""
    if reason := obstacle():
        pytest.skip(reason)
    with running_lab() as lab:
        yield lab


@pytest.fixture(scope="session")
def jobs(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Outcomes]:
    """The outcomes of all scenarios of the chosen test modules; `.result()` waits, and raises what
    went wrong.
    """
    modules = [item.getparent(pytest.Module) for item in request.session.items]
    scenarios = [
        each for module in modules if module for each in getattr(module.obj, "SCENARIOS", ())
    ]
    with followed(lab, {each: partial(each, lab) for each in scenarios}, AT_ONCE) as outcomes:
        yield outcomes


@pytest.fixture
def finished(jobs: Outcomes) -> tuple[str, Path]:
    """The job and the folder of the small experiment, run over all three nodes without an
    interruption.
    """
    job, cwd = jobs[uninterrupted].result()
    return job, cwd
