"""An empty picture, and its PNG bytes: equal for equal content, whatever the user's settings."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 120
"""Pixels of a picture's inch."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Told apart by colour-blind readers too (Okabe and Ito 2008)."""
CHANCE = "#999999"
"""Colour of the dashed line of a model that knows nothing."""


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's own settings for a while, in place of the user's.

    Class names are shown as they are: a dollar sign in one begins no formula.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["text.parse_math"] = False
        yield


def new_axes(width_in: float = 5, height_in: float = 5) -> Axes:
    """Axes on a picture of their own; without pyplot, which would keep every picture."""
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def unit_square(axes: Axes, title: str, across: str, up: str) -> None:
    """Make both axes go from 0 to 1, at equal scale."""
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", title=title, xlabel=across, ylabel=up)
    axes.grid(visible=True, linewidth=0.5, alpha=0.4)


def to_png(axes: Axes) -> bytes:
    """The picture as PNG; it states neither date nor program, so that equal pictures are equal."""
    figure = axes.get_figure(root=True)
    if figure is None:
        raise ValueError("these axes are on no picture")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
