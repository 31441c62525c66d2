"""The model card of a classifier: the bundle's README."""

from collections.abc import Mapping
from types import MappingProxyType

from schemas.bundle import BundleConfig, Head

_OF_HEAD: Mapping[Head, str] = MappingProxyType(
    {
        "softmax": "Probabilities are the softmax of the network's outputs.",
        "corn": (
            "The classes have an order, mildest first. Output t of the network is a logit of "
            "P(class > t | class >= t), one fewer than there are classes (CORN, Shi, Cao and "
            "Raschka 2021); products of these make the probabilities, whose logarithms count as "
            "outputs below."
        ),
        "svm": (
            "A support vector machine on the network's features makes the probabilities, whose "
            "logarithms count as outputs below."
        ),
    }
)


def model_card(config: BundleConfig) -> str:
    """Markdown for people who are about to use the model."""
    sections = [
        _head(config),
        _data(config),
        _figures(config),
        _probabilities(config),
        _scoring(config),
        _use(config),
    ]
    return "\n\n".join(sections) + "\n"


def _head(config: BundleConfig) -> str:
    size = config.preprocessing.size_px
    channels = "grey" if config.preprocessing.channels == 1 else "colour"
    return (
        f"# {config.name}\n\n"
        f"A `{config.architecture}` classifier of {', '.join(config.classes)}, "
        f"on {channels} images of {size} x {size} pixels.\n\n"
        f"Model id `{config.model_id}`: scores under this id come from these weights, classes, "
        "preprocessing and calibration."
    )


def _data(config: BundleConfig) -> str:
    lines = ["## Data", ""]
    for name, value in config.data.items():
        lines.append(f"- {name.replace('_', ' ')}: {_plain(value)}")
    if config.data.get("fold") is not None:
        lines += [
            "",
            (
                f"Fold {config.data['fold']} of the split was held out: nothing was trained or "
                f"chosen on it. Fold {config.data['inner_fold']} was validated on, and the other "
                "folds were trained on; the split's own test part was left alone."
            ),
        ]
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


def _figures(config: BundleConfig) -> str:
    lines = ["## Figures on the validation part", "", "| figure | value | 95 % interval |"]
    lines.append("|---|---|---|")
    val = config.metrics.get("val", {})
    for name, value in val.items():
        if name.endswith("95%"):
            continue
        ends = val.get(f"{name} 95%")
        span = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else ""
        shown_name = name.replace("|", " labelled ")
        shown = f"{value:.4f}" if isinstance(value, float) and value % 1 else f"{value:g}"
        lines.append(f"| {shown_name} | {shown} | {span} |")
    lines += ["", "Intervals resample patients. Weights, epoch and threshold were chosen on this "]
    lines[-1] += "part, so its figures are optimistic; `rayward evaluate` gives those of the test."
    if config.operating_point is not None:
        point = config.operating_point
        lines += [
            "",
            (
                f"An image is labelled {point.positive} where its probability is at least "
                f"{point.threshold:.4f} (rule: {point.rule})."
            ),
        ]
    return "\n".join(lines)


def _probabilities(config: BundleConfig) -> str:
    temperature = config.calibration.temperature
    lines = ["## Probabilities", "", _OF_HEAD[config.head]]
    fitted = config.metrics.get("calibration")
    if fitted is None:
        lines[-1] += " No temperature was fitted."
    elif temperature == 1:
        lines[-1] += " The validation part gave no reason for another temperature than 1."
    else:
        lines[-1] += (
            f" They are divided by a temperature of {temperature:g} first, fitted on the validation"
            f" part: it takes the mean negative log-likelihood there from"
            f" {fitted['nll_before']:.4f} to {fitted['nll_after']:.4f}."
        )
    return "\n".join(lines)


def _scoring(config: BundleConfig) -> str:
    if not config.backends:
        return (
            "## Backends\n\nNone was measured: a CPU scores with eager PyTorch in float32 "
            f"({config.backend}), and so does a GPU ({config.gpu_backend})."
        )
    lines = ["## Backends", "", "| backend | images/s | largest difference | labels |"]
    lines.append("|---|---|---|---|")
    for name, one in config.backends.items():
        chosen = " (chosen)" if name in (config.backend, config.gpu_backend) else ""
        labels = "equal" if one.labels_equal else "differ"
        lines.append(
            f"| {name}{chosen} | {one.images_per_s:g} | {one.largest_difference:.1e} | {labels} |"
        )
    lines += [
        "",
        (
            "Images a second are forward passes alone, by CPU second of one thread or by second of "
            "a GPU, where the bundle was made. Differences are of probabilities, from eager "
            "PyTorch in float32, whose labels must be equal."
        ),
    ]
    if config.gpu_backend not in config.backends:
        lines += ["", f"No GPU was there to measure on: a GPU scores with {config.gpu_backend}."]
    for name, why in config.left_out.items():
        lines += ["", f"{name} could not compute this network: {why}."]
    return "\n".join(lines)


def _use(config: BundleConfig) -> str:
    # Other weights than a network's own stand beside them where a machine is the last layer.
    opened, what = ("pretrained=True", "network")
    if config.head == "svm":
        opened, what = ("pretrained=True, num_classes=0", "features")
    return (
        "## Use\n\n"
        f"`rayward run` with a job `{{kind: score, model: {config.name}}}`, or in Python:\n\n"
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
