"""The experiment file: YAML in, one frozen `Experiment` out, or one line that says what is wrong.

A candidate may override any training field; a list of values makes a grid, a distribution a space
that is searched. `Experiment.to_yaml` writes the resolved form, which is again an experiment file.
This module knows neither Ray nor TensorFlow.
"""

import os
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from orchestrator.experiment import yaml_text
from orchestrator.experiment.candidate_section import resolve_candidates
from orchestrator.experiment.candidates import absolute
from orchestrator.experiment.distributions import Distribution
from orchestrator.experiment.folds_config import Folds
from orchestrator.experiment.messages import explain, misplaced, shown
from orchestrator.experiment.resolved_form import literally, written_candidate, written_space
from orchestrator.experiment.search_config import Search, problems
from orchestrator.experiment.search_space import Space
from orchestrator.experiment.suggestions import input_formats, reached, suggestion
from trainables.core.config import Candidate
from trainables.core.data_config import DataConfig, PhantomData
from trainables.core.errors import ExperimentError
from trainables.core.files import open_regular
from trainables.core.input_format import InputFormat
from trainables.core.quoting import printable
from trainables.core.training_config import Training
from trainables.core.values import Frozen, Real, Seed, Whole, digest

#: Of one experiment.
MOST_CELLS = 20_000
_MOST_MEGAPIXELS = 20_000  # of all phantoms
_MOST_FORMATS = 20  # that a search may reach: every image is compared in each


class Resources(Frozen):
    """What one cell gets, and how often it may be tried."""

    gpus_per_cell: Real | Literal["auto"] = Field(
        "auto",
        description=(
            "GPUs of one cell, from 0 to 1, fractions share one; auto: one where there are any, "
            "else none."
        ),
    )
    cpus_per_cell: Whole | Literal["auto"] = Field(
        "auto",
        description=(
            "CPU cores and threads of one cell; auto: one, or with GPUs an equal share per GPU."
        ),
    )
    require_gpu: bool | Literal["auto"] = Field(
        "auto",
        description=(
            "Whether cells that are granted GPUs must see them in TensorFlow; auto: where the node "
            "has any, and in jobs of SLURM."
        ),
    )
    deterministic: bool = Field(
        True,
        description=(
            "The same tables every time; false lets GPUs use kernels that are faster but do not "
            "repeat."
        ),
    )
    retries: Whole = Field(
        1, ge=0, le=100, description="How often a cell that failed is tried again in the same run."
    )


