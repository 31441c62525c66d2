"""Names of bundles that jobs make: not those that say something else where a bundle is named."""

from typing import Annotated

from pydantic import AfterValidator

from schemas.specs.base import Name
from schemas.specs.score import NIGHTLY

RESERVED = (
    f"makes a bundle `{NIGHTLY}`, which in a score job stands for every bundle that is marked for "
    "nights: give it another name"
)
"""What is wrong with a bundle of such a name."""


def _not_reserved(name: str) -> str:
    if name == NIGHTLY:
        raise ValueError(RESERVED)
    return name


ModelName = Annotated[Name, AfterValidator(_not_reserved)]
"""The name of a bundle to make."""
