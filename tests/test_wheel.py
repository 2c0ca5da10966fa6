"""The package as a user installs it: built, and put into an environment that has nothing else,
without constraints.

Everything runs in a project of hers that holds files called as ours are.
"""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.trainables.test_neighbours import plant, plant_project

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(1800)]

EXPERIMENT = """
name: my_experiment
data: {source: phantom, images_per_class: 10, images_per_patient: 2, image_size: 32}
folds: {k: 2}
training: {epochs: 1, batch_size: 8}
candidates:
  - {model: EfficientNetLite0, image_size: 32, weights: imagenet}
  - {model: "models:build", image_size: 32}
"""
COMMAND = re.compile(r"^    ((?:rayfold|python -m orchestrator) [^#\n]+)", re.MULTILINE)
README_COMMANDS = [
    command.strip()
    for command in COMMAND.findall((ROOT / "README.md").read_text("utf-8"))
    if "<" not in command
]
DICOM = """
from pathlib import Path
import numpy as np
from dicoms import write_dicom
write_dicom(Path("scan.dcm"), np.arange(4096, dtype=np.uint16).reshape(64, 64), BitsStored=12)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built out of it.

    Built from a copy, since other tests read the checkout meanwhile.
    """
    folder, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    call(source, sys.executable, "-m", "build", "--outdir", folder, source)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def project(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's project, with an environment of its own beside it."""
    folder = tmp_path_factory.mktemp("user") / "project"
    plant_project(folder)
    call(folder, sys.executable, "-m", "venv", folder.parent / "venv")
    install(folder, str(wheel))
    yield folder
    shutil.rmtree(folder.parent)  # more than a gigabyte


def tracked(*paths: str) -> set[str]:
    """What git knows below these paths of the checkout; of all of it without any."""
    command = ["git", "ls-files", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def call(folder: Path, *command: str | Path, codes: tuple[int, ...] = (0,)) -> str:
    """Run a command with the environment's Python first and nothing of this checkout; returns what
    it said.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PIP_CONSTRAINT")
    }
    path = os.pathsep.join([str(folder.parent / "venv/bin"), kept["PATH"]])
    cache = str(folder.parent / "cache")
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env={**kept, "PATH": path, "RAYFOLD_CACHE": cache},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in codes, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout or done.stderr


def install(folder: Path, what: str) -> None:
    # Compiling all of TensorFlow and Ray takes a minute, and most of it is never imported.
    pip = ("python", "-m", "pip", "install", "--no-compile")
    call(folder, *pip, "--quiet", "--disable-pip-version-check", what)


def test_the_archives_are_whole(built: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    packages = ("cluster", "orchestrator", "rayfold", "trainables", "xai")
    assert tracked(*packages) == {name for name in held if ".dist-info/" not in name}
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked() - held == {".gitignore"}


def test_readmes_commands_work_in_a_project_with_files_called_as_ours(project: Path) -> None:
    verbs = [command.split()[:2] for command in README_COMMANDS]
    for verb in ("init", "plan", "run", "status", "explain", "predict", "report", "doctor"):
        assert ["rayfold", verb] in verbs
    for command in README_COMMANDS:
        if command.startswith(("rayfold demo", "rayfold sbatch")):
            # the same at length: a run, with ImageNet weights and no extra, and its explanations; a
            # SLURM
            continue
        if command.startswith("rayfold predict"):
            (project / "new_images").mkdir()
            for image in sorted((project.parent / "cache/phantoms").rglob("*.png"))[:4]:
                shutil.copy(image, project / "new_images")
        doctor = command.startswith("rayfold doctor")  # finds no SLURM here
        printed = call(project, *shlex.split(command), codes=(0, 1) if doctor else (0,))
        if doctor:
            assert "SLURM" in printed
        if command.startswith("rayfold init"):
            plant(project, "experiment.yaml", text=EXPERIMENT)


def test_the_launcher_comes_along_and_needs_nothing_but_itself(project: Path, wheel: Path) -> None:
    call(project, "rayfold", "slurm-script", "cluster.sh")
    printed = call(project, "bash", "cluster.sh", "--dry-run", "--", "touch", "x")
    assert f"{project.parent / 'venv/bin/python'} -P -u -m cluster.node.ray_node" in printed
    bare = project.parent / "bare"  # as beside a container that holds the rest
    call(project, sys.executable, "-m", "venv", bare)
    call(project, bare / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps", wheel)
    words = ["RAYFOLD_WRAPPER=apptainer exec my.sif", f"RAYFOLD_PYTHON={bare / 'bin/python'}"]
    printed = call(project, "env", *words, "bash", "cluster.sh", "--dry-run", "--", "touch", "x")
    assert "apptainer exec my.sif python3 -P -u -m cluster.node.ray_node" in printed
    assert "apptainer exec my.sif touch x" in printed


def test_load_run_works_in_a_script_beside_files_called_as_ours(project: Path) -> None:
    plant(project, "scripts/xai.py", "scripts/trainables.py", "scripts/cluster/__init__.py")
    plant(project, "scripts/script.py", text="""
from rayfold import load_run
run = load_run("runs/my_experiment")
print(len(run.models_summary), (run.cells["state"] == "done").all(), len(run.heatmaps.table) > 0)
print(run.model(run.cells["candidate"].iloc[0], fold=0).count_params() > 0)
""")  # fmt: skip
    assert call(project, "python", "scripts/script.py").split() == ["2", "True", "True", "True"]


def test_the_extras_bring_what_they_are_for(project: Path, wheel: Path) -> None:
    missing = call(
        project,
        "rayfold",
        "explain",
        "runs/my_experiment",
        "--methods",
        "shap",
        "--split",
        "test",
        codes=(2,),
    )
    assert "pip install shap" in missing
    install(project, f"{wheel}[xai,dicom]")
    explain = ("--methods", "lime,shap", "--split", "test", "--folds", "0", "--faithfulness", "0")
    assert ", 0 images without a map" in call(
        project, "rayfold", "explain", "runs/my_experiment", *explain
    )
    shutil.copy(ROOT / "tests/dicoms.py", project)
    call(project, "python", "-c", DICOM)
    call(project, "rayfold", "predict", "runs/my_experiment", "scan.dcm", "--out", "scan.csv")
    with (project / "scan.csv").open(newline="") as file:
        assert {row["state"] for row in csv.DictReader(file)} == {"ok"}
