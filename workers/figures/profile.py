"""The pictures of a profile: images by sex, ages, image sizes and box shares by label."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from workers.figures.canvas import CHANCE, COLOURS, house_style, new_axes, to_png
from workers.figures.matrix import NAME_LENGTH
from workers.profiling import UNKNOWN, Floats, Values

_SEXES: Mapping[str, str] = {
    "F": COLOURS[1],
    "M": COLOURS[0],
    "O": COLOURS[2],
    UNKNOWN: CHANCE,
}
_UPRIGHT = 6
"""Labels that have room for their names side by side."""
_POINTS = 20_000
"""Images that a scatter plot shows of a label at most: more would only be drawn over."""


def draw_profile(values: Values) -> Mapping[str, bytes]:
    """PNG bytes by name; equal values give equal bytes. What nothing is known of has no picture."""
    with house_style():
        pictures = {"images.png": to_png(_images_axes(values))}
        if values.ages:
            pictures["age.png"] = to_png(_boxes_axes(values.ages, "Ages", "years"))
        if values.widths:
            pictures["size.png"] = to_png(_sizes_axes(values))
        if values.box_shares:
            axes = _boxes_axes(values.box_shares, "Boxes", "share of the image")
            pictures["box_share.png"] = to_png(axes)
    return pictures


def _images_axes(values: Values) -> Axes:
    """Images by label, a bar for each sex."""
    labels = _labels(values.sexes)
    sexes = [sex for sex in _SEXES if any(values.sexes[label].get(sex) for label in labels)]
    axes = _wide_axes(len(labels))
    width = 0.8 / max(len(sexes), 1)
    for place, sex in enumerate(sexes):
        counts = [values.sexes[label].get(sex, 0) for label in labels]
        at = np.arange(len(labels)) + (place - (len(sexes) - 1) / 2) * width
        bars = axes.bar(at, counts, width, color=_SEXES[sex], label=sex)
        axes.bar_label(bars, [f"{count:,}" for count in counts], fontsize=7)
    _name(axes, labels)
    axes.set(title="Images by sex", ylabel="images")
    axes.legend(loc="best")
    return axes


def _boxes_axes(of_label: Mapping[str | None, Floats], title: str, up: str) -> Axes:
    """Median, quartiles, whiskers to 1.5 times their distance, and what lies beyond."""
    labels = _labels(of_label)
    axes = _wide_axes(len(labels))
    axes.boxplot(
        [of_label[label] for label in labels],
        positions=range(len(labels)),
        widths=0.6,
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": COLOURS[1]},
        medianprops={"color": COLOURS[0]},
    )
    _name(axes, labels, [len(of_label[label]) for label in labels])
    axes.set(title=f"{title} by label", ylabel=up)
    axes.grid(visible=True, axis="y", linewidth=0.5, alpha=0.4)
    return axes


def _sizes_axes(values: Values) -> Axes:
    """Width and height of images, a colour for each label."""
    axes = new_axes()
    for place, label in enumerate(_labels(values.widths)):
        widths, heights = values.widths[label], values.heights[label]
        step = max(1, -(-len(widths) // _POINTS))
        axes.plot(
            widths[::step],
            heights[::step],
            ".",
            color=COLOURS[place % len(COLOURS)],
            markersize=4,
            alpha=0.6,
            label=f"{_shown(label)} ({len(widths):,})",
        )
    axes.set(title="Image sizes by label", xlabel="width, px", ylabel="height, px")
    axes.grid(visible=True, linewidth=0.5, alpha=0.4)
    axes.legend(loc="best")
    return axes


def _wide_axes(labels: int) -> Axes:
    return new_axes(max(5.0, 1.5 + 0.9 * labels), 5)


def _labels(of_label: Mapping[str | None, object]) -> list[str | None]:
    return sorted(of_label, key=lambda label: (label is None, label or ""))


def _name(axes: Axes, labels: Sequence[str | None], counts: Sequence[int] = ()) -> None:
    names = [_shown(label) for label in labels]
    if counts:
        names = [f"{name}\n{count:,}" for name, count in zip(names, counts, strict=True)]
    axes.set_xticks(range(len(labels)), names)
    if len(labels) > _UPRIGHT:
        axes.tick_params(axis="x", labelrotation=90)


def _shown(label: str | None) -> str:
    name = "no label" if label is None else label
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
