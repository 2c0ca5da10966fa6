"""A search as Optuna sees it: states, values and parameters that are known beforehand."""

import math
from pathlib import Path

import numpy as np
import optuna
import pytest

from orchestrator.results.study import LEAST, Importance, importance, trials, write_study
from tests.orchestrator.results.searches import CONDITIONAL, near, search_by_hand
from trainables.core.config import Candidate
from trainables.core.errors import RunFolderError

TWO_SPACES = """
search: {candidates: 12, sampler: random, objective: log_loss, racing: "off"}
candidates:
- {name: small, model: TinyCNN, learning_rate: {loguniform: [1.0e-5, 1.0e-1]}, dropout: {uniform: [0, 0.5]}}
- {name: large, model: ResNet50, learning_rate: {loguniform: [1.0e-5, 1.0e-1]}, dropout: {uniform: [0, 0.2]}}
- {name: fixed, model: DenseNet121}
"""


def test_trials_say_what_became_of_each_candidate(tmp_path: Path) -> None:
    searched = search_by_hand(tmp_path, lost="s0004")
    found = {trial.user_attrs["candidate"]: trial for trial in trials(searched)}
    table = searched.table.set_index("candidate")
    assert list(found) == list(table.index)
    states = {"complete": "COMPLETE", "leads": "COMPLETE", "stopped": "PRUNED", "lost": "FAIL"}
    assert {n: t.state.name for n, t in found.items()} == table["state"].map(states).to_dict()
    leader = found[table.index[table["state"] == "leads"][0]]
    scores = leader.user_attrs["scores"]
    assert leader.value == pytest.approx(np.mean(scores))
    means = [np.mean(scores[:n]) for n in (1, 2, 3, 4)]
    assert leader.intermediate_values == pytest.approx(dict(zip((1, 2, 3, 4), means, strict=True)))
    lost = found["s0004"]
    assert (lost.value, lost.user_attrs["reason"]) == (None, "it broke")
    stopped = next(trial for trial in found.values() if trial.state.name == "PRUNED")
    assert stopped.value == pytest.approx(table.loc[stopped.user_attrs["candidate"], "estimate"])
    assert "ends best of" in stopped.user_attrs["reason"]
    sgd = {n for n, t in found.items() if t.params["optimizer"] == "sgd"}
    assert sgd == {n for n, t in found.items() if "momentum" in t.params} != set()
    assert found["written"].params == {
        "arguments.filters": "[8, 16]",
        "optimizer": "adam",
        "learning_rate": 0.01,
    }


def test_spaces_share_what_is_alike_and_losses_are_minimised(tmp_path: Path) -> None:
    searched = search_by_hand(tmp_path, TWO_SPACES, lambda c, fold: -near(c, fold))
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    assert write_study(searched, storage, "both") == 12
    study = optuna.load_study(study_name="both", storage=storage)
    assert study.direction.name == "MINIMIZE"
    assert study.best_value > 0
    written = {trial.user_attrs["candidate"]: trial.params for trial in study.trials}
    assert written["fixed"] == {}
    assert set(written["small"]) == {"space", "learning_rate", "small.dropout"}
    assert set(written["large"]) == {"space", "learning_rate", "large.dropout"}
    assert written["large"]["space"] == "large"


def test_a_search_at_work_has_running_trials(tmp_path: Path) -> None:
    states = {trial.state.name for trial in trials(search_by_hand(tmp_path, most=12))}
    assert "RUNNING" in states


def test_a_study_is_never_written_twice_nor_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = search_by_hand(tmp_path, most=6)
    storage = f"sqlite:///{tmp_path / 'study.db'}"

    def breaks(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(optuna.Study, "add_trials", breaks)
        with pytest.raises(RunFolderError, match="the disk is full"):
            write_study(searched, storage, "mine")
    count = write_study(searched, storage, "mine")
    with pytest.raises(RunFolderError, match=r"there is a study 'mine' .* already: .* --name"):
        write_study(searched, storage, "mine")
    assert len(optuna.load_study(study_name="mine", storage=storage).trials) == count


@pytest.mark.parametrize("storage", ["study.db", "sqlite:////nowhere/x.db", "mysql://a/b", ""])
def test_a_storage_that_cannot_be_used_is_one_line(tmp_path: Path, storage: str) -> None:
    searched = search_by_hand(tmp_path, most=2)
    with pytest.raises(RunFolderError, match="cannot use the storage") as caught:
        write_study(searched, storage, "mine")
    assert "\n" not in str(caught.value)


# --- importance -----------------------------------------------------------------------------------

PLAIN = """
search: {{candidates: {candidates}, sampler: random}}
candidates:
- name: written
  model: TinyCNN
  learning_rate: {{loguniform: [1.0e-5, 1.0e-1]}}
  dropout: {{uniform: [0.0, 0.5]}}
  class_weights: {{choice: [none, balanced]}}
"""


def by_rate_alone(candidate: Candidate, fold: int) -> float:
    return 0.9 - 0.05 * (math.log10(candidate.training.learning_rate) + 3) ** 2 + 0.01 * fold


def test_what_the_score_follows_from_is_important(tmp_path: Path) -> None:
    found = importance(search_by_hand(tmp_path, PLAIN.format(candidates=40), by_rate_alone))
    assert isinstance(found, Importance)
    assert found.method == "fANOVA"
    assert (found.candidates, found.estimated > 20) == (40, True)
    assert next(iter(found.shares)) == "learning_rate"
    assert found.shares["learning_rate"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1)


def test_what_counts_in_few_candidates_is_left_out(tmp_path: Path) -> None:
    found = importance(search_by_hand(tmp_path))
    assert isinstance(found, Importance)
    assert (found.method, found.left_out) == ("fANOVA", ("momentum",))


def test_conditions_are_taken_into_account(tmp_path: Path) -> None:
    text = CONDITIONAL.replace("candidates: 40", "candidates: 90, racing: aggressive")
    found = importance(search_by_hand(tmp_path, text))
    assert isinstance(found, Importance)
    assert found.method.startswith("PED-ANOVA")
    assert set(found.shares) == {"learning_rate", "optimizer", "momentum", "arguments.filters"}
    assert next(iter(found.shares)) == "learning_rate"


def test_of_few_candidates_there_is_a_sentence(tmp_path: Path) -> None:
    said = importance(search_by_hand(tmp_path, PLAIN.format(candidates=12), by_rate_alone))
    assert isinstance(said, str)
    assert f"12 candidates have a value, and with fewer than {LEAST}" in said
