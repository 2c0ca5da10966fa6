"""What single values may be, and frozen records of them: what users may write, and what the ledger
hashes. Knows neither Ray nor TensorFlow.
"""

import hashlib
import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from typing_extensions import TypeAliasType

#: Numbers as they are written: neither true nor '3' is one.
Whole = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True)]


def _no_file(name: str) -> str:
    if is_file_name(name):
        raise ValueError("must not end like the name of a file")
    return name


def is_file_name(name: str) -> bool:
    """Whether a name ends as the files do that rayfold writes beside folders of candidates, in
    capitals or not.
    """
    return name.lower().endswith((".png", ".pdf"))


#: What numpy accepts as a seed everywhere.
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
#: What people read on one line of a terminal.
Line = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
#: What becomes a folder or a part of a file's name; not called like a file that lies beside such
#: folders.
Identity = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?$", max_length=100),
    AfterValidator(_no_file),
]
Scalar = bool | int | float | str | None
#: What a builder can be given.
Argument = TypeAliasType("Argument", "Scalar | list[Argument]")


class Frozen(BaseModel):
    """A frozen model that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def digest(value: Any, length: int = 16) -> str:
    """The first `length` hex digits of the SHA-256 of a JSON-able value in canonical form."""
    canonical = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]
