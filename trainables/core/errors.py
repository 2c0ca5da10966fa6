"""Every error that rayfold raises for its user.

A `RayfoldError` is bad input, not a bug: its message is one line that names the rule, the value,
the place and the remedy, and the command line ends with exit code 2. Anything else keeps its
traceback.
"""

import difflib
from collections.abc import Iterable


class RayfoldError(Exception):
    """Base of all errors that the user can mend."""


class ExperimentError(RayfoldError):
    """The experiment file breaks a rule."""


class DataError(RayfoldError):
    """The images, their labels or their table cannot be used as asked."""


class UnreadableImage(DataError):
    """A file that is no image rayfold can use; the message is a short reason without the path, in
    our own words.

    Nothing that a file says of itself stands in it but numbers: a header may name the patient.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FoldError(RayfoldError):
    """The requested test set, folds or validation parts cannot be drawn from the data."""


class ModelError(RayfoldError):
    """A model or its weights cannot be built as asked."""


class ResourceError(RayfoldError):
    """The cluster cannot be reached, starts no worker, or can never satisfy what a cell asks
    for.
    """


class NoWorkerError(ResourceError):
    """Not one worker of this run could start; what stopped the first one is in the ledger."""


class RunFolderError(RayfoldError):
    """The run folder cannot be read, written or locked."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A remedy for a name that does not exist: the known one that is most like it, or all of
    them.
    """
    by_folded = {option.casefold(): option for option in known}
    if alike := difflib.get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.5):
        return f"did you mean {by_folded[alike[0]]!r}?"
    return (
        f"there are {', '.join(map(repr, by_folded.values()))}" if by_folded else "there are none"
    )
