"""Average precision against faster-coco-eval, and its intervals against copies of images."""

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from workers.detection.boxes import Boxes, Detections, to_sizes
from workers.metrics.bootstrap import Patients
from workers.metrics.detection import FIGURES, Judged, Ranked, coco_figures, evaluate

CLASSES = ("cyst", "HCC", "hemangioma")


def image(rng: np.random.Generator, group: str, *, digits: int) -> Judged:
    """A few boxes of all sizes, detections near them, and others."""
    count = int(rng.integers(0, 5))
    low_B2, side_B2 = rng.uniform(0, 300, (count, 2)), rng.uniform(8, 180, (count, 2))
    corners_B4 = np.concatenate([low_B2, low_B2 + side_B2], axis=1)
    categories_B = rng.integers(0, len(CLASSES), count)
    near_D4 = np.repeat(corners_B4, 2, axis=0) + rng.normal(0, 4, (2 * count, 4))
    far_D2 = rng.uniform(0, 300, (4, 2))
    far_D4 = np.concatenate([far_D2, far_D2 + rng.uniform(8, 180, (4, 2))], axis=1)
    corners_D4 = np.concatenate([near_D4, far_D4]).astype(np.float32)
    corners_D4[:, 2:] = np.maximum(corners_D4[:, 2:], corners_D4[:, :2] + 1)
    named_D = np.concatenate([np.repeat(categories_B, 2), rng.integers(0, len(CLASSES), 4)])
    wrong_D = rng.random(len(named_D)) < 0.2
    named_D = np.where(wrong_D, (named_D + 1) % len(CLASSES), named_D)
    scores_D = -np.sort(-rng.random(len(named_D)).astype(np.float32).round(digits))
    boxes = Boxes(corners_B4.astype(np.float32), categories_B, rng.random(count) < 0.1)
    areas_B = (side_B2.prod(axis=1) * rng.uniform(0.5, 1, count)).astype(np.float32)
    return Judged(boxes, areas_B, Detections(corners_D4, scores_D, named_D), group)


def world(seed: int, count: int = 30, *, digits: int = 2) -> list[Judged]:
    """Images whose confidences have a few digits: with two, many are equal."""
    rng = np.random.default_rng(seed)
    return [image(rng, f"p{number // 2}", digits=digits) for number in range(count)]


def by_another_package(images: Sequence[Judged]) -> list[float]:
    """COCO's twelve by faster-coco-eval, whose counting is C++ of its own."""
    marked, found = [], []
    for number, one in enumerate(images, 1):
        for place, box in enumerate(to_sizes(one.boxes.corners_B4).tolist()):
            ignored = bool(one.boxes.ignored_B[place])
            stated = int(one.boxes.categories_B[place])
            for category in range(len(CLASSES)) if ignored else (stated,):
                marked.append(
                    {
                        "id": len(marked) + 1,
                        "image_id": number,
                        "category_id": category + 1,
                        "bbox": box,
                        "area": float(one.areas_B[place]),
                        "iscrowd": int(ignored),
                    }
                )
        detections = one.detections
        for place, box in enumerate(to_sizes(detections.corners_D4).tolist()):
            found.append(
                {
                    "image_id": number,
                    "category_id": int(detections.categories_D[place]) + 1,
                    "bbox": box,
                    "score": float(detections.scores_D[place]),
                }
            )
    dataset = {
        "images": [{"id": n, "width": 500, "height": 500} for n in range(1, len(images) + 1)],
        "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES, 1)],
        "annotations": marked,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(dataset)
        evaluation = COCOeval_faster(truth, truth.loadRes(found), "bbox", print_function=print)
        evaluation.run()
    return [float(one) for one in evaluation.stats[:12]]


@pytest.mark.parametrize("seed", range(6))
def test_all_twelve_figures_equal_those_of_another_package(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    images = world(seed)
    found = coco_figures(images, CLASSES)
    expected = by_another_package(images)
    assert [found[name, None][0] for name in FIGURES] == pytest.approx(expected, abs=1e-12)
    assert 0.05 < found["ap", None][0] < found["ap50", None][0] < 0.99
    assert capsys.readouterr().out == ""


def test_the_mean_is_over_classes() -> None:
    found = coco_figures(world(3), CLASSES)
    for metric in ("ap", "ap50"):
        of_classes = [found[metric, name][0] for name in CLASSES]
        assert len(set(of_classes)) == 3
        assert np.mean(of_classes) == pytest.approx(found[metric, None][0])


def test_a_perfect_answer_scores_one_even_in_the_first_annotation() -> None:
    corners = np.asarray([[10, 10, 60, 60]], np.float32)
    one = np.zeros(1, np.int64)
    boxes = Boxes(corners, one, np.zeros(1, np.bool_))
    judged = Judged(
        boxes, np.asarray([2500.0], np.float32), Detections(corners, np.ones(1, np.float32), one),
        "p",
    )  # fmt: skip
    found = coco_figures([judged], ("lesion",))
    value, interval = found["ap", None]
    assert (value, interval) == (pytest.approx(1.0), None)  # of one patient there is no interval
    assert found["ap_medium", None][0] == pytest.approx(1.0)
    assert ("ap_small", None) not in found  # no small box: undefined, not 0 and not -1
    assert ("ap", "lesion") not in found  # of one class it is the mean itself


def test_nothing_found_is_zero_and_nothing_marked_is_nothing() -> None:
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    marked = world(1)
    silent = [Judged(one.boxes, one.areas_B, none, one.group) for one in marked]
    assert coco_figures(silent, CLASSES, resamples=20)["ap", None] == (0.0, (0.0, 0.0))
    bare = [
        Judged(Boxes.none(), np.zeros(0, np.float32), one.detections, one.group) for one in marked
    ]
    assert coco_figures(bare, CLASSES) == {}


def test_a_resample_is_what_copies_of_its_images_score() -> None:
    images = world(4, count=16, digits=7)
    patients = Patients.of([one.group for one in images])
    evaluation = evaluate(images, len(CLASSES))
    ranked = [Ranked.of(evaluation, place) for place in range(len(CLASSES))]
    (drawn,) = patients.draws(5, seed=9)
    recalls = np.linspace(0.0, 1.0, 101)
    weights = drawn[patients.index_N]
    found = np.stack([one.precisions(weights, recalls) for one in ranked])
    for sample in range(5):
        copies = [
            one
            for one, times in zip(images, weights[:, sample], strict=True)
            for _ in range(int(times))
        ]
        precision = evaluate(copies, len(CLASSES)).eval["precision"][:, :, :, 0, 2]
        for place in range(len(CLASSES)):
            expected = precision[:, :, place].mean(axis=1)
            assert found[place, :, sample] == pytest.approx(expected, abs=1e-12)


def test_intervals_hold_the_value_and_need_patients() -> None:
    images = world(5, count=60)
    value, interval = coco_figures(images, CLASSES, resamples=100, seed=1)["ap50", None]
    low, high = interval or (1, 0)
    assert low < value < high
    assert value == coco_figures(images, CLASSES)["ap50", None][0]
    alone = [Judged(one.boxes, one.areas_B, one.detections, "p") for one in images]
    assert coco_figures(alone, CLASSES, resamples=100)["ap50", None][1] is None
