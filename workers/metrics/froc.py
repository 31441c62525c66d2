"""Free-response ROC: lesions found against false positives an image (Bunch et al. 1978).

Axes: E lesions and false positives, G patients, S resamples, F rates of false positives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workers.detection.matching import NONE, Outcomes
from workers.metrics.bootstrap import Patients, resampled_intervals
from workers.metrics.classification import Key
from workers.metrics.ratios import ratio

Floats = NDArray[np.float64]

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives an image at which sensitivity is told, as of the LUNA16 challenge."""
_MISSED = -1.0
"""Confidence of a lesion without a detection."""


@dataclass(frozen=True)
class Curve:
    """The curve: a point for each confidence a detection has, falling."""

    false_positives_P: Floats
    """False positives an image."""
    sensitivity_P: Floats
    """Share of the lesions that are found, whatever they are taken for."""


@dataclass(frozen=True)
class Froc:
    """Lesions and false positives of images, the most certain first."""

    scores_E: Floats
    lesion_E: NDArray[np.bool_]
    """Whether it is a lesion; a false positive otherwise."""
    image_E: NDArray[np.int64]
    """Number of its image, from 0."""
    patients: Patients
    """Of the images, those without a lesion included."""

    @staticmethod
    def of(images: Sequence[Outcomes], groups: Sequence[str]) -> "Froc":
        """Put the outcomes of images together; ``groups`` names each image's patient."""
        scores_E = np.concatenate([np.zeros(0), *(one.scores_E for one in images)])
        actual_E = np.concatenate([np.zeros(0, np.int64), *(one.actual_E for one in images)])
        counts = [len(one.scores_E) for one in images]
        image_E = np.repeat(np.arange(len(images)), counts)
        order = np.argsort(-scores_E, kind="stable")
        return Froc(scores_E[order], (actual_E != NONE)[order], image_E[order], Patients.of(groups))

    def curve(self) -> Curve:
        """The curve over all images, each once. Empty where there is no lesion."""
        weights_N1 = np.ones((len(self.patients.index_N), 1))
        false_P1, found_P1 = self._points(weights_N1)
        defined = ~np.isnan(found_P1[:, 0])
        return Curve(false_P1[defined, 0], found_P1[defined, 0])

    def sensitivities(self, weights_NS: Floats) -> Floats:
        """Largest sensitivity (F, S) with at most each of `RATES` false positives an image.

        What a confidence threshold reaches, not what a line between two of them does. Each image
        counts as often as its weight says; NaN where there is no lesion.
        """
        false_PS, found_PS = self._points(weights_NS)
        # Both only rise along P, so the last point within the rate is the best; before the first
        # nothing is found.
        found_PS = np.concatenate([np.zeros((1, weights_NS.shape[1])), found_PS])
        found_FS = np.zeros((len(RATES), weights_NS.shape[1]))
        for place, rate in enumerate(RATES):
            within_S = (false_PS <= rate + 1e-12).sum(axis=0)
            found_FS[place] = np.take_along_axis(found_PS, within_S[None], axis=0)[0]
        lesions_S = self._lesions(weights_NS)
        return np.where(lesions_S > 0, found_FS, np.nan)

    def _lesions(self, weights_NS: Floats) -> Floats:
        weights_LS = weights_NS[self.image_E[self.lesion_E]]
        total_S: Floats = weights_LS.sum(axis=0)
        return total_S

    def _points(self, weights_NS: Floats) -> tuple[Floats, Floats]:
        """False positives an image and sensitivity (P, S) at each confidence."""
        told_E = self.scores_E > _MISSED
        # Equal confidences are one threshold.
        scores_E = self.scores_E[told_E]
        last = np.flatnonzero(np.append(np.diff(scores_E) != 0, True)[: len(scores_E)])
        weights_ES = weights_NS[self.image_E[told_E]]
        lesion_E1 = self.lesion_E[told_E][:, None]
        found_PS = (weights_ES * lesion_E1).cumsum(axis=0)[last]
        false_PS = (weights_ES * ~lesion_E1).cumsum(axis=0)[last]
        images_S = weights_NS.sum(axis=0)
        lesions_PS = np.broadcast_to(self._lesions(weights_NS), found_PS.shape)
        return false_PS / np.maximum(images_S, 1), ratio(found_PS, lesions_PS)


def froc_figures(
    froc: Froc, *, resamples: int = 0, seed: int = 0
) -> dict[Key, tuple[float, tuple[float, float] | None]]:
    """``froc`` at each of `RATES` and its mean over them, ``froc_mean``, with 95 % intervals.

    Intervals come from resampling whole patients. Empty where there is no lesion.
    """

    def values(weights_NS: Floats) -> dict[Key, Floats]:
        found_FS = froc.sensitivities(weights_NS)
        found: dict[Key, Floats] = {
            ("froc", f"{rate:g}"): found_S for rate, found_S in zip(RATES, found_FS, strict=True)
        }
        return found | {("froc_mean", None): found_FS.mean(axis=0)}

    def resampled(drawn_GS: Floats) -> dict[Key, Floats]:
        # A few resamples at a time: there are many more detections than images.
        parts = [
            values(part_GS[froc.patients.index_N])
            for part_GS in np.array_split(drawn_GS, _pieces(froc, drawn_GS), axis=1)
        ]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    intervals: Mapping[Key, tuple[float, float] | None] = resampled_intervals(
        resampled, froc.patients, resamples, seed
    )
    once = values(np.ones((len(froc.patients.index_N), 1)))
    return {
        key: (float(value[0]), intervals.get(key))
        for key, value in once.items()
        if not np.isnan(value[0])
    }


_AT_ONCE = 4_000_000
"""Events times resamples held at once."""


def _pieces(froc: Froc, drawn_GS: Floats) -> int:
    resamples = int(drawn_GS.shape[1])
    return max(1, min(resamples, -(-len(froc.scores_E) * resamples // _AT_ONCE)))
