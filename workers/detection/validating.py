"""What a detector in training makes of the validation part: its loss, and AP50."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from workers.detection.average_precision import average_precision, judge
from workers.detection.config import DetectorConfig
from workers.detection.examples import MarkedImages
from workers.detection.families import family_of
from workers.detection.family import Losses, Maps, pack
from workers.detection.maps import count_boxes, to_detections
from workers.scoring.cuda_forward import full_float32
from workers.training import ranks

Criterion = Callable[[Maps, Tensor], Losses]


@dataclass(frozen=True)
class ValidationPart:
    """This rank's validation images."""

    images: MarkedImages
    config: DetectorConfig
    batch: int
    """Images of one pass."""


def validate(network: nn.Module, part: ValidationPart, device: torch.device) -> Mapping[str, float]:
    """AP50 and the loss over the validation images of all ranks, in float32.

    AP50 decides which epoch is best, as a loss does not rank detections, and that of YOLOX depends
    on the boxes it assigns itself. It is left out where nothing is to be found. The loss is always
    that of the first epochs, so that epochs can be compared.
    """
    config, images = part.config, part.images
    family, classes = family_of(config.family), len(config.classes)
    criterion = family.criterion(classes, config.loss)
    steps = max(ranks.gather_counts(-(-len(images) // part.batch), device))
    losses: list[Tensor] = []
    rows, marked = [np.zeros((0, 3))], []
    for step in range(steps):
        places = np.arange(step * part.batch, min((step + 1) * part.batch, len(images)))
        if not len(places):
            # A loss asks all ranks how many boxes there are: so a rank that has done answers too.
            losses.append(_idle(network, criterion, config, device))
            continue
        taken = images.take(places)
        pixels_NCSS = torch.from_numpy(np.stack([one.pixels_CSS for one in taken])).to(device)
        boxes = [one.boxes for one in taken]
        with full_float32():
            maps: Maps = network(pixels_NCSS)
        losses.append(_total(criterion(maps, pack(boxes).to(device))))
        found = to_detections(family.decode(maps, config.limit, config.least_score))
        rows += [judge(one, other) for one, other in zip(found, boxes, strict=True)]
        marked += boxes
    loss = ranks.average(torch.stack(losses)).double().mean()
    counts_K = ranks.add_up(count_boxes(marked, classes), device)
    every_R3 = ranks.gather_rows(np.concatenate(rows), device)
    figures = {"val_loss": float(loss)}
    if not counts_K.sum():
        return figures
    return {"ap50": average_precision(every_R3, counts_K), **figures}


def _idle(
    network: nn.Module, criterion: Criterion, config: DetectorConfig, device: torch.device
) -> Tensor:
    side = int(config.recipe["size"])
    black = torch.zeros(1, config.in_chans, side, side, dtype=torch.uint8, device=device)
    return 0 * _total(criterion(network(black), torch.zeros(1, 0, 6, device=device)))


def _total(losses: Losses) -> Tensor:
    return torch.stack(list(losses.values())).sum()
