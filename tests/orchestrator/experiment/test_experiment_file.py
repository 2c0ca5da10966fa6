"""One YAML file says everything: what it says is kept exactly, and what it cannot mean is
refused.
"""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from orchestrator.experiment import templates, yaml_text
from orchestrator.experiment.editor_schema import json_schema
from orchestrator.experiment.experiment_file import (
    Experiment,
    parse_experiment,
    read_experiment,
)
from tests.conftest import ROOT
from tests.trainables.core.test_ledger import OTHER_AUGMENTATION, OTHER_LATER
from trainables.core.errors import ExperimentError
from trainables.core.input_format import InputFormat
from trainables.core.training_config import Training
from trainables.core.training_sections import Augmentation

SHIPPED = sorted((ROOT / "experiments").glob("*.yaml"))
FOLDER = Path("/studies/first")

START = """
name: study
data: {source: folder, path: images}
"""


def parse(candidates: str, more: str = "", folder: Path = FOLDER) -> Experiment:
    return parse_experiment(f"{START}{more}\ncandidates: {candidates}", "study.yaml", folder)


def refusal(text: str) -> str:
    with pytest.raises(ExperimentError) as error:
        parse_experiment(text, "study.yaml", FOLDER)
    assert str(error.value).isprintable()
    return str(error.value)


# --- grids ----------------------------------------------------------------------------------------


def test_a_list_of_values_is_a_grid_in_the_order_of_the_file() -> None:
    experiment = parse("[{model: TinyCNN, batch_size: [8, 16], learning_rate: [1e-3, 1e-4]}]")
    found = [(c.training.batch_size, c.training.learning_rate) for c in experiment.candidates]
    assert found == [(8, 1e-3), (8, 1e-4), (16, 1e-3), (16, 1e-4)]
    assert [c.name for c in experiment.candidates][:2] == [
        "TinyCNN batch_size=8 learning_rate=0.001",
        "TinyCNN batch_size=8 learning_rate=0.0001",
    ]
    assert experiment.candidates[0].id == "tinycnn-batch_size-8-learning_rate-0.001"


def test_an_id_does_not_depend_on_the_other_candidates() -> None:
    alone = parse("[{model: TinyCNN, learning_rate: 1e-3}]").candidates[0]
    among = parse(
        "[{model: DenseNet121}, {model: TinyCNN, learning_rate: [1e-2, 1e-3]}]"
    ).candidates
    assert alone == among[2]
    assert len({c.id for c in among}) == 3


def test_a_named_grid_keeps_its_name_and_says_what_varies() -> None:
    names = [
        c.name
        for c in parse("[{name: small, model: TinyCNN, epochs: 3, dropout: [0.1, 0.5]}]").candidates
    ]
    assert names == ["small dropout=0.1", "small dropout=0.5"]
    names = [c.name for c in parse("[{name: any, model: [TinyCNN, DenseNet121]}]").candidates]
    assert names == ["any TinyCNN", "any DenseNet121"]
    assert parse("[{name: small, model: TinyCNN, dropout: [0.1]}]").candidates[0].name == "small"


def test_values_inside_augmentation_and_arguments_unfold_too() -> None:
    experiment = parse("[{model: TinyCNN, augmentation: {flip: [true, false], rotation: 5}}]")
    assert [c.training.augmentation for c in experiment.candidates] == [
        Augmentation(flip=True, rotation=5),
        Augmentation(flip=False, rotation=5),
    ]
    experiment = parse(
        "[{model: 'my.models:build', image_size: 64, arguments: {width: [8, 16], kind: a, rate: "
        "1e-2}}]"
    )
    assert [c.arguments for c in experiment.candidates] == [
        {"width": 8, "kind": "a", "rate": 0.01},
        {"width": 16, "kind": "a", "rate": 0.01},
    ]


