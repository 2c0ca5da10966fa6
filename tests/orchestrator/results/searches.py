"""Searches with a real sampler and journal over scores that a function gives; nothing is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.experiment.experiment_file import Experiment, parse_experiment
from orchestrator.results.searched import Searched, read_search
from orchestrator.search.journal import VERSION, Journal
from orchestrator.search.samplers import Sampler
from orchestrator.search.search import Search
from trainables.core.config import Candidate
from trainables.core.layout import RunLayout

HEAD = """
name: by-hand
data: {source: folder, path: images, classes: [ill, well]}
folds: {k: 4}
"""

#: A momentum only for sgd, a list among the choices.
CONDITIONAL = """
search: {candidates: 40, sampler: random}
candidates:
- name: written
  model: mine:build
  image_size: 32
  arguments: {filters: {choice: [[8, 16], [16, 32]]}}
  learning_rate: {loguniform: [1.0e-5, 1.0e-1], default: 1.0e-2}
  optimizer: {choice: [adam, sgd]}
  momentum: {uniform: [0.5, 0.99], when: {optimizer: sgd}}
"""

Score = Callable[[Candidate, int], float]


def near(candidate: Candidate, fold: int) -> float:
    """Best at a learning rate of 1e-3, a little worse with sgd, some noise that repeats."""
    training = candidate.training
    rng = np.random.default_rng([fold, int(1e9 * training.learning_rate) % 2**32])
    away = abs(np.log10(training.learning_rate) + 3)
    worse = 0.02 * (training.optimizer == "sgd")
    return float(0.95 - 0.06 * away - worse + 0.01 * fold + rng.normal(0, 0.005))


def search_by_hand(
    folder: Path, text: str = CONDITIONAL, score: Score = near, most: int = 10**6, lost: str = ""
) -> Searched:
    """What a search of this text leaves behind after `most` steps at most; `lost`: the id of a
    candidate whose first cell fails for good.
    """
    experiment = parse_experiment(HEAD + text, "by-hand.yaml", folder)
    assert experiment.search is not None
    layout = RunLayout(folder / "run")
    layout.root.mkdir(parents=True)
    layout.experiment.write_text(experiment.to_yaml())
    header: dict[str, Any] = {
        "event": "begun",
        "version": VERSION,
        "search": {},
        "spaces": "",
        "stated": "",
        "data": "",
        "folds": experiment.folds.k,
        "seeds": list(experiment.seeds),
    }
    sampler = Sampler(experiment.spaces, experiment.search.sampler, experiment.search.seed)
    shared = np.random.default_rng(0).normal(0, 0.01, (experiment.folds.k, 100))

    def scores(number: int, fold: int) -> tuple[float, Any]:
        value = score(_candidate(experiment, search, number), fold)
        drawn = np.roll(shared[fold], number) / 3 + shared[fold]
        return value, (value + drawn).astype(np.float32)

    search = Search(
        experiment.search,
        experiment.folds.k,
        [(each.id, each.id) for each in experiment.candidates],
        sampler if experiment.spaces else None,
        Journal.open(layout.journal, header),
        scores,
        lambda number, space, values: (
            experiment.suggested(space, values, number).id,
            repr(values),
        ),
    )
    for _ in range(most):
        release = search.take()
        if release is None:
            break
        failed = _candidate(experiment, search, release.candidate).id == lost
        search.finished(release, "it broke" if failed else None)
    found = read_search(layout, experiment)
    assert found is not None
    return found


def _candidate(experiment: Experiment, search: Search, number: int) -> Candidate:
    standing = search.candidates[number]
    if standing.space is None:
        return experiment.candidates[number]
    return experiment.suggested(standing.space, standing.values, number)