class ExperimentFile(Frozen):
    """Everything but the candidates, which are a grid until it is unfolded."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=80,
        description="Also the run folder's name.",
    )
    data: DataConfig
    folds: Folds = Folds()
    training: Training = Training()
    candidates: list[dict[str, Any]] = Field(min_length=1)
    seeds: tuple[Seed, ...] = Field(
        (0,), min_length=1, description="Every candidate and fold is trained once per seed."
    )
    resources: Resources = Resources()
    search: Search | None = Field(
        None, description="How candidates are searched and raced; default: all run on all folds."
    )


class Experiment(Frozen):
    """A resolved experiment: every candidate complete, every path absolute.

    `candidates` are the stated ones; what a search may add lies in `spaces`.
    """

    name: str
    data: DataConfig
    folds: Folds
    candidates: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    resources: Resources
    search: Search | None = None
    spaces: tuple[Space, ...] = ()
    folder: Path = Field(
        description="Where relative paths and the user's own model builders are looked for."
    )

    @property
    def draws(self) -> int:
        """How often the folds are drawn: for every candidate, or for finalists of a search."""
        finalists = self.search.finalists if self.search is not None else None
        return self.folds.repeats if finalists is None else finalists.repeats

    @property
    def hash(self) -> str:
        """Digest of all that is asked for; where it is computed, and with what, does not count."""
        left_out = {"folder": True, "resources": True, **self._unstated}
        return digest(self.model_dump(mode="json", exclude=left_out))

    @property
    def _unstated(self) -> dict[str, Any]:
        """What experiments without a search, or without repeats, never had."""
        unsearched = {"search": True, "spaces": True} if self.search is None else {}
        return unsearched | ({"folds": {"repeats"}} if self.folds.repeats == 1 else {})

    @property
    def import_path(self) -> str | None:
        """Where the user's own model builders are looked for, if a candidate may name one."""
        return str(self.folder) if any(":" in model for model in self.models) else None

    @property
    def models(self) -> frozenset[str]:
        """The models of all candidates, stated or to be suggested."""
        return frozenset(model for model, _ in self.starts)

    @property
    def starts(self) -> frozenset[tuple[str, str]]:
        """Model and initial weights of all candidates, stated or to be suggested."""
        return frozenset(
            [(each.model, each.training.weights) for each in self.candidates]
            + [start for space in self.spaces for start in reached(space, ("model", "weights"))]
        )

    @property
    def input_formats(self) -> frozenset[InputFormat]:
        """The pixels that models are given, of all candidates, stated or to be suggested."""
        return frozenset(
            [candidate.input_format for candidate in self.candidates]
            + [form for space in self.spaces for form in input_formats(space)]
        )

    def suggested(self, space: int, values: Mapping[str, Any], number: int) -> Candidate:
        """The candidate of this number, by values of the parameters of one of `spaces`.

        Parameters that do not count are ignored. Raises ExperimentError where one that counts is
        missing or outside of its range, and where settings contradict each other.
        """
        return suggestion(self.spaces[space], values, number)

    def to_yaml(self) -> str:
        """The resolved form as an experiment file that gives this experiment again."""
        return yaml_text.dump(self._content())

    def _content(self) -> dict[str, Any]:
        left_out = {"candidates": True, "folder": True, "spaces": True, **self._unstated}
        content = self.model_dump(mode="json", exclude=left_out)
        base = self.spaces[0].training if self.spaces else None
        if base is not None:
            # What suggestions do not state comes from here.
            content["training"] = base.model_dump(mode="json")
        written = {space.candidate: written_space(space) for space in self.spaces}
        content["candidates"] = [
            written.get(number) or written_candidate(candidate, base)
            for number, candidate in enumerate(self.candidates)
        ]
        for section, key in [
            (content["data"], "path"),
            *((each, "weights") for each in [content.get("training", {}), *content["candidates"]]),
        ]:
            if key in section:
                # What is resolved names no variables any more.
                section[key] = literally(section[key])
        if self.search is not None:
            content["search"]["from"] = literally(content["search"]["from"])
        return content

    @property
    def readable(self) -> bool:
        """Whether its resolved form is within what an experiment file may be."""
        return not self.spaces or yaml_text.fits(self._content())


def read_experiment(path: Path) -> Experiment:
    """Read and resolve an experiment file.

    Args:
        path: The YAML file; relative paths in it start at its folder.

    Returns:
        The experiment with every default written out.

    Raises:
        ExperimentError: One line with the rule, the value, its place and the remedy.
    """
    return parse_experiment(read_text(path), path.name, path.absolute().parent)


def read_text(path: Path) -> str:
    """The text of an experiment file; raises ExperimentError for what is none, and never waits for
    a pipe.
    """
    most = 4 * yaml_text.MOST_CHARACTERS
    try:
        with open_regular(path) as file:
            content = file.read(most + 1)
        if len(content) <= most:
            return content.decode("utf-8-sig")
        reason = f"it has more than {most:,} bytes"
    except OSError as error:
        reason = "Is a directory" if os.path.isdir(path) else error.strerror or str(error)  # noqa: PTH112
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    raise ExperimentError(
        f"cannot read the experiment file {printable(repr(str(path)))}: {reason}; check the path, "
        "or write a new one with `rayfold init`"
    )


def parse_experiment(text: str, source: str, folder: Path) -> Experiment:
    """Resolve the text of an experiment file; `source` names it in errors, relative paths start at
    `folder`.

    Whether the files that it names exist is not looked at, so that results can be read where the
    data no longer is.
    """
    source = printable(source)
    try:
        content = yaml_text.load(text)
    except ValueError as error:
        raise ExperimentError(
            printable(f"not valid YAML: {error} ({source}); correct that line")
        ) from error
    if not isinstance(content, dict):
        raise ExperimentError(
            "an experiment file must be a mapping with name, data and candidates, got "
            f"{shown(content)} ({source}); `rayfold init` writes one"
        )
    try:
        file = ExperimentFile.model_validate(content)
        _check_ranges(file)
    except ValidationError as error:
        line = misplaced(content, Distribution.model_fields, source)
        line = line or explain(error, ExperimentFile, source, text=text)
        raise ExperimentError(line) from error
    except ValueError as error:
        raise ExperimentError(f"{error} ({source})") from error
    candidates, spaces = resolve_candidates(
        file.candidates, file.training, folder, source, file.search is not None
    )
    cells = len(candidates) * file.folds.count * len(file.seeds)
    if cells > MOST_CELLS:
        raise ExperimentError(
            f"an experiment may have {MOST_CELLS:,} cells, candidates × folds × seeds, got "
            f"{cells:,} ({source}); make several experiments of it"
        )
    _check_search(file, candidates, spaces, source)
    data = file.data
    if (stated := getattr(data, "path", None)) is not None:
        data = data.model_copy(update={"path": absolute(stated, folder, source)})
    search = None if file.search is None else _with_runs(file.search, folder, source)
    experiment = Experiment(
        name=file.name,
        data=data,
        folds=file.folds,
        candidates=candidates,
        seeds=file.seeds,
        resources=file.resources,
        search=search,
        spaces=spaces,
        folder=folder,
    )
    if not experiment.readable:
        raise ExperimentError(
            f"an experiment may come to {yaml_text.MOST_VALUES:,} values, got more as grids of "
            f"distributions are unfolded ({source}: candidates); make several experiments of it"
        )
    return experiment