def test_a_candidates_augmentation_changes_only_what_it_states() -> None:
    experiment = parse(
        "[{model: TinyCNN, augmentation: {zoom: 0.2}}]",
        "training: {augmentation: {flip: true, zoom: 0.1}}",
    )
    assert experiment.candidates[0].training.augmentation == Augmentation(flip=True, zoom=0.2)


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ("nesterov: true", "momentum and nesterov are for sgd, got optimizer adam"),
        ("momentum: 0.5, optimizer: lamb", "are for sgd, got optimizer lamb"),
        ("optimizer: sgd, nesterov: true, momentum: 0.0", "nesterov needs a momentum above 0"),
        ("optimizer: sgd, beta_1: 0.5", "beta_1 and beta_2 are not for sgd"),
        ("optimizer: lion, epsilon: 0.1", "epsilon is not for lion"),
        ("weight_decay: 0.1", "adam takes no weight_decay; choose adamw"),
        ("effective_batch: 40", "a multiple of batch_size, got 40 with batches of 16; choose 48"),
        ("schedule: {kind: cosine, warmup_epochs: 30}", "below the epochs that it is for, got 30"),
        ("frozen_epochs: 10, schedule: {warmup_epochs: 20}", "got 20 of 20"),
        ("schedule: {kind: one_cycle, warmup_epochs: 1}", "one_cycle has a warm-up of its own"),
        ("schedule: {final: 0.5}", "schedule.final is for cosine and exponential, got constant"),
        ("schedule: {kind: exponential, final: 0}", "must be above 0 for exponential"),
        ("schedule: {kind: cosine, patience: 2}", "are for plateau, got cosine"),
        ("sampling: class, class_weights: balanced", "both answer imbalance"),
        ("mix: {kind: mixup}, class_weights: balanced", "choose sampling: class"),
        ("layer_decay: 0.5, frozen_epochs: 30", "for epochs after frozen_epochs, got 30 of 30"),
        ("thaw_every: 2", "goes on from head-only epochs; state frozen_epochs"),
        ("soup: 31", "soup must be at most epochs, got 31 of 30"),
        ("input: {pad_value: 9}", "input.pad_value is for pad, got fit stretch"),
        ("schedule: {kind: plateau, patience: 30}, early_stopping: null", "it waits 30 of 30"),
        ("mix: {alpha: 0.5}", "mix.alpha is for mixup and cutmix"),
        ("loss: {gamma: 1.0}", "loss.gamma is for focal, got cross_entropy"),
        ("loss: {kind: focal, tau: 1.0}", "loss.tau is for logit_adjusted, got focal"),
        ("loss: {kind: logit_adjusted}, sampling: class", "keep one of them"),
        ("stochastic_depth: 0.1", "for residual branches, TinyCNN has none; remove it"),
        ("head: {pooling: mean}", "head.pooling must be"),
        ("schedule: {kind: plateau, patience: 5}", "it waits 5 epochs, early_stopping 5"),
    ],
)
def test_what_cannot_be_meant_together_is_one_line(stated: str, said: str) -> None:
    line = refusal(f"{START}candidates: [{{model: TinyCNN}}, {{model: TinyCNN, {stated}}}]")
    assert said in line
    assert line.count("candidates[1]") == 2
    assert "\n" not in line


@pytest.mark.parametrize(
    ("stated", "names"),
    [
        ("head: {hidden: 8}", "head"),
        ("backbone_dropout: 0.1, stochastic_depth: 0.1", "backbone_dropout, stochastic_depth"),
        ("input: {normalization: per_image}", "input.normalization"),
    ],
)
def test_a_builder_builds_its_model_itself(stated: str, names: str) -> None:
    mine = "candidates: [{model: 'my.models:build', image_size: 32}]"
    line = refusal(f"{START}training: {{{stated}}}\n{mine}")
    assert f"only models of the zoo take {names}, my.models:build is built as its" in line
    assert "\n" not in line


def test_a_candidate_may_change_one_part_of_the_head() -> None:
    experiment = parse(
        "[{model: TinyCNN, head: {hidden: [4, 8]}}]", "training: {head: {pooling: gem}}"
    )
    heads = [candidate.training.head for candidate in experiment.candidates]
    assert [(head.pooling, head.hidden) for head in heads] == [("gem", 4), ("gem", 8)]


