"""The table of families of detectors."""

from collections.abc import Mapping
from types import MappingProxyType

from schemas.errors import BundleError
from workers.detection.family import DetectorFamily
from workers.models.centernet.family import CenterNetFamily
from workers.models.yolox.family import YoloxFamily

_CENTERNET, _YOLOX = CenterNetFamily(), YoloxFamily()

FAMILIES: Mapping[str, DetectorFamily] = MappingProxyType(
    {_CENTERNET.name: _CENTERNET, _YOLOX.name: _YOLOX}
)
"""By the name that stands in bundles; a new family is one folder and one line here."""


def family_of(name: str) -> DetectorFamily:
    """The family of a bundle or a configuration.

    Raises:
        BundleError: when it is none of detectors.
    """
    if name not in FAMILIES:
        raise BundleError(
            "No family of detectors has this name", got=name, remedy=f"one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]
