"""The fixture of the tests of ingest."""

from pathlib import Path

import pytest

from tests.jobs.ingest.world import World


@pytest.fixture
def world(tmp_path: Path, own_home: Path) -> World:
    """An archive and a lake of the test's own."""
    return World(tmp_path)
