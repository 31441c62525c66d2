"""Listings of a store that go on where they broke off."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import obstore
import pyarrow as pa
from obstore.exceptions import GenericError
from obstore.store import ObjectStore

from cluster.objects import Entry
from cluster.retries import is_refusal

_COLUMN_ROWS = 8_192
"""Objects of one batch of columns: some pages of S3, few enough to be held twice."""

_Page = TypeVar("_Page")


def list_entries(store: ObjectStore, prefix: str, delays_s: Sequence[float]) -> Iterator[Entry]:
    """All objects below a folder, one by one."""
    pages = _going_on(
        lambda after: obstore.list(store, prefix or None, offset=after),
        lambda page: page[-1]["path"],
        delays_s,
    )
    for page in pages:
        yield from map(Entry.of, page)


def list_columns(
    store: ObjectStore, prefix: str, delays_s: Sequence[float]
) -> Iterator[pa.RecordBatch]:
    """All objects below a folder, thousands at a time and none of them a Python object.

    Columns ``path`` and ``e_tag`` (strings), ``size`` (uint64), and others that obstore tells.
    """
    return _going_on(
        lambda after: map(
            pa.record_batch,
            obstore.list(
                store, prefix or None, offset=after, chunk_size=_COLUMN_ROWS, return_arrow=True
            ),
        ),
        lambda batch: batch["path"][-1].as_py(),
        delays_s,
    )


def _going_on(
    pages_after: Callable[[str | None], Iterable[_Page]],
    last_of: Callable[[_Page], str],
    delays_s: Sequence[float],
) -> Iterator[_Page]:
    """Pages of a listing; one that breaks off goes on after the last object it told.

    S3 lists by name.
    """
    last, delays = None, iter(delays_s)
    while True:
        try:
            for page in pages_after(last):
                last = last_of(page)
                yield page
        except GenericError as error:
            delay_s = next(delays, None)
            if delay_s is None or is_refusal(error):
                raise
            time.sleep(delay_s)
        else:
            return
