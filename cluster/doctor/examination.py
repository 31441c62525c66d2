"""All checks in the order in which one failing explains the next."""

from collections.abc import Iterator
from pathlib import Path

from cluster.doctor.access import check_token
from cluster.doctor.check import Check
from cluster.doctor.installation import (
    check_cuda,
    check_dicom_decoders,
    check_modules,
    check_openvino,
    check_packages,
    check_python,
)
from cluster.doctor.lake import check_lake, local_root
from cluster.doctor.machine import check_key, check_ray, check_temporary_disk


def examine(lake: str, key_file: Path) -> Iterator[Check]:
    """Check the installation, this machine and a lake; yields each finding as it is made.

    Args:
        lake: Root of the lake, a folder or ``s3://bucket/prefix``; it need not exist.
        key_file: Where the key of the pseudonyms is expected.
    """
    yield check_python()
    yield check_packages()
    yield check_modules()
    yield check_dicom_decoders()
    yield check_openvino()
    yield check_cuda()
    yield check_ray()
    yield check_temporary_disk()
    yield check_token()
    yield check_key(key_file, local_root(lake))
    yield from check_lake(lake)
