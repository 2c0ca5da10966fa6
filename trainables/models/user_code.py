"""The user's own modules: where they are looked for, how they are imported, and a digest of what
they say.

Her folder comes last on sys.path, so that a file of hers hides no installed module. Only the module
that a candidate names, and its package, are looked for in her folder first.
"""

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainables.core.config import CellSpec
from trainables.core.errors import ModelError
from trainables.core.files import file_digest
from trainables.core.layout import RunLayout
from trainables.core.records import read_provenance
from trainables.core.values import digest
from trainables.models.weights import one_line
from trainables.neighbours import NAMES

_OURS = Path(__file__).resolve().parents[2]
_folders: list[str] = []


def search_also(folder: Path | str) -> None:
    """Look for the user's modules in this folder, too, from now on in this process."""
    if str(folder) not in _folders:
        _folders.append(str(folder))
        sys.path.append(str(folder))


def folder_of(model: str) -> Path | None:
    """The folder, among those given to `search_also`, that holds the module of
    'package.module:builder'.
    """
    name = model.partition(":")[0]
    return next((Path(folder) for folder in _folders if _find(name, folder)), None)


# --- importing ------------------------------------------------------------------------------------


def import_named(model: str) -> Any:
    """The module of 'package.module:builder'; raises ModelError where it is not found or hidden by
    another.
    """
    name = model.partition(":")[0]
    try:
        if folder := folder_of(model):
            _import_top(name.partition(".")[0], folder)
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(
            f"module {name!r} cannot be imported (model: {model}): "
            f"{one_line(error)}{_hidden_by(error)}"
        ) from error


def _import_top(top: str, folder: Path) -> None:
    """Import a top-level module from a folder that other modules of this name on sys.path would
    come before.
    """
    spec = importlib.machinery.PathFinder.find_spec(top, [str(folder)])
    assert spec is not None
    loaded = sys.modules.get(top)
    if loaded is not None:
        ours, theirs = (set(map(str, _places(each))) for each in (spec, loaded.__spec__))
        if not ours & theirs:
            raise ModelError(
                f"module {top!r} of {str(folder)!r} cannot be imported, "
                f"{', '.join(sorted(theirs)) or 'another'} with the same name is loaded already: "
                "rename yours, or use a new process"
            )
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[top] = module
    try:
        if spec.loader is not None:
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(top, None)
        raise


def _places(spec: Any) -> list[Path]:
    """The file of a module, or the folders of a package."""
    folders = list(getattr(spec, "submodule_search_locations", None) or ())
    origin = getattr(spec, "origin", None)
    return [Path(place).resolve() for place in folders or ([origin] if origin else [])]


def _hidden_by(error: ImportError) -> str:
    """A remedy where a module of the user's was not reached because an installed one has its
    name.
    """
    top = (error.name or "").partition(".")[0]
    loaded = getattr(sys.modules.get(top), "__spec__", None)
    for folder in _folders if loaded is not None else ():
        spec = importlib.machinery.PathFinder.find_spec(top, [folder])
        if spec and not set(_places(spec)) & set(_places(loaded)):
            installed = ", ".join(map(str, _places(loaded))) or "a module of Python's own"
            return f"; {top!r} is {installed} and hides yours in {folder!r}: rename yours"
    return ""


# --- finding without running ----------------------------------------------------------------------


