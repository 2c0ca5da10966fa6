"""Every error that rayfold raises for its user.

A `RayfoldError` is bad input, not a bug: its message is one line that names the rule, the value, the place and the
remedy, and the command line ends with exit code 2. Anything else keeps its traceback.
"""


class RayfoldError(Exception):
    """Base of all errors that the user can mend."""


class ExperimentError(RayfoldError):
    """The experiment file breaks a rule."""


class DataError(RayfoldError):
    """The images, their labels or their table cannot be used as asked."""


class FoldError(RayfoldError):
    """The requested test set, folds or validation parts cannot be drawn from the data."""


class ModelError(RayfoldError):
    """A model or its weights cannot be built as asked."""


class ResourceError(RayfoldError):
    """The cluster can never satisfy what a cell asks for."""


class RunFolderError(RayfoldError):
    """The run folder cannot be read, written or locked."""
