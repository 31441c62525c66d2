"""The command `coco`."""

import json
from pathlib import Path

import pytest

from cluster.lake.store import LakeStore
from tests.cluster.cli.conftest import Call
from tests.jobs.seeding import DATASET, SPLIT, image, image_id, place, seed


@pytest.fixture
def lake(tmp_path: Path) -> LakeStore:
    store = LakeStore.open(str(tmp_path / "lake"), create=True)
    box = {"source": "reader", "category": "cyst", "made_from": "m", "area": 12.0}
    edges = {"x": 1.5, "y": 2.0, "w": 3.0, "h": 4.0}
    model = {"model_id": "00ff", "name": "finder", "version": 1, "classes": ["cyst"]}
    found = {"model_id": "00ff", "category": "cyst", "score": 0.5, **edges}
    seed(
        store,
        {
            "images": [image(n, "cyst", width=60, height=40, uri=f"/a/{n}.png") for n in range(4)],
            "splits": [place(n, "train" if n < 2 else "test") for n in range(4)],
            "annotations": [{"image_id": image_id(n), **box, **edges} for n in range(4)],
            "models": [model],
            "predictions": [{"image_id": image_id(2), "model_id": "00ff"}],
            "detections": [{"image_id": image_id(2), **found}],
        },
    )
    return store


@pytest.mark.usefixtures("lake")
def test_a_part_is_written_indented_or_not(call: Call, tmp_path: Path) -> None:
    asked = ("coco", "test.json", "--dataset", DATASET, "--split", SPLIT, "--part", "test")
    ended = call(*asked)
    assert (ended.code, ended.err) == (0, "2 images with 2 boxes in test.json\n")
    text = (tmp_path / "test.json").read_text()
    assert len(text.splitlines()) == 1
    document = json.loads(text)
    assert [one["id"] for one in document["images"]] == [3, 4]
    assert document["annotations"][0]["bbox"] == [1.5, 2, 3, 4]
    assert document["info"]["parts"] == ["test"]
    assert call(*asked, "--indent", "--source", "reader").code == 0
    indented = (tmp_path / "test.json").read_text()
    assert len(indented.splitlines()) > 50 and json.loads(indented) == document


@pytest.mark.usefixtures("lake")
def test_detections_go_to_stdout(call: Call) -> None:
    ended = call("coco", "-", "--dataset", DATASET, "--detections", "finder", "--category", "cyst")
    assert json.loads(ended.out) == [
        {"image_id": 3, "category_id": 1, "bbox": [1.5, 2.0, 3.0, 4.0], "score": 0.5}
    ]
    assert ended.err == "1 detections\n3 of the images are not scored by finder\n"


@pytest.mark.usefixtures("lake")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--part", "test"), "A part is of a split (--part): got test"),
        (("--split", SPLIT, "--part", "tset"), "There is no such part (--part): got tset"),
        (("--source", "a", "--detections", "b"), "Annotations have a source, detections a model"),
        (("--source", "writer"), "No such source has annotated the data set"),
        (("--output-dir", "a"), "No such option"),
    ],
)
def test_mistakes_are_told(call: Call, arguments: tuple[str, ...], said: str) -> None:
    ended = call("coco", "out.json", "--dataset", DATASET, *arguments)
    assert ended.code == 2
    assert said in ended.err


@pytest.mark.usefixtures("lake")
def test_a_place_that_can_not_be_written_is_told(call: Call) -> None:
    ended = call("coco", "no/where.json", "--dataset", DATASET)
    assert ended.code == 2
    assert "The output can't be written (no/where.json): got No such file" in ended.err
