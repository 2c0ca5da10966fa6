"""Distributions in candidates become spaces, whose defaults are stated candidates and whose values
become candidates; the resolved form gives the same search again.
"""

import json
import re
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from orchestrator.experiment import templates, yaml_text
from orchestrator.experiment.editor_schema import json_schema
from orchestrator.experiment.experiment_file import Experiment, parse_experiment
from orchestrator.experiment.search_config import Search
from orchestrator.experiment.suggestions import located
from trainables.core.errors import ExperimentError
from trainables.core.input_format import InputFormat
from trainables.training.metrics import HEADLINE

FOLDER = Path("/studies/first")
START = "name: study\ndata: {source: folder, path: images}\n"
RATE = "learning_rate: {loguniform: [1.0e-5, 1.0e-2]}"
MOMENTUM = "momentum: {uniform: [0.8, 0.99], default: 0.9, when: {optimizer: sgd}}"
SGD = f"optimizer: {{choice: [adam, sgd]}}, {MOMENTUM}"


def parse(candidates: str, more: str = "search: {candidates: 40}") -> Experiment:
    return parse_experiment(f"{START}{more}\ncandidates: {candidates}", "study.yaml", FOLDER)


def names(experiment: Experiment) -> list[str]:
    return [candidate.name for candidate in experiment.candidates]


# --- stated candidates ----------------------------------------------------------------------------


def test_the_default_of_a_space_is_a_stated_candidate_in_its_place() -> None:
    experiment = parse(
        f"[{{model: DenseNet121}}, {{model: TinyCNN, {RATE}, {SGD}}}, "
        f"{{model: TinyCNN, name: small, epochs: [3, 4], {RATE}}}]",
        "search: {candidates: 40}\ntraining: {learning_rate: 0.003}",
    )
    assert names(experiment) == [
        "DenseNet121",
        "TinyCNN optimizer=adam learning_rate=0.003",
        "small epochs=3",
        "small epochs=4",
    ]
    assert [space.candidate for space in experiment.spaces] == [1, 2, 3]
    assert experiment.spaces[0].defaults == {"optimizer": "adam", "learning_rate": 0.003}
    assert experiment.candidates[1].training.momentum is None
    assert [c.training.epochs for c in experiment.candidates[2:]] == [3, 4]


@pytest.mark.parametrize(
    ("stated", "default"),
    [
        (RATE, 2e-4),  # as the training section has it
        ("learning_rate: {loguniform: [1e-5, 1e-2], default: 1e-3}", 1e-3),
        ("optimizer: {choice: [lamb, adam]}", "adam"),
        ("optimizer: {choice: [lamb, lion]}", "lamb"),  # the first, where what holds is not listed
        ("head: {hidden: {choice: [64, null]}}", None),
        ("head: {hidden: {int: [10, 20], step: 5}}", 15),  # nothing holds: the middle
        ("clip_norm: {loguniform: [0.01, 100]}", 1.0),
        ("ema: {uniform: [0.9, 0.99]}", 0.945),
        ("schedule: {kind: cosine, warmup_epochs: {int: [0, 4]}}", 0),
        ("image_size: {choice: [32, 64]}", 64),  # the model's own
        ("loss: {kind: focal, gamma: {uniform: [0, 5]}}", 3.0),
    ],
)
def test_a_default_is_what_is_stated_or_holds(stated: str, default: object) -> None:
    more = "search: {candidates: 40}\ntraining: {loss: {kind: focal, gamma: 3.0}}"
    (space,) = parse(f"[{{model: TinyCNN, {stated}}}]", more).spaces
    assert space.parameters[0].default == default


def test_the_order_of_the_file_does_not_count() -> None:
    parts = ["input: {fit: pad, pad_value: {int: [0, 9], when: {loss.kind: focal}}}", RATE]
    parts += ["loss: {label_smoothing: {uniform: [0, 0.1]}, kind: {choice: [focal]}}", SGD]
    one, other = (
        parse(f"[{{name: a, model: TinyCNN, {', '.join(order)}}}]")
        for order in (parts, parts[::-1])
    )
    assert one.hash == other.hash
    order = [parameter.name for parameter in one.spaces[0].parameters]
    assert order.index("loss.kind") < order.index("input.pad_value")
    assert order.index("optimizer") < order.index("momentum")


# --- conditions -----------------------------------------------------------------------------------


def test_a_setting_counts_only_when_its_condition_holds() -> None:
    experiment = parse(f"[{{model: TinyCNN, {SGD}}}]")
    values = {"optimizer": "adam", "momentum": 0.95}
    assert experiment.suggested(0, values, 7).training.momentum is None
    values["optimizer"] = "sgd"
    assert experiment.suggested(0, values, 7).training.momentum == 0.95


