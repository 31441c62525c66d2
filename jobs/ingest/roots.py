"""What all uris of a source have in common."""

import os
from pathlib import Path
from urllib.parse import urlsplit


def source_root(source: str) -> str:
    """The prefix that all uris of a source share: an absolute path, or ``s3://bucket/prefix``.

    Symbolic links in a path stay as they are written, because an archive that moves behind one is
    still the same archive.
    """
    if source.startswith("s3://"):
        return f"s3://{source[5:].strip('/')}"
    path = urlsplit(source).path if source.startswith("file://") else source
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100 - Path.resolve follows links
