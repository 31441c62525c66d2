"""The model card of a backbone trained without labels: the bundle's README."""

from schemas.bundle import BundleConfig
from workers.models.simsiam.network import COLLAPSED
from workers.training.card import assemble, data_section, figure_rows, input_words, timm_words


def pretraining_card(config: BundleConfig) -> str:
    """Markdown for people who are about to use the model."""
    learned = (
        "Weights were learned from images of the training part alone. No label had a say in "
        "them, nor in the choice of the epoch that is kept."
    )
    leaking = "What is trained from these weights has met images it may be tested on."
    return assemble(
        [
            _head(config),
            data_section(config, [learned], leaking=leaking),
            _figures(config),
            _use(config),
        ]
    )


def _head(config: BundleConfig) -> str:
    return (
        f"# {config.name}\n\n"
        f"A `{config.architecture}` backbone, pre-trained without labels by SimSiam (Chen and He "
        f"2021) {input_words(config)}. It has no classes: it is a start "
        "for trainings, and its features serve as embeddings.\n\n"
        f"Model id `{config.model_id}`: embeddings under this id come from these weights and this "
        "preprocessing."
    )


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
    lines += figure_rows(val, lambda name: name.replace("_", " "))
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
        f"{config.name}}}` for its features; or "
        f"{timm_words('pretrained=True, num_classes=0', 'features')}"
    )
