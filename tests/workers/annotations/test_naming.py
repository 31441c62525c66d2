"""Finding images by the ends of their paths: names, folders, copies, frames, doubts."""

import pytest

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.annotations.naming import (
    Image,
    ImageFile,
    NamedImages,
    candidates,
    distinct,
    frames_of,
    the_one,
)


def _image(number: int, *uris: str, frame: int = 0) -> Image:
    return {"image_id": f"{number}.{frame}", "uris": list(uris), "frame": frame}


IMAGES = NamedImages(
    [
        _image(0, "file:///a/left/1.png"),
        _image(1, "/a/right/1.png"),
        _image(2, "/a/left/2.png", "/a/right/2.png"),  # equal bytes
        _image(3, "s3://b/./clips/9.dcm"),
        _image(3, "s3://b/./clips/9.dcm", frame=1),
        _image(4, "/a/clips/9"),
        _image(5, "/a/other/9.png"),
    ]
)


def _ids(files: list[ImageFile]) -> list[list[str]]:
    return [[image["image_id"] for image in file.images] for file in files]


@pytest.mark.parametrize(
    ("name", "beside", "found"),
    [
        ("1.png", (), [["0.0"], ["1.0"]]),
        ("1", (), [["0.0"], ["1.0"]]),
        ("right/1", (), [["1.0"]]),
        ("right\\1.png", (), [["1.0"]]),
        ("ight/1.png", (), []),
        ("1", ("masks", "left"), [["0.0"]]),
        ("1", ("masks", "middle"), [["0.0"], ["1.0"]]),
        ("right/1", ("left",), [["1.0"]]),  # what is named counts more than what lies beside
        ("2", (), [["2.0"], ["2.0"]]),
        ("9.dcm", (), [["3.0", "3.1"]]),
        ("9", (), [["4.0"]]),  # a whole name counts more than one without its ending
        ("9", ("other",), [["4.0"]]),
        ("other/9", (), [["5.0"]]),
        ("", (), []),
    ],
)
def test_names_lead_to_files(name: str, beside: tuple[str, ...], found: list[list[str]]) -> None:
    assert _ids(IMAGES.bearing(name, beside)) == found


def test_one_file_is_meant_or_it_is_told_why_not() -> None:
    assert the_one(IMAGES.bearing("2")).uri == "/a/left/2.png"
    with pytest.raises(RejectedImage, match="2 images of the data set bear its name") as refused:
        the_one(IMAGES.bearing("1"))
    assert refused.value.reason is RejectReason.AMBIGUOUS_IMAGE
    with pytest.raises(RejectedImage, match="no such image") as refused:
        the_one(IMAGES.bearing("7"))
    assert refused.value.reason is RejectReason.UNKNOWN_IMAGE


def test_all_frames_of_a_file_are_meant_or_the_one_that_is_named() -> None:
    (clip,) = IMAGES.bearing("9.dcm")
    assert [image["frame"] for image in frames_of(clip, None)] == [0, 1]
    assert [image["frame"] for image in frames_of(clip, 1)] == [1]
    with pytest.raises(RejectedImage, match="its file has no frame 2"):
        frames_of(clip, 2)


@pytest.mark.parametrize(
    ("frame", "found"),
    [(None, ["3.0", "3.1", "4.0"]), (0, ["3.0", "4.0"]), (1, ["3.1"]), (2, ["3.0", "3.1", "4.0"])],
)
def test_candidates_are_the_images_that_may_be_meant(frame: int | None, found: list[str]) -> None:
    files = [*IMAGES.bearing("9.dcm"), *IMAGES.bearing("9")]
    assert [image["image_id"] for image in candidates(files, frame)] == found
    assert candidates([], frame) == []


def test_files_that_the_catalogue_holds_and_copies() -> None:
    assert IMAGES.at("s3://b/clips/9.dcm") == {"3.0", "3.1"}
    assert IMAGES.at("/a/left/1.png") == {"0.0"}
    assert IMAGES.at("/b/left/1.png") == set()
    twice = IMAGES.rows + IMAGES.rows[:2]
    assert distinct(twice) == IMAGES.rows
