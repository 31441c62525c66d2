"""Average precision and recall of detections by COCO's protocol, by pycocotools.

Axes: T overlaps (0.50 to 0.95), R recalls (101), K classes, D detections, G patients, S resamples.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from workers.detection.boxes import Boxes, Detections, to_sizes
from workers.metrics.bootstrap import Patients, resampled_intervals
from workers.metrics.classification import Key
from workers.metrics.ratios import defined_mean, ratio

Floats = NDArray[np.float64]

FIGURES = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
"""COCO's twelve, in its order; small is below 32 x 32 px of the original, large above 96 x 96."""

_ALL_AREAS = 0
_MOST = 2
"""Places of all areas, and of 100 detections an image, among COCO's settings."""
_AP50, _AP75 = 0, 5
"""Places of an overlap of 0.50 and of 0.75."""


@dataclass(frozen=True)
class Judged:
    """One image: what is marked in it and what was found."""

    boxes: Boxes
    areas_B: NDArray[np.float32]
    """Area of each marked box, or of the mask within it, px²: COCO sorts by it into small, medium
    and large."""
    detections: Detections
    group: str
    """Whose image it is."""


def coco_figures(
    images: Sequence[Judged], classes: Sequence[str], *, resamples: int = 0, seed: int = 0
) -> dict[Key, tuple[float, tuple[float, float] | None]]:
    """COCO's twelve figures, and ``ap`` and ``ap50`` of each class, with 95 % intervals.

    Only ap, ap50 and ap75 have intervals, by resampling whole patients. What the images leave
    undefined (no box of a class, or of a size) is left out. An ignored region holds detections of
    every class.
    """
    evaluation = evaluate(images, len(classes))
    values: dict[Key, float] = {
        (name, None): float(value) for name, value in zip(FIGURES, evaluation.stats, strict=True)
    }
    precision_TRK = evaluation.eval["precision"][:, :, :, _ALL_AREAS, _MOST]
    if len(classes) > 1:
        for place, name in enumerate(classes):
            values["ap", name] = float(precision_TRK[:, :, place].mean())
            values["ap50", name] = float(precision_TRK[_AP50, :, place].mean())
    ranked = [Ranked.of(evaluation, place) for place in range(len(classes))]
    patients = Patients.of([image.group for image in images])
    intervals = _intervals(ranked, classes, patients, resamples, seed)
    return {key: (value, intervals.get(key)) for key, value in values.items() if value >= 0}


