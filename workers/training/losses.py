"""What training minimises.

Every loss is a table: what image n costs if it is of class k. Targets, hard or blended by mixup,
choose from it, so one rule serves label smoothing, class weights and mixup for all losses.

Suffixes: N images, K classes, T ordinal tasks (K - 1), O outputs of the network (K, or T).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.training import ranks
from workers.training.config import LossSettings, TrainedHead
from workers.training.corn import corn_log_probabilities
from workers.training.costs import check_costs

Table = Callable[[Tensor], Tensor]
"""From outputs (N, O) to the loss (N, K) of each image for each class it may be of."""


class Criterion(nn.Module):
    """The mean loss of a batch.

    It is the sum over images and classes of target x weight x loss, divided by the sum of target x
    weight x terms, where a loss has one term, and that of CORN one for each task an image takes
    part in. With cross-entropy and class indices this is `torch.nn.CrossEntropyLoss`.

    Several ranks divide by the mean of their divisors: so the mean over ranks of losses, and of
    gradients, is that of one rank with all their images.
    """

    weights_K: Tensor
    terms_K: Tensor

    def __init__(
        self, table: Table, terms_K: Tensor, weights_K: Tensor, smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self._table = table
        self._smoothing = smoothing
        # Batches of equal images have equal divisors then: ranks need not ask each other.
        self._dividing_alike = len(torch.unique(terms_K * weights_K)) == 1
        self.register_buffer("weights_K", weights_K, persistent=False)
        self.register_buffer("terms_K", terms_K, persistent=False)

    def forward(self, outputs_NO: Tensor, targets: Tensor) -> Tensor:
        """``targets`` are class indices, int64 (N,), or shares of classes, floating (N, K)."""
        losses_NK = self._table(outputs_NO)
        classes = losses_NK.shape[1]
        if targets.ndim == 1:
            # Unlike `one_hot`, this does not make a GPU wait for the range of the targets.
            targets = targets[:, None] == torch.arange(classes, device=targets.device)
        shares_NK = targets.to(losses_NK.dtype)
        weights_K = self.weights_K.to(losses_NK.dtype)
        # The divisor takes the targets before smoothing, as torch's cross-entropy does.
        divisor = (shares_NK * weights_K * self.terms_K.to(losses_NK.dtype)).sum()
        smooth_NK = shares_NK * (1 - self._smoothing) + self._smoothing / classes
        if self._dividing_alike:
            return (smooth_NK * weights_K * losses_NK).sum() / divisor
        return (smooth_NK * weights_K * losses_NK).sum() / ranks.average(divisor)


def make_criterion(
    settings: LossSettings,
    head: TrainedHead,
    classes: Sequence[str],
    *,
    weights_K: Tensor | None = None,
    smoothing: float = 0.0,
) -> Criterion:
    """The loss of a training; ``settings`` of a loss do not count for head corn, which has its own.

    ``weights_K`` weight images by their class; ``smoothing`` is the share of a target that is
    spread over all classes.

    Raises:
        UsageError: when a cost matrix does not fit the classes.
    """
    ones_K = torch.ones(len(classes))
    weights_K = ones_K if weights_K is None else weights_K
    if head == "corn":
        terms_K = torch.arange(len(classes)).clamp(max=len(classes) - 2) + 1
        return Criterion(corn_table, terms_K, weights_K, smoothing)
    if settings.name == "cost":
        check_costs(settings.costs, classes)
    tables: dict[str, Table] = {
        "cross_entropy": cross_entropy_table,
        "binary": binary_table,
        "focal": partial(focal_table, gamma=settings.gamma),
        "cost": CostTable(torch.tensor(settings.costs), settings.cross_entropy_share),
    }
    return Criterion(tables[settings.name], ones_K, weights_K, smoothing)


def cross_entropy_table(logits_NK: Tensor) -> Tensor:
    """-log p_k of the softmax probabilities."""
    return -functional.log_softmax(logits_NK, dim=1)


def binary_table(logits_NK: Tensor) -> Tensor:
    """Binary cross-entropy of each softmax probability against a one-hot target, mean over classes.

    (-log p_k - sum over j != k of log(1 - p_j)) / K, which is what Keras computes as
    ``binary_crossentropy`` of a softmax output, but for its clipping at 1e-7.
    """
    classes = logits_NK.shape[1]
    missed_NK = _log_one_minus_softmax(logits_NK)
    # Summed over the others one by one: taking p_k's own term from the sum of all would cancel.
    others_KK = 1 - torch.eye(classes, dtype=logits_NK.dtype, device=logits_NK.device)
    others_NK = (missed_NK[:, None, :] * others_KK).sum(dim=2)
    return (cross_entropy_table(logits_NK) - others_NK) / classes


def focal_table(logits_NK: Tensor, gamma: float) -> Tensor:
    """(1 - p_k)^gamma x -log p_k (Lin et al. 2017, of softmax probabilities)."""
    return (gamma * _log_one_minus_softmax(logits_NK)).exp() * cross_entropy_table(logits_NK)


class CostTable(nn.Module):
    """The expected cost of deciding by the probabilities, sum over j of cost[k, j] p_j.

    ``costs_KK`` has a row for each actual class; see `workers.training.costs.check_costs`.
    ``cross_entropy_share`` times the cross-entropy is added: where all probability lies on one
    wrong class, the gradient of the cost alone is zero.
    """

    costs_KK: Tensor

    def __init__(self, costs_KK: Tensor, cross_entropy_share: float) -> None:
        super().__init__()
        self._share = cross_entropy_share
        self.register_buffer("costs_KK", costs_KK, persistent=False)

    def forward(self, logits_NK: Tensor) -> Tensor:
        """The table (N, K)."""
        decided_N1K = logits_NK.softmax(dim=1)[:, None, :]
        expected_NK = (decided_N1K * self.costs_KK.to(logits_NK.dtype)).sum(dim=2)
        return expected_NK + self._share * cross_entropy_table(logits_NK)


def corn_table(tasks_NT: Tensor) -> Tensor:
    """Binary cross-entropies of the tasks that an image of class k takes part in, summed.

    Their sum is -log p_k of the probabilities that the tasks make.

    Task t tells class > t from class = t among images with class >= t, so an image of class k
    takes part in tasks 0 to k (Shi, Cao and Raschka 2021, "Deep neural networks for rank-consistent
    ordinal regression based on conditional probabilities").
    """
    return -corn_log_probabilities(tasks_NT)


def _log_one_minus_softmax(logits_NK: Tensor) -> Tensor:
    """log(1 - p_k), exact where p_k rounds to 1: the others' exponentials over those of all."""
    classes = logits_NK.shape[1]
    own_KK = torch.eye(classes, dtype=torch.bool, device=logits_NK.device)
    others_NKK = logits_NK[:, None, :].masked_fill(own_KK, -torch.inf)
    return others_NKK.logsumexp(dim=2) - logits_NK.logsumexp(dim=1, keepdim=True)
