"""An object of a store as a file that is read piece by piece."""

import io
from collections.abc import Callable


class RangedFile(io.RawIOBase):
    """A file each piece of which is one request; as large as it was when it was opened."""

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        """``read_range`` gives the bytes from one place up to another."""
        super().__init__()
        self._read_range, self._size = read_range, size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        data = self._read_range(self._at, end)
        self._at += len(data)
        return data
