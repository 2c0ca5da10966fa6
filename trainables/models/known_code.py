"""Whether the user has run a builder's code before: what a run folder says of code proves nothing,
since whoever made the folder wrote it.

A note for each builder and digest of its code lies in the user's state folder, never in a run.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from trainables.core.config import CellSpec
from trainables.core.errors import ModelError
from trainables.core.files import write_text
from trainables.core.values import digest
from trainables.runtime.private_folder import foreign_owner


def builders(specs: Iterable[CellSpec]) -> list[CellSpec]:
    """One cell of each builder, with each digest of its code; cells that are lost have none."""
    found = {
        (spec.candidate.model, spec.builder_hash): spec
        for spec in specs
        if ":" in spec.candidate.model and spec.builder_hash is not None
    }
    return list(found.values())


def remember(spec: CellSpec) -> None:
    """Note that the user means this builder's code, as it is now; OSError where that cannot be
    written down.
    """
    note = _note(spec)
    note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_text(note, f"{spec.candidate.model}\n")


def check_known(spec: CellSpec, run: Path) -> None:
    """Raise ModelError unless the model is the zoo's, or its builder's code has been run or allowed
    by this user.
    """
    model = spec.candidate.model
    if ":" not in model:
        return
    note = _note(spec)
    if not note.is_file() or foreign_owner(note) is not None:
        raise ModelError(
            f"candidate {spec.candidate.name!r} needs the code of {model}, which you have not run "
            f"before on this account: read it, then `rayfold trust {str(run)!r}`"
        )


def _note(spec: CellSpec) -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    try:
        state = Path(base) if base else Path.home() / ".local" / "state"
    except RuntimeError:
        raise ModelError(
            "code of your own is remembered in a folder of yours, and this user has no home: set "
            "XDG_STATE_HOME"
        ) from None
    what = [spec.candidate.model, spec.builder_hash]
    return state / "rayfold" / "known_code" / digest(what, 32)
