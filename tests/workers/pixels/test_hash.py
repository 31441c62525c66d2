from pathlib import Path

import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from workers.pixels.hash import hash_thumbnails, phash, thumbnail, to_hex


def reference(view: np.ndarray) -> str:
    return str(imagehash.phash(Image.fromarray(view)))


@given(
    hnp.arrays(
        np.uint8,
        st.one_of(
            st.tuples(st.integers(1, 80), st.integers(1, 80)),
            st.tuples(st.integers(1, 80), st.integers(1, 80), st.just(3)),
        ),
    )
)
def test_equals_imagehash_on_any_image(view: np.ndarray) -> None:
    assert to_hex(phash(view)) == reference(view)


@pytest.mark.parametrize("shape", [(1, 1), (31, 33), (32, 32), (500, 20), (600, 800), (64, 48, 3)])
@pytest.mark.parametrize("level", [0, 1, 127, 255, None])
def test_equals_imagehash_on_flat_and_random_images(
    shape: tuple[int, ...], level: int | None
) -> None:
    random = np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)
    view = random if level is None else np.full(shape, level, np.uint8)
    assert to_hex(phash(view)) == reference(view)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 8, 9, 17, 64, 255])
def test_a_hash_does_not_depend_on_the_batch(count: int) -> None:
    random = np.random.default_rng(count)
    views = random.integers(0, 256, (count, 40, 50), dtype=np.uint8)
    batch = hash_thumbnails([thumbnail(view) for view in views])
    assert batch.dtype == np.uint64
    assert [to_hex(int(value)) for value in batch] == [reference(view) for view in views]


def test_no_images_give_no_hashes() -> None:
    assert hash_thumbnails([]).shape == (0,)


def test_hex_keeps_leading_zeros() -> None:
    assert to_hex(0x1F) == "000000000000001f"
    assert int(to_hex(2**64 - 3), 16) == 2**64 - 3


@pytest.mark.parametrize(
    "pattern",
    ["cxr-kermany/test/*/*.jp*g", "us-busi/*/images/*.png", "ct-iqothnccd/benign/*.jpg"],
)
def test_equals_imagehash_on_real_images(shared_data: Path, pattern: str) -> None:
    files = sorted(shared_data.glob(pattern))[::3]
    assert len(files) > 10
    views, expected = [], []
    for file in files:
        with Image.open(file) as image:
            expected.append(str(imagehash.phash(image)))
            views.append(np.asarray(image))
    hashes = hash_thumbnails([thumbnail(view) for view in views])
    assert [to_hex(int(value)) for value in hashes] == expected