def test_a_condition_on_a_grid_holds_at_some_of_its_points() -> None:
    experiment = parse(f"[{{model: TinyCNN, optimizer: [adam, sgd], {MOMENTUM}}}]")
    assert names(experiment) == ["TinyCNN optimizer=adam", "TinyCNN optimizer=sgd momentum=0.9"]
    (space,) = experiment.spaces
    assert (space.candidate, space.parameters[0].when) == (1, None)


def test_what_looks_at_a_setting_that_does_not_count_does_not_count() -> None:
    nested = "nesterov: {choice: [true, false], when: {optimizer: sgd}}"
    momentum = "momentum: {uniform: [0.8, 0.99], when: {nesterov: [true, false]}}"
    stated = f"optimizer: {{choice: [adam, sgd]}}, {nested}, {momentum}"
    (space,) = parse(f"[{{model: TinyCNN, {stated}}}]").spaces
    assert space.completed({"optimizer": "adam", "nesterov": True}) == {"optimizer": "adam"}
    assert set(space.completed({"optimizer": "sgd"})) == {"optimizer", "nesterov", "momentum"}


def test_another_kind_leaves_the_numbers_of_the_training_section_behind() -> None:
    text = "[{model: TinyCNN, loss: {kind: {choice: [focal, cross_entropy]}}}]"
    more = "search: {candidates: 9}\ntraining: {loss: {kind: focal, gamma: 3.0}}"
    for experiment in (parse(text, more), again(parse(text, more))):
        losses = [
            experiment.suggested(0, {"loss.kind": kind}, 7).training.loss
            for kind in ("focal", "cross_entropy")
        ]
        assert [loss.gamma for loss in losses] == [3.0, None]


# --- suggestions ----------------------------------------------------------------------------------


def test_a_suggestion_is_a_candidate_with_a_short_id() -> None:
    experiment = parse(f"[{{model: TinyCNN, epochs: 3, {RATE}, {SGD}}}]")
    values = {"learning_rate": 0.000312345, "optimizer": "sgd", "momentum": 0.8765432}
    candidate = experiment.suggested(0, values, 7)
    assert candidate.id == "s0007"
    assert candidate.name == "TinyCNN #7 optimizer=sgd learning_rate=0.0003123 momentum=0.8765"
    assert (candidate.training.learning_rate, candidate.training.momentum) == (0.0003123, 0.8765)
    assert (candidate.image_size, candidate.training.epochs) == (64, 3)
    assert experiment.suggested(0, values, 123456).id == "s123456"


def test_rounding_stays_within_the_range() -> None:
    experiment = parse("[{model: TinyCNN, dropout: {uniform: [0.12344, 0.99999], default: 0.5}}]")
    ends = [experiment.suggested(0, {"dropout": end}, 1) for end in (0.12344, 0.99999)]
    assert [candidate.training.dropout for candidate in ends] == [0.12344, 0.99999]


def test_suggestions_reach_models_and_arguments() -> None:
    experiment = parse(
        "[{model: {choice: ['my.models:build', TinyCNN]}, image_size: 32, arguments: {width: {int: "
        "[8, 16], step: 8, when: {model: 'my.models:build'}}, filters: {choice: [[8, 16], [16]], "
        "when: {model: 'my.models:build'}}}}]"
    )
    mine = experiment.suggested(
        0,
        {"model": "my.models:build", "arguments.width": 16, "arguments.filters": [16]},
        3,
    )
    assert mine.arguments == {"width": 16, "filters": [16]}
    assert mine.name == "my.models:build #3 filters=[16] width=16"
    assert experiment.suggested(0, {"model": "TinyCNN"}, 4).arguments == {}
    assert experiment.models == {"TinyCNN", "my.models:build"}
    assert experiment.import_path == str(FOLDER)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epochs": 5, "soup": 9}, "soup must be at most epochs, got 9 of 5"),
        ({"epochs": 5}, "s0007.soup must be a whole number from 2 to 10, got None"),
        ({"epochs": 4, "soup": 2}, "s0007.epochs must be a whole number from 5 to 30, got 4"),
        ({"epochs": 5.5, "soup": 2}, "got 5.5"),
        ({"epochs": True, "soup": 2}, "got True"),
    ],
)
def test_what_cannot_be_a_candidate_is_refused(values: dict[str, Any], said: str) -> None:
    experiment = parse("[{model: TinyCNN, epochs: {int: [5, 30]}, soup: {int: [2, 10]}}]")
    with pytest.raises(ExperimentError, match=re.escape(said)):
        experiment.suggested(0, values, 7)


