"""What a search cannot mean is said in one line that names the rule, the value, the place and the
remedy; exit code 2, and nothing is written.
"""

import sys
from pathlib import Path

import pytest

from orchestrator import cli
from orchestrator.experiment import space_reading, yaml_text
from orchestrator.experiment.experiment_file import parse_experiment
from trainables.core.errors import ExperimentError

RATE = "learning_rate: {loguniform: [1.0e-5, 1.0e-2]}"
SGD = "optimizer: {choice: [adam, sgd]}"
SIX = "{uniform: [0.8, 0.99]"  # a momentum, left open for more

#: A setting of a TinyCNN, and what is said of it.
SETTINGS = {
    # ends and steps
    "low above high": ("dropout: {uniform: [0.5, 0.1]}", "dropout.uniform must be [low, high]"),
    "low is high": ("epochs: {int: [3, 3]}", "low below high, got [3, 3]; write the value 3 alone"),
    "ends alike": ("dropout: {uniform: [0.100001, 0.100002]}", "ends that differ in 4 digits"),
    "log of zero": (
        "learning_rate: {loguniform: [0, 1]}",
        "loguniform must begin above 0, since it has logarithms, got [0.0, 1.0]",
    ),
    "log below zero": ("learning_rate: {loguniform: [-1, 1]}", "begin above 0", "[-1.0, 1.0]"),
    "no step": ("epochs: {int: [2, 10], step: 0}", "epochs.step must be at least 1, got 0"),
    "step too large": ("epochs: {int: [2, 10], step: 9}", "step must be at most 8 for [2, 10]"),
    "step that misses": ("epochs: {int: [2, 10], step: 3}", "[2, 10] by 3; write [2, 8]"),
    "step of a range": ("dropout: {uniform: [0, 0.5], step: 1}", "step is for int, got uniform"),
    "fractions": ("epochs: {int: [1.5, 3]}", "epochs.int[0] must be a whole number, got 1.5"),
    "no pair": ("epochs: {int: [1, 2, 3]}", "epochs.int must be [low, high], got [1, 2, 3]"),
    "no end": ("learning_rate: {uniform: [0.1, .inf]}", "uniform[1] must be a finite number"),
    "no number": ("learning_rate: {uniform: [.nan, 1]}", "uniform[0] must be a finite number"),
    "text": ("learning_rate: {uniform: [low, 1]}", "uniform[0] must be a number, got 'low'"),
    "too wide": ("dropout: {uniform: [-1.0e+308, 1.0e+308]}", "dropout.uniform is too wide"),
    "too many digits": (f"epochs: {{int: [1, {10**30}]}}", "epochs.int must lie within"),
    # choices
    "no choice": ("optimizer: {choice: []}", "optimizer.choice must list at least one value"),
    "a choice twice": ("epochs: {choice: [3, 4, 3]}", "must list different values, got 3 twice"),
    "endless choices": (
        f"epochs: {{choice: {list(range(1, 1000))}}}",
        "epochs.choice may list 200 values, got 999; state a range",
    ),
    "a choice that is none": ("epochs: {choice: 3}", "epochs.choice must be a list, got 3"),
    "a number that is none": ("dropout: {choice: [.nan]}", "dropout.choice[0]", "finite number"),
    "a space in a choice": ("dropout: {choice: [{int: [0, 1]}]}", "dropout.choice[0] must be"),
    # keys
    "misspelt distribution": ("epochs: {itn: [1, 3]}", "epochs.itn, did you mean 'int'?"),
    "misspelt key": ("epochs: {int: [1, 3], stop: 2}", "epochs.stop, did you mean 'step'?"),
    "two distributions": (
        "dropout: {uniform: [0, 0.5], choice: [0.1]}",
        "dropout must be one distribution, got uniform and choice; remove one",
    ),
    "no distribution": ("dropout: {default: 0.1}", "dropout must state a distribution, one of"),
    "unknown setting": ("droput: {uniform: [0, 0.5]}", "candidates[0].droput", "'dropout'"),
    "unknown setting of a section": ("loss: {gama: {uniform: [0, 5]}}", "loss.gama", "'gamma'"),
    # places
    "in a list": (
        "dropout: [{uniform: [0, 0.5]}, 0.7]",
        "dropout must not list distributions",
        "write a candidate for each",
    ),
    "in a list of sections": (
        "loss: [{kind: focal, gamma: {uniform: [0, 5]}}]",
        "loss must not list distributions",
    ),
    "for a section": (
        "loss: {choice: [{kind: focal}]}",
        "loss must be a section, of whose settings each may be a distribution",
        "or several candidates",
    ),
    "for a name": ("name: {choice: [a, b]}", "candidates[0].name must be a constant"),
    # defaults
    "default outside": (
        "dropout: {uniform: [0, 0.5], default: 0.6}",
        "dropout.default must be a number from 0.0 to 0.5, got 0.6",
    ),
    "default between steps": (
        "epochs: {int: [2, 10], step: 4, default: 3}",
        "epochs.default must be a whole number from 2 to 10 by steps of 4, got 3",
    ),
    "default of no choice": ("optimizer: {choice: [adam], default: sgd}", "one of ['adam']"),
    "default that is no number": ("epochs: {int: [1, 3], default: true}", "got True"),
    "what holds is outside": (
        "learning_rate: {uniform: [0.1, 1]}",
        "learning_rate must include 0.0002, which holds where nothing is stated",
        "add default: 0.55",
    ),
    # what the setting itself does not allow
    "beyond the setting": (
        "learning_rate: {loguniform: [1.0e-5, 1.0e+9]}",
        "candidates[0].learning_rate must be at most 1000000.0, got 1000000000.0",
        "(study.yaml: candidates[0].learning_rate)",
    ),
    "an end too much": ("dropout: {uniform: [0, 1]}", "dropout must be below 1.0, got 1.0"),
    "a range for counts": ("epochs: {uniform: [1, 3]}", "epochs must be a whole number, got 1.0"),
    "a range for a switch": ("xla: {uniform: [0, 1]}", "xla must be true or false, got 0.5"),
    "a range for two values": ("input: {depth: {int: [8, 16]}}", "must be 8 or 16, got 9"),
    "an unknown choice": ("optimizer: {choice: [adam, sdg]}", "optimizer must be", "got 'sdg'"),
    "an unknown model": ("model: {choice: [TinyCNN, ResNet5]}", "did you mean 'ResNet50'?"),
    "too small for the model": (
        "image_size: {int: [8, 64], step: 8}",
        "image_size must not be 8 with what else is stated: image_size must be at least 16",
    ),
    "too small for one model": (
        "model: {choice: [TinyCNN, ResNet50]}, image_size: {int: [24, 64], step: 8, "
        "when: {model: ResNet50}}",
        "image_size must not be 24",
    ),
    "too many input formats": ("image_size: {int: [16, 512]}", "may reach 20 input formats"),
    "arguments for the zoo": ("arguments: {w: {int: [1, 3]}}", "TinyCNN takes none"),
    # what goes together
    "for one choice only": (
        "optimizer: {choice: [sgd, lion], default: sgd}, momentum: {uniform: [0.8, 0.99]}",
        "optimizer must not be 'lion' with what else is stated: momentum and nesterov are for sgd",
        "or say by `when` where a distribution counts",
    ),
    "not for the default": (
        f"{SGD}, momentum: {{uniform: [0.8, 0.99]}}",
        "candidates[0] at its defaults: momentum and nesterov are for sgd, got optimizer adam",
    ),
    # conditions
    "when nothing": (f"momentum: {SIX}, when: {{}}}}", "momentum.when must name a setting"),
    "when no mapping": (f"momentum: {SIX}, when: sgd}}", "momentum.when must be a mapping"),
    "when no value": (
        f"{SGD}, momentum: {SIX}, when: {{optimizer: []}}}}",
        "momentum.when.optimizer must list at least one value",
    ),
    "when itself": (
        f"momentum: {SIX}, when: {{momentum: 0.9}}}}",
        "momentum.when must not lead back to itself, got momentum → momentum",
    ),
    "in a circle": (
        "optimizer: {choice: [adam, sgd], when: {nesterov: true}}, "
        "nesterov: {choice: [true, false], when: {optimizer: sgd}}",
        "optimizer.when must not lead back to itself, got optimizer → nesterov → optimizer",
    ),
    "when an unknown setting": (
        f"momentum: {SIX}, when: {{optimiser: sgd}}}}",
        "unknown setting candidates[0].momentum.when.optimiser, did you mean 'optimizer'?",
    ),
    "when a section": (f"momentum: {SIX}, when: {{loss: focal}}}}", "did you mean 'loss."),
    "when a value that is no choice": (
        f"{SGD}, momentum: {SIX}, when: {{optimizer: sdg}}}}",
        "momentum.when.optimizer must be one of ['adam', 'sgd'], got 'sdg'",
    ),
    "when a constant is another": (
        f"momentum: {SIX}, when: {{optimizer: [adam, sgd]}}}}",
        "momentum.when.optimizer must be 'adam', as optimizer is, got 'sgd'",
    ),
    "when a range": (
        f"dropout: {{uniform: [0, 0.5]}}, momentum: {SIX}, when: {{dropout: 0.2}}}}",
        "momentum.when.dropout must look at a choice or an int, got uniform",
    ),
    "when never": (
        f"{SGD}, nesterov: {{choice: [true], when: {{optimizer: sgd}}}}, "
        f"momentum: {SIX}, when: {{optimizer: adam, nesterov: true}}}}",
        "momentum.when never holds, since its conditions exclude each other",
    ),
    # names
    "as a suggestion": (f"name: s0007, {RATE}", "as the search calls its own, got 's0007'"),
}