def evaluate(images: Sequence[Judged], classes: int) -> Any:
    """Run pycocotools' `COCOeval` over images without printing; ids begin at 1.

    An annotation of id 0 would count as not found, even where it is.
    """
    marked, found = _annotations(images, classes), _results(images)
    listed = [{"id": number} for number in range(1, len(images) + 1)]
    categories = [{"id": number} for number in range(1, classes + 1)]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _indexed(listed, categories, marked), _indexed(listed, categories, found), "bbox"
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _annotations(images: Sequence[Judged], classes: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        boxes = image.boxes
        sizes_B4 = to_sizes(boxes.corners_B4).tolist()
        for place, (box, area) in enumerate(zip(sizes_B4, image.areas_B.tolist(), strict=True)):
            ignored = bool(boxes.ignored_B[place])
            # A crowd is of one category; an ignored region holds detections of all.
            wanted = range(classes) if ignored else [int(boxes.categories_B[place])]
            found += [
                {
                    "id": len(found) + step,
                    "image_id": number,
                    "category_id": category + 1,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(ignored),
                }
                for step, category in enumerate(wanted, 1)
            ]
    return found


def _results(images: Sequence[Judged]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, image in enumerate(images, 1):
        detections = image.detections
        for box, score, category in zip(
            to_sizes(detections.corners_D4).tolist(),
            detections.scores_D.tolist(),
            detections.categories_D.tolist(),
            strict=True,
        ):
            found.append(
                {
                    "id": len(found) + 1,
                    "image_id": number,
                    "category_id": category + 1,
                    "bbox": box,
                    "score": score,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    return found


def _indexed(
    images: list[dict[str, Any]], categories: list[dict[str, Any]], boxes: list[dict[str, Any]]
) -> Any:
    made = COCO()
    made.dataset = {"images": images, "categories": categories, "annotations": boxes}
    made.createIndex()
    return made


@dataclass(frozen=True)
class Ranked:
    """Detections of one class, the most certain first, as COCO judged them."""

    image_D: NDArray[np.int64]
    """Number of each detection's image, from 0."""
    right_TD: NDArray[np.bool_]
    counted_TD: NDArray[np.bool_]
    """Neither right nor wrong where not: it lies in an ignored region."""
    wanted_N: Floats
    """Boxes of the class in each image."""

    @staticmethod
    def of(evaluation: Any, place: int) -> "Ranked":
        """What an evaluation found of the class at a place."""
        params = evaluation.params
        images, areas = len(params.imgIds), len(params.areaRng)
        first = place * areas * images + _ALL_AREAS * images
        found = evaluation.evalImgs[first : first + images]
        wanted_N = np.asarray(
            [0 if one is None else (1 - one["gtIgnore"].astype(int)).sum() for one in found], float
        )
        some = [(number, one) for number, one in enumerate(found) if one is not None]
        empty = np.zeros((len(params.iouThrs), 0), np.bool_)
        scores = np.concatenate([[], *(one["dtScores"] for _, one in some)])
        order = np.argsort(-scores, kind="mergesort")
        counts = [len(one["dtScores"]) for _, one in some]
        image_D = np.repeat([number for number, _ in some], counts).astype(np.int64)
        matched_TD = np.concatenate([empty, *(one["dtMatches"] > 0 for _, one in some)], axis=1)
        ignored_TD = np.concatenate(
            [empty, *(one["dtIgnore"].astype(bool) for _, one in some)], axis=1
        )
        return Ranked(
            image_D[order],
            (matched_TD & ~ignored_TD)[:, order],
            ~ignored_TD[:, order],
            wanted_N,
        )

    def precisions(self, weights_NS: Floats, recalls_R: Floats) -> Floats:
        """Average precision (T, S) where each image counts as often as its weight says.

        NaN where no box is left. Copies of an image stand side by side in COCO's order, and only
        the last of several right ones is read there, so that weights give what copies would; up to
        detections of equal confidence in one image, whose copies would alternate.
        """
        wanted_S = self.wanted_N @ weights_NS
        found_TS = np.full((len(self.right_TD), weights_NS.shape[1]), np.nan)
        for sample in np.flatnonzero(wanted_S > 0):
            weights_D = weights_NS[self.image_D, sample]
            right_TD = (weights_D * self.right_TD).cumsum(axis=1)
            precision_TD = np.nan_to_num(
                ratio(right_TD, (weights_D * self.counted_TD).cumsum(axis=1))
            )
            best_TD = np.maximum.accumulate(precision_TD[:, ::-1], axis=1)[:, ::-1]
            for overlap, (right_D, best_D) in enumerate(zip(right_TD, best_TD, strict=True)):
                places = np.searchsorted(right_D / wanted_S[sample], recalls_R, side="left")
                reached = best_D[places[places < len(best_D)]]
                found_TS[overlap, sample] = reached.sum() / len(recalls_R)
        return found_TS


def _intervals(
    ranked: Sequence[Ranked],
    classes: Sequence[str],
    patients: Patients,
    resamples: int,
    seed: int,
) -> Mapping[Key, tuple[float, float] | None]:
    recalls_R = np.linspace(0.0, 1.0, 101)

    def values(drawn_GS: Floats) -> dict[Key, Floats]:
        weights_NS = drawn_GS[patients.index_N]
        by_class_KTS = np.stack([one.precisions(weights_NS, recalls_R) for one in ranked])
        mean_TS = defined_mean(np.moveaxis(by_class_KTS, 0, -1))
        found: dict[Key, Floats] = {
            ("ap", None): mean_TS.mean(axis=0),
            ("ap50", None): mean_TS[_AP50],
            ("ap75", None): mean_TS[_AP75],
        }
        if len(classes) > 1:
            for name, of_class_TS in zip(classes, by_class_KTS, strict=True):
                found["ap", name] = of_class_TS.mean(axis=0)
                found["ap50", name] = of_class_TS[_AP50]
        return found

    return resampled_intervals(values, patients, resamples, seed)
