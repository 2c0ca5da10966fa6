"""Groups by the user's pattern: evaluated where a pattern that takes for ever ends that process
only.
"""

import re
from collections.abc import Iterator, Sequence

from trainables.core.errors import DataError, UnreadableImage
from trainables.core.limits import SECONDS
from trainables.core.spelling import pattern as shown
from trainables.core.spelling import quoted
from trainables.pictures.decoders import each

_AT_ONCE = 1000  # names
_LONGEST = 4096  # characters of a pattern


def check_pattern(pattern: str) -> None:
    """Raise `DataError` unless it is a regular expression with one group, and not endless."""
    if len(pattern) > _LONGEST:
        raise DataError(
            f"data.group_from_name may have {_LONGEST:,} characters, got {len(pattern):,} (write a "
            "shorter pattern)"
        )
    try:
        groups = re.compile(pattern).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise DataError(
            f"data.group_from_name must be a regular expression, got {shown(pattern)}: {error}"
        ) from None
    if groups != 1:
        raise DataError(
            f"data.group_from_name must have exactly one (group), got {groups} in {shown(pattern)} "
            "(write the others as (?:...))"
        )


def groups_in(pattern: str, texts: Sequence[str]) -> Iterator[str | None]:
    """What the pattern reads in each text, in order; raises `DataError` where that takes too
    long.
    """
    parts = [texts[start : start + _AT_ONCE] for start in range(0, len(texts), _AT_ONCE)]
    for part, found in zip(parts, each(search, [(pattern, part) for part in parts]), strict=True):
        if isinstance(found, UnreadableImage):
            raise DataError(
                f"data.group_from_name must read {len(part):,} names within {SECONDS:g} s, got "
                f"{shown(pattern)}, which does not for those from {quoted(part[0])} to "
                f"{quoted(part[-1])} (a repetition of a repetition, as in (a+)+, takes for ever: "
                "write it in another way)"
            )
        yield from found


def search(pattern: str, texts: Sequence[str]) -> list[str | None]:
    """The group in each text; None where the pattern does not match, or matches without it."""
    expression = re.compile(pattern)
    matches = map(expression.search, texts)
    return [match.group(1) if match else None for match in matches]
