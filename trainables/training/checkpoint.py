"""The resume state of a cell: all that is needed to go on after an interruption as if there had
been none.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainables.core.files import open_regular, replacing

Arrays = list[NDArray[Any]]


@dataclass
class TrainingState:
    """Where training stands at the end of an epoch. `state` and the weights that are `kept`, by
    epoch, the best first, are in the session's order.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    best_value: float = float("-inf")
    seconds: dict[str, float] = field(default_factory=dict)
    state: Arrays = field(default_factory=list)
    kept: dict[int, Arrays] = field(default_factory=dict)


def save(path: Path, training: TrainingState) -> None:
    """Write one uncompressed .npz, whole or not at all."""
    arrays = {f"state_{i:05}": a for i, a in enumerate(training.state)}
    kept = [array for weights in training.kept.values() for array in weights]
    arrays |= {f"best_{i:05}": a for i, a in enumerate(kept)}
    facts = {
        "epochs": training.epochs,
        "best_epoch": training.best_epoch,
        "best_value": training.best_value,
        "seconds": training.seconds,
        "arrays": list(arrays),
        "kept": list(training.kept),
    }
    with replacing(path) as temporary:
        stated = np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8)
        np.savez(temporary, facts=stated, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> TrainingState | None:
    """Read a resume state; None where there is none or it is damaged, so that the cell starts
    over.
    """
    try:
        with open_regular(path) as source, np.load(source, allow_pickle=False) as file:
            if sum(part.file_size for part in file.zip.infolist()) > path.stat().st_size:
                return None  # it was written uncompressed
            facts = json.loads(bytes(file["facts"]))
            # Not what the archive lists: damage may hide an array there.
            names = facts.pop("arrays")
            state = [file[name] for name in names if name.startswith("state_")]
            best = [file[name] for name in names if name.startswith("best_")]
        # Without their epochs, as they once were written, they are of the best.
        epochs = facts.pop("kept", [facts["best_epoch"]] if best else [])
        size = len(best) // max(len(epochs), 1)
        kept = {epoch: best[i * size : (i + 1) * size] for i, epoch in enumerate(epochs)}
        return TrainingState(**facts, state=state, kept=kept)
    except Exception:  # damaged bytes make zipfile and numpy raise almost anything
        return None
