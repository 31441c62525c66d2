"""Average precision of the training loop against pycocotools."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from workers.detection.average_precision import average_precision, judge
from workers.detection.boxes import Boxes, Detections, to_sizes

CLASSES = 3


def world(seed: int, *, crowds: bool) -> list[tuple[Detections, Boxes]]:
    """Images with boxes, and detections that are those boxes shaken, and others."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(20):
        count = int(rng.integers(0, 5))
        low_B2 = rng.uniform(0, 150, (count, 2))
        corners_B4 = np.concatenate([low_B2, low_B2 + rng.uniform(20, 60, (count, 2))], axis=1)
        categories_B = rng.integers(0, CLASSES, count)
        ignored_B = rng.random(count) < (0.3 if crowds else 0.0)
        if crowds:
            categories_B[:] = 0
        near_D4 = np.repeat(corners_B4, 3, axis=0) + rng.uniform(-8, 8, (count * 3, 4))
        far_D2 = rng.uniform(0, 150, (6, 2))
        far_D4 = np.concatenate([far_D2, far_D2 + rng.uniform(20, 60, (6, 2))], axis=1)
        corners_D4 = np.concatenate([near_D4, far_D4]).astype(np.float32)
        named_D = np.concatenate([np.repeat(categories_B, 3), rng.integers(0, CLASSES, 6)])
        if crowds:
            named_D[:] = 0
        scores_D = np.sort(rng.random(len(corners_D4)).astype(np.float32))[::-1]
        order = rng.permutation(len(corners_D4))
        images.append(
            (
                Detections(corners_D4[order], np.ascontiguousarray(scores_D), named_D[order]),
                Boxes(corners_B4.astype(np.float32), categories_B, ignored_B),
            )
        )
    return images


def coco_ap50(images: list[tuple[Detections, Boxes]]) -> float:
    """The same by pycocotools; ids from 1, or a perfect answer scores 0."""
    truth, results = [], []
    for number, (found, boxes) in enumerate(images, start=1):
        for box, category, crowd in zip(
            to_sizes(boxes.corners_B4).tolist(), boxes.categories_B, boxes.ignored_B, strict=True
        ):
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": number,
                    "category_id": int(category) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(crowd),
                }
            )
        for box, category, score in zip(
            to_sizes(found.corners_D4).tolist(), found.categories_D, found.scores_D, strict=True
        ):
            results.append(
                {
                    "image_id": number,
                    "category_id": int(category) + 1,
                    "bbox": box,
                    "score": float(score),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": number + 1} for number in range(len(images))],
            "categories": [{"id": one + 1} for one in range(CLASSES)],
            "annotations": truth,
        }
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(results), "bbox")
        judged.params.iouThrs = np.array([0.5])
        judged.evaluate()
        judged.accumulate()
    # summarize() would print -1 for custom thresholds.
    precision = judged.eval["precision"][:, :, :, 0, 2]
    return float(precision[precision > -1].mean())


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_ap50_equals_pycocotools(seed: int, crowds: bool) -> None:
    images = world(seed, crowds=crowds)
    rows_R3 = np.concatenate([judge(found, boxes) for found, boxes in images])
    counts_K = np.zeros(CLASSES, np.int64)
    for _, boxes in images:
        counts_K += np.bincount(boxes.categories_B[~boxes.ignored_B], minlength=CLASSES)
    assert average_precision(rows_R3, counts_K) == pytest.approx(coco_ap50(images), abs=1e-9)


def test_nothing_to_find_is_undefined_and_nothing_found_is_zero() -> None:
    nothing = judge(
        Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)),
        Boxes.none(),
    )
    assert nothing.shape == (0, 3)
    assert np.isnan(average_precision(nothing, np.zeros(2, np.int64)))
    assert average_precision(nothing, np.array([1, 0])) == 0.0