def test_another_kind_keeps_what_belongs_to_none() -> None:
    experiment = parse(
        "[{model: TinyCNN, schedule: {kind: exponential}, loss: {kind: [cross_entropy, focal]}}]",
        "training: {schedule: {kind: cosine, final: 0.5, warmup_epochs: 1}, "
        "loss: {label_smoothing: 0.1}}",
    )
    for candidate in experiment.candidates:
        schedule = candidate.training.schedule
        assert (schedule.final, schedule.warmup_epochs) == (None, 1)
        assert candidate.training.loss.label_smoothing == 0.1


def test_names_say_of_what_section_a_number_is() -> None:
    text = "[{model: TinyCNN, loss: {kind: [focal], gamma: [1.0, 2.0]}, augmentation: {gamma: 1}}]"
    names = [candidate.name for candidate in parse(text).candidates]
    assert names == [f"TinyCNN loss=focal loss.gamma={gamma} gamma=1" for gamma in (1.0, 2.0)]


def test_a_candidate_may_change_what_contradicts_it() -> None:
    experiment = parse(
        "[{model: TinyCNN, optimizer: sgd}, {model: TinyCNN, schedule: {kind: one_cycle}, "
        "nesterov: false}]",
        "training: {nesterov: true, schedule: {kind: cosine, final: 0.1, warmup_epochs: 1}}",
    )
    first, second = (candidate.training for candidate in experiment.candidates)
    assert first.schedule.final == 0.1
    assert (second.schedule.final, second.schedule.warmup_epochs) == (None, 0)


def test_an_input_is_a_grid_and_a_candidate_changes_what_it_states() -> None:
    experiment = parse(
        "[{model: TinyCNN, input: {fit: [stretch, pad], depth: [8, 16]}}, "
        "{model: TinyCNN, input: {normalization: per_image}}]",
        "training: {input: {fit: pad, pad_value: 9}}",
    )
    assert [candidate.input_format for candidate in experiment.candidates] == [
        InputFormat(64),
        InputFormat(64, depth=16),
        InputFormat(64, "pad", 9),
        InputFormat(64, "pad", 9, depth=16),
        InputFormat(64, "pad", 9),
    ]
    assert len({candidate.id for candidate in experiment.candidates}) == 5
    assert experiment.candidates[4].training.input.normalization == "per_image"


OTHER = {
    "epochs": 7,
    "batch_size": 3,
    "optimizer": "sgd",
    "learning_rate": 0.5,
    **OTHER_LATER,
    "monitor": "auc",
    "early_stopping": None,
    "weights": "imagenet",
    "frozen_epochs": 2,
    "fine_tune_learning_rate": 1e-5,
    "dropout": 0.0,
    "batch_norm_momentum": 0.9,
    "class_weights": "balanced",
    "augmentation": OTHER_AUGMENTATION,
    "precision": "bfloat16",
    "xla": True,
}


@pytest.mark.parametrize("field", Training.model_fields)
def test_every_training_field_can_be_overridden(field: str) -> None:
    first = json.dumps({"model": "ResNet50", field: OTHER[field]})
    needed = {"momentum": "sgd", "nesterov": "sgd", "weight_decay": "lamb"}.get(field, "adam")
    experiment = parse(
        f"[{first}, {{model: ResNet50}}]",
        "training: {epochs: 11, learning_rate: 0.01, frozen_epochs: 1, batch_size: 8, "
        f"optimizer: {needed}}}",
    )
    changed, default = (c.training.model_dump() for c in experiment.candidates)
    assert changed.pop(field) == OTHER[field] != default.pop(field)
    assert changed == default


