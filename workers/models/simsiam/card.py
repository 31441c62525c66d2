"""The model card of a backbone trained without labels: the bundle's README."""

from schemas.bundle import BundleConfig
from workers.models.simsiam.network import COLLAPSED


def pretraining_card(config: BundleConfig) -> str:
    """Markdown for people who are about to use the model."""
    sections = [_head(config), _data(config), _figures(config), _use(config)]
    return "\n\n".join(sections) + "\n"


def _head(config: BundleConfig) -> str:
    size = config.preprocessing.size_px
    channels = "grey" if config.preprocessing.channels == 1 else "colour"
    return (
        f"# {config.name}\n\n"
        f"A `{config.architecture}` backbone, pre-trained without labels by SimSiam (Chen and He "
        f"2021) on {channels} images of {size} x {size} pixels. It has no classes: it is a start "
        "for trainings, and its features serve as embeddings.\n\n"
        f"Model id `{config.model_id}`: embeddings under this id come from these weights and this "
        "preprocessing."
    )


def _data(config: BundleConfig) -> str:
    lines = ["## Data", ""]
    lines += [f"- {name.replace('_', ' ')}: {_plain(one)}" for name, one in config.data.items()]
    lines += [
        "",
        (
            "Weights were learned from images of the training part alone. No label had a say in "
            "them, nor in the choice of the epoch that is kept."
        ),
    ]
    if config.data.get("leaks_allowed"):
        lines += [
            "",
            (
                "**The split leaks**: the same patients, images or near-duplicates stand on both "
                "sides of it, and the job was told to train anyway. What is trained from these "
                "weights has met images it may be tested on."
            ),
        ]
    return "\n".join(lines)


def _figures(config: BundleConfig) -> str:
    val, training = config.metrics["val"], config.metrics["training"]
    lines = ["## Figures", ""]
    if val["collapsed"]:
        lines += [
            (
                f"**The training collapsed**: at its end the spread was {val['spread_at_end']:.3f},"
                f" below {COLLAPSED:g}; images get nearly the same embedding. The last epoch "
                f"without a collapse is kept, if there was one (epoch {training['best_epoch']} of "
                f"{training['epochs']}, spread {val['spread']:.3f}). Do not use these weights "
                "without a look at the probe."
            ),
            "",
        ]
    lines += ["| figure | value | 95 % interval |", "|---|---|---|"]
    for name, value in val.items():
        if name.endswith("95%") or isinstance(value, bool):
            continue
        ends = val.get(f"{name} 95%")
        span = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
        shown = f"{value:.4f}" if isinstance(value, float) and value % 1 else f"{value:g}"
        lines.append(f"| {name.replace('_', ' ')} | {shown} | {span} |")
    lines += [
        "",
        (
            "Spread is the standard deviation over images of the normalised embeddings, times the "
            "square root of their length: about 1 without a collapse, and 0 when all images get "
            "the same one."
        ),
    ]
    if "probe_n" in val:
        lines.append(_probe(config))
    return "\n".join(lines)


def _probe(config: BundleConfig) -> str:
    neighbours = config.metrics["training"]["settings"]["probe"]["neighbours"]
    val = config.metrics["val"]
    return (
        f"The probe gives each of {val['probe_n']} labelled validation images the class that most "
        f"of its {neighbours} nearest neighbours among {val['probe_known']} training images have; "
        "balanced is the mean over classes of the share that is right, and the commonest class "
        "has the share told. `probe random` is the same with the network's random start weights, "
        "and gain what was learned beyond these; intervals resample patients, the same ones for "
        "both."
    )


def _use(config: BundleConfig) -> str:
    return (
        "## Use\n\n"
        f"`start: bundle:{config.name}` in a job of the kind `train`, `train_detector` or "
        f"`pretrain` with `architecture: {config.architecture}`; `{{kind: embed, model: "
        f"{config.name}}}` for its features; or in Python:\n\n"
        "```python\n"
        "import timm\n\n"
        'features = timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0).eval()\n'
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
