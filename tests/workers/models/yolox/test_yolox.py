"""YOLOX's assignment, loss and decoding, against references computed here."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from schemas.bundle import DetectionSettings
from schemas.errors import BundleError
from workers.detection.boxes import Boxes, overlap
from workers.detection.family import pack
from workers.detection.maps import Reading
from workers.models.yolox.assigning import Answers, assign
from workers.models.yolox.decoding import decode
from workers.models.yolox.family import YoloxFamily
from workers.models.yolox.losses import YoloxLoss, _raw
from workers.models.yolox.network import STRIDES, Yolox
from workers.models.yolox.places import read_places

SIDE = 128
CLASSES = 3


def random_boxes(seed: int, count: int) -> Boxes:
    random = np.random.default_rng(seed)
    centres = random.uniform(16, SIDE - 16, (count, 2))
    halves = random.uniform(4, 30, (count, 2))
    corners = np.concatenate([centres - halves, centres + halves], axis=1).astype(np.float32)
    return Boxes(corners, random.integers(0, CLASSES, count), np.zeros(count, np.bool_))


def random_maps(seed: int, images: int = 1) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(images, 5 + CLASSES, SIDE // stride, SIDE // stride, generator=generator)
        for stride in STRIDES
    )


def answers_of(maps: tuple[Tensor, ...], image: int = 0) -> Answers:
    places = read_places(maps)
    return Answers(
        places.corners_NP4[image],
        places.objectness_NP[image],
        places.classes_NPK[image],
        places.centres_P2,
        places.strides_P,
    )


def simota(answers: Answers, boxes: Boxes) -> dict[int, int]:
    """The assignment place -> box, by loops over boxes and places."""
    costs, overlaps = {}, overlap(boxes.corners_B4, answers.corners_P4.numpy())
    centres = (boxes.corners_B4[:, :2] + boxes.corners_B4[:, 2:]) / 2
    near = {
        (box, place)
        for box, centre in enumerate(centres)
        for place in range(len(answers.strides_P))
        if (
            np.abs(answers.centres_P2[place].numpy() - centre)
            < 1.5 * answers.strides_P[place].item()
        ).all()
    }
    candidates = sorted({place for _, place in near})
    for box, category in enumerate(boxes.categories_B):
        wanted = functional.one_hot(torch.tensor(int(category)), CLASSES).float()
        for place in candidates:
            chance = (
                answers.classes_PK[place].sigmoid() * answers.objectness_P[place].sigmoid()
            ).sqrt()
            costs[box, place] = (
                functional.binary_cross_entropy(chance, wanted, reduction="sum").item()
                + 3 * -math.log(overlaps[box, place] + 1e-8)
                + (0 if (box, place) in near else 1e6)
            )
    wants: dict[int, list[int]] = {}
    for box in range(len(boxes)):
        best = sorted((overlaps[box, place] for place in candidates), reverse=True)[:10]
        for place in sorted(candidates, key=lambda one: costs[box, one])[: max(1, int(sum(best)))]:
            wants.setdefault(place, []).append(box)
    every = range(len(boxes))
    return {
        place: min(every, key=lambda box: costs[box, place]) if len(several) > 1 else several[0]
        for place, several in wants.items()
    }


@pytest.mark.parametrize(("architecture", "millions"), [("yolox-s", 8.97), ("yolox-nano", 0.91)])
def test_sizes_are_the_published_ones(architecture: str, millions: float) -> None:
    network = Yolox(architecture, classes=80, channels=3)
    parameters = sum(one.numel() for one in network.parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.005)
    assert [tuple(one.shape) for one in network.eval()(torch.zeros(1, 3, 64, 64))] == [
        (1, 85, 8, 8), (1, 85, 4, 4), (1, 85, 2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_the_assignment_is_that_of_plain_loops(seed: int) -> None:
    boxes, answers = random_boxes(seed, 1 + seed * 2), answers_of(random_maps(seed))
    found = assign(
        answers, torch.from_numpy(boxes.corners_B4), torch.from_numpy(boxes.categories_B)
    )
    expected = simota(answers, boxes)
    assert dict(zip(found.places_Q.tolist(), found.boxes_Q.tolist(), strict=True)) == expected
    assert len(expected) >= len(set(expected.values())) > 0
    for place, box, shared in zip(*(one.tolist() for one in found), strict=True):
        one = overlap(
            boxes.corners_B4[box : box + 1], answers.corners_P4[place : place + 1].numpy()
        )
        assert shared == pytest.approx(one.item(), abs=1e-5)


def test_answers_that_fit_take_more_places() -> None:
    """Where answers overlap a box well, it takes as many places as their overlaps add up to."""
    maps = tuple(torch.zeros(1, 5 + CLASSES, SIDE // one, SIDE // one) for one in STRIDES)
    box = Boxes(np.array([[40, 40, 88, 88]], np.float32), np.array([1]), np.array([False]))
    corners = torch.from_numpy(box.corners_B4)
    answers = answers_of(maps)._replace(
        corners_P4=corners.expand(read_places(maps).cells_P2.shape[0], 4)
    )
    found = assign(answers, corners, torch.from_numpy(box.categories_B))
    assert len(found.places_Q) == 10
    assert found.overlaps_Q.tolist() == pytest.approx([1.0] * 10)


def test_the_loss_is_that_of_plain_loops() -> None:
    maps = random_maps(7, images=2)
    images = [random_boxes(1, 3), Boxes.none()]
    losses = YoloxLoss(CLASSES, l1=True)(maps, pack(images))
    places, expected = read_places(maps), dict.fromkeys(("box", "objectness", "class", "l1"), 0.0)
    assigned = [simota(answers_of(maps, 0), images[0]), {}]
    for image, chosen in enumerate(assigned):
        for place in range(len(places.strides_P)):
            wanted = torch.tensor(float(place in chosen))
            expected["objectness"] += functional.binary_cross_entropy_with_logits(
                places.objectness_NP[image, place], wanted
            ).item()
        for place, box in chosen.items():
            truth, answer = images[image].corners_B4[box], places.corners_NP4[image, place].numpy()
            shared = overlap(truth[None], answer[None]).item()
            expected["box"] += 5 * (1 - shared**2)
            target = torch.zeros(CLASSES)
            target[images[image].categories_B[box]] = shared
            expected["class"] += functional.binary_cross_entropy_with_logits(
                places.classes_NPK[image, place], target, reduction="sum"
            ).item()
            stride = places.strides_P[place].item()
            middle = (truth[:2] + truth[2:]) / 2 / stride - places.cells_P2[place].numpy()
            raw = np.concatenate([middle, np.log((truth[2:] - truth[:2]) / stride)])
            expected["l1"] += np.abs(places.raw_NP4[image, place].numpy() - raw).sum()
    for name, total in expected.items():
        assert losses[name].item() == pytest.approx(total / len(assigned[0]), rel=1e-4), name


def test_a_batch_without_boxes_learns_that_nothing_is_there() -> None:
    maps = tuple(one.requires_grad_() for one in random_maps(2))
    losses = YoloxLoss(CLASSES, l1=True)(maps, pack([Boxes.none()]))
    assert losses["box"].item() == losses["class"].item() == losses["l1"].item() == 0
    assert losses["objectness"].item() > 1
    sum(losses.values()).backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in maps)


def test_nothing_is_learned_about_ignored_regions() -> None:
    whole = Boxes(np.array([[0, 0, SIDE, SIDE]], np.float32), np.array([0]), np.array([True]))
    losses = YoloxLoss(CLASSES)(random_maps(3), pack([whole]))
    assert sum(losses.values()).item() == 0


def test_boxes_come_back_from_what_the_network_should_say() -> None:
    boxes = random_boxes(11, 4)
    maps = tuple(torch.full((1, 5 + CLASSES, SIDE // one, SIDE // one), -12.0) for one in STRIDES)
    places = read_places(maps)
    corners = torch.from_numpy(boxes.corners_B4)
    fine = SIDE // STRIDES[0]
    for corner, category in zip(corners, boxes.categories_B.tolist(), strict=True):
        x, y = ((corner[:2] + corner[2:]) / 2 / STRIDES[0]).int().tolist()
        place = y * fine + x
        raw = _raw(corner[None], places.cells_P2[place][None], places.strides_P[place][None])
        maps[0][0, :4, y, x] = raw[0]
        maps[0][0, 4, y, x] = 12.0
        maps[0][0, 5 + category, y, x] = 12.0
    found = decode(maps, limit=10, least_score=0.01)
    sure = found.scores_ND[0] > 0.9
    assert int(sure.sum()) == len(boxes)
    matched = overlap(boxes.corners_B4, found.corners_ND4[0][sure].numpy()).argmax(axis=1)
    np.testing.assert_allclose(found.corners_ND4[0][sure][matched], corners, atol=1e-3)
    assert found.categories_ND[0][sure][matched].tolist() == boxes.categories_B.tolist()


def test_doubles_of_one_class_are_suppressed_and_of_another_are_not() -> None:
    maps = tuple(torch.full((1, 5 + CLASSES, SIDE // one, SIDE // one), -12.0) for one in STRIDES)
    fine = maps[0]
    for x, category, certainty in ((5, 0, 3.0), (6, 0, 2.0), (7, 1, 1.0)):
        # All three say the box from 24 to 72: only rounding tells them apart.
        fine[0, :4, 5, x] = torch.tensor([6.0 - x, 1.0, math.log(6), math.log(6)])
        fine[0, 4, 5, x] = certainty
        fine[0, 5 + category, 5, x] = 12.0
    found = decode(maps, limit=5, least_score=0.01)
    assert found.categories_ND[0, :2].tolist() == [0, 1]
    expected = torch.tensor([3.0, 1.0]).sigmoid()
    torch.testing.assert_close(found.scores_ND[0, :2], expected, atol=1e-4, rtol=0)
    assert found.scores_ND[0, 2:].tolist() == [0, 0, 0]
    assert found.corners_ND4[0, 0].tolist() == pytest.approx([24, 24, 72, 72], abs=1e-3)


def test_doubles_of_sure_boxes_crowd_no_other_out() -> None:
    maps = tuple(torch.full((1, 5 + CLASSES, SIDE // one, SIDE // one), -12.0) for one in STRIDES)
    fine = maps[0]
    for column, certainty in ((2, 3.0), (7, 2.0), (12, 1.0)):
        for y, x in ((y, x) for y in range(4, 7) for x in range(column - 1, column + 2)):
            fine[0, :4, y, x] = torch.tensor([column - x, 5.0 - y, math.log(3), math.log(3)])
            fine[0, 4, y, x] = certainty
            fine[0, 5, y, x] = 12.0
    found = decode(maps, limit=3, least_score=0.01)
    expected = torch.tensor([3.0, 2.0, 1.0]).sigmoid()
    torch.testing.assert_close(found.scores_ND[0], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("least", "told"), [(0.0, 3), (0.001, 2), (0.01, 1)])
def test_boxes_are_told_from_the_least_score_on(least: float, told: int) -> None:
    maps = tuple(torch.full((1, 5 + CLASSES, SIDE // one, SIDE // one), -80.0) for one in STRIDES)
    for x, score in ((1, 0.5), (7, 0.0044), (13, 0.0002)):
        maps[0][0, :4, 5, x] = torch.tensor([0.5, 0.5, math.log(2), math.log(2)])
        maps[0][0, 4, 5, x] = math.log(score / (1 - score))
        maps[0][0, 5, 5, x] = 80.0
    shapes = tuple(tuple(one.shape[1:]) for one in maps)
    settings = DetectionSettings(score_threshold=0.3, limit=3, least_score=least, maps=shapes)
    outputs_NR = torch.cat([one.flatten(1) for one in maps], dim=1).numpy()
    (found,) = Reading(YoloxFamily(), settings).detections(outputs_NR)
    assert found.scores_D.tolist() == pytest.approx([0.5, 0.0044, 0.0002][:told], rel=1e-3)


def test_a_network_learns_a_box() -> None:
    torch.manual_seed(0)
    network = YoloxFamily().build("yolox-nano", 2, 1, {})
    image = torch.zeros(2, 1, 64, 64)
    image[0, 0, 16:40, 8:24] = 3.0
    box = Boxes(np.array([[8, 16, 24, 40]], np.float32), np.array([1]), np.array([False]))
    loss = YoloxFamily().criterion(2, {})
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(80):
        total = sum(loss(network(image), pack([box, Boxes.none()])).values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    assert all(one.grad is not None for one in network.parameters()), "DDP waits for every one"
    found = decode(network(image), limit=5, least_score=0.01)
    best = found.corners_ND4[0, :1].detach().numpy()
    assert overlap(box.corners_B4, best)[0, 0] > 0.6
    assert found.categories_ND[0, 0] == 1
    assert found.scores_ND[0, 0] > 2 * found.scores_ND[1, 0]


def test_sizes_that_are_none_are_refused() -> None:
    with pytest.raises(BundleError, match="yolox-nano, yolox-tiny, yolox-s"):
        YoloxFamily().build("yolox-xxl", 1, 1, {})
