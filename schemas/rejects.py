"""A row of `rejects`: what an input that became no result leaves behind."""

from collections.abc import Mapping
from typing import Any

from schemas.errors import RejectedImage


def reject_row(
    row: Mapping[str, Any], reject: RejectedImage, *, stage: str, subject: str
) -> dict[str, object]:
    """The reject of an input; ``row`` has its ``uri``, ``image_id`` and ``etag`` where known."""
    return {
        "uri": row.get("uri"),
        "image_id": row.get("image_id"),
        "stage": stage,
        "subject": subject,
        "etag": row.get("etag"),
        "reason": reject.reason.value,
        "detail": reject.detail,
    }
