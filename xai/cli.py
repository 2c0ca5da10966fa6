"""The command `rayfold explain`, or `python -m xai`. Heavy modules are imported once the options are known."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def explain(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    methods: Annotated[
        str, typer.Option(help="Methods, separated by commas; `--methods list` names them.")
    ] = "gradcam",
    candidates: Annotated[str, typer.Option(help="Ids or names, separated by commas; default: all.")] = "",
    folds: Annotated[str, typer.Option(help="Numbers, separated by commas; default: all.")] = "",
    split: Annotated[
        Literal["test", "oof", "all"], typer.Option(help="Test set, out-of-fold images, or both.")
    ] = "all",
    layers: Annotated[str, typer.Option(help="Layers for the CAM methods, separated by commas.")] = "auto",
    faithfulness: Annotated[
        int, typer.Option(help="Images per cell and split whose maps the model itself judges; 0: none.", min=0)
    ] = 32,
    overlays: Annotated[bool, typer.Option(help="Draw every image with its map.")] = True,
    edge: Annotated[int, typer.Option(help="Longest edge of overlays in pixels; 0: as the original.", min=0)] = 512,
    png: Annotated[bool, typer.Option("--png", help="Overlays as PNG; default: JPEG.")] = False,
    jet: Annotated[bool, typer.Option("--jet", help="The classic colours; default: inferno, which is even.")] = False,
    per_image: Annotated[
        bool, typer.Option("--per-image-scale", help="Scale each map by itself; images are then not comparable.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster to use; default: RAY_ADDRESS, else this machine.", envvar="RAY_ADDRESS"),
    ] = None,
) -> None:
    """Explain the finished cells of a run: heatmaps, overlays, scores of whether to believe them, a gallery."""
    from xai.methods import METHODS, method_named

    if methods == "list":
        for method in METHODS.values():
            typer.echo(f"{method.name:22} {method.title:22} about {method.passes} forward passes per image")
        return
    from trainables.connection import prepare_ray
    from trainables.errors import RunFolderError
    from xai.work import Options

    try:
        numbers = tuple(int(part) for part in _parts(folds))
    except ValueError:
        raise RunFolderError(f"--folds must be whole numbers separated by commas, got {folds!r}") from None
    options = Options(
        candidates=_parts(candidates),
        folds=numbers,
        split=split,
        methods=tuple(method_named(name).name for name in dict.fromkeys(_parts(methods))),
        layers=_parts(layers),
        faithfulness=faithfulness,
    )
    prepare_ray(address)
    from xai.explain import explain_run
    from xai.pages import Style

    style = Style(
        overlays=overlays,
        edge=edge,
        suffix=".png" if png else ".jpg",
        colours="jet" if jet else "inferno",
        per_image=per_image,
    )
    raise typer.Exit(explain_run(run, options, style, address, _say))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
