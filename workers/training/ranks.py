"""What ranks tell each other; without a process group each call answers for one rank."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def spread(network: nn.Module, device: torch.device) -> nn.Module:
    """Wrap a network so that its gradients are averaged over ranks.

    What is frozen when it is wrapped takes no part, and everything else must be used by each pass.
    Batch norms normalise by their rank's own images; the first rank's running means and variances
    count on all.
    """
    if not _several():
        return network
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=devices)


def gather_rows(rows_NK: NDArray[np.float64], device: torch.device) -> NDArray[np.float64]:
    """The rows of every rank, in the order of ranks; ranks may hold different counts."""
    if not _several():
        return rows_NK
    counts = gather_counts(len(rows_NK), device)
    padded_MK = np.zeros((max(counts), rows_NK.shape[1]))
    padded_MK[: len(rows_NK)] = rows_NK
    mine = torch.from_numpy(padded_MK).to(_meeting_place(device))
    parts = [torch.empty_like(mine) for _ in counts]
    dist.all_gather(parts, mine)
    return np.concatenate(
        [part.cpu().numpy()[:count] for part, count in zip(parts, counts, strict=True)]
    )


def gather_counts(count: int, device: torch.device) -> list[int]:
    """One whole number of every rank."""
    if not _several():
        return [count]
    mine = torch.tensor([count], dtype=torch.int64, device=_meeting_place(device))
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, mine)
    return [int(part) for part in parts]


def add_up(values: NDArray[np.int64], device: torch.device) -> NDArray[np.int64]:
    """Sums over ranks of whole numbers."""
    if not _several():
        return values
    summed = torch.from_numpy(values.copy()).to(_meeting_place(device))
    dist.all_reduce(summed)
    found: NDArray[np.int64] = summed.cpu().numpy()
    return found


def average(values: Tensor) -> Tensor:
    """Means over ranks of numbers, where they lie; a copy, through which no gradient flows."""
    if not _several():
        return values.detach()
    summed = values.detach().to(_meeting_place(values.device), copy=True)
    dist.all_reduce(summed)
    return (summed / dist.get_world_size()).to(values.device)


def share_buffers(network: nn.Module) -> None:
    """Give every rank the first rank's buffers: means and variances of batch norms differ."""
    if not _several():
        return
    buffers: list[Tensor] = list(network.buffers())
    for buffer in buffers:
        dist.broadcast(buffer, src=0)


def gather_objects(value: Any) -> list[Any]:
    """One small value of every rank."""
    if not _several():
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


def _meeting_place(device: torch.device) -> torch.device:
    """Where ranks can exchange rows: gloo gathers in main memory only."""
    return device if dist.get_backend() == "nccl" else torch.device("cpu")


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
