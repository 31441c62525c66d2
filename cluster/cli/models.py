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
    lake: LakeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the model bundles, or all that is known of one.

    Example: rayward models pneumonia-resnet18
    """
    from cluster.cli.formats import plain
    from cluster.lake.store import LakeStore
    from cluster.render import console, grid, printable

    store = LakeStore.open(lake_root(lake))
    if name is not None:
        bundle = plain(dict(store.bundle(name)))
        if as_json:
            print_json(bundle)
            return
        rows = [(key, _text(value)) for key, value in bundle.items() if value is not None]
        console(sys.stdout).print(grid(("field", "value"), rows, right=()))
        return
    found = store.query("SELECT * FROM models ORDER BY name, version").to_pylist()
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
