"""The main job: data, folds, cells, results. Running it again continues where the ledger stands."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from threading import Thread

import pandas as pd
from ray.exceptions import WorkerCrashedError
from rich.console import Console

from orchestrator.execution import tasks, tuning
from orchestrator.execution.cell_source import CellSource, FixedCells
from orchestrator.execution.cells import Prepared, prepare
from orchestrator.execution.costs import CPU_GIGAFLOPS, GPU_GIGAFLOPS, part_sizes, waiting_cell
from orchestrator.execution.packing import Packing, Probe, cell_share, check_devices, other_threads
from orchestrator.execution.progress import RunProgress, log_to, logger
from orchestrator.execution.provenance import note_taken, write_provenance
from orchestrator.experiment.experiment_file import Experiment
from trainables.core.errors import ModelError, NoWorkerError, ResourceError, RunFolderError
from trainables.core.layout import RunLayout, cache_folder
from trainables.core.ledger import CellState, Entry
from trainables.core.quoting import printable
from trainables.core.spelling import count
from trainables.data.store import build_store, open_store
from trainables.models.architecture import Architecture
from trainables.models.known_code import builders, remember
from trainables.models.user_code import search_also
from trainables.runtime import connection, lifeline
from trainables.runtime.gpu_check import blind_reason
from trainables.runtime.private_folder import check_own
from trainables.runtime.waiting import taken
from trainables.training.gpu_cost import measure_steps

_STOPPED = "stopped before the end; run the same command again to continue"


def run_experiment(
    experiment: Experiment, folder: Path, address: str | None, console: Console
) -> int:
    """Do what the run folder still lacks, then write tables, figures and report.

    Returns the exit code: 0 when every cell is done, 1 when some failed, 130 when a signal ended
    the work early.
    """
    layout = RunLayout(folder.absolute())
    with _locked(layout):
        handler = log_to(layout.log)
        try:
            prepared = prepare(experiment, layout)
            prepared.save()
            _remember_code(prepared.entries)
            source = _source(prepared)
            ready = source.more()
            progress = RunProgress(source.total, source.total - len(ready), console)
            progress.say(
                f"run     {experiment.name}: {progress.total} cells, {progress.done} already done, "
                f"in {layout.root}"
            )
            if line := _on_skipped(prepared.manifest.table):
                progress.say(line)
            for note in prepared.manifest.notes:
                progress.say(f"note    {printable(note)}")
            for line in source.news():
                progress.say(f"from    {line}")
            try:
                nothing_left = source.ended and not ready
                complete = nothing_left or _train(prepared, source, ready, address, progress)
            except NoWorkerError:
                _write_up(layout)  # which shows the traceback
                raise
            for line in (*source.news(), *_taken(prepared, source)):
                progress.say(f"from    {line}")
            if unwritable := _write_up(layout):
                progress.say(f"fonts   {unwritable}")
            _remember_code(source.entries)  # what a search suggested is meant, too
            states = [entry.state() for entry in source.entries]
            failed = [state for state in states if state.state == "failed"]
            if complete:
                progress.say(_verdict(failed, layout))
            else:
                logger.info(_STOPPED)
        except lifeline.Stopped:
            logger.info(_STOPPED)
            raise
        finally:
            logger.removeHandler(handler)
            handler.close()
    return lifeline.STOPPED if not complete else 1 if failed else 0


def _source(prepared: Prepared) -> CellSource:
    if prepared.experiment.search is None:
        return FixedCells(prepared.entries)
    # Loads Optuna, which a run without a search has no use for.
    from orchestrator.execution.searching import SearchedCells

    return SearchedCells(prepared)


def _taken(prepared: Prepared, source: CellSource) -> Iterator[str]:
    """Which runs trained cells that this one did not, which becomes part of where it comes from."""
    search = prepared.experiment.search
    if search is None or not search.from_:
        return
    runs = Counter(entry.state().taken_from for entry in source.entries)
    del runs[""]
    note_taken(prepared, runs)
    for run, number in runs.items():
        yield f"{run!r} gave {count(number, 'cell')} of {source.total:,}"


def _remember_code(entries: Iterable[Entry]) -> None:
    """Whoever runs an experiment means the code that it names."""
    for spec in builders(entry.spec for entry in entries):
        with suppress(OSError, ModelError):  # where there is no home: `rayfold trust` tells
            remember(spec)


def _on_skipped(table: pd.DataFrame) -> str | None:
    """How many images are left out, and why most of them are."""
    reasons = table.loc[table["state"] == "skipped", "reason"].str.split(":").str[0].value_counts()
    if reasons.empty:
        return None
    shown = ", ".join(
        f"{number:,} {printable(str(reason))}" for reason, number in reasons.iloc[:3].items()
    )
    more = f" and {reasons.iloc[3:].sum():,} for other reasons" if len(reasons) > 3 else ""
    return (
        f"skipped {reasons.sum():,} of {len(table):,} images: {shown}{more}; manifest.parquet has "
        "them all"
    )


def _write_up(layout: RunLayout) -> str | None:
    # Slow to import: `_train` does it while Ray starts.
    from orchestrator.report.write_up import (
        write_reports,
    )

    return write_reports(layout)


def _train(
    prepared: Prepared,
    source: CellSource,
    ready: list[Entry],
    address: str | None,
    progress: RunProgress,
) -> bool:
    experiment = prepared.experiment
    progress.say(f"ray     joining {address}" if address else "ray     starting on this machine")
    # Ray's start is mostly waiting: time to import what writes the reports.
    with _imported_meanwhile("orchestrator.report.write_up"), connection.connect(address) as nodes:
        share = cell_share(experiment.resources, nodes)
        check_devices((entry.spec.candidate for entry in ready), share)
        if share["GPU"] and experiment.resources.require_gpu:
            _check_sight(always=experiment.resources.require_gpu is True)
        write_provenance(prepared, nodes)
        _check_models(prepared, ready)
        _build_stores(prepared, ready, progress)
        probed = (
            _probe(prepared, ready, progress)
            if share["GPU"] and experiment.resources.gpus_per_cell == "auto"
            else {}
        )
        packing = Packing(connection.nodes, share, probed)
        for line in other_threads((entry.state() for entry in source.entries), share):
            progress.say(line)
        sizes = part_sizes(prepared.folds)
        pace = GPU_GIGAFLOPS if share["GPU"] else CPU_GIGAFLOPS
        with progress:
            return tuning.train_cells(
                source,
                ready,
                lambda entry: waiting_cell(entry, sizes, pace),
                packing,
                experiment,
                prepared.layout,
                progress,
            )


def _check_sight(always: bool) -> None:
    """Refuse nodes on which TensorFlow sees none of the GPUs that cells will be granted."""
    for host, found in tasks.on_gpu_nodes(blind_reason, always):
        # An error is of the node's, which may be leaving: its cells look for themselves.
        if isinstance(found, str):
            raise ResourceError(
                f"{host}: {found}; to train on CPUs say so, resources.gpus_per_cell: 0"
            )


def _probe(
    prepared: Prepared, missing: list[Entry], progress: RunProgress
) -> dict[Hashable, float]:
    """The part of a GPU that a cell of each architecture needs; a whole one where that cannot be
    measured.
    """
    batch_sizes: dict[str, int] = {}
    for entry in missing:
        key = Architecture.of(entry.spec).key
        batch_sizes[key] = max(batch_sizes.get(key, 0), entry.spec.candidate.training.batch_size)
    import_path = prepared.experiment.import_path
    found = tasks.on_cluster(
        measure_steps, [(*item, import_path) for item in batch_sizes.items()], gpus=1
    )
    shares: dict[Hashable, float] = {}
    for key, measured in zip(batch_sizes, found, strict=True):
        if isinstance(measured, tuple):
            shares[key] = Probe(*measured).share
            model = Architecture.model_validate_json(key).model
            progress.say(
                f"probe   {model}: {measured[0] / 2**20:.0f} MiB, {measured[2]:.0%} busy, "
                f"{shares[key]:g} GPU per cell"
            )
    return shares


def _build_stores(prepared: Prepared, missing: list[Entry], progress: RunProgress) -> None:
    root = cache_folder() / "stores"
    forms = prepared.experiment.input_formats
    if prepared.experiment.search is None:
        forms = frozenset(entry.spec.candidate.input_format for entry in missing)
    for form in sorted(forms):
        if open_store(prepared.manifest, form, root) is None:
            progress.say(
                f"store   decoding {len(prepared.manifest.usable)} images at {form} into {root}"
            )
            build_store(prepared.manifest, form, root, tasks.decode_on_cluster)


def _check_models(prepared: Prepared, missing: list[Entry]) -> None:
    """Build what may be impossible to build, downloaded weights, users' models and cuts by the
    names of layers, once before all cells start.
    """
    doubtful: dict[str, Entry] = {}
    for entry in missing:
        candidate = entry.spec.candidate
        named = candidate.training.frozen_until is not None
        if named or candidate.training.weights != "none" or ":" in candidate.model:
            doubtful[candidate.id] = entry
    import_path = prepared.experiment.import_path
    arguments = [(Architecture.of(entry.spec).key, import_path) for entry in doubtful.values()]
    for entry, problem in zip(
        doubtful.values(), tasks.on_cluster(_try_model, arguments), strict=True
    ):
        candidate = entry.spec.candidate
        if isinstance(problem, WorkerCrashedError) and ":" in candidate.model:
            problem = (
                f"the process that built {candidate.model} died: the code ended it, crashed in a "
                "library, or took more memory than there is; build the model by hand to see"
            )
        # Whatever else became of the worker belongs to the cells, and must not stop the others.
        if isinstance(problem, str):
            raise ModelError(f"{problem} (candidate {candidate.name!r})")


def _try_model(architecture: str, import_path: str | None) -> str | None:
    """Runs in a Ray worker: why no cell of this architecture could be trained and opened again, or
    None.
    """
    import tensorflow as tf

    from trainables.models import builders
    from trainables.training.session import Session

    if import_path is not None:
        search_also(import_path)
    a = Architecture.model_validate_json(architecture)
    try:
        session = Session(a, 0)
        if ":" in a.model:
            from trainables.models import contract
            from trainables.training.first_step import check_step

            contract.check_before_training(a.model, session.model)
            for head_only in sorted({False, a.frozen_phase}):
                check_step(a.model, session, head_only)
    except (
        BaseException
    ) as error:  # whatever a builder raises would fail every cell of the candidate
        if any(
            isinstance(each, tf.errors.ResourceExhaustedError) for each in (error, error.__cause__)
        ):
            return None  # cells that run out of memory are tried again, with a larger part of a GPU
        return (
            str(error) if isinstance(error, ModelError) else builders.where_it_broke(a.model, error)
        )
    return None


@contextmanager
def _imported_meanwhile(module: str) -> Iterator[None]:
    """Import a module in a thread, which is waited for: one that outlives a failed block would have
    the last word.
    """

    def attempt() -> None:
        # Whoever needs the module meets the error again, at a better place.
        with suppress(Exception):
            import_module(module)

    thread = Thread(target=attempt)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@contextmanager
def _locked(layout: RunLayout) -> Iterator[None]:
    """Only one driver may work in a run folder; the kernel releases the lock when the driver
    dies.
    """
    check_own(layout.root)
    try:
        layout.root.mkdir(parents=True, exist_ok=True)
        lock = taken(
            layout.lock,
            f"another run is at work in {str(layout.root)!r}: wait for it, stop it, or choose "
            "another folder with --run",
        )
    except OSError as error:
        raise RunFolderError(
            f"cannot write into the run folder {str(layout.root)!r}: {error.strerror or error}; "
            "choose one with --run"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _verdict(failed: list[CellState], layout: RunLayout) -> str:
    report = f"report  {layout.report_html}"
    if not failed:
        return report
    known = (
        "tracebacks are"
        if all(state.traceback for state in failed)
        else "reasons, tracebacks as far as known, are"
    )
    cells = "1 cell" if len(failed) == 1 else f"{len(failed)} cells"
    return f"{cells} failed, the {known} in the report; run again to retry\n{report}"
