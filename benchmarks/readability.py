"""How the packages read, in numbers: `python -m benchmarks.readability [CHECKOUT]`.

A mirror and no limit: where elegance and a number disagree, elegance wins. Standard library only,
so that it measures any checkout of rayfold, or any other Python project by the names of its
packages: `python -m benchmarks.readability CHECKOUT package…`.
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles

PACKAGES = ("rayfold", "orchestrator", "xai", "trainables", "cluster")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def measures(root: Path, packages: Sequence[str]) -> dict[str, str]:
    """Name and value of each measure of the packages below `root`."""
    paths = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
    texts = [path.read_text("utf-8") for path in paths]
    trees = [ast.parse(text) for text in texts]
    lines = [line for text in texts for line in text.splitlines()]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, Function)]
    sizes = [(node.end_lineno or 0) - node.lineno + 1 for node in functions]
    long = sum(len(line) > 100 for line in lines)
    comprehensions = sum(
        isinstance(node, ast.comprehension) for tree in trees for node in ast.walk(tree)
    )
    inner = sum(_is_import(node) for function in functions for node in ast.walk(function))
    documented, told_apart = _docstrings(trees)
    folders = Counter(
        str(path.parent.relative_to(root)) for path in paths if path.stem != "__init__"
    )
    fullest = folders.most_common(1)[0]
    return {
        "modules": f"{len(paths)}",
        "lines": f"{len(lines):,}",
        "lines of a module: median, longest": (
            f"{median(map(_length, texts)):.0f}, {max(map(_length, texts))}"
        ),
        "lines of a function: median, 9 of 10, longest": (
            f"{median(sizes):.0f}, {quantiles(sizes, n=10)[-1]:.0f}, {max(sizes)}"
        ),
        "modules in the fullest folder": f"{fullest[1]} ({fullest[0]})",
        "functions with all types": f"{_share(sum(map(_is_typed, functions)), len(functions))}",
        "lines over 100 columns": f"{long} ({_share(long, len(lines))})",
        "comprehensions per 100 lines": f"{100 * comprehensions / len(lines):.1f}",
        "imports inside functions": f"{inner}",
        "public functions and classes with a docstring": f"{_share(*documented)}",
        "of these with arguments, returns or errors told apart": f"{_share(*told_apart)}",
    }


def _length(text: str) -> int:
    return len(text.splitlines())


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.1f} %"


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_typed(function: Function) -> bool:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    stated = all(each.annotation for each in named if each.arg not in ("self", "cls"))
    return stated and function.returns is not None


def _public(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    """Functions and classes without an underscore, and such methods of such classes."""
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield node
        inside = node.body if isinstance(node, ast.ClassDef) else []
        for method in inside:
            if isinstance(method, Function) and not method.name.startswith("_"):
                yield method


def _docstrings(trees: Sequence[ast.Module]) -> tuple[tuple[int, int], tuple[int, int]]:
    texts = [ast.get_docstring(node) for tree in trees for node in _public(tree)]
    there = [text for text in texts if text]
    sections = re.compile(r"^(Args|Arguments|Parameters|Returns|Raises|Yields):?$", re.MULTILINE)
    return (len(there), len(texts)), (
        sum(bool(sections.search(text)) for text in there),
        len(there),
    )


def main() -> None:
    """Print the measures as a table."""
    root, *packages = [*sys.argv[1:], "."] if len(sys.argv) < 2 else sys.argv[1:]
    for name, value in measures(Path(root), packages or PACKAGES).items():
        sys.stdout.write(f"{name:54} {value}\n")


if __name__ == "__main__":
    main()
