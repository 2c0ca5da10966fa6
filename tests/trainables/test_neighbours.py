"""Our packages find each other, whatever lies beside the user's script or experiment under their
names.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

FOREIGN = "raise RuntimeError('this is not rayfold: ' + __file__)\n"
IMPORTS = (
    "import rayfold, orchestrator, trainables.core.layout, xai.methods.registry; print('loaded')\n"
)
LOAD_RUN = "from rayfold import load_run; print('loaded')\n"


def plant(folder: Path, *paths: str, text: str = FOREIGN) -> None:
    """Files of a user's, `text` in each."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def python(
    cwd: Path, *arguments: str | Path, path: tuple[Path, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Python with folders on PYTHONPATH before the one in which rayfold lies."""
    entries = os.pathsep.join(map(str, (*path, ROOT)))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": entries},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    "name", ["xai.py", "xai/__init__.py", "trainables.py", "xai/notes.txt", "cluster/__init__.py"]
)
def test_a_script_beside_the_users_own_modules_imports_ours(name: str, tmp_path: Path) -> None:
    plant(tmp_path, name)
    plant(tmp_path, "script.py", text=IMPORTS)
    done = python(tmp_path, "script.py")
    assert (done.stdout, done.stderr) == ("loaded\n", "")


def test_a_cluster_of_the_users_stays_hers(tmp_path: Path) -> None:
    plant(tmp_path, "cluster/__init__.py", text="mine = 'mine'\n")
    plant(tmp_path, "script.py", text=LOAD_RUN + "import cluster; print(cluster.mine)\n")
    assert python(tmp_path, "script.py").stdout == "loaded\nmine\n"


@pytest.mark.parametrize("order", ["import cluster\n", ""])
def test_submit_is_ours_beside_a_cluster_of_the_users(order: str, tmp_path: Path) -> None:
    plant(tmp_path, "cluster/__init__.py", "cluster/launcher.py", text="mine = 'mine'\n")
    plant(tmp_path, "script.py", text=f"""
{order}from rayfold import submit
import cluster, cluster.launcher
print(submit.__module__, submit.__code__.co_filename, cluster.mine, cluster.launcher.mine, sep="\\n")
try:
    submit("x.yaml", slurm_options="a text")
except Exception as error:
    print(error)
""")  # fmt: skip
    done = python(tmp_path, "script.py")
    assert done.stdout.splitlines() == [
        "cluster.launcher.submit",
        str(ROOT / "cluster" / "launcher" / "submit.py"),
        "mine",
        "mine",
        "slurm_options must be a list of options, got 'a text'",
    ], done.stderr


@pytest.mark.parametrize("name", ["xai.py", "xai/__init__.py", "trainables.py"])
def test_a_module_imported_before_ours_is_one_line_that_names_both(
    name: str, tmp_path: Path
) -> None:
    plant(tmp_path, name, text="")
    package = name.partition("/")[0].removesuffix(".py")
    plant(tmp_path, "script.py", text=f"import {package}\n{LOAD_RUN}")
    done = python(tmp_path, "script.py")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"ImportError: '{package}' stands for {str(tmp_path / package)!r}"[:-1])
    assert line.endswith(f"in {str(ROOT)!r}: import rayfold first, or rename the other")


@pytest.mark.parametrize("module", ["rayfold", "orchestrator", "xai"])
def test_a_command_that_cannot_have_its_packages_ends_with_two(module: str, tmp_path: Path) -> None:
    other = "trainables"
    plant(tmp_path, f"{other}.py", text="")
    plant(tmp_path, "sitecustomize.py", text=f"import {other}\n")
    done = python(tmp_path, "-m", module, "--help", path=(tmp_path,))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(f"rayfold: {other!r} stands for {str(tmp_path / other)!r}"[:-1])


@pytest.mark.parametrize("module", ["rayfold", "orchestrator"])
def test_the_module_is_not_led_astray_by_the_current_folder(module: str, tmp_path: Path) -> None:
    # The one that is imported names itself.
    plant(tmp_path, "keras.py", "typer.py", "statistics.py", "xai.py", "cluster/__init__.py")
    done = python(tmp_path, "-m", module, "plan", "--help")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("on_path", [False, True])
def test_the_doctor_is_ours(on_path: bool, tmp_path: Path) -> None:
    plant(tmp_path, "cluster/__init__.py", "xai.py")
    done = python(
        tmp_path, "-m", "orchestrator", "doctor", "--help", path=(tmp_path,) if on_path else ()
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: rayfold doctor")


# --- Ray's workers --------------------------------------------------------------------------------

HELPER = """
import keras

scaled = keras.layers.Rescaling(1 / 255)
"""
BUILDER = """
from pathlib import Path

import keras
from helper import scaled

def build(input_shape, n_classes):
    width = int(Path("width.txt").read_text())  # in the folder in which the user has called us
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(width, 3, activation="relu")(scaled(inputs))
    return keras.Model(inputs, keras.layers.Dense(n_classes)(keras.layers.GlobalAveragePooling2D()(x)))
"""


def plant_project(folder: Path) -> None:
    """What a user may have in her project, and what could lead us astray."""
    plant(folder, "xai.py", "keras.py", "trainables.py", "cluster/__init__.py", "pandas/notes.txt")
    plant(folder, "models.py", text=BUILDER)
    plant(folder, "helper.py", text=HELPER)
    plant(folder, "width.txt", text="4\n")


@pytest.mark.parametrize(
    "first",
    [
        "rayfold",
        "orchestrator.experiment.candidates",
        "trainables.core.layout",
        "xai.methods.registry",
    ],
)
def test_signposts_lead_to_our_packages_past_the_users_files(first: str, tmp_path: Path) -> None:
    """As in a worker of `ray job submit --working-dir .`, where PYTHONPATH names the user's
    folder.
    """
    plant(tmp_path, "xai.py", "trainables/__init__.py", "orchestrator.py", "rayfold.py", "keras.py")
    plant(tmp_path, "cluster.py", text="")
    code = f"""
import sys, importlib
importlib.import_module({first!r})
import orchestrator.experiment.candidates, trainables.core.layout, xai.methods.registry
import cluster  # hers
print(*sys.modules["xai"].__path__, cluster.__file__, sys.path[-1], sep="\\n")
"""
    done = python(tmp_path, "-P", "-c", code, path=(ROOT / "trainables" / "signposts", tmp_path))
    assert done.stdout.splitlines() == [
        str(ROOT / "xai"),
        str(tmp_path / "cluster.py"),
        str(tmp_path),
    ], done.stderr


def test_ray_still_asks_the_job_for_its_search_path(tmp_path: Path) -> None:
    """Should a later Ray not: see `ray_internals.job_config`."""
    plant(tmp_path, "script.py", text="""
import os
from trainables.runtime.connection import connect, prepare_ray
prepare_ray(None)
import ray
with connect(None):
    look = ray.remote(lambda: (__import__("sys").path, os.getcwd()))
    path, folder = ray.get(look.remote())
print(path[0])
print(os.getcwd() in path, folder == os.getcwd())
""")  # fmt: skip
    done = python(tmp_path, "script.py")
    assert done.stdout.splitlines() == [str(ROOT / "trainables" / "signposts"), "False True"], (
        done.stderr
    )
