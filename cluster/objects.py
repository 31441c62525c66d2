"""What a store says of an object, and whether the bytes that came are the object's."""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from obstore.exceptions import GenericError

if TYPE_CHECKING:
    from obstore import ObjectMeta

_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


class DamagedBodyError(GenericError):
    """The bytes that came are not those that the store speaks of, however often it was asked."""


@dataclass(frozen=True)
class Entry:
    """One object as the store lists it."""

    path: str
    """Path below the root."""
    bytes: int
    modified_at: datetime
    etag: str

    @staticmethod
    def of(meta: "ObjectMeta") -> "Entry":
        """What obstore says of an object."""
        return Entry(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"] or "")


def is_whole(data: bytes, entry: Entry, *, tags_are_md5: bool) -> bool:
    """Whether bytes are those of which the store spoke, as far as it told.

    ``tags_are_md5`` says that the tag of an object put in one piece is the MD5 of its bytes.
    """
    if len(data) != entry.bytes:
        return False
    told = _MD5.fullmatch(entry.etag) if tags_are_md5 else None
    # No secret rests on it.
    return told is None or hashlib.md5(data, usedforsecurity=False).hexdigest() == told[1]
