"""Which cell a worker is to take: it says what it holds, and the driver answers.

Ray Tune chooses the process that a new trial gets, and tells nobody which. So a trial first reports
what its process holds compiled, and the driver, which sees that report before the process goes on,
leaves word of the cell that suits it best.
"""

from trainables.runtime.ray_internals import leave_word, word


def appoint(trial: str, key: str, ladder: str = "") -> bool:
    """Leave word that a trial is to take the cell of this key, none if it is empty, and the
    rungs that its cell is held to; False where no word can be left.
    """
    return leave_word(_address(trial), f"{key}\n{ladder}".encode())


def appointed(trial: str) -> tuple[str, str] | None:
    """The key that was left for a trial, and its cell's rungs; None where there is no word."""
    found = word(_address(trial))
    if found is None:
        return None
    key, _, ladder = found.decode().partition("\n")
    return key, ladder


def _address(trial: str) -> bytes:
    import ray

    return f"rayfold:cell:{ray.get_runtime_context().get_job_id()}:{trial}".encode()
