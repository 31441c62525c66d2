"""Optimisers, and learning rates as a pure function of the step."""

import math
from typing import Any

import torch
from torch import nn

from workers.training.config import Optimisation, Stage

_STEPS_DOWN = (0.5, 0.75)
"""Shares of a stage after which a step schedule divides the rate by ten."""
_IS_CONSTANT = "is_constant"
"""Key of a group whose rate the schedule leaves alone."""


def make_optimiser(
    network: nn.Module, settings: Optimisation, rate: float
) -> torch.optim.Optimizer:
    """An optimiser of what is not frozen; it decays matrices and kernels, not biases and norms."""
    groups = _groups(network, settings)
    if settings.optimiser == "sgd":
        nesterov = settings.momentum > 0 and not settings.plain_momentum
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, nesterov=nesterov)
    # One fused kernel takes a fifth of the time of the default on a CPU.
    if settings.optimiser == "adam":
        return torch.optim.Adam(groups, lr=rate, fused=True)
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, rate: float, peak: float) -> None:
    """Give every group its rate for a step: ``rate``, or ``peak`` where it stays constant."""
    for group in optimiser.param_groups:
        group["lr"] = peak if group.get(_IS_CONSTANT) else rate


def _groups(network: nn.Module, settings: Optimisation) -> list[dict[str, Any]]:
    """What is trained by decay and, where a part has a rate of its own, by part."""
    parts: dict[bool, list[nn.Parameter]] = {False: []}
    if settings.constant_part is not None:
        parts[True] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            parts[name.split(".")[0] == settings.constant_part].append(parameter)
    groups: list[dict[str, Any]] = []
    for is_constant, trained in parts.items():
        own = {_IS_CONSTANT: True} if is_constant else {}
        decayed = [parameter for parameter in trained if parameter.ndim > 1]
        plain = [parameter for parameter in trained if parameter.ndim <= 1]
        groups += [
            {"params": decayed, "weight_decay": settings.weight_decay, **own},
            {"params": plain, "weight_decay": 0.0, **own},
        ]
    return groups


def learning_rate(step: int, steps_per_epoch: int, stage: Stage, settings: Optimisation) -> float:
    """The rate of one step of a stage, counted from 0 where the stage begins.

    It rises in a line over the warm-up to the stage's rate, then follows the schedule over the
    stage's epochs; it has no state, so a resumed training needs none.
    """
    peak = stage.learning_rate
    warm_up = settings.warm_up_epochs * steps_per_epoch
    if step < warm_up:
        return peak * (step + 1) / warm_up
    if settings.schedule == "constant":
        return peak
    total = stage.epochs * steps_per_epoch
    if settings.schedule == "step":
        return peak * 0.1 ** sum(step >= share * total for share in _STEPS_DOWN)
    done = (step - warm_up) / max(total - warm_up, 1)
    share = settings.final_share + (1 - settings.final_share) * (1 + math.cos(math.pi * done)) / 2
    return peak * share
