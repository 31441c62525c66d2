"""The distributions of a data set by label, and the records in it that look wrong."""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.plan import Blob, ShardFunction, ShardResult
from schemas.reasons import Suspicion
from schemas.tables import rows_of

Row = dict[str, Any]
Floats = NDArray[np.float64]

UNKNOWN = "unknown"
"""Sex of images whose catalogue row names none."""
_AGE_BIN, _PIXEL_BIN, _SHARE_BIN = 10.0, 100.0, 0.05
_ADULT_YEARS = 18.0
_CHILD_YEARS = 1.0


@dataclass(frozen=True)
class Values:
    """Measurements of a data set, an array for each label; those that are unknown are left out."""

    ages: Mapping[str | None, Floats]
    """Years."""
    widths: Mapping[str | None, Floats]
    heights: Mapping[str | None, Floats]
    """Px, of the same images in the same order."""
    box_shares: Mapping[str | None, Floats]
    """Area of each box by that of its image, 0-1."""
    sexes: Mapping[str | None, Mapping[str, int]]
    """Images by sex."""


Draw = Callable[[Values], Mapping[str, bytes]]
"""Makes pictures: PNG bytes by name."""


def load(params: Mapping[str, Any], draw: Draw | None = None) -> ShardFunction:
    """Make the function that describes all images of a data set at once.

    ``params``: ``profile``, ``dataset``, ``adult_labels``, ``max_age``, ``max_box_share`` and
    ``min_box_share``. Rows have ``image_id``, ``label``, ``sex``, ``age``, ``width``, ``height``,
    ``patient_id`` and ``boxes``, the areas of the image's boxes in px². With ``draw`` there are
    pictures, and a CSV file of each distribution and of the suspects.
    """

    def describe(rows: pa.Table, _blobs: Sequence[Blob]) -> ShardResult:
        images = rows.to_pylist()
        values = measure(images)
        named = {"profile": params["profile"], "dataset": params["dataset"]}
        figures = [named | row for row in distributions(values)]
        suspects = [named | row for row in find_suspects(images, values, params)]
        counted = Counter(str(row["reason"]) for row in suspects)
        files: dict[str, bytes] = {}
        if draw is not None:
            files = {**draw(values), **_csv_files(figures, suspects)}
        return ShardResult(
            {"profiles": rows_of("profiles", figures), "suspects": rows_of("suspects", suspects)},
            done=len(images),
            rejected=0,
            files=files,
            facts={f"suspicious: {reason}": count for reason, count in sorted(counted.items())},
        )

    return describe


def measure(images: Sequence[Row]) -> Values:
    """Sort the measurements of images by label."""
    ages, widths, heights, shares = (defaultdict[str | None, list[float]](list) for _ in range(4))
    sexes = defaultdict[str | None, Counter[str]](Counter)
    for image in images:
        label = image["label"]
        sexes[label][image["sex"] or UNKNOWN] += 1
        if image["age"] is not None:
            ages[label].append(image["age"])
        if image["width"] and image["height"]:
            widths[label].append(image["width"])
            heights[label].append(image["height"])
        shares[label] += box_shares(image)
    return Values(_arrays(ages), _arrays(widths), _arrays(heights), _arrays(shares), dict(sexes))


def box_shares(image: Row) -> list[float]:
    """The share of the image that each of its boxes covers, 0-1."""
    pixels = (image["width"] or 0) * (image["height"] or 0)
    return [area / pixels for area in image["boxes"] or ()] if pixels else []


def distributions(values: Values) -> list[Row]:
    """Rows of `profiles`: counts by sex, by bin, and the figures of each label."""
    rows: list[Row] = []
    for label, counts in _by_name(values.sexes):
        total = sum(counts.values())
        rows += [
            _row("images", label, "count", float(count), total) | {"sex": sex}
            for sex, count in sorted(counts.items())
        ]
    for name, of_label, width in (
        ("age", values.ages, _AGE_BIN),
        ("width", values.widths, _PIXEL_BIN),
        ("height", values.heights, _PIXEL_BIN),
        ("box_share", values.box_shares, _SHARE_BIN),
    ):
        for label, found in _by_name(of_label):
            rows += _binned(name, label, found, width) + _summary(name, label, found)
    return rows


