"""A support vector machine as the last layer of a network: its numbers, its module, its tensors.

Scoring loads this module, so it knows no scikit-learn; `svm` fits what stands here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from schemas.errors import BundleError
from workers.models.classifier.embedding import Features
from workers.models.network import load_weights

TENSORS = "svm."
"""What the names of the head's tensors begin with in a bundle's weights. No network of timm has a
module of this name, whereas several call their last layer ``head``."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SvmParameters:
    """A fitted machine: one against the rest for each of K classes, or a single one for two.

    Suffixes: D features, S vectors, M machines (K, or 1 for two classes).
    """

    mean_D: Floats
    scale_D: Floats
    """Features are standardised: (x - mean) / scale."""
    vectors_SD: NDArray[np.floating]
    """Standardised support vectors of all machines; of a linear kernel, one direction each."""
    duals_MS: Floats
    """What each machine's decision takes of each vector's kernel value."""
    intercepts_M: Floats
    gamma: Floats
    """Of the kernel exp(-gamma |x - y|^2), one number; 0 stands for the linear kernel x . y."""
    slopes_M: Floats
    """Platt scaling: the probability is 1 / (1 + exp(slope * decision + offset))."""
    offsets_M: Floats

    def tensors(self) -> dict[str, Tensor]:
        """As tensors of a bundle's weights."""
        return {
            f"{TENSORS}{one.name.partition('_')[0]}": torch.from_numpy(
                np.ascontiguousarray(getattr(self, one.name))
            )
            for one in fields(self)
        }


class SvmHead(nn.Module):
    """Log-probabilities of feature vectors by a support vector machine.

    Input: (N, D). Output: float32 (N, K), whose softmax are the probabilities that scikit-learn's
    ``OneVsRestClassifier(CalibratedClassifierCV(SVC()))`` gives: Platt-scaled decisions, divided
    by their sum over classes. It computes in double precision: a kernel value is a small number
    made of the differences of large ones.
    """

    mean: Tensor
    scale: Tensor
    vectors: Tensor
    duals: Tensor
    intercepts: Tensor
    gamma: Tensor
    slopes: Tensor
    offsets: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """``tensors`` are those of `SvmParameters.tensors`, by their names in a bundle."""
        super().__init__()
        for one in fields(SvmParameters):
            name = one.name.partition("_")[0]
            if f"{TENSORS}{name}" not in tensors:
                raise BundleError("The bundle's weights lack a tensor", got=f"no {TENSORS}{name}")
            self.register_buffer(name, tensors[f"{TENSORS}{name}"].double())
        self._radial = bool(self.gamma > 0)

    def forward(self, features_ND: Tensor) -> Tensor:
        """Log-probabilities."""
        standard_ND = (features_ND.double() - self.mean) / self.scale
        products_NS = standard_ND @ self.vectors.T
        kernel_NS = self._radial_kernel(standard_ND, products_NS) if self._radial else products_NS
        decisions_NM = kernel_NS @ self.duals.T + self.intercepts
        logits_NM = -(self.slopes * decisions_NM + self.offsets)
        return _log_probabilities(logits_NM).float()

    def _radial_kernel(self, standard_ND: Tensor, products_NS: Tensor) -> Tensor:
        own_N1 = standard_ND.square().sum(dim=1, keepdim=True)
        squares_NS = own_N1 + self.vectors.square().sum(dim=1) - 2 * products_NS
        return torch.exp(-self.gamma * squares_NS.clamp_min(0))


def load_svm(network: nn.Module, weights: bytes) -> nn.Module:
    """A timm network's features and the machine behind them, from a bundle's weights.

    Raises:
        BundleError: when the weights do not fit, or hold no machine.
    """
    head = SvmHead(safetensors.torch.load(weights))
    load_weights(network, network_weights(weights))
    return nn.Sequential(Features(network), head)


def network_weights(weights: bytes) -> bytes:
    """The weights of a bundle's network alone, without a head of this kind, as safetensors."""
    tensors = safetensors.torch.load(weights)
    own = {name: one for name, one in tensors.items() if not name.startswith(TENSORS)}
    return weights if len(own) == len(tensors) else safetensors.torch.save(own)


def _log_probabilities(logits_NM: Tensor) -> Tensor:
    # log(sigmoid(x)), exact also where the sigmoid itself would be 0.
    logs_NM = -nn.functional.softplus(-logits_NM)
    if logits_NM.shape[1] == 1:
        return torch.cat([-nn.functional.softplus(logits_NM), logs_NM], dim=1)
    return logs_NM - torch.logsumexp(logs_NM, dim=1, keepdim=True)
