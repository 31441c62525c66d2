"""What names an image: the content of its file, wherever that lies and whenever it was written."""

import hashlib


def content_id(data: bytes) -> str:
    """The 128-bit content hash of a file in 32 hex digits (BLAKE2b)."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def frame_id(content: str, frame: int | None) -> str:
    """The id of an image: its file's `content_id`, and its frame where the file has several."""
    return content if frame is None else f"{content}.{frame}"


def content_of(image_id: str) -> str:
    """The `content_id` of the file that an image is in."""
    return image_id.partition(".")[0]
