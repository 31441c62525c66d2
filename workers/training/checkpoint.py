"""The state of a training at the end of an epoch, as a folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

WEIGHTS_FILE = "weights.safetensors"
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
    best_epoch: int = -1
    best_value: float = float("-inf")
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """Weights after the best epoch, on the CPU."""


def save_checkpoint(
    folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write everything a resumed training needs."""
    safetensors.torch.save_file(cpu_state(network), folder / WEIGHTS_FILE)
    safetensors.torch.save_file(progress.best, folder / BEST_FILE)
    torch.save(optimiser.state_dict(), folder / OPTIMISER_FILE)
    told = {
        "epochs_done": progress.epochs_done,
        "best_epoch": progress.best_epoch,
        "best_value": progress.best_value,
        "history": progress.history,
    }
    (folder / PROGRESS_FILE).write_text(json.dumps(told), encoding="utf-8")


def load_checkpoint(folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> Progress:
    """Put a network and its optimiser back where they were. No pickled code is run."""
    network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS_FILE))
    state = torch.load(folder / OPTIMISER_FILE, weights_only=True, map_location="cpu")
    optimiser.load_state_dict(state)
    told: Mapping[str, object] = json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8"))
    best = safetensors.torch.load_file(folder / BEST_FILE)
    return Progress(**told, best=best)  # type: ignore[arg-type]


def cpu_state(network: nn.Module) -> dict[str, Tensor]:
    """A copy of a network's state on the CPU."""
    return {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in network.state_dict().items()
    }