#: The rest of a file, the settings of its TinyCNN, and what is said of them.
FILES = {
    "no search": ("", RATE, "learning_rate is to be searched, and there is no search", "add"),
    "no budget": ("search: {}", RATE, "search must have a budget", "add candidates: 40"),
    "nothing to choose": ("search: {candidates: 9}", "epochs: 3", "something to choose from"),
    "no candidates": ("search: {candidates: 0}", RATE, "search.candidates must be at least 1"),
    "no hours": ("search: {hours: 0}", RATE, "search.hours must be above 0.0, got 0"),
    "no GPU hours": ("search: {gpu_hours: -1}", RATE, "search.gpu_hours must be above 0.0"),
    "no patience": ("search: {patience: 0}", RATE, "search.patience must be at least 1"),
    "only what is stated": ("search: {candidates: 1}", RATE, "must be at least 2", "got 1"),
    "not all that is stated": (
        "search: {candidates: 1}",
        "epochs: [1, 2]",
        "search.candidates must be at least 2, since it counts the 2 that are stated, got 1",
    ),
    "less than a candidate": ("search: {cells: 4}", RATE, "search.cells must be at least 5"),
    "misspelt key": ("search: {samplr: tpe}", RATE, "search.samplr, did you mean 'sampler'?"),
    "unknown sampler": ("search: {sampler: tpee}", RATE, "search.sampler must be", "got 'tpee'"),
    "half a bound": ("search: {candidates: 9, bound: 0.5}", RATE, "bound must be below 0.5"),
    "no lag": ("search: {candidates: 9, lag: 0}", RATE, "search.lag must be at least 1"),
    "unknown stopping": (
        "search: {candidates: 9, epoch_stopping: hyperband}",
        RATE,
        "must be",
        "got 'hyperband'",
    ),
    "nothing to halt": (
        "search: {candidates: 9, epoch_stopping: asha}",
        f"{RATE}, epochs: 3",
        "looks after 3 epochs",
        "got training.epochs 3",
    ),
    "misspelt from": (
        "search: {candidates: 9, form: [a]}",
        RATE,
        "search.form, did you mean 'from'?",
    ),
    "from one": ("search: {candidates: 9, from: a}", RATE, "search.from must be a list, got 'a'"),
    "from nothing": ("search: {candidates: 9, from: ['']}", RATE, "name run folders, got ''"),
    "from a number": ("search: {candidates: 9, from: [1]}", RATE, "search.from[0] must be text"),
    "from one twice": (
        "search: {candidates: 9, from: [runs/a, runs/b/../a]}",
        RATE,
        "search.from must name every run once, got",
        "runs/a' twice",
    ),
    "no repeat": ("folds: {repeats: 0}", RATE, "folds.repeats must be at least 1, got 0"),
    "no finalist": (
        "search: {candidates: 9, finalists: {top: 0, repeats: 3}}",
        RATE,
        "search.finalists.top must be at least 1, got 0",
    ),
    "more finalists than candidates": (
        "search: {candidates: 9, finalists: {top: 10, repeats: 3}}",
        RATE,
        "search.finalists.top must be at most 9, the candidates that there are, got 10",
    ),
    "more finalists than are stated": (
        "search: {finalists: {top: 3, repeats: 3}}",
        "epochs: [1, 2]",
        "search.finalists.top must be at most 2",
    ),
    "finalists without more repeats": (
        "search: {candidates: 9, finalists: {top: 3, repeats: 1}}",
        RATE,
        "search.finalists.repeats must be at least 2, got 1",
    ),
    "finalists with no more repeats than others": (
        "search: {candidates: 9, finalists: {top: 3, repeats: 2}}\nfolds: {repeats: 2}",
        RATE,
        "search.finalists.repeats must be above folds.repeats, 2, since it counts them, got 2",
    ),
    "endless finalists": (
        "search: {candidates: 1000, finalists: {top: 1000, repeats: 100}}",
        RATE,
        "search.finalists may come to 20,000 cells",
    ),
    "a list": ("search: [tpe]", RATE, "search must be a mapping, got ['tpe']"),
    "grid of a range": (
        "search: {sampler: grid}",
        RATE,
        "grid must have values to list, got a range of learning_rate",
    ),
    "endless grid": (
        "search: {sampler: grid}",
        "epochs: {int: [1, 1000000]}",
        "grid comes to more than 20,000 cells; add a budget",
    ),
    **{
        f"{sampler} {what}": (f"search: {{sampler: {sampler}, candidates: 9}}", stated, said)
        for sampler in ("gp", "cmaes")
        for what, stated, said in (
            ("with conditions", f"{SGD}, momentum: {SIX}, when: {{optimizer: sgd}}}}", "no condi"),
            ("of a grid", f"epochs: [1, 2], {RATE}", "must have one space, got 2"),
        )
    },
    "cmaes of choices": (
        "search: {sampler: cmaes, candidates: 9}",
        f"{RATE}, {SGD}",
        "cmaes takes numbers only, got choice for optimizer",
    ),
    "cmaes of one": ("search: {sampler: cmaes, candidates: 9}", RATE, "at least 2 ranges, got 1"),
    # where only a constant may stand
    "folds": ("folds: {k: {int: [2, 5]}}", RATE, "folds.k must be a constant", "candidates"),
    "seeds": ("seeds: {choice: [0, 1]}", RATE, "seeds must be a constant"),
    "training": (
        "training: {loss: {gamma: {uniform: [0, 5], default: 2}}}",
        RATE,
        "training.loss.gamma must be a constant, got {'uniform': [0, 5], 'default': 2}",
    ),
    "data": ("data: {source: phantom, seed: {int: [0, 5]}}", RATE, "data.seed must be a constant"),
    "name": ("name: {choice: [a, b]}", RATE, "name must be a constant"),
    "search": ("search: {candidates: {int: [5, 9]}}", RATE, "search.candidates must be a constant"),
}
CASES = {
    **{f"setting: {name}": ("search: {candidates: 40}", *case) for name, case in SETTINGS.items()},
    **{f"file: {name}": case for name, case in FILES.items()},
}


