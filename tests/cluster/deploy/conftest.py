"""The manifests, and the definitions they are checked against."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.deploy.definitions import FILES, kuberay_validators
from tests.cluster.deploy.manifests import CHECKOUT, Manifest, all_objects


@pytest.fixture
def objects() -> list[Manifest]:
    """The manifests anew for each test, which may change them."""
    return all_objects()


@pytest.fixture(scope="session")
def kuberay() -> dict[str, Any]:
    """Validators of KubeRay's kinds; the test is skipped where its definitions are absent."""
    folder = Path(os.environ.get("RAYWARD_KUBERAY", CHECKOUT.parent / "shared" / "kuberay"))
    missing = [name for name in FILES.values() if not (folder / name).is_file()]
    if missing:
        pytest.skip(
            f"KubeRay's definitions are not in {folder}: {', '.join(missing)} "
            "(RAYWARD_KUBERAY names another folder, such as an operator's own crds/)"
        )
    return kuberay_validators(folder)
