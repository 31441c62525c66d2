"""Options that several commands share, and what they are when not given."""

import os
from typing import Annotated

import typer

DEFAULT_LAKE = "./lake"

LakeOption = Annotated[
    str | None,
    typer.Option(
        "--lake",
        metavar="URI",
        help="The lake: a path, or s3://bucket/prefix. [default: $RAYWARD_LAKE, $LAKE, or ./lake]",
        show_default=False,
    ),
]
LakeOverride = Annotated[
    str | None,
    typer.Option("--lake", metavar="URI", help="A lake that replaces the file's."),
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", metavar="NAME", help="A profile of the file to apply."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        help="Replace one value: JOB.FIELD=VALUE or lake=VALUE; may be repeated.",
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="Only the job of this name; may be repeated."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout and nothing else there.")]


def lake_root(option: str | None) -> str:
    """Where the lake lies for a command that reads no job file.

    Raises:
        UsageError: if the URI holds credentials.
    """
    from schemas.errors import UsageError
    from schemas.masking import holds_secret, masked

    root = option or os.environ.get("RAYWARD_LAKE") or os.environ.get("LAKE") or DEFAULT_LAKE
    if holds_secret(root):
        raise UsageError(
            "The lake's URI holds a secret",
            got=masked(root),
            remedy="credentials come from the environment, a profile or a role",
        )
    return root