@pytest.mark.parametrize("case", CASES)
def test_a_search_that_cannot_be_meant(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more, stated, *words = CASES[case]
    sections = {"name": "name: study", "data": "data: {source: phantom}", more.split(":")[0]: more}
    model = "" if stated.startswith("model:") else "model: TinyCNN, "
    file = tmp_path / "study.yaml"
    lines = [*sections.values(), f"candidates: [{{{model}{stated}}}]"]
    file.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rayfold", "run", "study.yaml"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("rayfold: ")
    assert err[:-1].isprintable()
    assert "(study.yaml: " in err
    for word in words:
        assert word in err
    assert list(tmp_path.iterdir()) == [file]


def test_defaults_that_are_one_candidate_are_told_apart_by_the_user() -> None:
    text = f"name: a\ndata: {{source: phantom}}\nsearch: {{candidates: 9}}\ncandidates: [{{model: TinyCNN}}, {{model: TinyCNN, {RATE}}}]"
    with pytest.raises(ExperimentError, match=r"are the same, .* or give a space another default"):
        parse_experiment(text, "study.yaml", Path("/"))


def test_a_value_may_contradict_the_defaults_where_another_value_goes_with_it() -> None:
    # 5 epochs are too few for the default soup of 6, and fine for one of 2.
    text = "name: a\ndata: {source: phantom}\nsearch: {candidates: 9}\ncandidates: [{model: TinyCNN, epochs: {int: [5, 30]}, soup: {int: [2, 10]}}]"
    assert len(parse_experiment(text, "study.yaml", Path("/")).spaces) == 1


def test_endless_spaces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_reading, "_MOST_PROBED", 50)
    many = ", ".join(f"a{number}: {{int: [1, 9]}}" for number in range(101))
    for stated, said in (
        (f"arguments: {{{many}}}", "may have 100 distributions, got 101"),
        (f"dropout: {{choice: [0.1, 0.2]}}, epochs: {list(range(1, 30))}", "got 58"),
    ):
        text = f"name: a\ndata: {{source: phantom}}\nsearch: {{candidates: 99}}\ncandidates: [{{model: TinyCNN, {stated}}}]"
        with pytest.raises(ExperimentError, match=said):
            parse_experiment(text, "study.yaml", Path("/"))


def test_a_search_that_could_not_be_read_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_text, "MOST_VALUES", 1000)
    text = f"name: a\ndata: {{source: phantom}}\nsearch: {{candidates: 99}}\ncandidates: [{{model: TinyCNN, epochs: {list(range(1, 61))}, {RATE}, {SGD}}}]"
    with pytest.raises(ExperimentError, match="may come to 1,000 values, got more as grids"):
        parse_experiment(text, "study.yaml", Path("/"))


def test_as_many_stated_candidates_as_are_allowed_stay_readable_beside_a_space() -> None:
    rates = [number / 1e6 for number in range(1, 999)]
    text = f"name: a\ndata: {{source: phantom}}\nsearch: {{candidates: 9999}}\nfolds: {{k: 2}}\ntraining: {{mix: {{kind: mixup}}}}\ncandidates: [{{model: TinyCNN, {RATE}}}, {{model: ResNet50, learning_rate: {rates}, augmentation: {{flip: true}}}}]"
    experiment = parse_experiment(text, "study.yaml", Path("/"))
    assert len(experiment.candidates) == 999
