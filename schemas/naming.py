"""Names of bundles in messages, and names as folders."""

import re
from collections.abc import Mapping
from typing import Any

from schemas.plan import fingerprint


def reference(bundle: Mapping[str, Any]) -> str:
    """A bundle, given as its row of `models`, as name@version."""
    return f"{bundle['name']}@{bundle['version']}"


def segment(name: str) -> str:
    """A name as one path segment: itself where it is safe, otherwise readable and distinct."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@=,+-]{0,99}", name):
        return name
    readable = re.sub(r"[^A-Za-z0-9._@=,+-]+", "-", name).strip("-.")[:80]
    return f"{readable or 'trial'}-{fingerprint(name)[:8]}"
