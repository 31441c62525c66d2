"""The model card of a detector: the bundle's README."""

from schemas.bundle import BundleConfig, DetectionSettings
from workers.training.card import (
    assemble,
    backend_section,
    data_section,
    figure_text,
    input_words,
)


def detector_card(config: BundleConfig, settings: DetectionSettings) -> str:
    """Markdown for people who are about to use the model."""
    return assemble(
        [
            _head(config, settings),
            data_section(config),
            _figures(config, settings),
            backend_section(
                config,
                "detections",
                "Differences are of the confidence of detections that match those of eager "
                "PyTorch in float32; those at the operating point must be the same.",
            ),
            _use(config),
        ]
    )


def _head(config: BundleConfig, settings: DetectionSettings) -> str:
    merged = " All categories of the annotations were merged into one." * settings.one_class
    return (
        f"# {config.name}\n\n"
        f"A {config.family} detector (`{config.architecture}`) of {', '.join(config.classes)}, "
        f"{input_words(config)}.{merged}\n\n"
        f"Model id `{config.model_id}`: detections under this id come from these weights, classes "
        f"and preprocessing; at most {settings.limit} an image, from a confidence of "
        f"{settings.least_score:g} on."
    )


def _figures(config: BundleConfig, settings: DetectionSettings) -> str:
    lines = ["## Figures on the validation part", "", "| figure | value |", "|---|---|"]
    for name, value in config.metrics.get("val", {}).items():
        lines.append(f"| {name} | {figure_text(value)} |")
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


def _use(config: BundleConfig) -> str:
    return (
        "## Use\n\n"
        f"`rayward run` with a job `{{kind: score, model: {config.name}}}`. Boxes are in pixels of "
        "the original image, upright. For research; not a medical device."
    )
