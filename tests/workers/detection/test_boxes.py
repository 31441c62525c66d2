"""Boxes as arrays: overlaps against torchvision, padding, the two ways of writing a box."""

import numpy as np
import torch
import torchvision

from workers.detection.boxes import Boxes, overlap, to_corners, to_sizes
from workers.detection.family import PADDING, pack

RANDOM = np.random.default_rng(3)


def random_boxes(count: int) -> np.ndarray:
    low = RANDOM.uniform(0, 50, (count, 2))
    return np.concatenate([low, low + RANDOM.uniform(0, 30, (count, 2))], axis=1)


def test_overlaps_are_torchvisions() -> None:
    one, other = random_boxes(40), random_boxes(30)
    expected = torchvision.ops.box_iou(torch.from_numpy(one), torch.from_numpy(other)).numpy()
    np.testing.assert_allclose(overlap(one, other), expected, atol=1e-12)
    assert expected.max() > 0.3


def test_boxes_without_area_overlap_nothing() -> None:
    point = np.array([[5.0, 5.0, 5.0, 5.0]])
    assert overlap(point, point) == 0.0


def test_sizes_and_corners_are_inverse() -> None:
    boxes = np.array([[3, 4, 10, 20]], np.float32)
    assert to_corners(boxes).tolist() == [[3, 4, 13, 24]]
    assert to_sizes(to_corners(boxes)).tolist() == boxes.tolist()
    assert to_corners(np.zeros((0, 4))).shape == (0, 4)


def test_a_batch_is_padded_with_boxes_of_no_category() -> None:
    two = Boxes(
        np.array([[0, 0, 4, 4], [1, 1, 3, 3]], np.float32),
        np.array([1, 0]),
        np.array([False, True]),
    )
    targets = pack([two, Boxes.none()])
    assert targets.shape == (2, 2, 6)
    assert targets[0].tolist() == [[0, 0, 4, 4, 1, 0], [1, 1, 3, 3, 0, 1]]
    assert targets[1, :, 4].tolist() == [PADDING, PADDING]
    assert pack([Boxes.none()]).shape == (1, 0, 6)
