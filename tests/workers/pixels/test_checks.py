from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from schemas.reasons import DropReason
from workers.pixels.checks import Thresholds, drop_reason, measure


def textured(height: int = 300, width: int = 400, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.integers(20, 230, (height // 4, width // 4), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


def blurred(view: np.ndarray) -> np.ndarray:
    """Blurred to the full range of grey levels."""
    soft = cv2.GaussianBlur(view.astype(np.float32), (0, 0), 16)
    return np.rint((soft - soft.min()) * (255 / np.ptp(soft))).astype(np.uint8)


def test_brightness_and_contrast_are_mean_and_deviation() -> None:
    view = textured()
    found = measure(view)
    assert found.brightness == pytest.approx(view.mean())
    assert found.contrast == pytest.approx(view.std())
    assert (found.height, found.width) == (300, 400)


def test_colour_share_counts_coloured_pixels() -> None:
    view = np.repeat(textured(100, 100)[..., None], 3, axis=2)
    view[:10, :30] = (40, 90, 235)
    assert measure(view).colour_share == pytest.approx(0.03)
    assert measure(view[..., 0]).colour_share == 0


def test_faint_jpeg_colour_is_no_colour() -> None:
    view = np.repeat(textured(100, 100)[..., None], 3, axis=2)
    view[..., 2] = np.clip(view[..., 2].astype(int) + 12, 0, 255)
    assert measure(view).colour_share == 0


def test_sharpness_is_the_ratio_of_variances() -> None:
    view = textured(200, 200)
    kernel = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
    padded = np.pad(view.astype(int), 1, mode="edge")
    laplacian = sum(
        kernel[dy, dx] * padded[dy : dy + 200, dx : dx + 200] for dy in range(3) for dx in range(3)
    )
    assert measure(view).sharpness == pytest.approx(laplacian.var() / view.var(), rel=1e-6)


def test_sharpness_does_not_depend_on_contrast_or_size() -> None:
    view = cv2.GaussianBlur(textured(256, 256), (0, 0), 2)
    sharpness = measure(view).sharpness
    dim = (view // 2 + 20).astype(np.uint8)
    assert measure(dim).sharpness == pytest.approx(sharpness, rel=0.15)
    large = cv2.resize(view, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    assert measure(large).sharpness == pytest.approx(sharpness, rel=0.1)


def test_blur_lowers_sharpness() -> None:
    view = textured()
    levels = [measure(cv2.GaussianBlur(view, (0, 0), s)).sharpness for s in (1, 2, 4, 8)]
    assert measure(view).sharpness > levels[0] > levels[1] > levels[2] > levels[3]


@pytest.mark.parametrize(
    ("view", "limits", "reason"),
    [
        (textured(), Thresholds(), None),
        (textured(400, 400), Thresholds(min_side=401), DropReason.TOO_SMALL),
        (textured(400, 900), Thresholds(min_side=401), DropReason.TOO_SMALL),
        (textured(404, 404), Thresholds(min_side=401), None),
        (np.full((64, 64), 90, np.uint8), Thresholds(), DropReason.BLANK),
        (np.zeros((64, 64), np.uint8), Thresholds(), DropReason.BLANK),
        ((textured() // 60).astype(np.uint8), Thresholds(min_contrast=0.5), DropReason.DARK),
        (
            blurred(textured()),
            Thresholds(min_sharpness=0.004),
            DropReason.BLURRED,
        ),
    ],
    ids=["fine", "400x400", "400x900", "404x404", "blank", "black", "dark", "blurred"],
)
def test_reasons(view: np.ndarray, limits: Thresholds, reason: DropReason | None) -> None:
    assert drop_reason(measure(view), limits) is reason


@pytest.mark.parametrize(
    "pattern",
    ["cxr-kermany/test/*/*.jp*g", "us-busi/*/images/*.png", "ct-iqothnccd/*/*.jpg"],
)
def test_real_images_are_not_dropped(shared_data: Path, pattern: str) -> None:
    limits = Thresholds(min_sharpness=0.004)
    for file in sorted(shared_data.glob(pattern))[::5]:
        with Image.open(file) as image:
            view = np.asarray(image)
        assert drop_reason(measure(view), limits) is None, file.name
        blurred = cv2.GaussianBlur(view, (0, 0), 0.03 * max(view.shape[:2]))
        assert drop_reason(measure(blurred), limits) is DropReason.BLURRED, file.name
