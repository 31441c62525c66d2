"""The picture size that a compressed codestream claims, read before a decoder believes it."""

from workers.pixels.decode.jpeg import read_header

_J2K_SIZ = b"\xff\x4f\xff\x51"
_JP2_BOX = b"\0\0\0\x0cjP  "


def codestream_size(content: bytes) -> tuple[int, int] | None:
    """Height and width of a JPEG, JPEG-LS or JPEG 2000 codestream; None for anything else.

    JPEG 2000 states them as extents of a reference grid (ITU T.800 A.5.1).
    """
    if content.startswith(b"\xff\xd8"):
        header = read_header(content)
        return (header.height, header.width) if header and header.height else None
    at = 0
    if content.startswith(_JP2_BOX):
        at = content.find(_J2K_SIZ)
    if at < 0 or not content.startswith(_J2K_SIZ, at) or len(content) < at + 24:
        return None
    width, height, left, top = (
        int.from_bytes(content[at + offset : at + offset + 4], "big") for offset in (8, 12, 16, 20)
    )
    return height - top, width - left
