"""Two ranks in processes of their own: they agree, resume exactly, and share one loss."""

import multiprocessing
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn

from schemas.errors import RunError
from tests.workers.training.local_context import Interrupted, LocalContext
from workers.models.classifier.fitting import fit_classifier
from workers.training import ranks
from workers.training.checkpoint import WEIGHTS_FILE
from workers.training.config import LossSettings, Optimisation, Stage, TrainConfig
from workers.training.examples import Examples
from workers.training.feeding import Origin
from workers.training.loop import Learner, LoopSettings, fit
from workers.training.losses import make_criterion

CACHE = 2**24
CLASSES = ("normal", "benign", "malignant")
CPU = torch.device("cpu")
TARGETS = torch.tensor([0, 0, 0, 1, 0, 2, 2, 1])
"""The first half is the first rank's; both halves weigh differently."""
CRITERIA = {
    "weighted": make_criterion(
        LossSettings("focal"), "softmax", CLASSES, weights_K=torch.tensor([0.2, 1.0, 5.0])
    ),
    "corn": make_criterion(LossSettings(), "corn", CLASSES),
    "plain": make_criterion(LossSettings(), "softmax", CLASSES),
}


class RankContext:
    """A rank of a process group, keeping the first rank's checkpoint."""

    device = "cpu"

    def __init__(self, folder: Path, stops_after: int) -> None:
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._folder, self._left = folder, stops_after

    def report(self, metrics: Mapping[str, float], checkpoint_dir: Path | None) -> None:
        if checkpoint_dir is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            shutil.copytree(checkpoint_dir, self._folder)
        dist.barrier()
        self._left -= 1
        if not self._left:
            raise Interrupted

    def load_checkpoint(self) -> AbstractContextManager[Path | None]:
        return nullcontext(self._folder if self._folder.exists() else None)


def _step(name: str, own: slice) -> dict[str, Tensor]:
    """The gradient of one step on some of the images, and its loss over all ranks."""
    torch.manual_seed(0)
    network = nn.Linear(4, 2 if name == "corn" else 3)
    rows_NF = torch.randn(8, 4)
    spread = ranks.spread(network, CPU)
    loss = CRITERIA[name](spread(rows_NF[own]), TARGETS[own])
    loss.backward()
    assert network.weight.grad is not None
    return {f"{name} gradient": network.weight.grad, f"{name} loss": ranks.average(loss)}


def _diverging(rank: int) -> Learner:
    """Rank 1 alone has a loss that is not finite, in its second step."""
    network, steps = nn.Linear(2, 1), 3

    def loss(trained: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        found: Tensor = trained(batch[0]).mean()
        return found / 0 if rank == 1 and float(batch[0][0, 0]) == 1 else found

    return Learner(
        network=network,
        batches=lambda _epoch: [(torch.full((2, 2), float(step)),) for step in range(steps)],
        steps=steps,
        loss=loss,
        validate=lambda _network: {"score": 0.0, "val_loss": 0.0},
        monitor="score",
        val_loss="val_loss",
        set_depth=lambda _depth: None,
    )


def _rank(rank: int, port: int, folder: Path, job: tuple[TrainConfig, Examples]) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    gathered = ranks.gather_rows(np.full((rank + 1, 2), float(rank)), CPU)
    assert gathered[:, 0].tolist() == [0.0, 1.0, 1.0]
    assert ranks.gather_counts(rank + 5, CPU) == [5, 6]
    assert ranks.add_up(np.array([rank, 1]), CPU).tolist() == [1, 2]
    own = torch.tensor([float(rank), 3.0])
    assert ranks.average(own).tolist() == [0.5, 3.0]
    assert own.tolist() == [rank, 3.0]
    steps = [_step(name, slice(4 * rank, 4 * rank + 4)) for name in CRITERIA]
    found = {name: tensor for step in steps for name, tensor in step.items()}
    safetensors.torch.save_file(found, folder / f"steps-{rank}.safetensors")
    _diverge(rank, folder)
    _train(folder, job)
    dist.destroy_process_group()


def _diverge(rank: int, folder: Path) -> None:
    settings = LoopSettings(stages=(Stage(1),), seed=0, optimisation=Optimisation())
    with pytest.raises(RunError, match=r"epoch 1, step 2"):
        fit(_diverging(rank), settings, RankContext(folder / "diverged", 0))


def _train(folder: Path, job: tuple[TrainConfig, Examples]) -> None:
    """A whole training, then one that is cut off in its second stage and resumed."""
    config, examples = job
    for name, stops_after in (("whole", 0), ("cut", 2), ("cut", 0)):
        context = RankContext(folder / name, stops_after)
        try:
            fitted = fit_classifier(config, examples, context, origin=Origin(), cache_bytes=CACHE)
        except Interrupted:
            continue
        sums = [tensor.sum().item() for tensor in fitted.progress.best.values()]
        losses = [(epoch["loss"], epoch["val_loss"]) for epoch in fitted.progress.history]
        told = ranks.gather_objects((losses, sums))
        assert told[0] == told[1]


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory,
    make_examples: Callable[[int, int], Examples],
    config: TrainConfig,
) -> Path:
    """Where two ranks left what they made."""
    folder = tmp_path_factory.mktemp("ranks")
    stages = (Stage(1, 0, 0.01), Stage(2, 2, 0.01))
    job = (replace(config, stages=stages, ema_decay=0.9), make_examples(70, 21))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_rank, args=(rank, port, folder, job)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
        assert process.exitcode == 0
    return folder


def test_two_ranks_agree_and_resume_exactly(ran: Path) -> None:
    whole, cut = (
        safetensors.torch.load_file(ran / name / WEIGHTS_FILE) for name in ("whole", "cut")
    )
    assert whole.keys() == cut.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, cut[name]), name


@pytest.mark.parametrize("name", CRITERIA)
def test_two_ranks_have_the_loss_and_gradient_of_one(ran: Path, name: str) -> None:
    """Whatever the classes of each rank's images weigh."""
    alone = _step(name, slice(0, 8))
    for rank in range(2):
        found = safetensors.torch.load_file(ran / f"steps-{rank}.safetensors")
        for what, tensor in alone.items():
            torch.testing.assert_close(found[what], tensor, rtol=1e-5, atol=1e-7)


def test_a_single_process_is_its_own_average(tmp_path: Path) -> None:
    assert ranks.average(torch.tensor([2.0, 5.0])).tolist() == [2.0, 5.0]
    settings = LoopSettings(stages=(Stage(1),), seed=0, optimisation=Optimisation())
    context = LocalContext(tmp_path / "kept")
    fit(_diverging(rank=0), settings, context)
    assert len(context.reports) == 1