@pytest.mark.parametrize(
    ("stated", "values"),
    [
        ("[[8, 16]]", [[8, 16]]),
        ("[[8, 16], [16, 32]]", [[8, 16], [16, 32]]),
        ("[8, [8, 16]]", [8, [8, 16]]),
        ("[[]]", [[]]),
        ("[[[1, 2], [3]], [[1], [2, 3]]]", [[[1, 2], [3]], [[1], [2, 3]]]),
        ("[[a, null, true, 1.5]]", [["a", None, True, 1.5]]),
    ],
)
def test_a_list_in_a_list_is_a_value_for_a_builder(stated: str, values: list[object]) -> None:
    experiment = parse(
        f"[{{model: 'm:b', image_size: 32, arguments: {{filters: {stated}, kind: x}}}}]"
    )
    assert [c.arguments["filters"] for c in experiment.candidates] == values
    again = parse_experiment(experiment.to_yaml(), "again", FOLDER)
    assert again.hash == experiment.hash
    assert [c.arguments for c in again.candidates] == [c.arguments for c in experiment.candidates]


# --- what is equal and what is not ----------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_resolved_form_gives_the_same_experiment(path: Path) -> None:
    experiment = read_experiment(path)
    again = parse_experiment(experiment.to_yaml(), "resolved.yaml", path.parent)
    assert again == experiment
    assert again.hash == experiment.hash


def test_the_resolved_form_survives_odd_values() -> None:
    arguments = '{a: "2e-4", b: "no", c: "010", d: "1:30", e: "null", f: "x\\n\\"y\\"", g: true, h: 1e-9, i: ~, j: "é"}'
    data = (
        "{source: folder, path: \"it's a \\n 'path': #1\", classes: [no, yes, '2020-01-01', '1e5']}"
    )
    experiment = parse_experiment(
        f"name: odd\ndata: {data}\ncandidates: [{{model: 'm:b', image_size: 9, arguments: "
        f"{arguments}}}]",
        "odd",
        FOLDER,
    )
    assert experiment.candidates[0].arguments["a"] == "2e-4"
    assert experiment.data.classes == ("no", "yes", "2020-01-01", "1e5")
    again = parse_experiment(experiment.to_yaml(), "resolved.yaml", FOLDER)
    assert again == experiment


@pytest.mark.parametrize(
    "stated", ["weights: models/w.keras", "name: " + "x" * 200, "dropout: [0.1, 0.2]"]
)
def test_resolved_candidates_keep_their_names_and_paths(stated: str) -> None:
    experiment = parse(f"[{{model: TinyCNN, {stated}}}]")
    elsewhere = parse_experiment(experiment.to_yaml(), "resolved.yaml", Path("/elsewhere"))
    assert elsewhere.candidates == experiment.candidates
    assert elsewhere.data == experiment.data
    assert elsewhere.hash == experiment.hash


def test_the_hash_knows_what_matters() -> None:
    candidates = "[{model: TinyCNN}]"
    base = parse(candidates).hash
    assert (
        parse(candidates, "resources: {gpus_per_cell: 0.5, cpus_per_cell: 3, retries: 9}").hash
        == base
    )
    assert parse(candidates, "seeds: [0]\nfolds: {k: 5}").hash == base
    for more in ("seeds: [1]", "folds: {k: 4}", "folds: {seed: 1}", "training: {epochs: 3}"):
        assert parse(candidates, more).hash != base
    assert parse("[{model: TinyCNN, image_size: 65}]").hash != base
    absolute = START.replace("path: images", "path: /images")
    here, there = (
        parse_experiment(f"{absolute}candidates: {candidates}", "study.yaml", folder)
        for folder in (FOLDER, Path("/b"))
    )
    assert here.hash == there.hash


def test_relative_paths_start_at_the_folder_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert parse("[{model: TinyCNN}]").data.path == "/studies/first/images"
    at_home = (
        START.replace("images", "~/images") + "candidates: [{model: TinyCNN, weights: ~/w.keras}]"
    )
    experiment = parse_experiment(at_home, "study.yaml", FOLDER)
    assert experiment.data.path == "/home/me/images"
    assert experiment.candidates[0].training.weights == "/home/me/w.keras"
    nobody = parse_experiment(
        START.replace("images", "~nosuchuser/x") + "candidates: [{model: TinyCNN}]", "", FOLDER
    )
    assert nobody.data.path == "/studies/first/~nosuchuser/x"