def find_suspects(images: Sequence[Row], values: Values, limits: Mapping[str, Any]) -> list[Row]:
    """Rows of `suspects`, in the order of the images; an image may have several.

    A missing sex is suspicious only where the data set knows the sex of others.
    """
    adult = set(limits["adult_labels"]) or {
        label for label, ages in values.ages.items() if np.median(ages) >= _ADULT_YEARS
    }
    sexes = defaultdict[str, set[str]](set)
    for image in images:
        if image["patient_id"] and image["sex"]:
            sexes[image["patient_id"]].add(image["sex"])
    some_sex = any(image["sex"] for image in images)
    rows: list[Row] = []
    for image in images:
        found = _odd_age(image, adult, limits["max_age"])
        if some_sex and not image["sex"]:
            found.append((Suspicion.SEX_MISSING, None, "other images have one"))
        if len(sexes.get(image["patient_id"], ())) > 1:
            told = " and ".join(sorted(sexes[image["patient_id"]]))
            found.append((Suspicion.SEX_CONTRADICTS, None, f"images of the patient say {told}"))
        found += _odd_boxes(image, limits)
        rows += [
            {
                "image_id": image["image_id"],
                "reason": reason.value,
                "value": value,
                "detail": detail,
            }
            for reason, value, detail in found
        ]
    return rows


Found = list[tuple[Suspicion, float | None, str]]


def _odd_age(image: Row, adult: set[Any], max_age: float) -> Found:
    age, label = image["age"], image["label"]
    if age is None:
        return []
    if age < 0:
        return [(Suspicion.AGE_BELOW_ZERO, age, f"{age:g} years")]
    if age > max_age:
        return [(Suspicion.AGE_HIGH, age, f"{age:g} years")]
    if age < _CHILD_YEARS and label in adult:
        return [(Suspicion.AGE_ZERO, age, f"{age:g} years, with {label}, a disease of adults")]
    return []


def _odd_boxes(image: Row, limits: Mapping[str, Any]) -> Found:
    found: Found = []
    for share in box_shares(image):
        told = f"a box covers {100 * share:.3g} % of the image"
        if share > limits["max_box_share"]:
            found.append((Suspicion.BOX_LARGE, share, told))
        if share < limits["min_box_share"]:
            found.append((Suspicion.BOX_SMALL, share, told))
    return found


def _arrays(lists: Mapping[str | None, list[float]]) -> dict[str | None, Floats]:
    return {label: np.asarray(found, np.float64) for label, found in lists.items() if found}


def _by_name(of_label: Mapping[str | None, Any]) -> list[tuple[str | None, Any]]:
    """Labels alphabetically, images without one last."""
    return sorted(of_label.items(), key=lambda item: (item[0] is None, item[0] or ""))


def _row(name: str, label: str | None, statistic: str, value: float, n: int) -> Row:
    return {"distribution": name, "label": label, "statistic": statistic, "value": value, "n": n}


def _binned(name: str, label: str | None, found: Floats, width: float) -> list[Row]:
    """Counts of bins that begin at multiples of their width, empty ones between others included."""
    # Rounded: 0.15 / 0.05 is a little less than 3.
    places = np.floor(np.round(found / width, 9)).astype(np.int64)
    first, last = int(places.min()), int(places.max())
    counts = np.bincount(places - first, minlength=last - first + 1)
    return [
        _row(name, label, "count", float(count), len(found))
        | {"low": round(place * width, 9), "high": round((place + 1) * width, 9)}
        for place, count in enumerate(counts.tolist(), first)
    ]


def _summary(name: str, label: str | None, found: Floats) -> list[Row]:
    low, q1, median, q3, high = np.percentile(found, [0, 25, 50, 75, 100]).tolist()
    figures = {
        "mean": float(found.mean()),
        "std": float(found.std()),
        "min": low,
        "q1": q1,
        "median": median,
        "q3": q3,
        "max": high,
    }
    return [_row(name, label, statistic, value, len(found)) for statistic, value in figures.items()]


_FIGURE_COLUMNS = ("label", "sex", "statistic", "low", "high", "value", "n")
_SUSPECT_COLUMNS = ("image_id", "reason", "value", "detail")


def _csv_files(figures: Sequence[Row], suspects: Sequence[Row]) -> dict[str, bytes]:
    """A CSV file of each distribution, and one of the suspects."""
    of_name = defaultdict[str, list[Row]](list)
    for row in figures:
        of_name[row["distribution"]].append(row)
    files = {f"{name}.csv": _csv(rows, _FIGURE_COLUMNS) for name, rows in of_name.items()}
    return files | {"suspects.csv": _csv(suspects, _SUSPECT_COLUMNS)}


def _csv(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row.get(name) for name in columns] for row in rows)
    return text.getvalue().encode()
