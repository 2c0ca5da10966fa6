"""How a launch ends: exit codes that `sacct` and job dependencies can rely on."""

START_FAILED = 70
JOIN_TIMEOUT = 71
DEADLINE = 72
HEAD_LOST = 73
TERMINATED = 143

DRIVER_LOST_CLUSTER = (
    75  # rayfold's own word for HEAD_LOST, where its driver notices before the launcher
)


class Ending(Exception):
    """How it ended: exit code and words."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(what)
        self.code, self.what = code, what


class Interrupted(Exception):
    """A signal came, whatever the phase."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
