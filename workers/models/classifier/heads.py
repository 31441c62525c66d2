"""Heads: how a network's outputs become probabilities.

A bundle's whole network takes uint8 pixels and answers with log-probabilities, or with logits for
head softmax; softmax makes probabilities of both. A head that needs numbers of its own keeps them
in the bundle's weights, where its loader here finds them.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.bundle import Head, Preprocessing
from workers.models.classifier.network import load_weights
from workers.models.classifier.svm_head import load_svm
from workers.models.normalise import Normalised


class Corn(nn.Module):
    """Log-probabilities of K ordered classes from the outputs of K - 1 conditional tasks.

    Input: (N, K - 1); the sigmoid of output t is P(class > t | class >= t). Output: (N, K), whose
    exponentials add up to 1 (Shi, Cao and Raschka 2021).
    """

    def forward(self, tasks_NT: Tensor) -> Tensor:
        """Class k: all tasks before k passed and task k failed; the last class has none to fail."""
        tasks_NT = tasks_NT.float()
        # log(sigmoid(x)), exact also where the sigmoid itself would be 0.
        passed_NT = -functional.softplus(-tasks_NT)
        failed_NT = -functional.softplus(tasks_NT)
        nothing_N1 = torch.zeros_like(tasks_NT[:, :1])
        before_NK = torch.cat([nothing_N1, passed_NT.cumsum(dim=1)], dim=1)
        return before_NK + torch.cat([failed_NT, nothing_N1], dim=1)


def trained_outputs(head: Head, classes: int) -> int:
    """Outputs of a network that is trained for a head."""
    return classes - 1 if head == "corn" else classes


def head_module(head: Head) -> nn.Module:
    """What follows the outputs of a network trained for a head; it has no weights."""
    return Corn() if head == "corn" else nn.Identity()


def whole_network(
    network: nn.Module, weights: bytes, head: Head, preprocessing: Preprocessing
) -> nn.Module:
    """A bundle's network from uint8 pixels (N, C, H, W) to log-probabilities or logits (N, K).

    ``network`` is the bundle's timm network, still without its weights.

    Raises:
        BundleError: when the weights do not fit.
    """
    headed = LOADERS[head](network, weights)
    return Normalised(headed, preprocessing.mean, preprocessing.std)


def _load_softmax(network: nn.Module, weights: bytes) -> nn.Module:
    load_weights(network, weights)
    return network


def _load_corn(network: nn.Module, weights: bytes) -> nn.Module:
    load_weights(network, weights)
    return nn.Sequential(network, Corn())


LOADERS: Mapping[Head, Callable[[nn.Module, bytes], nn.Module]] = MappingProxyType(
    {"softmax": _load_softmax, "corn": _load_corn, "svm": load_svm}
)
"""By head: load a bundle's weights into its timm network, and put the head behind it."""
