"""The model card of a classifier: the bundle's README."""

from collections.abc import Mapping
from types import MappingProxyType

from schemas.bundle import BundleConfig, Head
from workers.training.card import (
    assemble,
    backend_section,
    data_section,
    figure_rows,
    input_words,
    timm_words,
)

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
    return assemble(
        [
            _head(config),
            data_section(config, _held_out(config)),
            _figures(config),
            _probabilities(config),
            backend_section(
                config,
                "labels",
                "Differences are of probabilities, from eager PyTorch in float32, whose labels "
                "must be equal.",
            ),
            _use(config),
        ]
    )


def _head(config: BundleConfig) -> str:
    return (
        f"# {config.name}\n\n"
        f"A `{config.architecture}` classifier of {', '.join(config.classes)}, "
        f"{input_words(config)}.\n\n"
        f"Model id `{config.model_id}`: scores under this id come from these weights, classes, "
        "preprocessing and calibration."
    )


def _held_out(config: BundleConfig) -> list[str]:
    if config.data.get("fold") is None:
        return []
    told = (
        f"Fold {config.data['fold']} of the split was held out: nothing was trained or "
        f"chosen on it. Fold {config.data['inner_fold']} was validated on, and the other "
        "folds were trained on; the split's own test part was left alone."
    )
    return [told]


def _figures(config: BundleConfig) -> str:
    lines = ["## Figures on the validation part", ""]
    val = config.metrics.get("val", {})
    lines += figure_rows(val, lambda name: name.replace("|", " labelled "))
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


def _use(config: BundleConfig) -> str:
    # Other weights than a network's own stand beside them where a machine is the last layer.
    opened, what = ("pretrained=True", "network")
    if config.head == "svm":
        opened, what = ("pretrained=True, num_classes=0", "features")
    return (
        "## Use\n\n"
        f"`rayward run` with a job `{{kind: score, model: {config.name}}}`, or "
        f"{timm_words(opened, what)}"
    )
