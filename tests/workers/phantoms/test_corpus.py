import dataclasses
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from workers.phantoms.corpus import Corpus, Phantom
from workers.phantoms.patients import Role


def _plain(count: int = 64, **changes: object) -> Corpus:
    return dataclasses.replace(
        Corpus(seed=3, count=count, size=96, modalities={"us": 1.0}),
        **changes,  # type: ignore[arg-type]
    )


def test_any_order_gives_the_same_bytes(mixed: Corpus, rendered: list[Phantom]) -> None:
    again = dataclasses.replace(mixed)
    for index in (399, 17, 200, 0, 17):
        assert again.render(index) == rendered[index]


def test_a_larger_corpus_begins_with_the_smaller_one(
    mixed: Corpus, rendered: list[Phantom]
) -> None:
    larger = dataclasses.replace(mixed, count=100_000)
    assert [larger.render(index) for index in (0, 31, 32, 333)] == [
        rendered[index] for index in (0, 31, 32, 333)
    ]


def test_another_seed_gives_other_images() -> None:
    one, other = _plain(seed=1).render(0), _plain(seed=2).render(0)
    assert one.files[0].data != other.files[0].data


def test_paths_are_distinct_and_name_the_patient(rendered: list[Phantom]) -> None:
    paths = [file.path for phantom in rendered for file in phantom.files]
    assert len(set(paths)) == len(paths)
    for phantom in rendered:
        row = phantom.rows["metadata"][0]
        assert phantom.files[0].path == f"images/{row['path']}"
        assert row["path"].split("/")[1] == row["patient"]


def test_metadata_needs_no_drawing(mixed: Corpus, rendered: list[Phantom]) -> None:
    assert [mixed.metadata(index) for index in range(mixed.count)] == [
        phantom.rows["metadata"][0] for phantom in rendered
    ]


def test_boxes_enclose_their_masks_and_lie_inside(rendered: list[Phantom]) -> None:
    seen = 0
    for phantom in rendered:
        files = {file.path: file.data for file in phantom.files}
        for box in phantom.rows.get("boxes", []):
            mask = np.asarray(Image.open(io.BytesIO(files[box["mask"]])))
            rows, columns = np.nonzero(mask)
            assert set(np.unique(mask)) == {0, 255}
            assert (columns.min(), rows.min()) == (box["x"], box["y"])
            assert columns.max() - columns.min() + 1 == box["w"]
            assert rows.max() - rows.min() + 1 == box["h"]
            seen += 1
    assert seen > 100


def test_sound_lesion_images_have_boxes_and_normal_ones_none(
    mixed: Corpus, rendered: list[Phantom]
) -> None:
    lesions = without = 0
    for index, phantom in enumerate(rendered):
        label = phantom.rows["metadata"][0]["label"]
        if label == "normal":
            assert "boxes" not in phantom.rows
        elif mixed.entry(index).role is Role.ORIGINAL:
            lesions += 1
            without += "boxes" not in phantom.rows
    # A faint opacity behind the heart may show nowhere.
    assert without <= 0.03 * lesions


def test_a_lesion_changes_the_picture_where_its_mask_is() -> None:
    # Cysts are free of echoes: inside, the image is much darker than around.
    corpus = Corpus(seed=5, count=200, size=256, modalities={"us": 1.0})
    checked = 0
    for index in range(corpus.count):
        if corpus.metadata(index)["label"] != "cyst":
            continue
        phantom = corpus.render(index)
        files = {file.path: file.data for file in phantom.files}
        grey = np.asarray(Image.open(io.BytesIO(phantom.files[0].data)).convert("L"), np.float32)
        for box in phantom.rows["boxes"]:
            inside = np.asarray(Image.open(io.BytesIO(files[box["mask"]]))) > 0
            ring = cv2.dilate(inside.astype(np.uint8), np.ones((13, 13), np.uint8)) > 0
            ring &= ~cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
            # Parts in a rib's shadow are dark on both sides.
            if grey[ring].mean() > 40:
                assert grey[inside].mean() < 0.7 * grey[ring].mean()
                checked += 1
    assert checked > 15


def test_cyst_boxes_are_small_and_hcc_boxes_large() -> None:
    corpus = Corpus(seed=8, count=500, size=64, modalities={"us": 1.0})
    areas: dict[str, list[int]] = {}
    for index in range(corpus.count):
        for box in corpus.render(index).rows.get("boxes", []):
            areas.setdefault(box["category"], []).append(box["w"] * box["h"])
    mean = {category: float(np.mean(values)) for category, values in areas.items()}
    assert set(mean) == {"cyst", "hcc", "hemangioma", "meta"}
    assert mean["cyst"] < 0.65 * mean["hemangioma"]
    assert mean["hcc"] == max(mean.values())


def test_metastases_are_several() -> None:
    corpus = Corpus(seed=8, count=400, size=64, modalities={"us": 1.0})
    metas = [index for index in range(400) if corpus.metadata(index)["label"] == "meta"]
    counts = [len(corpus.render(index).rows["boxes"]) for index in metas]
    assert len(counts) > 10
    assert np.mean(np.array(counts) >= 2) > 0.95


@pytest.mark.parametrize("size", [32, 57, 512])
def test_sizes(size: int) -> None:
    for modality in ("us", "ct", "xray"):
        corpus = Corpus(seed=1, count=8, size=size, modalities={modality: 1.0})
        data = [corpus.render(index).files[0] for index in range(8)]
        widths = {
            Image.open(io.BytesIO(file.data)).width for file in data if file.path[-3:] != "dcm"
        }
        assert widths <= {size}


def test_sites_differ_only_when_there_are_several() -> None:
    alone = Corpus(seed=2, count=8, size=64, modalities={"us": 1.0})
    names = {alone.metadata(index)["site"] for index in range(8)}
    assert names == {"SITE-01"}
    several = Corpus(seed=2, count=600, size=64, modalities={"us": 1.0}, sites=4)
    assert {several.metadata(index)["site"] for index in range(600)} == {
        "SITE-01", "SITE-02", "SITE-03", "SITE-04",
    }  # fmt: skip
    sites = [several._site(number) for number in range(4)]
    assert len({site.gain for site in sites}) == 4
    assert all(0.8 < site.contrast < 1.25 for site in sites)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modalities": {"mr": 1.0}}, "modalities need weights of us, ct, xray"),
        ({"modalities": {"us": 0.0}}, "not all zero"),
        ({"modalities": {"us": -1.0, "ct": 2.0}}, "not all zero"),
        ({"size": 31}, "size >= 32"),
        ({"count": 0}, "count >= 1"),
        ({"broken_share": 0.3, "duplicate_share": 0.3}, "half of a corpus at most; got 0.6"),
        ({"scale_bar_share": -0.1}, "half of a corpus"),
    ],
)
def test_impossible_corpora_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _plain(**changes)
