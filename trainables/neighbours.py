"""rayfold's packages find each other by where they lie, whatever a search path has under their
names.

A user may well have an `xai.py` beside her script or experiment, and Python takes what it finds
first. So each of our packages opens this file by its place, as its first act. `cluster` runs in
processes of its own, but for `rayfold.submit`: hers comes first.

In Ray's workers the user's folders may come first on the search path before any line of ours runs.
There the folder `signposts` stands in front of them all: a module in it becomes our package of its
name.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).absolute().parents[1]
NAMES = ("rayfold", "orchestrator", "trainables", "xai")
SIGNPOSTS = ROOT / "trainables" / "signposts"


class Neighbours:
    """A finder for `sys.meta_path` that knows where our packages lie, and that a `cluster`
    elsewhere is the user's.
    """

    root = ROOT

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        if name in NAMES:
            return spec_from_file_location(name, ROOT / name / "__init__.py")
        if name == "cluster":
            return _users(name)
        return None


def settle() -> None:
    """From now on our names lead to our packages in this process.

    Where somebody else's module has such a name already, that is one line: of a command, which it
    ends with exit code 2, else of an ImportError.
    """
    if not any(getattr(finder, "root", None) == ROOT for finder in sys.meta_path):
        sys.meta_path.insert(0, Neighbours)
    for name in NAMES:
        place = _place(sys.modules.get(name))
        if place and not _is_ours(name, place):
            line = (
                f"{name!r} stands for {place!r} here, where rayfold needs its own package in "
                f"{str(ROOT)!r}: import rayfold first, or rename the other"
            )
            if Path(sys.argv[0]).name in ("-m", "rayfold"):
                sys.stderr.write(f"rayfold: {line}\n")
                sys.exit(2)
            raise ImportError(line, name=name)


def stand_for(name: str) -> None:
    """Run by a signpost as it is imported: the package itself takes its place, in a process that is
    now ours.
    """
    current_folder_last(added=True)
    del sys.modules[name]
    settle()
    spec = Neighbours.find_spec(name)
    assert spec
    assert spec.loader
    sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


@contextmanager
def our_cluster() -> Iterator[None]:
    """Here `cluster` is our package; afterwards it is again what it was, where the user has one.

    Our modules find each other while they are imported, and hold on to what they have found.
    """
    place = _place(sys.modules.get("cluster"))
    if place and _is_ours("cluster", place):
        yield
        return
    hers = _taken_out()
    spec = spec_from_file_location("cluster", ROOT / "cluster" / "__init__.py")
    assert spec
    sys.modules["cluster"] = module_from_spec(spec)  # its __init__ holds nothing but words
    try:
        yield
    finally:
        if hers or _users("cluster"):
            _taken_out()
            sys.modules.update(hers)


def _taken_out() -> dict[str, ModuleType]:
    """The modules of what `cluster` is now, which are no longer known under their names."""
    names = [name for name in sys.modules if name.partition(".")[0] == "cluster"]
    return {name: sys.modules.pop(name) for name in names}


def current_folder_last(added: bool = False) -> None:
    """Nothing in the current folder, such as a `keras.py`, stands for a library; what only lies
    there is still found.

    added: also where the current folder was not on the search path.
    """
    try:
        here = os.path.realpath(os.curdir)
    except FileNotFoundError:  # somebody deleted it, so nothing lies there
        return
    others = [entry for entry in sys.path if os.path.realpath(entry) != here]
    if added or len(others) < len(sys.path):
        sys.path[:] = [*others, here]


def _place(module: ModuleType | None) -> str | None:
    """The file of a module, or the folder of a package that is a mere folder."""
    return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)


def _is_ours(name: str, place: str) -> bool:
    return os.path.realpath(place) == os.path.realpath(ROOT / name / "__init__.py")


def _users(name: str) -> ModuleSpec | None:
    """The first module or package of this name on the search path that is not ours; a mere folder
    does not count.
    """
    for folder in sys.path:
        spec = PathFinder.find_spec(name, [folder])
        if spec and spec.origin and not _is_ours(name, spec.origin):
            return spec
    return None
