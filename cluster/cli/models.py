"""`models`: the bundles of a lake."""

import json
import sys
from typing import Annotated, Any

import typer

from cluster.cli.options import JsonOption, LakeOption, lake_root
from cluster.cli.output import print_json, say


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A bundle: name, or name@version.")
    ] = None,
    nightly: Annotated[
        bool | None,
        typer.Option(
            "--nightly/--no-nightly",
            help="Mark the bundle NAME for nights, or take its mark away.",
            show_default=False,
        ),
    ] = None,
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the model bundles, show one, or mark one for nights.

    Nights score with every version that is marked; a newer one re-scores the archive in slices
    while the older one goes on with what is new.

    Example: rayward models pneumonia-resnet18@2 --nightly
    """
    from cluster.cli.formats import plain
    from cluster.lake.marking import mark_nightly
    from cluster.lake.store import LakeStore
    from cluster.render import console, grid, printable
    from schemas.errors import UsageError

    store = LakeStore.open(lake_root(lake))
    if nightly is not None:
        if name is None:
            raise UsageError(
                "Which bundle?", where="--nightly", remedy="name it: rayward models NAME@VERSION"
            )
        row = mark_nightly(store, name, nightly=nightly)
        name = f"{row['name']}@{row['version']}"
        say(f"{name} is {'marked' if nightly else 'not marked'} for nights.")
        if not as_json:
            return
    if name is not None:
        bundle = plain(dict(store.bundle(name)))
        if as_json:
            print_json(bundle)
            return
        for key, value in bundle.items():
            if value is not None:
                line = f"{key:<{max(map(len, bundle))}}  {printable(_text(value))}"
                console(sys.stdout).print(line, soft_wrap=True)
        return
    found = store.query("SELECT * FROM current_models ORDER BY name, version").to_pylist()
    if as_json:
        for bundle in found:
            print_json(plain(bundle))
        return
    if not found:
        say("No model yet: a train job makes one.")
        return
    headers = ("name", "version", "family", "classes", "nightly", "model_id")
    cells = [
        (
            bundle["name"],
            bundle["version"],
            bundle["family"],
            printable(", ".join(bundle["classes"])),
            "yes" if bundle["nightly"] else "",
            bundle["model_id"],
        )
        for bundle in found
    ]
    console(sys.stdout).print(grid(headers, cells, right=(1,)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