@pytest.mark.parametrize("stated", ["$DATA/x", "${DATA}/x"])
def test_paths_may_name_variables(monkeypatch: pytest.MonkeyPatch, stated: str) -> None:
    monkeypatch.setenv("DATA", "/mnt/a $$ b")
    text = (
        START.replace("images", f"'{stated}'")
        + f"candidates: [{{model: TinyCNN, weights: '{stated}.keras'}}]"
    )
    experiment = parse_experiment(text, "study.yaml", FOLDER)
    assert experiment.data.path == "/mnt/a $$ b/x"
    assert experiment.candidates[0].training.weights == "/mnt/a $$ b/x.keras"
    for unset in ("delete", "empty"):
        monkeypatch.setenv("DATA", "") if unset == "empty" else monkeypatch.delenv("DATA")
        assert (
            parse_experiment(experiment.to_yaml(), "resolved.yaml", FOLDER).data.path
            == "/mnt/a $$ b/x"
        )
        assert "environment variables in paths must be set, $DATA in" in refusal(text)
    assert "write $$ for a dollar sign" in refusal(text)
    assert (
        parse("[{model: TinyCNN, weights: cost$$1.keras}]")
        .candidates[0]
        .training.weights.endswith("cost$1.keras")
    )


@pytest.mark.parametrize(
    "name", ["模型 A", "模型 B", "x" * 200, "../../etc/passwd", '[red] it\'s \\ "odd"']
)
def test_ids_are_safe_file_names(name: str) -> None:
    candidate = parse(f"[{json.dumps({'model': 'TinyCNN', 'name': name})}]").candidates[0]
    assert candidate.name == name
    assert set(candidate.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert len(candidate.id) <= 80
    assert not candidate.id.startswith((".", "-"))


def test_names_that_differ_in_lost_letters_get_ids_of_their_own() -> None:
    candidates = parse(
        "[{model: TinyCNN, name: 模型}, {model: DenseNet121, name: 试验}]"
    ).candidates
    assert candidates[0].id != candidates[1].id


# --- what ships -----------------------------------------------------------------------------------


def content(text: str) -> Any:
    return json.loads(json.dumps(yaml_text.load(text)))


@pytest.mark.parametrize(
    "text",
    [path.read_text("utf-8") for path in SHIPPED]
    + [templates.text("experiment.yaml"), templates.text("demo.yaml")],
    ids=[path.stem for path in SHIPPED] + ["init", "demo template"],
)
def test_whatever_ships_parses_and_fits_the_schema(text: str) -> None:
    parse_experiment(text, "shipped.yaml", FOLDER)
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(content(text), schema)
    # Other tools read YAML 1.1: what ships means the same to them.
    assert yaml.safe_load(text) == yaml_text.load(text)


def test_the_commented_defaults_of_the_template_are_the_defaults() -> None:
    text = templates.text("experiment.yaml")
    stated: dict[str, Any] = {}
    for line in text.split("training:")[1].split("candidates:")[0].splitlines():
        setting = line.removeprefix("  ").removeprefix("# ").split(" #")[0].strip()
        if ":" in setting and setting.split(":")[0] in Training.model_fields:
            stated |= yaml_text.load(setting)
    assert len(stated) > 8
    assert Training.model_validate(stated) == Training()


def test_the_demo_that_ships_twice_is_one() -> None:
    assert (ROOT / "experiments" / "demo.yaml").read_text("utf-8") == templates.text("demo.yaml")


def test_the_original_study_is_there_in_full() -> None:
    study = read_experiment(ROOT / "experiments" / "covid_qu_ex.yaml")
    assert [(c.model, c.image_size) for c in study.candidates] == [
        ("EfficientNetB0", 224),
        ("EfficientNetV2B0", 224),
        ("EfficientNetB7", 600),
    ]
    assert set(study.data.classes or ()) == {"COVID-19", "Normal"}
    assert study.data.images_per_class == 2000
    assert (study.folds.k, study.folds.test_set, study.folds.validation_fraction) == (5, 0.1, 0.1)
    for candidate in study.candidates:
        training = candidate.training
        assert (training.optimizer, training.learning_rate) == ("adam", 2e-4)
        assert (training.batch_size, training.epochs) == (16, 30)
        assert training.early_stopping is not None
        assert training.augmentation == Augmentation(flip=False, rotation=0, zoom=0)
        assert training.weights == "none"


def test_the_transfer_variant_starts_from_imagenet() -> None:
    study = read_experiment(ROOT / "experiments" / "covid_qu_ex_transfer.yaml")
    assert {c.training.weights for c in study.candidates} == {"imagenet"}
    assert {c.training.frozen_epochs for c in study.candidates} == {3}


# --- the schema agrees with the parser ------------------------------------------------------------

GOOD = [
    "{model: [TinyCNN, DenseNet121]}",
    "{model: TinyCNN, learning_rate: [1e-3, 1e-4], early_stopping: null}",
    "{model: TinyCNN, augmentation: {flip: [true, false], zoom: 0.1}}",
    "{model: 'a:b', image_size: 32, arguments: {width: [1, 2], kind: x}}",
]
BAD = [
    "{modle: TinyCNN}",
    "{model: TinyCNN, learning_rate: high}",
    "{model: TinyCNN, learning_rate: []}",
    "{model: TinyCNN, epochs: 0}",
    "{model: TinyCNN, epochs: true}",
    "{model: TinyCNN, augmentation: {flop: true}}",
    "{model: TinyCNN, augmentation: {zoom: [2]}}",
    "{model: 'a:b', image_size: 32, arguments: {width: {deep: 1}}}",
    "TinyCNN",
]


@pytest.mark.parametrize("candidate", GOOD)
def test_schema_and_parser_accept(candidate: str) -> None:
    parse(f"[{candidate}]")
    jsonschema.validate(content(f"{START}\ncandidates: [{candidate}]"), json_schema())


@pytest.mark.parametrize("candidate", BAD)
def test_schema_and_parser_refuse(candidate: str) -> None:
    refusal(f"{START}\ncandidates: [{candidate}]")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content(f"{START}\ncandidates: [{candidate}]"), json_schema())