# --- what types cannot state ----------------------------------------------------------------------


def _check_ranges(file: ExperimentFile) -> None:
    test_set, resources = file.folds.test_set, file.resources
    if test_set != "given" and not 0.05 <= test_set <= 0.5:
        raise ValueError(
            f"folds.test_set must be 'given' or a fraction from 0.05 to 0.5, got {test_set}"
        )
    if len(set(file.seeds)) < len(file.seeds):
        raise ValueError(
            f"seeds must all be different, got {shown(list(file.seeds))}: remove the repeated ones"
        )
    gpus, cpus = resources.gpus_per_cell, resources.cpus_per_cell
    if gpus != "auto" and not 0 <= gpus <= 1:
        raise ValueError(
            f"resources.gpus_per_cell must be auto or from 0 to 1, got {gpus:g}: a cell uses one "
            "GPU at most, and more GPUs train more cells at once"
        )
    if cpus != "auto" and cpus < 1:
        raise ValueError(f"resources.cpus_per_cell must be auto or at least 1, got {cpus}")
    if not getattr(file.data, "path", "of phantoms").strip():
        raise ValueError(
            "data.path must name a folder or a table, got '': write where the images are"
        )
    classes = file.data.classes
    if isinstance(file.data, PhantomData):
        megapixels = (
            len(file.data.classes) * file.data.images_per_class * file.data.image_size**2 / 1e6
        )
        if megapixels > _MOST_MEGAPIXELS:
            raise ValueError(
                f"phantoms may have {_MOST_MEGAPIXELS:,} million pixels in all, got "
                f"{megapixels:,.0f} by data.classes, data.images_per_class and data.image_size: "
                "lower one of them"
            )
    if classes is not None and (len(classes) < 2 or len(set(classes)) < len(classes)):
        raise ValueError(
            f"data.classes must name at least 2 different classes, got {shown(list(classes))}"
        )


def _with_runs(search: Search, folder: Path, source: str) -> Search:
    """The search with the paths of earlier runs absolute."""
    if "" in search.from_:
        raise ExperimentError(f"search.from must name run folders, got '' ({source}: search.from)")
    runs = tuple(os.path.normpath(absolute(stated, folder, source)) for stated in search.from_)
    if twice := next((run for run in runs if runs.count(run) > 1), None):
        raise ExperimentError(
            printable(
                f"search.from must name every run once, got {twice!r} twice ({source}: "
                "search.from); remove one"
            )
        )
    return search.model_copy(update={"from_": runs})


def _check_search(
    file: ExperimentFile, stated: Sequence[Candidate], spaces: tuple[Space, ...], source: str
) -> None:
    """Raise where the search cannot be done, or reaches too many formats of pixels."""
    if file.search is None:
        return
    epochs = max(candidate.training.epochs for candidate in stated)
    found = problems(
        file.search, len(stated), spaces, file.folds, len(file.seeds), MOST_CELLS, epochs
    )
    if problem := next((text for wrong, text in found if wrong), None):
        raise ExperimentError(printable(f"{problem} ({source}: search)"))
    try:
        forms = {
            form for space in spaces for form in islice(input_formats(space), _MOST_FORMATS + 1)
        }
    except ValueError as error:
        raise ExperimentError(f"{error} ({source}: candidates); list fewer choices") from error
    if len(forms) > _MOST_FORMATS:
        raise ExperimentError(
            f"a search may reach {_MOST_FORMATS} input formats, got more by image_size and input "
            f"({source}: candidates); use choice, or int with a larger step"
        )
