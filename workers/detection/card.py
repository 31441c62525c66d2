"""The model card of a detector: the bundle's README."""

from schemas.bundle import BundleConfig, DetectionSettings


def detector_card(config: BundleConfig, settings: DetectionSettings) -> str:
    """Markdown for people who are about to use the model."""
    sections = [
        _head(config, settings),
        _data(config),
        _figures(config, settings),
        _scoring(config),
        _use(config),
    ]
    return "\n\n".join(sections) + "\n"


def _head(config: BundleConfig, settings: DetectionSettings) -> str:
    size = config.preprocessing.size_px
    channels = "grey" if config.preprocessing.channels == 1 else "colour"
    merged = " All categories of the annotations were merged into one." * settings.one_class
    return (
        f"# {config.name}\n\n"
        f"A {config.family} detector (`{config.architecture}`) of {', '.join(config.classes)}, "
        f"on {channels} images of {size} x {size} pixels.{merged}\n\n"
        f"Model id `{config.model_id}`: detections under this id come from these weights, classes "
        f"and preprocessing; at most {settings.limit} an image, from a confidence of "
        f"{settings.least_score:g} on."
    )


def _data(config: BundleConfig) -> str:
    lines = ["## Data", ""]
    lines += [f"- {name.replace('_', ' ')}: {_plain(one)}" for name, one in config.data.items()]
    if config.data.get("leaks_allowed"):
        lines += [
            "",
            (
                "**The split leaks**: the same patients, images or near-duplicates stand on both "
                "sides of it, and the job was told to train anyway. The figures below are too good "
                "to be true of new patients."
            ),
        ]
    return "\n".join(lines)


def _figures(config: BundleConfig, settings: DetectionSettings) -> str:
    lines = ["## Figures on the validation part", "", "| figure | value |", "|---|---|"]
    for name, value in config.metrics.get("val", {}).items():
        shown = f"{value:.4f}" if isinstance(value, float) and value % 1 else f"{value:g}"
        lines.append(f"| {name} | {shown} |")
    lines += [
        "",
        (
            f"A detection counts from a confidence of {settings.score_threshold:g} on, which had "
            "the best macro F1 of 21 thresholds. It belongs to the lesion it overlaps most, by "
            f"{settings.match_iou:g} or more; a lesion with several detections is found once, as "
            "what the most confident of them says. Weights, epoch and threshold were chosen on "
            "this part, so its figures are optimistic; evaluate the model on the test part."
        ),
    ]
    return "\n".join(lines)


def _scoring(config: BundleConfig) -> str:
    if not config.backends:
        return (
            "## Backends\n\nNone was measured: a CPU scores with eager PyTorch in float32 "
            f"({config.backend}), and so does a GPU ({config.gpu_backend})."
        )
    lines = ["## Backends", "", "| backend | images/s | largest difference | detections |"]
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
            "a GPU, where the bundle was made. Differences are of the confidence of detections "
            "that match those of eager PyTorch in float32; those at the operating point must be "
            "the same."
        ),
    ]
    lines += [
        f"\n{name} could not compute this network: {why}." for name, why in config.left_out.items()
    ]
    return "\n".join(lines)


def _use(config: BundleConfig) -> str:
    return (
        "## Use\n\n"
        f"`rayward run` with a job `{{kind: score, model: {config.name}}}`. Boxes are in pixels of "
        "the original image, upright. For research; not a medical device."
    )


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value)
    return str(value)