@contextmanager
def _last_on_path(folder: Path | str | None) -> Iterator[None]:
    before = list(sys.path)
    if folder is not None:
        sys.path.append(str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _find(name: str, first: Path | str | None = None) -> importlib.machinery.ModuleSpec | None:
    """importlib.util.find_spec without its import of the parent packages; with `first`, in that
    folder only.
    """
    spec, search, parts = None, [str(first)] if first is not None else None, name.split(".")
    for end in range(1, len(parts) + 1):
        full = ".".join(parts[:end])
        finders: list[Any] = (
            [importlib.machinery.PathFinder] if first is not None else sys.meta_path
        )
        spec = next(
            (found for finder in finders if (found := finder.find_spec(full, search)) is not None),
            None,
        )
        if spec is None or (end < len(parts) and spec.submodule_search_locations is None):
            return None
        search = list(spec.submodule_search_locations or ())
    return spec


def watched_files(model: str, import_path: Path | str | None) -> dict[str, Path]:
    """The source files that decide what a builder does, by module name, the builder's own module
    first.

    They are the module of 'package.module:builder' and, in turn, whatever it imports by import
    statements that lies in `import_path`, or, for an installed builder, in its own top-level
    package. Nothing is run. Raises ModelError where the module is not found, or a file is not
    Python.
    """
    name = model.partition(":")[0]
    with _last_on_path(import_path):
        local = _find(name, import_path) if import_path is not None else None
        spec = local or _find(name)
        if spec is None or not spec.origin or not Path(spec.origin).is_file():
            raise ModelError(
                f"no source file of module {name!r} was found (model: {model}); check import_path "
                "or install it"
            )
        top = name.partition(".")[0]
        if local is not None and import_path is not None:
            counts = _in_users_folder(Path(import_path))
        else:
            counts = _in_package(_find(top))
        found: dict[str, Path] = {}
        ahead = [name]
        while ahead:
            module = ahead.pop(0)
            first = import_path if local is not None and module.partition(".")[0] == top else None
            for each in _with_packages(module, first, counts):
                if each.name not in found:
                    path = Path(str(each.origin))
                    found[each.name] = path
                    ahead += _imports(path, each.parent or "", model)
    return {name: found[name], **found}


def _with_packages(
    module: str, first: Path | str | None, counts: Callable[[Path], bool]
) -> Iterator[importlib.machinery.ModuleSpec]:
    """A module and the packages around it, as far as they are files that count."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        spec = _find(".".join(parts[:end]), first)
        if spec is None:
            return
        if spec.has_location and spec.origin and Path(spec.origin).is_file():
            if not counts(Path(spec.origin)):
                return
            yield spec
        elif spec.submodule_search_locations is None:
            return


def _in_users_folder(folder: Path) -> Callable[[Path], bool]:
    root = folder.resolve()
    others = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
    others += [_OURS / package for package in ("cluster", *NAMES)]

    def counts(path: Path) -> bool:
        path = path.resolve()
        if not path.is_relative_to(root) or any(path.is_relative_to(other) for other in others):
            return False
        return not {"site-packages", "dist-packages"} & set(path.relative_to(root).parts)

    return counts


def _in_package(spec: importlib.machinery.ModuleSpec | None) -> Callable[[Path], bool]:
    places = _places(spec)
    return lambda path: any(path.resolve().is_relative_to(place) for place in places)


def _imports(path: Path, package: str, model: str) -> list[str]:
    """The absolute names of all that a source file imports by statements, functions and branches
    included.
    """
    names = []
    for node in ast.walk(_tree(path, model)) if path.suffix == ".py" else ():
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # beyond the top: the import itself will fail
                continue
            names += [base, *(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")]
    return names


def _tree(path: Path, model: str) -> ast.Module:
    try:
        with warnings.catch_warnings(action="ignore"):
            return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ModelError(
            f"{str(path)!r}{line} is not valid Python (model: {model}): {one_line(error)}"
        ) from error


# --- digest ---------------------------------------------------------------------------------------


def source_digest(model: str, import_path: Path | str | None) -> str:
    """16 hex digits that change with what `watched_files` say: not with comments, docstrings,
    layout or place.

    What is imported by other means than import statements, and files of data, are not covered.
    Raises ModelError as `watched_files` does.
    """
    files = watched_files(model, import_path)
    return digest({name: _meaning(path, model) for name, path in files.items()})


def _meaning(path: Path, model: str) -> str:
    if path.suffix != ".py":
        return file_digest(path)
    return hashlib.sha256(repr(_canonical(_tree(path, model))).encode()).hexdigest()


def _canonical(node: Any) -> Any:
    """A syntax tree as nested lists that are the same for every version of Python: what is empty is
    left out.
    """
    if isinstance(node, list):
        return [_canonical(each) for each in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    fields.pop("kind", None)  # u"" is ""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
        ast.get_docstring(node, clean=False) is not None
    ):
        fields["body"] = node.body[1:]
    kept = [
        [name, _canonical(value)]
        for name, value in fields.items()
        if value is not None and value != []
    ]
    return [type(node).__name__, *kept]


def folder_that_trained(layout: RunLayout, spec: CellSpec) -> Path:
    """Where the code lies that trained a builder's cell: the experiment's folder, else the current
    one.

    Raises ModelError where it is gone or has changed.
    """
    model, problem = spec.candidate.model, None
    for folder in dict.fromkeys([*_recorded_folders(layout), Path.cwd()]):
        try:
            found = source_digest(model, folder)
        except ModelError as error:
            problem = problem or str(error)
            continue
        if found == spec.builder_hash:
            return folder
        names = ", ".join(path.name for path in watched_files(model, folder).values())
        problem = (
            f"{names} {'have' if ', ' in names else 'has'} changed since this cell was trained "
            f"(candidate {spec.candidate.name!r}): run the experiment again, or put the code back "
            "as it was"
        )
    raise ModelError(str(problem))


def _recorded_folders(layout: RunLayout) -> list[Path]:
    """The folder of the experiment file as the latest invocation of the run knew it."""
    invocations = read_provenance(layout.provenance).invocations
    return (
        [Path(invocations[-1].experiment_folder)]
        if invocations and invocations[-1].experiment_folder
        else []
    )
