"""Making the bundle of a support vector machine on the network of another bundle."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from schemas.bundle import CONFIG_FILE, WEIGHTS_FILE, check_files, parse_config
from workers.models.classifier.bundling import BundleFacts, Validation, make_bundle
from workers.models.classifier.svm_head import SvmHead, SvmParameters, network_weights


@dataclass(frozen=True)
class Examined:
    """Validation images as their feature vectors."""

    features_ND: NDArray[np.float32]
    actual_N: NDArray[np.int64]
    groups: list[str]
    """Each image's patient."""


def svm_bundle(
    start: Mapping[str, bytes],
    parameters: SvmParameters,
    facts: BundleFacts,
    validation: Validation | Examined,
) -> dict[str, bytes]:
    """The files of the bundle by name.

    ``start`` holds `config.json` and the weights of the bundle whose features the machine takes;
    its preprocessing and network become those of the new one. Platt scaling has made probabilities
    already, so no temperature is fitted. Of validation images that are known by their vectors
    alone, the machine gives the figures; backends can't be measured on them.

    Raises:
        BundleError: when files of the start bundle are missing or damaged.
    """
    config = parse_config(start[CONFIG_FILE])
    check_files(config, start, (WEIGHTS_FILE,))
    network = safetensors.torch.load(network_weights(start[WEIGHTS_FILE]))
    weights = safetensors.torch.save(network | parameters.tensors())
    whole = replace(facts, head="svm", num_classes=config.num_classes, calibrate=False)
    preprocessing = config.preprocessing
    if isinstance(validation, Examined):
        whole = replace(whole, backends="eager")
        side = preprocessing.size_px
        blank = np.zeros((0, preprocessing.channels, side, side), np.uint8)
        outputs_NC = head_outputs(parameters, validation.features_ND)
        validation = Validation(blank, validation.actual_N, validation.groups, outputs_NC)
    return make_bundle(weights, preprocessing, whole, validation)


def head_outputs(
    parameters: SvmParameters, features_ND: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Log-probabilities (N, K) of feature vectors, as the bundle's head gives them."""
    with torch.inference_mode():
        outputs: NDArray[np.float32] = SvmHead(parameters.tensors())(
            torch.from_numpy(features_ND)
        ).numpy()
    return outputs