# --- what a search may reach ----------------------------------------------------------------------


def test_input_formats_are_those_that_a_search_can_reach() -> None:
    experiment = parse(
        "[{model: ResNet50, image_size: 48}, {model: {choice: [TinyCNN, ResNet50]}, "
        "image_size: {int: [32, 64], step: 32, when: {model: TinyCNN}}, "
        "input: {fit: {choice: [stretch, pad]}, pad_value: {choice: [7], when: {input.fit: pad}}}}]"
    )
    assert experiment.input_formats == {
        InputFormat(48),
        *(InputFormat(size) for size in (32, 64, 224)),
        *(InputFormat(size, "pad", 7) for size in (32, 64, 224)),
    }


def test_weights_are_known_with_the_models_that_take_them() -> None:
    experiment = parse(
        "[{model: {choice: [TinyCNN, ResNet50]}, weights: {choice: [none, imagenet, w.keras], "
        "when: {model: ResNet50}}}]"
    )
    starts = {("ResNet50", each) for each in ("none", "imagenet", "/studies/first/w.keras")}
    assert experiment.starts == {("TinyCNN", "none"), *starts}


# --- the resolved form ----------------------------------------------------------------------------


def again(experiment: Experiment) -> Experiment:
    return parse_experiment(experiment.to_yaml(), "resolved.yaml", Path("/elsewhere"))


TRAINING = (
    "training: {epochs: 7, weights: a$$b.keras, augmentation: {flip: true}, "
    "loss: {kind: focal, gamma: 3.0}, schedule: {kind: cosine, final: 0.5}}"
)


@pytest.mark.parametrize(
    "stated",
    [
        f"{RATE}, {SGD}, dropout: [0.1, 0.2]",
        f"name: 'a: b', {RATE}",
        f"name: {'x' * 200}, dropout: [0.1, 0.2], {RATE}",
        "loss: {kind: {choice: [focal, cross_entropy]}, gamma: {uniform: [0, 5], when: {loss.kind: "
        "focal}}}, schedule: {kind: exponential}",
        "weights: {choice: [none, $$x/w.keras, w.weights.h5]}, "
        "frozen_epochs: {int: [1, 3], when: {weights: [$$x/w.keras]}}",
        "early_stopping: {choice: [null, 3]}, xla: {choice: [true, false]}, weights: none",
        "epochs: {int: [3, 23], step: 4}",
    ],
)
def test_the_resolved_form_gives_the_same_search(stated: str) -> None:
    experiment = parse(
        f"[{{model: DenseNet121, loss: {{kind: cross_entropy}}}}, {{model: ResNet50, {stated}}}]",
        f"search: {{cells: 99, racing: off, patience: 4}}\n{TRAINING}\nseeds: [1, 2]",
    )
    other = again(experiment)
    assert other.candidates == experiment.candidates
    assert (other.search, other.spaces) == (experiment.search, experiment.spaces)
    assert other.hash == experiment.hash
    space = experiment.spaces[0]
    for parameter in space.parameters:
        values = space.completed({parameter.name: parameter.probes[-1]})
        assert other.suggested(0, values, 9) == experiment.suggested(0, values, 9)


def test_the_resolved_form_keeps_odd_choices() -> None:
    choices = '["2e-4", "no", "010", null, true, 1.5, [1, [2]], "$x"]'
    experiment = parse(
        f"[{{model: 'm:b', image_size: 9, epochs: [1, 2], arguments: {{a: {{choice: {choices}, "
        "default: [1, [2]]}, b: [[1]]}}]"
    )
    assert list(experiment.spaces[0].parameters[0].choices) == json.loads(choices)
    assert "&id" not in experiment.to_yaml()
    assert again(experiment) == experiment.model_copy(update={"folder": Path("/elsewhere")})


def test_the_hash_knows_the_search_and_nothing_else_changes() -> None:
    plain, raced = parse("[{model: TinyCNN}, {model: ResNet50}]", ""), "search: {seed: 1}"
    assert (plain.search, plain.spaces) == (None, ())
    # As they were before there was a search.
    assert plain.hash == "645ac6e47c8fc2c1"
    assert not {"search", "spaces", "training"} & yaml_text.load(plain.to_yaml()).keys()
    searched = parse("[{model: TinyCNN}, {model: ResNet50}]", raced)
    assert searched.candidates == plain.candidates
    assert len({plain.hash, searched.hash, parse(f"[{{model: TinyCNN, {RATE}}}]").hash}) == 3
    assert again(searched).hash == searched.hash


