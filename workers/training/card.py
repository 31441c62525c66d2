"""Sections of a model card, a bundle's README, that all families share."""

from collections.abc import Callable, Mapping, Sequence

from schemas.bundle import BundleConfig

TOO_GOOD = "The figures below are too good to be true of new patients."
"""What a split that leaks means for figures."""


def assemble(sections: Sequence[str]) -> str:
    """The card of its sections, as Markdown."""
    return "\n\n".join(sections) + "\n"


def input_words(config: BundleConfig) -> str:
    """The images a network takes, in words."""
    size = config.preprocessing.size_px
    channels = "grey" if config.preprocessing.channels == 1 else "colour"
    return f"on {channels} images of {size} x {size} pixels"


def data_section(
    config: BundleConfig, notes: Sequence[str] = (), *, leaking: str = TOO_GOOD
) -> str:
    """What the model was trained on, then paragraphs; ``leaking`` ends that on a leaking split."""
    lines = ["## Data", ""]
    lines += [f"- {name.replace('_', ' ')}: {_plain(one)}" for name, one in config.data.items()]
    for note in notes:
        lines += ["", note]
    if config.data.get("leaks_allowed"):
        lines += [
            "",
            (
                "**The split leaks**: the same patients, images or near-duplicates stand on both "
                f"sides of it, and the job was told to train anyway. {leaking}"
            ),
        ]
    return "\n".join(lines)


def figure_rows(figures: Mapping[str, object], title: Callable[[str], str]) -> list[str]:
    """Rows of a table of figures with their 95 % intervals; truth values are left out."""
    lines = ["| figure | value | 95 % interval |", "|---|---|---|"]
    for name, value in figures.items():
        if name.endswith("95%") or isinstance(value, bool):
            continue
        ends = figures.get(f"{name} 95%")
        span = f"{ends[0]:.4f} to {ends[1]:.4f}" if isinstance(ends, list | tuple) else ""
        lines.append(f"| {title(name)} | {figure_text(value)} | {span} |")
    return lines


def figure_text(value: object) -> str:
    """A figure: four decimals, or none of a whole number."""
    return f"{value:.4f}" if isinstance(value, float) and value % 1 else f"{value:g}"


def backend_section(config: BundleConfig, what: str, differences: str) -> str:
    """How fast each backend computes the network, and how far from eager float32.

    ``what`` has to be equal in all of them: labels, say; ``differences`` says of what they are.
    """
    if not config.backends:
        return (
            "## Backends\n\nNone was measured: a CPU scores with eager PyTorch in float32 "
            f"({config.backend}), and so does a GPU ({config.gpu_backend})."
        )
    lines = ["## Backends", "", f"| backend | images/s | largest difference | {what} |"]
    lines.append("|---|---|---|---|")
    for name, one in config.backends.items():
        chosen = " (chosen)" if name in (config.backend, config.gpu_backend) else ""
        equal = "equal" if one.labels_equal else "differ"
        lines.append(
            f"| {name}{chosen} | {one.images_per_s:g} | {one.largest_difference:.1e} | {equal} |"
        )
    lines += [
        "",
        (
            "Images a second are forward passes alone, by CPU second of one thread or by second of "
            f"a GPU, where the bundle was made. {differences}"
        ),
    ]
    if config.gpu_backend not in config.backends:
        lines += ["", f"No GPU was there to measure on: a GPU scores with {config.gpu_backend}."]
    for name, why in config.left_out.items():
        lines += ["", f"{name} could not compute this network: {why}."]
    return "\n".join(lines)


def timm_words(opened: str, what: str) -> str:
    """How a bundle opens with timm, by arguments of `timm.create_model`, and what it takes."""
    return (
        "in Python:\n\n"
        "```python\n"
        "import timm\n\n"
        f'{what} = timm.create_model("local-dir:FOLDER", {opened}).eval()\n'
        "```\n\n"
        "The input is what the recipe in `config.json` makes of an image, divided by 255, less "
        "the mean, by the standard deviation. For research; not a medical device."
    )


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value)
    return str(value)
