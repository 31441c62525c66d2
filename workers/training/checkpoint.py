"""The state of a training at the end of an epoch, as a folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

WEIGHTS_FILE = "weights.safetensors"
AVERAGE_FILE = "average.safetensors"
"""The moving average of the weights, where one is kept."""
BEST_FILE = "best.safetensors"
OPTIMISER_FILE = "optimiser.pt"
PROGRESS_FILE = "progress.json"


@dataclass
class Progress:
    """How far a training is, and its best epoch so far.

    Random draws follow from (seed, epoch, rank) and learning rates from the step, so neither
    needs a state here.
    """

    epochs_done: int = 0
    """Of all stages."""
    stage: int = 0
    """The stage the last epoch belongs to, counted from 0."""
    stage_epochs: int = 0
    """Epochs done of that stage."""
    best_epoch: int = -1
    """Counted from 0; its figures are those of `history` there."""
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights after the best epoch, on the CPU."""


@dataclass
class Training:
    """What changes while a network is trained."""

    network: nn.Module
    average: AveragedModel | None
    """The moving average of the network, parameters and buffers; what is validated and kept."""
    progress: Progress
    optimiser: torch.optim.Optimizer
    """Of the stage; it knows only the parameters that the stage trains."""

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.network if self.average is None else self.average.module


def save_checkpoint(folder: Path, training: Training) -> None:
    """Write everything a resumed training needs."""
    progress = training.progress
    safetensors.torch.save_file(cpu_state(training.network), folder / WEIGHTS_FILE)
    if training.average is not None:
        safetensors.torch.save_file(cpu_state(training.average), folder / AVERAGE_FILE)
    safetensors.torch.save_file(progress.best, folder / BEST_FILE)
    torch.save(training.optimiser.state_dict(), folder / OPTIMISER_FILE)
    told = {
        "epochs_done": progress.epochs_done,
        "stage": progress.stage,
        "stage_epochs": progress.stage_epochs,
        "best_epoch": progress.best_epoch,
        "history": progress.history,
    }
    (folder / PROGRESS_FILE).write_text(json.dumps(told), encoding="utf-8")


def load_progress(folder: Path) -> Progress:
    """How far the training was; it says which stage the optimiser of `load_weights` is of."""
    told: Mapping[str, object] = json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8"))
    best = safetensors.torch.load_file(folder / BEST_FILE)
    return Progress(**told, best=best)  # type: ignore[arg-type]


def load_weights(folder: Path, training: Training) -> None:
    """Put a network, its average and its optimiser back where they were. No pickled code is run."""
    training.network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
    if training.average is not None:
        training.average.load_state_dict(safetensors.torch.load_file(folder / AVERAGE_FILE))
    state = torch.load(folder / OPTIMISER_FILE, weights_only=True, map_location="cpu")
    training.optimiser.load_state_dict(state)


def cpu_state(network: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's state on the CPU."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in network.state_dict().items()
    }
