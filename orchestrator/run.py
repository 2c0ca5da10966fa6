"""The main job: data, folds, cells, results. Running it again continues where the ledger stands."""

import sys
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Thread

from filelock import FileLock, Timeout
from rich.console import Console

from orchestrator import tuning
from orchestrator.cells import Prepared, prepare
from orchestrator.costs import CPU_GIGAFLOPS, GPU_GIGAFLOPS, jobs
from orchestrator.experiment import Experiment
from orchestrator.packing import Packing, Probe, cell_share, check_devices
from orchestrator.progress import RunProgress, log_to, logger
from orchestrator.provenance import write_provenance
from trainables import connection
from trainables.architecture import Architecture
from trainables.config import Candidate
from trainables.errors import ModelError, RunFolderError
from trainables.layout import RunLayout, cache_folder
from trainables.ledger import Entry
from trainables.probe import measure
from trainables.store import build_store, open_store


def run_experiment(experiment: Experiment, folder: Path, address: str | None, console: Console) -> int:
    """Do what the run folder still lacks, then write tables, figures and report.

    Returns the exit code: 0 when every cell is done, 1 when some failed, 130 when a signal ended the work early.
    """
    layout = RunLayout(folder.absolute())
    with _locked(layout):
        handler = log_to(layout.log)
        try:
            prepared = prepare(experiment, layout)
            prepared.save()
            missing = [entry for entry in prepared.entries if entry.state().state != "done"]
            progress = RunProgress(len(prepared.entries), len(prepared.entries) - len(missing), console)
            progress.say(
                f"run     {experiment.name}: {progress.total} cells, {progress.done} already done, in {layout.root}"
            )
            complete = not missing or _train(prepared, missing, address, progress)
            from orchestrator.write_up import write_reports  # slow to import: `_train` does it while Ray starts

            if note := write_reports(layout):
                progress.say(f"fonts   {note}")
            failed = sum(entry.state().state == "failed" for entry in prepared.entries)
            progress.say(_verdict(complete, failed, layout))
        finally:
            logger.removeHandler(handler)
            handler.close()
    return 130 if not complete else 1 if failed else 0


def _train(prepared: Prepared, missing: list[Entry], address: str | None, progress: RunProgress) -> bool:
    experiment = prepared.experiment
    # Ray's start is mostly waiting: time to import what writes the reports.
    Thread(target=import_module, args=("orchestrator.write_up",)).start()
    with connection.connect(address) as nodes:
        share = cell_share(experiment.resources, nodes, len(prepared.entries))
        check_devices((entry.spec.candidate for entry in missing), share)
        write_provenance(prepared, nodes)
        _check_models(prepared, missing)
        _build_stores(prepared, missing, progress)
        probed = _probe(missing, progress) if share["GPU"] and experiment.resources.gpus_per_cell == "auto" else {}
        packing = Packing(connection.nodes, share, probed)
        work = jobs(missing, prepared.folds, GPU_GIGAFLOPS if share["GPU"] else CPU_GIGAFLOPS)
        with progress:
            return tuning.train_cells(missing, work, packing, experiment, prepared.layout, progress)


def _probe(missing: list[Entry], progress: RunProgress) -> dict[Hashable, float]:
    """The part of a GPU that a cell of each architecture needs; a whole one where that cannot be measured."""
    batch_sizes: dict[str, int] = {}
    for entry in missing:
        key = Architecture.of(entry.spec).key
        batch_sizes[key] = max(batch_sizes.get(key, 0), entry.spec.candidate.training.batch_size)
    found = tuning.on_cluster(measure, list(batch_sizes.items()), gpus=1)
    shares: dict[Hashable, float] = {}
    for key, measured in zip(batch_sizes, found, strict=True):
        if isinstance(measured, tuple):
            shares[key] = Probe(*measured).share
            model = Architecture.model_validate_json(key).model
            progress.say(
                f"probe   {model}: {measured[0] / 2**20:.0f} MiB, {measured[2]:.0%} busy, {shares[key]:g} GPU per cell"
            )
    return shares


def _build_stores(prepared: Prepared, missing: list[Entry], progress: RunProgress) -> None:
    root = cache_folder() / "stores"
    for size in sorted({entry.spec.candidate.image_size for entry in missing}):
        if open_store(prepared.manifest, size, root) is None:
            progress.say(f"store   decoding {len(prepared.manifest.usable)} images at {size} px into {root}")
            build_store(prepared.manifest, size, root, tuning.decode_on_cluster)


def _check_models(prepared: Prepared, missing: list[Entry]) -> None:
    """Build what may be impossible to build, downloaded weights and users' models, once before all cells start."""
    doubtful: dict[str, Candidate] = {}
    for entry in missing:
        candidate = entry.spec.candidate
        if candidate.training.weights != "none" or ":" in candidate.model:
            doubtful[candidate.id] = candidate
    classes, channels = len(prepared.manifest.classes), prepared.manifest.channels
    arguments = [
        (c.model_dump(mode="json"), channels, classes, str(prepared.experiment.folder)) for c in doubtful.values()
    ]
    for candidate, problem in zip(doubtful.values(), tuning.on_cluster(_try_model, arguments), strict=True):
        # Anything else that goes wrong in a user's builder belongs to its cells, and must not stop the others.
        if isinstance(problem, str):
            raise ModelError(f"{problem} (candidate {candidate.name!r})")


def _try_model(candidate: dict[str, object], channels: int, n_classes: int, import_path: str) -> str | None:
    """Runs in a Ray worker: the user's error of building this candidate, or None."""
    sys.path.insert(0, import_path)
    from trainables import zoo

    c = Candidate.model_validate(candidate)
    try:
        zoo.build(c.model, c.image_size, channels, n_classes, c.training.weights, c.training.dropout, c.arguments)
    except ModelError as error:
        return str(error)
    return None


@contextmanager
def _locked(layout: RunLayout) -> Iterator[None]:
    """Only one driver may work in a run folder; the kernel releases the lock when the driver dies."""
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(layout.lock, timeout=0)
        lock.acquire()
    except Timeout:
        raise RunFolderError(
            f"another run is at work in {str(layout.root)!r}: wait for it, stop it, or choose another folder with --run"
        ) from None
    except OSError as error:
        raise RunFolderError(
            f"cannot write into the run folder {str(layout.root)!r}: {error.strerror or error}; choose one with --run"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _verdict(complete: bool, failed: int, layout: RunLayout) -> str:
    if not complete:
        return "stopped before the end; run the same command again to continue"
    report = f"report  {layout.report_html}"
    return (
        f"{failed} cells failed, their tracebacks are in the report; run again to retry them\n{report}"
        if failed
        else report
    )
