"""The work of an evaluation: figures by part and subgroup from scores and labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.bundle import OperatingPoint
from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.tables import rows_of
from workers.metrics.classification import Figure, Scored, classification_figures
from workers.metrics.comparison import Rival, comparison_figures
from workers.metrics.severity import Severity
from workers.metrics.subgroups import subgroups

SHOWN = ("auc", "accuracy", "custom_plus")
"""Figures over all classes that the user is told at the job's end."""
COMPARED = ("auc_difference", "delong_p", "mcnemar_p")
"""Of the comparison with another model, what the user is told."""

Draw = Callable[[Scored, OperatingPoint | None], Mapping[str, bytes]]
"""Makes pictures of scored images: PNG bytes by name."""


def load(params: Mapping[str, Any], draw: Draw | None = None) -> ShardFunction:
    """Make the function that evaluates one model on all its scored images at once.

    ``params``: ``classes``, ``operating_point`` (or null), ``parts``, ``bootstrap``, ``seed``,
    ``severity``, ``subgroups``, ``age_bands``, ``against`` (null, or ``name``, ``classes`` and
    ``operating_point`` of another model) and ``columns``, the columns of `metrics` equal in all
    rows. Rows have the columns ``image_id``, ``part``, ``label``, ``scores``, ``group`` (the
    patient), those of the subgroups, and ``other_scores`` where there is another model.
    ``draw`` makes the pictures of a part; none are made without it.
    """
    asked = _Asked.of(params)

    def evaluate(rows: pa.Table, _blobs: Sequence[Blob]) -> ShardResult:
        found: list[dict[str, object]] = []
        facts: dict[str, float] = {}
        files: dict[str, bytes] = {}
        for part in params["parts"]:
            taken = rows.filter(pc.equal(rows.column("part"), part))
            if not taken.num_rows:
                continue
            for subgroup, figures in asked.figures(taken):
                constants = params["columns"] | {"part": part, "subgroup": subgroup}
                found += [_row(figure, constants) for figure in figures]
                facts |= _shown(part, figures) if not subgroup else {}
            if draw is not None:
                pictures = draw(asked.scored(taken), asked.point)
                files |= {f"{part}-{name}": data for name, data in pictures.items()}
        tables = {"metrics": rows_of("metrics", found)}
        return ShardResult(tables, done=rows.num_rows, rejected=0, files=files, facts=facts)

    return evaluate


@dataclass(frozen=True)
class _Asked:
    params: Mapping[str, Any]
    classes: tuple[str, ...]
    point: OperatingPoint | None
    severity: Severity | None

    @staticmethod
    def of(params: Mapping[str, Any]) -> "_Asked":
        classes, stated = tuple(params["classes"]), params["severity"]
        severity = Severity.of(classes, **stated) if stated else None
        return _Asked(params, classes, _point(params["operating_point"]), severity)

    def figures(self, rows: pa.Table) -> list[tuple[str, list[Figure]]]:
        """Figures of all images under the empty name, then those of each subgroup."""
        scored = self.scored(rows)
        found = [("", self._of(scored) + self._compared(scored, rows))]
        wanted = subgroups(rows, self.params["subgroups"], self.params["age_bands"])
        return found + [(name, self._of(scored.taken(mask_N))) for name, mask_N in wanted]

    def scored(self, rows: pa.Table) -> Scored:
        """The model's scores with what the images are."""
        index = {name: position for position, name in enumerate(self.classes)}
        return Scored(
            self.classes,
            np.asarray([index[name] for name in rows.column("label").to_pylist()], np.int64),
            _scores(rows, "scores", len(self.classes)),
            rows.column("group").to_pylist(),
        )

    def _of(self, scored: Scored) -> list[Figure]:
        return classification_figures(
            scored,
            self.point,
            severity=self.severity,
            resamples=int(self.params["bootstrap"]),
            seed=int(self.params["seed"]),
        )

    def _compared(self, scored: Scored, rows: pa.Table) -> list[Figure]:
        """Figures of the comparison with the other model, on images that both have scored."""
        other = self.params["against"]
        if other is None:
            return []
        both = pc.is_valid(rows.column("other_scores"))
        if not pc.any(both).as_py():
            return []
        places = [other["classes"].index(name) for name in self.classes]
        scores_NC = _scores(rows.filter(both), "other_scores", len(self.classes))
        return comparison_figures(
            scored.taken(both.to_numpy(zero_copy_only=False)),
            self.point,
            Rival(other["name"], scores_NC[:, places], _point(other["operating_point"])),
            resamples=int(self.params["bootstrap"]),
            seed=int(self.params["seed"]),
        )


def _point(stated: Mapping[str, Any] | None) -> OperatingPoint | None:
    return OperatingPoint.model_validate(stated) if stated else None


def _scores(rows: pa.Table, column: str, classes: int) -> NDArray[np.float32]:
    flat = rows.column(column).combine_chunks().flatten().to_numpy(zero_copy_only=False)
    scores_NC: NDArray[np.float32] = flat.reshape(-1, classes).astype(np.float32)
    return scores_NC


def _shown(part: str, figures: Sequence[Figure]) -> dict[str, float]:
    return {
        f"{part} {figure.metric}": round(figure.value, 4)
        for figure in figures
        if (figure.metric in SHOWN and figure.category is None)
        or (figure.metric in COMPARED and "|" not in str(figure.category))
    }


def _row(figure: Figure, constants: Mapping[str, object]) -> dict[str, object]:
    low, high = figure.interval or (None, None)
    return {
        **constants,
        "metric": figure.metric,
        "category": figure.category,
        "value": figure.value,
        "ci_low": low,
        "ci_high": high,
        "n": figure.n,
    }
