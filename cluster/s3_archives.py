"""Archives on S3: the objects below a prefix, in the store's own order.

That is the order of the names in all but directory buckets, so a listing of any length is passed on
page by page and never held whole; and as columns, because a million Python objects take longer
to make than a million names to list.
"""

import os
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from botocore.exceptions import BotoCoreError
from obstore.exceptions import BaseError, InvalidPathError

from cluster.storage import open_storage
from schemas.errors import LakeError, SourceError
from schemas.protocols import LISTING


def list_archive(root: str) -> Iterator[pa.RecordBatch]:
    """The objects below ``s3://bucket/prefix``, without hidden ones; columns of `LISTING`.

    Raises:
        SourceError: if it can't be listed, or holds a key that obstore can't name, as one with an
            empty part.
    """
    bucket = urlsplit(root).netloc
    if not bucket:
        raise SourceError("The source names no bucket", got=root, remedy="write s3://bucket/prefix")
    prefix = root.removeprefix(f"s3://{bucket}").strip("/")
    try:
        # Opened at the bucket, where the fetching side opens it, so that paths agree.
        for objects in _without_folders(open_storage(f"s3://{bucket}").list_columns(prefix)):
            yield _shown(objects, bucket, prefix)
    except LakeError as error:
        raise SourceError(error.what, where=root, got=error.got, remedy=error.remedy) from error
    except InvalidPathError:
        # Its message holds the key, and a name within it may be that of a patient.
        raise SourceError(
            "A key of the source has an empty part (//), the part . or .., or a control character",
            where=root,
            remedy="find such keys with `aws s3 ls --recursive SOURCE/ | grep -E "
            "'//|/[.]{1,2}(/|$)|[[:cntrl:]]'`, and rename them with `aws s3 mv`",
        ) from None
    except (OSError, BaseError, BotoCoreError) as error:
        raise SourceError(
            "The source can't be listed",
            where=root,
            got=why(error),
            remedy="check the bucket's name, the credentials and AWS_ENDPOINT_URL",
        ) from error


def _shown(objects: pa.RecordBatch, bucket: str, prefix: str) -> pa.RecordBatch:
    """Objects as files of an archive, without those of which a part of the path is hidden."""
    keys = objects["path"]
    # binary_slice fails on slices of arrays (pyarrow 26).
    paths = pc.utf8_slice_codeunits(keys, len(prefix) + 1) if prefix else keys
    uris = pc.binary_join_element_wise(f"s3://{bucket}/", keys, "")
    sizes, etags = objects["size"].cast(pa.int64()), pc.fill_null(objects["e_tag"], "")
    # The object of the prefix itself has no path.
    hidden = pc.match_substring_regex(paths, r"^$|(?:^|/)\.")
    names = (one.cast(pa.binary()) for one in (uris, paths))
    files = pa.record_batch([*names, sizes, etags], schema=LISTING)
    return files.filter(pc.invert(hidden))


def _without_folders(pages: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Objects as S3 lists them, by name, less the empty ones that consoles make for folders.

    Their slash is taken away by the store's client, so they are known by what follows them.
    """
    held: pa.RecordBatch | None = None
    for page in pages:
        known = page if held is None else pa.concat_batches([held, page])
        last = known.num_rows - 1
        paths, stays = known["path"], np.ones(last, np.bool_)
        for row in np.flatnonzero(pc.equal(known["size"], 0).to_numpy(zero_copy_only=False)[:last]):
            stays[row] = not paths[row + 1].as_py().startswith(f"{paths[row].as_py()}/")
        held = known.slice(last)
        yield known.slice(0, last).filter(pa.array(stays))
    if held is not None:
        yield held


def why(error: Exception) -> str:
    """What may be told of a failure to read: the system's words for it, or its class."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return type(error).__name__
