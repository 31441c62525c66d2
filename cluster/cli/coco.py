"""`coco`: annotations and detections for tools that read COCO."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.cli.options import LakeOption, lake_root
from cluster.cli.output import say, whole_file

PARTS = ("train", "val", "test")


def coco(
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="The JSON file to write; - for stdout.")
    ],
    *,
    dataset: Annotated[str, typer.Option("--dataset", metavar="NAME", help="The data set.")],
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="Only images of this split.")
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part", metavar="PART", help="train, val or test of --split; may be repeated."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source", metavar="NAME", help="Whose annotations; the only ones when not given."
        ),
    ] = None,
    detections: Annotated[
        str | None,
        typer.Option(
            "--detections",
            metavar="MODEL",
            help="The detections of a bundle (name, or name@version), as a COCO result list.",
        ),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(
            "--category",
            metavar="NAME",
            help="A category, in the order of the ids, which begin at 1; to be repeated. "
            "[default: all, alphabetically]",
            show_default=False,
        ),
    ] = None,
    indent: Annotated[
        bool, typer.Option("--indent", help="Indent the file, for people to read.")
    ] = False,
    lake: LakeOption = None,
) -> None:
    """Write annotations as COCO JSON, or a model's detections as COCO results.

    Images keep their numbers in every part of a data set, and in its detections.

    Example: rayward coco test.json --dataset busi --split busi-split --part test --indent
    """
    from cluster.lake.store import LakeStore
    from jobs.coco import Selection, export_annotations, export_detections
    from schemas.errors import UsageError

    wrong = [one for one in part or () if one not in PARTS]
    if wrong or (part and split is None):
        raise UsageError(
            "There is no such part" if wrong else "A part is of a split",
            where="--part",
            got=", ".join(wrong or part or ()),
            remedy=f"use {', '.join(PARTS)}, and name the split with --split",
        )
    if source is not None and detections is not None:
        raise UsageError(
            "Annotations have a source, detections a model",
            where="--source",
            got=source,
            remedy="leave --source or --detections out",
        )
    selection = Selection(dataset, split, tuple(part) if part else PARTS)
    store = LakeStore.open(lake_root(lake))
    with store.snapshot():
        if detections is not None:
            results, unscored = export_detections(store, selection, detections, category or ())
            _write(results, output, indent=indent)
            _tell(f"{len(results):,} detections", output)
            if unscored:
                say(f"{unscored:,} of the images are not scored by {detections}")
            return
        document = export_annotations(store, selection, source, category or ())
    _write(document, output, indent=indent)
    images, boxes = len(document["images"]), len(document["annotations"])
    _tell(f"{images:,} images with {boxes:,} boxes", output)


def _write(value: Any, output: Path, *, indent: bool) -> None:
    """Write JSON, whole or not at all."""
    text = json.dumps(value, indent=1 if indent else None, ensure_ascii=False, allow_nan=False)
    if str(output) == "-":
        print(text)
        return
    with whole_file(output) as part:
        part.write_text(f"{text}\n", encoding="utf-8")


def _tell(what: str, output: Path) -> None:
    say(what if str(output) == "-" else f"{what} in {output}")
