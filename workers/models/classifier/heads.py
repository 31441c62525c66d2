"""Heads: how a network's outputs become probabilities.

A bundle's whole network takes uint8 pixels and answers with log-probabilities, or with logits for
head softmax; softmax makes probabilities of both. A head that needs numbers of its own keeps them
in the bundle's weights, where its loader here finds them.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor, nn

from schemas.bundle import BundleConfig, Head, Preprocessing
from workers.models.classifier.svm_head import load_svm
from workers.models.network import build_network, load_weights
from workers.models.normalise import Normalised
from workers.training.corn import corn_log_probabilities


class Corn(nn.Module):
    """Log-probabilities of K ordered classes from the outputs of K - 1 conditional tasks.

    Input: (N, K - 1); the sigmoid of output t is P(class > t | class >= t). Output: (N, K), whose
    exponentials add up to 1 (Shi, Cao and Raschka 2021).
    """

    def forward(self, tasks_NT: Tensor) -> Tensor:
        """Computed in float32, whatever the network computes in."""
        return corn_log_probabilities(tasks_NT.float())


def trained_outputs(head: Head, classes: int) -> int:
    """Outputs of a network that is trained for a head."""
    return classes - 1 if head == "corn" else classes


def head_module(head: Head) -> nn.Module:
    """What follows the outputs of a network trained for a head; it has no weights."""
    return Corn() if head == "corn" else nn.Identity()


def bundle_network(config: BundleConfig, weights: bytes) -> tuple[nn.Module, nn.Module]:
    """A bundle's whole network in eval mode, and the timm network within it.

    Raises:
        BundleError: when timm knows no such architecture, or the weights do not fit.
    """
    preprocessing = config.preprocessing
    network = build_network(config.architecture, config.num_classes, preprocessing.channels)
    return whole_network(network, weights, config.head, preprocessing).eval(), network


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