def test_arguments_may_be_called_like_distributions() -> None:
    experiment = parse(
        "[{model: 'm:b', image_size: 9, arguments: {choice: [1, 2], int: 3, when: [[4]]}}]", ""
    )
    assert [c.arguments["choice"] for c in experiment.candidates] == [1, 2]
    assert experiment.candidates[0].arguments["when"] == [4]


# --- what ships -----------------------------------------------------------------------------------


def test_the_template_shows_a_search_that_works() -> None:
    text = templates.text("experiment.yaml")
    shown = text.replace("  # - model: DenseNet121 ", "  - model: DenseNet121 ")
    for name in ("learning_rate", "batch_size", "optimizer", "momentum"):
        shown = shown.replace(f"  #   {name}:", f"    {name}:")
    shown = re.sub(r"(?m)^# (search:|  \w+:)", r"\1", shown)
    experiment = parse_experiment(shown, "study.yaml", FOLDER)
    assert experiment.search == Search(candidates=40)
    assert [parameter.name for parameter in experiment.spaces[0].parameters] == [
        "batch_size",
        "optimizer",
        "learning_rate",
        "momentum",
    ]
    jsonschema.validate(json.loads(json.dumps(yaml_text.load(shown))), json_schema())


def test_objectives_are_metrics_of_the_tables() -> None:
    assert set(get_args(Search.model_fields["objective"].annotation)) < set(HEADLINE)


def test_earlier_runs_lie_where_the_file_says_and_stay_there() -> None:
    experiment = parse(
        f"[{{model: TinyCNN, {RATE}}}]", "search: {candidates: 9, from: [../a, b$$c]}"
    )
    assert experiment.search is not None
    assert experiment.search.from_ == ("/studies/a", "/studies/first/b$c")
    again = parse_experiment(experiment.to_yaml(), "again.yaml", Path("/elsewhere"))
    assert again.search == experiment.search


# --- candidates of other experiments --------------------------------------------------------------


def found(stated: str, *searched: str) -> tuple[int, dict[str, Any]] | None:
    """Where the first candidate lies in the spaces of another experiment."""

    def experiment(*candidates: str) -> Experiment:
        listed = "".join(f"  - {{{each}}}\n" for each in candidates)
        text = (
            f"name: a\ndata: {{source: phantom}}\nsearch: {{candidates: 99}}\ncandidates:\n{listed}"
        )
        return parse_experiment(text, "study.yaml", Path("/"))

    other = experiment(stated, "model: ResNet50").candidates[0]
    return located(experiment(*searched).spaces, other)


def test_a_candidate_of_another_experiment_lies_where_its_settings_say() -> None:
    rate = "learning_rate: {loguniform: [1.0e-5, 1.0e-2]}"
    small, large = f"model: TinyCNN, {rate}", f"model: ResNet50, {rate}"
    assert found("model: TinyCNN, learning_rate: 2.0e-5", small, large) == (
        0,
        {"learning_rate": 2e-5},
    )
    assert found("model: ResNet50, learning_rate: 2.0e-5, epochs: 7", small, large) == (
        1,
        {"learning_rate": 2e-5},
    )
    assert found("model: TinyCNN, learning_rate: 2.0e-2", small, large) is None
    # What counts there is set, and may be; what does not is not looked at.
    sgd = "optimizer: {choice: [adam, sgd]}, momentum: {uniform: [0.5, 0.8], default: 0.6, when: {optimizer: sgd}}"
    both = f"model: TinyCNN, {sgd}"
    assert found("model: TinyCNN, optimizer: adam", both) == (0, {"optimizer": "adam"})
    assert found("model: TinyCNN, optimizer: sgd, momentum: 0.7", both) == (
        0,
        {"optimizer": "sgd", "momentum": 0.7},
    )
    assert found("model: TinyCNN, optimizer: sgd, momentum: 0.9", both) is None
    assert found("model: TinyCNN, optimizer: lion", both) is None
    # A number by its value, whole or not; a flag is none.
    zero = "model: TinyCNN, dropout: {choice: [0, 0.5]}"
    assert found("model: TinyCNN, dropout: 0.0", zero) == (0, {"dropout": 0})
    build = "model: 'm:build', image_size: 32, arguments: {wide: {choice: [1, 2]}}"
    assert found("model: 'm:build', image_size: 32, arguments: {wide: true}", build) is None
    assert found("model: TinyCNN", build) is None
