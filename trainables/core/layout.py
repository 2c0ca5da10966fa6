"""Where everything of a run lies on disk: one object that knows all the paths.

It builds names only; reading and writing belong to the modules that own the content.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from trainables.core.errors import ResourceError


@dataclass(frozen=True)
class RunLayout:
    """The paths inside one run folder."""

    root: Path

    @property
    def experiment(self) -> Path:
        """The resolved experiment."""
        return self.root / "experiment.yaml"

    @property
    def provenance(self) -> Path:
        return self.root / "provenance.json"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.parquet"

    @property
    def unusable(self) -> Path:
        """The images that cannot be used, where they are too many to be named in one line."""
        return self.root / "unusable_images.csv"

    @property
    def folds(self) -> Path:
        return self.root / "folds.parquet"

    @property
    def cells(self) -> Path:
        """The ledger keys of all cells that the experiment asks for, in order."""
        return self.root / "cells.json"

    @property
    def time_spent(self) -> Path:
        """What a search with budgets of time has taken so far."""
        return self.root / "search" / "time.json"

    @property
    def lock(self) -> Path:
        return self.root / "run.lock"

    @property
    def log(self) -> Path:
        return self.root / "run.log"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger"

    @property
    def journal(self) -> Path:
        """What a search suggested, handed out, learned and decided: its only memory."""
        return self.root / "search" / "journal.jsonl"

    @property
    def tune(self) -> Path:
        """Ray Tune's own bookkeeping; nothing of it is ever read back."""
        return self.root / "tune"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def report_text(self) -> Path:
        return self.root / "final_report.txt"

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    @property
    def heatmaps(self) -> Path:
        """One folder per method, layer and cell, with the shards of its heatmaps."""
        return self.root / "xai" / "heatmaps"

    @property
    def overlays(self) -> Path:
        return self.root / "xai" / "overlays"

    @property
    def xai_tables(self) -> Path:
        """What the heatmaps showed: summary, folds, sanity."""
        return self.root / "xai" / "tables"

    @property
    def xai_figures(self) -> Path:
        return self.root / "xai" / "figures"

    @property
    def xai_lock(self) -> Path:
        return self.root / "xai.lock"

    @property
    def gallery(self) -> Path:
        return self.root / "xai" / "gallery.html"

    def candidate_figures(self, candidate: str) -> Path:
        return self.figures / candidate


def cache_folder() -> Path:
    """Where image stores and phantoms of all runs lie: $RAYFOLD_CACHE, else the user's cache
    folder.
    """
    chosen = os.environ.get("RAYFOLD_CACHE")
    if chosen:
        return Path(chosen).absolute()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "rayfold"
    try:
        return Path.home() / ".cache" / "rayfold"
    except RuntimeError:
        raise ResourceError(
            "image stores need a folder, and this user has no home: set RAYFOLD_CACHE to a folder "
            "of your own"
        ) from None
