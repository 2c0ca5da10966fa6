"""The house keeps its order: imports point downwards, the command line starts fast, tools find
nothing.
"""

import ast
import json
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.conftest import ROOT

BIN = Path(sys.executable).parent
HEAVY = ("ray", "tensorflow", "keras", "pandas", "matplotlib", "sklearn", "scipy", "cv2")
MODULES = sorted(
    path
    for package in ("cluster", "orchestrator", "rayfold", "trainables", "xai")
    for path in (ROOT / package).rglob("*.py")
)


def tool(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("lint-imports",)],
    ids=" ".join,
)
def test_tools_find_nothing(command: tuple[str, ...]) -> None:
    done = tool(BIN / command[0], *command[1:])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_are_small_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    assert len(text.splitlines()) <= 400
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_no_module_is_named_after_one_of_python() -> None:
    assert not {path.stem for path in MODULES} & set(sys.stdlib_module_names) - {
        "__init__",
        "__main__",
    }


# --- heavy imports --------------------------------------------------------------------------------

LOADED = """
import json, sys
{}
print("loaded", json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""


def loaded(code: str) -> set[str]:
    """The top-level modules that Python holds after some lines of code."""
    done = tool(sys.executable, "-c", LOADED.format(code))
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.rpartition("loaded ")[2]))


LIGHT = (
    "rayfold",
    "orchestrator",
    "orchestrator.cli",
    "orchestrator.experiment.experiment_file",
    "trainables.runtime.connection",
    "trainables.core.config",
    "trainables.core.errors",
    "trainables.core.files",
    "trainables.core.layout",
    "trainables.models.zoo",
    "orchestrator.cli.explain",
    "orchestrator.cli.plan",
    "orchestrator.cli.predict",
    "orchestrator.cli.report",
    "orchestrator.cli.status",
    "orchestrator.cli.run",
    "xai.methods.registry",
)
WITHOUT_BOTH = (
    "orchestrator.execution.cells",
    "orchestrator.splits.folds",
    "orchestrator.splits.leakage",
    "orchestrator.execution.plan",
    "orchestrator.results.run",
    "orchestrator.report.figures",
    "orchestrator.report.page",
    "trainables.core.ledger",
    "trainables.data.manifest",
    "trainables.data.store",
    "trainables.sources.phantom",
    "trainables.training.metrics",
)


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [(LIGHT, HEAVY), (WITHOUT_BOTH, ("ray", "tensorflow", "keras"))],
    ids=["nothing heavy", "neither Ray nor TensorFlow"],
)
def test_what_is_light_imports_nothing_heavy(
    modules: tuple[str, ...], heavy: tuple[str, ...]
) -> None:
    """All in one process; where there is something, each in its own says whose it is."""
    assert not loaded(f"import {', '.join(modules)}") & set(heavy), {
        module: loaded(f"import {module}") & set(heavy) for module in modules
    }


def test_what_trains_knows_no_ray_but_for_its_adapter() -> None:
    assert "ray" not in loaded("import trainables.training.worker")


RUN_COMMAND = """
sys.argv = ["rayfold", *{arguments!r}]
from orchestrator.cli import main
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["plan", "--help"],
        ["run", "--help"],
        ["plan", "none.yaml"],
        ["run", "none.yaml"],
    ],
)
def test_help_and_mistakes_answer_without_anything_heavy(arguments: list[str]) -> None:
    assert not loaded(RUN_COMMAND.format(arguments=arguments)) & set(HEAVY)


def test_a_mistake_in_the_file_answers_without_anything_heavy(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "name: a\ndata: {source: phantom}\ncandidates: [{model: TinyCN}]\n", encoding="utf-8"
    )
    for verb in ("plan", "run"):
        assert not loaded(RUN_COMMAND.format(arguments=[verb, str(path)])) & set(HEAVY)


def test_plan_needs_neither_ray_nor_tensorflow(spots: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    text = {
        "name": "a",
        "data": {"source": "folder", "path": str(spots)},
        "candidates": [{"model": "TinyCNN"}],
    }
    path.write_text(json.dumps(text), encoding="utf-8")
    assert not loaded(RUN_COMMAND.format(arguments=["plan", str(path)])) & {
        "ray",
        "tensorflow",
        "keras",
    }


def test_the_module_is_the_command() -> None:
    done = tool(sys.executable, "-m", "orchestrator", "plan", "--help")
    assert done.returncode == 0
    assert "Show data, folds, cells and resources" in done.stdout
    installed = tool(BIN / "rayfold", "plan", "--help")
    assert (
        installed.stdout.split("rayfold plan")[1].split()
        == done.stdout.split("orchestrator plan")[1].split()
    )


# --- what a user installs -------------------------------------------------------------------------


def test_every_import_is_declared() -> None:
    """A plain install has what our packages import; what only an extra brings is imported where it
    is asked for.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {name.split(">")[0].split("[")[0] for name in project["dependencies"]}
    optional = {"dicom": {"pydicom"}, "samplers": {"cmaes"}, "xai": {"lime", "shap"}}
    for extra, names in optional.items():
        assert names == {name.split(">")[0] for name in project["optional-dependencies"][extra]}
    distributions = packages_distributions()
    ours = {"cluster", "orchestrator", "rayfold", "trainables", "xai"}
    for path in MODULES:
        for module in (
            imported(ast.parse(path.read_text("utf-8"))) - ours - set(sys.stdlib_module_names)
        ):
            found = {name.lower().replace("_", "-") for name in distributions[module]}
            assert found & (declared | set().union(*optional.values())), f"{path} imports {module}"


def imported(tree: ast.AST) -> set[str]:
    """The top-level names that a module imports, wherever it does."""
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {
        node.module or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level
    }
    return {name.partition(".")[0] for name in names}


def test_no_remedy_names_an_extra_of_a_distribution_that_is_on_no_index() -> None:
    for path in [*MODULES, ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        assert "rayfold[" not in path.read_text("utf-8"), path


#: The only modules that may know private names of a library, each with a fallback and a canary.
FENCES = {
    "cluster/launcher/gcs.py",
    "trainables/runtime/keras_internals.py",
    "trainables/runtime/ray_internals.py",
}
INTERNALS = ("keras.src", "tensorflow.python", "ray._private")


def private_names(tree: ast.AST) -> set[str]:
    """The names with an underscore, and the internal packages, that a module takes from libraries."""
    ours = ("cluster", "orchestrator", "rayfold", "trainables", "xai", *sys.stdlib_module_names)
    found: set[str] = set()
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            whole = [alias.name for alias in node.names]
            modules |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        theirs = [name for name in whole if name.partition(".")[0] not in ours]
        found |= {name for name in theirs if "._" in name or name.startswith(INTERNALS)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            if private and node.value.id in modules - set(ours):
                found.add(f"{node.value.id}.{node.attr}")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_of_libraries_stay_behind_their_fences(path: Path) -> None:
    found = private_names(ast.parse(path.read_text("utf-8")))
    assert not found or str(path.relative_to(ROOT)) in FENCES, found
