"""CenterNet's targets, loss and decoding, against references computed here."""

import math

import numpy as np
import pytest
import torch

from schemas.errors import BundleError
from workers.detection.boxes import Boxes, overlap
from workers.detection.family import PADDING, pack
from workers.models.centernet.decoding import decode
from workers.models.centernet.family import CenterNetFamily
from workers.models.centernet.losses import CenterNetLoss, focal
from workers.models.centernet.network import STRIDE, CenterNet
from workers.models.centernet.targets import Targets, bump_radius, make_targets

SIDE = 32
"""Of the output: the input has 128 px."""


def boxes_of(rows: list[tuple[float, float, float, float, int, bool]]) -> Boxes:
    return Boxes(
        np.array([row[:4] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[4] for row in rows], np.int64),
        np.array([row[5] for row in rows], np.bool_),
    )


def random_boxes(random: np.random.Generator, count: int, classes: int) -> Boxes:
    """Boxes with centres in different places of the output, none beside another."""
    places = random.permutation(SIDE // 4 * SIDE // 4)[:count]
    cells = np.stack([places % (SIDE // 4), places // (SIDE // 4)], axis=1) * 4 + 1
    centres = (cells + random.uniform(0.05, 0.95, (count, 2))) * STRIDE
    halves = random.uniform(3, 40, (count, 2)) / 2
    corners = np.concatenate([centres - halves, centres + halves], axis=1).astype(np.float32)
    return Boxes(corners, random.integers(0, classes, count), np.zeros(count, np.bool_))


def perfect_maps(targets: Targets, side: int = SIDE) -> tuple[torch.Tensor, ...]:
    """What a network would answer that has learned the targets."""
    heat = torch.logit(targets.heat_NKHW.clamp(1e-4, 1 - 1e-4))
    maps = []
    for wanted_NM2 in (targets.sizes_NM2, targets.offsets_NM2):
        flat_N2P = torch.zeros(len(heat), 2, side * side)
        for image, (places_M, marked_M) in enumerate(
            zip(targets.places_NM, targets.marked_NM, strict=True)
        ):
            for row in torch.nonzero(marked_M).flatten():
                flat_N2P[image, :, places_M[row]] = wanted_NM2[image, row]
        maps.append(flat_N2P.view(-1, 2, side, side))
    return heat, *maps


@pytest.mark.parametrize("radius", ["corrected", "original"])
def test_targets_decode_to_the_boxes_they_were_made_of(radius: str) -> None:
    random = np.random.default_rng(5)
    images = [random_boxes(random, count, 4) for count in (6, 1, 9)] + [Boxes.none()]
    targets = make_targets(pack(images), (4, SIDE, SIDE), STRIDE, radius=radius)
    found = decode(perfect_maps(targets), limit=20)
    for image, boxes in enumerate(images):
        sure = found.scores_ND[image] > 0.999
        assert int(sure.sum()) == len(boxes)
        if not len(boxes):
            continue
        overlaps = overlap(boxes.corners_B4, found.corners_ND4[image][sure].numpy())
        matched = overlaps.argmax(axis=1)
        assert sorted(matched) == list(range(len(boxes)))
        np.testing.assert_allclose(
            found.corners_ND4[image][sure][matched], boxes.corners_B4, atol=1e-4
        )
        assert found.categories_ND[image][sure][matched].tolist() == boxes.categories_B.tolist()


@pytest.mark.parametrize(
    ("variant", "overlap_at", "expected"),
    [("corrected", 0.7, 1.63), ("original", 0.7, 5.47), ("corrected", 0.3, 4.52)],
)
def test_radius_of_a_box_of_20_px(variant: str, overlap_at: float, expected: float) -> None:
    found = bump_radius(torch.full((1, 1, 2), 20.0), overlap_at, variant)
    assert found.item() == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("size", [(20.0, 20.0), (7.0, 31.0), (64.0, 5.0)])
def test_a_box_within_the_radius_overlaps_enough(size: tuple[float, float]) -> None:
    radius = bump_radius(torch.tensor([[size]]), 0.7, "corrected").item()
    box = np.array([[100.0, 100.0, 100.0 + size[0], 100.0 + size[1]]])
    moves = {
        "shifted": [radius, radius, radius, radius],
        "inwards": [radius, radius, -radius, -radius],
        "outwards": [-radius, -radius, radius, radius],
    }
    overlaps = {name: overlap(box, box + np.array([move]))[0, 0] for name, move in moves.items()}
    assert min(overlaps.values()) == pytest.approx(0.7, abs=1e-5)


def test_bumps_are_gaussians_cut_off_and_the_higher_one_counts() -> None:
    boxes = boxes_of([(20, 20, 100, 100, 0, False), (60, 60, 108, 108, 0, False)])
    heat = make_targets(pack([boxes]), (1, SIDE, SIDE), STRIDE).heat_NKHW[0, 0]
    expected = np.zeros((SIDE, SIDE))
    for centre, size in ((15, 20), (21, 12)):
        radius = int(bump_radius(torch.full((1, 1, 2), float(size)), 0.7, "corrected").item())
        for y in range(max(0, centre - radius), centre + radius + 1):
            for x in range(max(0, centre - radius), centre + radius + 1):
                far = (x - centre) ** 2 + (y - centre) ** 2
                bump = math.exp(-far / (2 * ((2 * radius + 1) / 6) ** 2))
                expected[y, x] = max(expected[y, x], bump)
    np.testing.assert_allclose(heat, expected, atol=1e-6)


def test_ignored_regions_and_boxes_beyond_the_image_are_no_targets() -> None:
    boxes = boxes_of(
        [(0, 0, 64, 64, 0, True), (-60, 4, -20, 40, 0, False), (40, 40, 44, 44, 0, False)]
    )
    targets = make_targets(pack([boxes]), (1, SIDE, SIDE), STRIDE)
    assert targets.marked_NM.tolist() == [[False, False, True]]
    assert targets.heat_NKHW.sum() == 1, "the small box alone"
    counted = targets.counted_NHW[0]
    assert counted[10, 10], "a centre counts even within an ignored region"
    assert not counted[3, 3]
    assert counted[20, 20]
    assert int((~counted).sum()) == 16 * 16 - 1


def test_focal_loss_is_the_papers() -> None:
    random = np.random.default_rng(1)
    targets = make_targets(pack([random_boxes(random, 5, 2)]), (2, SIDE, SIDE), STRIDE)
    logits = torch.from_numpy(random.normal(0, 2, targets.heat_NKHW.shape)).float()
    expected = 0.0
    for logit, y in zip(
        logits.flatten().tolist(), targets.heat_NKHW.flatten().tolist(), strict=True
    ):
        p = min(max(1 / (1 + math.exp(-logit)), 1e-4), 1 - 1e-4)
        centre = y == 1
        expected -= (1 - p) ** 2 * math.log(p) if centre else (1 - y) ** 4 * p**2 * math.log(1 - p)
    assert focal(logits, targets).item() == pytest.approx(expected, rel=1e-4)


def test_parts_of_the_loss_are_means_over_boxes() -> None:
    boxes = pack([boxes_of([(20, 20, 60, 80, 1, False), (90, 90, 110, 118, 0, False)])])
    maps = (torch.zeros(1, 2, SIDE, SIDE), *(torch.zeros(1, 2, SIDE, SIDE) for _ in range(2)))
    losses = CenterNetLoss(classes=2)(maps, boxes)
    sizes = (40 + 60 + 20 + 28) / STRIDE
    assert losses["size"].item() == pytest.approx(0.1 * sizes / 2)
    # Centres at (10, 12.5) and (25, 26) of the output: their fractions are .5 in y of the first.
    assert losses["offset"].item() == pytest.approx(0.5 / 2)
    nothing = CenterNetLoss(classes=2)(maps, torch.full((1, 1, 6), PADDING))
    assert nothing["size"].item() == nothing["offset"].item() == 0
    assert nothing["heat"].item() == pytest.approx(2 * SIDE**2 * 0.25 * math.log(2), rel=1e-5)


def test_a_plateau_is_one_peak() -> None:
    heat = torch.full((1, 1, SIDE, SIDE), -9.0)
    heat[0, 0, 5, 5:8] = 2.0
    heat[0, 0, 20, 20] = 1.0
    found = decode((heat, *(torch.ones(1, 2, SIDE, SIDE) for _ in range(2))), limit=10)
    assert int((found.scores_ND > 0.1).sum()) == 2
    assert found.corners_ND4[0, 0].tolist() == [5.5 * 4, 5.5 * 4, 6.5 * 4, 6.5 * 4]


def test_a_network_learns_a_box() -> None:
    torch.manual_seed(0)
    network = CenterNet("resnet18", classes=2, channels=1)
    image = torch.zeros(2, 1, 64, 64)
    image[0, 0, 16:40, 8:24] = 3.0
    targets = pack([boxes_of([(8, 16, 24, 40, 1, False)]), Boxes.none()])
    loss = CenterNetLoss(classes=2)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(20):
        total = sum(loss(network(image), targets).values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    assert all(one.grad is not None for one in network.parameters()), "DDP waits for every one"
    found = decode(network(image), limit=5)
    best = found.corners_ND4[0, :1].detach().numpy()
    assert overlap(np.array([[8, 16, 24, 40]]), best)[0, 0] > 0.6
    assert found.categories_ND[0, 0] == 1
    assert found.scores_ND[0, 0] > 2 * found.scores_ND[1, 0]


@pytest.mark.parametrize(
    "architecture", ["mobilenetv2_100", pytest.param("vgg11", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("neck", ["lateral", "plain"])
def test_other_backbones_answer_at_a_quarter(architecture: str, neck: str) -> None:
    network = CenterNetFamily().build(architecture, 3, 1, {"neck": neck})
    heat, size, offset = network(torch.zeros(2, 1, 64, 64))
    assert heat.shape == (2, 3, 16, 16)
    assert size.shape == offset.shape == (2, 2, 16, 16)
    assert heat.sigmoid().mean().item() == pytest.approx(0.1, abs=0.05)


def test_a_lateral_neck_also_takes_earlier_features() -> None:
    image = torch.zeros(1, 1, 64, 64)
    for neck, changed in (("lateral", True), ("plain", False)):
        network = CenterNetFamily().build("test_resnet", 1, 1, {"neck": neck}).eval()
        seen: list[torch.Tensor] = []
        network.get_submodule("neck").register_forward_pre_hook(
            lambda _, given, seen=seen: seen.extend(given[1])
        )
        network(image)
        assert [one.shape[-1] for one in seen] == [4, 8, 16]
        last = torch.zeros(1, 96, 2, 2)
        plain = network.neck(last, [torch.zeros_like(one) for one in seen])
        other = network.neck(last, [torch.ones_like(one) for one in seen])
        assert torch.equal(plain, other) is not changed


@pytest.mark.parametrize("architecture", ["vit_tiny_patch16_224", "coat_tiny"])
def test_a_network_without_maps_is_refused(architecture: str) -> None:
    with pytest.raises(BundleError, match="features are maps"):
        CenterNetFamily().build(architecture, 1, 1, {})
