"""The settings of candidates, side by side."""

from collections.abc import Mapping, Sequence

import pandas as pd

from trainables.core.config import Candidate
from trainables.core.training_config import unused


def settings_table(
    candidates: Sequence[Candidate], parameters: Mapping[str, int | None]
) -> pd.DataFrame:
    """One row per candidate: id, name, model, image_size, parameters (of the model, by candidate's
    id), then its training settings, of the less usual ones those that any candidate states.
    """
    rows = []
    left_out = unused(candidate.training for candidate in candidates)
    for candidate in candidates:
        training = candidate.training.model_dump(mode="json", exclude=left_out)
        sections = {name: value for name, value in training.items() if isinstance(value, dict)}
        inner = {
            f"{name}_{key}": value
            for name, values in sections.items()
            for key, value in values.items()
        }
        rows.append(
            {
                "id": candidate.id,
                "name": candidate.name,
                "model": candidate.model,
                "image_size": candidate.image_size,
                "parameters": parameters.get(candidate.id),
                **{name: value for name, value in training.items() if name not in sections},
                **inner,
                **{f"argument_{key}": value for key, value in candidate.arguments.items()},
            }
        )
    return pd.DataFrame(rows)