# --- YAML -----------------------------------------------------------------------------------------


def test_numbers_are_numbers_however_they_are_written() -> None:
    assert yaml.safe_load("2e-4") == "2e-4"  # which is why the loader is not PyYAML's own
    found = [
        c.training.learning_rate
        for c in parse("[{model: TinyCNN, learning_rate: [2e-4, 2.0E-3, .5]}]").candidates
    ]
    assert found == [2e-4, 2e-3, 0.5]


def test_sections_can_share_settings() -> None:
    text = (
        START
        + "candidates:\n- &a {model: TinyCNN, epochs: 3}\n- {<<: *a, epochs: 4, name: longer}\n"
    )
    assert [c.training.epochs for c in parse_experiment(text, "study.yaml", FOLDER).candidates] == [
        3,
        4,
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\nname: b", "'name' stands twice (line 2)"),
        ("a: {b: 1,\n c: 2, b: 3}", "'b' stands twice (line 2)"),
        ("a: &x 1\nb: *y", "undefined alias 'y'"),
        ("a: [1, 2", "line 1"),
        ("a: 1\n b: 2", "line 2"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!timestamp soon", "explicit tag"),
        ("a: 1\n---\na: 2", "another document"),
        ("a: \x00", "special characters are not allowed"),
        ("[" * 4000, "nested too deeply"),
    ],
)
def test_bad_yaml_is_one_line(text: str, said: str) -> None:
    message = refusal(text)
    assert "not valid YAML" in message
    assert said in message
    assert "study.yaml" in message


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            START.replace("path:", "pth:") + "candidates: [{model: TinyCNN}]",
            "data.pth, did you mean 'path'?",
        ),
        (
            START.replace("data:", "dta:") + "candidates: [{model: TinyCNN}]",
            "unknown key dta, did you mean 'data'?",
        ),
        (START + "candidate: [{model: TinyCNN}]", "did you mean 'candidates'?"),
        (START + "folds: {K: 3}\ncandidates: [{model: TinyCNN}]", "folds.K, did you mean 'k'?"),
        (
            START + "training: {epoch: 3}\ncandidates: [{model: TinyCNN}]",
            "training.epoch, did you mean 'epochs'?",
        ),
        (
            START + "training: {augmentation: {rotate: 3}}\ncandidates: [{model: TinyCNN}]",
            "did you mean 'rotation'?",
        ),
        (
            START + "resources: {gpu_per_cell: 1}\ncandidates: [{model: TinyCNN}]",
            "did you mean 'gpus_per_cell'?",
        ),
        (
            START + "candidates: [{model: TinyCNN}, {model: TinyCNN, lerning_rate: 1}]",
            "candidates[1].lerning_rate",
        ),
        (
            START + "candidates: [{model: TinyCNN, augmentation: {flp: true}}]",
            "candidates[0].augmentation.flp",
        ),
        (START + "candidates: [{model: EficientNetB0}]", "did you mean 'EfficientNetB0'?"),
        # a key that is also the name of a union's branch
        (
            START.replace("path: images", "path: x, folder: y") + "candidates: [{model: TinyCNN}]",
            "unknown key data.folder",
        ),
        (
            START.replace("path: images", "path: x, int: y") + "candidates: [{model: TinyCNN}]",
            "unknown key data.int",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest(text: str, said: str) -> None:
    assert said in refusal(text)


def test_an_unknown_key_like_no_other_lists_them_all() -> None:
    message = refusal(START + "folds: {zzzzzz: 3}\ncandidates: [{model: TinyCNN}]")
    assert "there are 'k', 'repeats', 'test_set', 'validation_fraction', 'seed'" in message


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("folds: {k: 1}", "folds.k must be at least 2, got 1 (study.yaml: folds.k)"),
        (
            "folds: {test_set: some}",
            "folds.test_set must be a number or 'given', got 'some' (study.yaml: folds.test_set)",
        ),
        ("seeds: [0, one]", "seeds[1] must be a whole number, got 'one'"),
        ("seeds: [0, true]", "seeds[1] must be a whole number, got True"),
        (
            "training: {optimizer: adamax}",
            "training.optimizer must be 'adam', 'adamw', 'sgd', 'lion' or 'lamb', got 'adamax'",
        ),
        ("training: {learning_rate: .inf}", "training.learning_rate must be a finite number"),
        ("training: []", "training must be a mapping"),
    ],
)
def test_an_error_is_rule_value_and_place(more: str, said: str) -> None:
    assert said in refusal(f"{START}{more}\ncandidates: [{{model: TinyCNN}}]")


def test_a_long_value_is_cut_short() -> None:
    assert (
        len(refusal(f"{START}folds: {{k: {'x' * 5000}}}\ncandidates: [{{model: TinyCNN}}]")) < 250
    )


def test_a_hostile_file_name_stays_on_one_line() -> None:
    with pytest.raises(ExperimentError) as error:
        parse_experiment("- 1", "a\nb\x1b[31m.yaml", FOLDER)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "written", ["0", "007", "0o17", "1e3", "1.0", ".inf", "True", "false", "null", "~"]
)
def test_a_name_that_yaml_reads_otherwise_is_shown_as_it_is_written(written: str) -> None:
    for data in (f"classes: [a, {written}]", f"classes:\n  - a\n  - {written}", f"path: {written}"):
        place = "data.path" if "path" in data else "data.classes[1]"
        lines = "\n  ".join(["source: folder", *([] if "path" in data else ["path: x"]), data])
        message = refusal(f"name: a\ndata:\n  {lines}\ncandidates: [{{model: TinyCNN}}]")
        assert (
            f"{place} must be text: write it in quotes, '{written}', got {written} (study.yaml: "
            f"{place})" in message
        )
