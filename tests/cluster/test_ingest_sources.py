"""Ingest's view of an archive, on a disk and on S3."""

from pathlib import Path

import pytest

import jobs.ingest
from cluster.lake.store import LakeStore
from cluster.storage import open_storage
from schemas.specs.ingest import IngestSpec
from workers.pseudonyms import Pseudonymizer


@pytest.mark.usefixtures("own_home")
def test_patterns_choose_among_what_is_listed(any_root: str, tmp_path: Path) -> None:
    archive = open_storage(any_root)
    for path in ("busi/1.png", "busi/1_mask.png", "busi/masks/2.png", "busi/sub/3.png", "busi/x"):
        archive.put(path, b"pixels")
    key = Pseudonymizer.from_key_file(create=True)
    lake = LakeStore.open(str(tmp_path / "catalogue"), create=True)
    asked = {"name": "busi", "source": f"{any_root}/busi"}
    chosen = {"include": ["*.png"], "exclude": ["*_mask*", "/masks/"]}
    plan = jobs.ingest.plan(IngestSpec.model_validate(asked | chosen), lake)
    uris = [key.reveal(uri) for uri in plan.inputs["uri"].to_pylist()]
    assert [uri.removeprefix(f"{any_root}/") for uri in uris] == ["busi/1.png", "busi/sub/3.png"]
    assert plan.facts["left out by pattern"] == 3
    assert jobs.ingest.plan(IngestSpec.model_validate(asked), lake).inputs.num_rows == 5
