"""CORN: probabilities of ordered classes from conditional tasks.

Shi, Cao and Raschka 2021, "Deep neural networks for rank-consistent ordinal regression based on
conditional probabilities".
"""

import torch
from torch import Tensor
from torch.nn import functional


def corn_log_probabilities(tasks_NT: Tensor) -> Tensor:
    """Log-probabilities (N, K) of K ordered classes from K - 1 logits of P(class > t | class >= t).

    Class k: all tasks before k passed and task k failed; the last class has none to fail.
    """
    # log(sigmoid(x)), exact also where the sigmoid itself would be 0.
    passed_NT = -functional.softplus(-tasks_NT)
    failed_NT = -functional.softplus(tasks_NT)
    nothing_N1 = torch.zeros_like(tasks_NT[:, :1])
    before_NK = torch.cat([nothing_N1, passed_NT.cumsum(dim=1)], dim=1)
    return before_NK + torch.cat([failed_NT, nothing_N1], dim=1)
