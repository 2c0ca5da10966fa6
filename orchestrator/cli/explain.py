"""`rayfold explain`, and `python -m xai`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from orchestrator.cli.common import Address, say
from trainables.core.errors import RunFolderError
from trainables.runtime.connection import prepare_ray
from xai.methods.registry import METHODS

Methods = Annotated[
    str,
    typer.Option(
        help=(
            "Methods, separated by commas, layercam@14 for a layer of its own; `--methods list` "
            "names them."
        )
    ),
]
Candidates = Annotated[
    str | None, typer.Option(help="Ids or names, separated by commas; default: all.")
]
Folds = Annotated[str | None, typer.Option(help="Numbers, separated by commas; default: all.")]
Split = Annotated[
    Literal["test", "oof", "all"], typer.Option(help="Test set, out-of-fold images, or both.")
]
Layers = Annotated[
    str,
    typer.Option(
        help=(
            "Layers for the CAM methods, separated by commas: auto for the last feature map, a "
            "name, or a number for the last layer with so many cells along each edge."
        )
    ),
]
Judged = Annotated[
    int, typer.Option(help="Images per cell and split whose maps the model judges; 0: none.", min=0)
]
Overlays = Annotated[bool, typer.Option(help="Draw every image with its map.")]
Edge = Annotated[
    int,
    typer.Option(help="Longest edge of overlays in pixels; 0: as the original.", min=0, max=10_000),
]
Png = Annotated[bool, typer.Option("--png", help="Overlays as PNG; default: JPEG.")]
Jet = Annotated[
    bool, typer.Option("--jet", help="The classic colours; default: inferno, which is even.")
]
PerImage = Annotated[
    bool,
    typer.Option(
        "--per-image-scale", help="Scale each map by itself; images are then not comparable."
    ),
]


def explain(
    run: Annotated[Path | None, typer.Argument(help="A run folder.", metavar="RUN")] = None,
    methods: Methods = "gradcam",
    candidates: Candidates = None,
    folds: Folds = None,
    split: Split = "all",
    layers: Layers = "auto",
    faithfulness: Judged = 32,
    overlays: Overlays = True,
    edge: Edge = 512,
    png: Png = False,
    jet: Jet = False,
    per_image: PerImage = False,
    address: Address = None,
) -> None:
    if methods == "list":
        for method in METHODS.values():
            typer.echo(
                f"{method.name:22} {method.title:22} about {method.passes} forward passes per image"
            )
        return
    if run is None:
        raise RunFolderError(
            "explain needs a run folder: `rayfold explain RUN`, with what `rayfold run` has made"
        )
    # Slow to import, and of no use to whoever asks for the list or forgets the run.
    from xai.shards.shard_plan import ExplainOptions

    try:
        numbers = tuple(int(part) for part in _parts(folds, "--folds"))
    except ValueError:
        raise RunFolderError(
            f"--folds must be whole numbers separated by commas, got {folds!r}"
        ) from None
    options = ExplainOptions(
        candidates=_parts(candidates, "--candidates"),
        folds=numbers,
        split=split,
        methods=_parts(methods, "--methods"),
        layers=_parts(layers, "--layers"),
        faithfulness=faithfulness,
    )
    prepare_ray(address)
    from orchestrator.execution.explanation import explain_and_report  # loads Ray as prepared
    from xai.drawing.pages import Style

    suffix, colours = ".png" if png else ".jpg", "jet" if jet else "inferno"
    style = Style(overlays=overlays, edge=edge, suffix=suffix, colours=colours, per_image=per_image)
    raise typer.Exit(explain_and_report(run, options, style, address, say))


def _parts(text: str | None, option: str) -> tuple[str, ...]:
    """What an option lists; nothing where it is not given."""
    parts = tuple(part.strip() for part in (text or "").split(",") if part.strip())
    if text is not None and not parts:
        raise RunFolderError(
            f"{option} must name something, got {text!r}; leave it out for its default"
        )
    return parts
