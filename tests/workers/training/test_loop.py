"""The epoch loop on a network of three layers: stages, freezing, averages, resuming."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from schemas.errors import RunError
from tests.workers.training.local_context import DyingContext, Interrupted, LocalContext
from workers.training.checkpoint import AVERAGE_FILE, WEIGHTS_FILE, Progress
from workers.training.config import EVERY_BLOCK, Optimisation, Stage
from workers.training.loop import Batch, Learner, LoopSettings, fit

STEPS = 3
FACES = 6
SETTINGS = LoopSettings(
    stages=(Stage(2, 0, 0.05), Stage(3, EVERY_BLOCK, 0.02)),
    seed=3,
    optimisation=Optimisation(optimiser="sgd", warm_up_epochs=1, clip_norm=0.05),
)


class Net(nn.Module):
    """A body of two layers and a head of one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FACES, 4), nn.BatchNorm1d(4))
        self.head = nn.Linear(4, 1)

    def forward(self, rows_NF: Tensor) -> Tensor:
        outputs: Tensor = self.head(torch.relu(self.body(rows_NF)))
        return outputs


class Trainee:
    """What a family hands to the loop, noting what the loop asks of it."""

    def __init__(
        self,
        values: tuple[float | None, ...] = (),
        first_epoch: int = 0,
        losses: tuple[float, ...] = (),
    ) -> None:
        torch.manual_seed(1)
        self.network = Net()
        self.steps: list[dict[str, Tensor]] = []
        """The weights before every step."""
        self.validated: list[nn.Module] = []
        self.body_moved: list[bool] = []
        """By batch: whether the body takes gradients, and its batch norm follows the batches."""
        self._values = values
        self._losses = losses
        self._first_epoch = first_epoch

    def learner(self) -> Learner:
        return Learner(
            network=self.network,
            batches=self._batches,
            steps=STEPS,
            loss=self._loss,
            validate=self._validate,
            monitor="score",
            val_loss="val_loss",
            set_depth=self._set_depth,
        )

    def _batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(100 + epoch + self._first_epoch)
        for _ in range(STEPS):
            rows_NF = torch.randn(8, FACES, generator=generator)
            yield rows_NF, rows_NF[:, :1] - rows_NF[:, 1:2]

    def _loss(self, network: nn.Module, batch: Batch) -> Tensor:
        body = self.network.body
        learns = {one.requires_grad for one in body.parameters()} | {body[1].training}
        assert len(learns) == 1
        self.body_moved += learns
        state = self.network.state_dict()
        self.steps.append({name: one.clone() for name, one in state.items()})
        return ((network(batch[0]) - batch[1]) ** 2).mean()

    def _validate(self, network: nn.Module) -> dict[str, float]:
        assert not any(one.training for one in network.modules())
        self.validated.append(network)
        place = len(self.validated) - 1
        loss = {"val_loss": self._losses[place] if self._losses else 1.0}
        if self._values:
            value = self._values[place]
            return loss if value is None else {"score": value, **loss}
        rows_NF = torch.linspace(-1, 1, 4 * FACES).view(4, FACES)
        return {"score": float(network(rows_NF).sum()), **loss}

    def _set_depth(self, depth: int) -> None:
        self.network.body.requires_grad_(depth == EVERY_BLOCK)
        if depth != EVERY_BLOCK:
            self.network.body.eval()


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _state(trainee: Trainee) -> dict[str, Tensor]:
    return dict(trainee.network.state_dict())


def test_each_stage_has_its_depth_and_its_schedule(tmp_path: Path) -> None:
    trainee = Trainee()
    before = {name: one.clone() for name, one in _state(trainee).items()}
    progress = fit(trainee.learner(), SETTINGS, LocalContext(tmp_path / "kept"))
    assert trainee.body_moved == [False] * 2 * STEPS + [True] * 3 * STEPS
    at_turn = trainee.steps[2 * STEPS]
    for name, tensor in before.items():
        assert torch.equal(at_turn[name], tensor) == name.startswith("body"), name
    assert not _equal(_state(trainee), at_turn)
    assert int(trainee.network.body[1].num_batches_tracked) == 3 * STEPS
    assert [one["stage"] for one in progress.history] == [0, 0, 1, 1, 1]
    assert [one["epoch"] for one in progress.history] == [0, 1, 2, 3, 4]
    # At the end of its warm-up each stage has reached its own rate.
    rates = [one["learning_rate"] for one in progress.history]
    assert (rates[0], rates[2]) == pytest.approx((0.05, 0.02))
    assert rates[1] < rates[0]
    assert rates[4] < rates[3] < rates[2]


@pytest.mark.parametrize("depths", [(0, EVERY_BLOCK), (EVERY_BLOCK, 0)])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_stages_are_trainings_one_after_the_other(
    tmp_path: Path, depths: tuple[int, int], optimiser: str
) -> None:
    """Neither momentum nor gradients of a stage reach into the next."""
    stages = tuple(replace(one, unfrozen=d) for one, d in zip(SETTINGS.stages, depths, strict=True))
    optimisation = replace(SETTINGS.optimisation, optimiser=optimiser)  # type: ignore[arg-type]
    settings = replace(SETTINGS, stages=stages, optimisation=optimisation)
    together = Trainee()
    fit(together.learner(), settings, LocalContext(tmp_path / "together"))
    first = Trainee()
    fit(first.learner(), replace(settings, stages=stages[:1]), LocalContext(tmp_path / "first"))
    second = Trainee(first_epoch=stages[0].epochs)
    second.network.load_state_dict(_state(first))
    fit(second.learner(), replace(settings, stages=stages[1:]), LocalContext(tmp_path / "second"))
    assert _equal(_state(together), _state(second))


@pytest.mark.parametrize("dies_after", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("ema_decay", [0.0, 0.7])
def test_resuming_in_any_stage_changes_nothing(
    tmp_path: Path, dies_after: int, ema_decay: float
) -> None:
    optimisation = replace(SETTINGS.optimisation, optimiser="adamw")
    settings = replace(SETTINGS, optimisation=optimisation, ema_decay=ema_decay)
    whole = Trainee()
    undisturbed = fit(whole.learner(), settings, LocalContext(tmp_path / "whole"))
    with pytest.raises(Interrupted):
        fit(Trainee().learner(), settings, DyingContext(tmp_path / "cut", dies_after))
    again = Trainee()
    torch.nn.init.zeros_(again.network.head.weight)  # the checkpoint counts, not the start
    context = LocalContext(tmp_path / "cut")
    resumed = fit(again.learner(), settings, context)
    assert len(context.reports) == 5 - dies_after
    assert _equal(_state(whole), _state(again))
    assert _equal(undisturbed.best, resumed.best)
    assert _without_times(undisturbed) == _without_times(resumed)
    assert _equal(
        safetensors.torch.load_file(tmp_path / "whole" / WEIGHTS_FILE),
        safetensors.torch.load_file(tmp_path / "cut" / WEIGHTS_FILE),
    )


def _without_times(progress: Progress) -> list[dict[str, float]]:
    return [
        {name: value for name, value in one.items() if not name.endswith("_s")}
        for one in progress.history
    ]


@pytest.mark.parametrize(
    ("values", "lengths", "best"),
    [
        # Better all along: every stage takes its epochs.
        ((1, 2, 3, 4, 5, 6, 7, 8), (4, 4), 7),
        # Nothing better after the second epoch: each stage waits two epochs of its own.
        ((1, 3, 2, 2, 0, 0, 0), (4, 3), 1),
        # The second stage starts lower than the first ended, and is given time to climb.
        ((5, 4, 4, 1, 2, 3, 6), (3, 4), 6),
        # Equal is not better.
        ((5, 5, 5, 1, 1, 1), (3, 3), 0),
    ],
)
def test_early_stopping_ends_the_stage(
    tmp_path: Path, values: tuple[float, ...], lengths: tuple[int, int], best: int
) -> None:
    stages = (Stage(4, 0, 0.1), Stage(4, EVERY_BLOCK, 0.1))
    trainee = Trainee(values)
    settings = replace(SETTINGS, stages=stages, stop_after=2)
    progress = fit(trainee.learner(), settings, LocalContext(tmp_path / "kept"))
    done = [one["stage"] for one in progress.history]
    assert (done.count(0), done.count(1)) == lengths
    assert progress.best_epoch == best
    assert progress.history[best]["score"] == max(values)


def test_equal_scores_are_told_apart_by_the_loss(tmp_path: Path) -> None:
    settings = replace(SETTINGS, stages=(Stage(6, EVERY_BLOCK, 0.01),), stop_after=2)
    trainee = Trainee((1, 2, 2, 2, 2, 1), losses=(5.0, 4.0, 3.0, 3.0, 3.5, 0.1))
    progress = fit(trainee.learner(), settings, LocalContext(tmp_path / "kept"))
    assert progress.best_epoch == 2
    # The third epoch is better than the second; the two after it are not.
    assert len(progress.history) == 5
    assert torch.equal(progress.best["head.weight"], trainee.steps[3 * STEPS]["head.weight"])


def test_without_a_score_the_loss_decides_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = replace(SETTINGS, stages=(Stage(5, EVERY_BLOCK, 0.01),), stop_after=2)
    trainee = Trainee((None,) * 5, losses=(5.0, 2.0, 3.0, 4.0, 1.0))
    progress = fit(trainee.learner(), settings, LocalContext(tmp_path / "kept"))
    assert progress.best_epoch == 1
    assert len(progress.history) == 4
    (warning,) = caplog.messages
    assert warning == (
        "the validation part leaves score undefined: val_loss decides which epoch is best"
    )


class Diverging(Trainee):
    """Its loss is not finite from one step on."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self._left = step

    def _loss(self, network: nn.Module, batch: Batch) -> Tensor:
        self._left -= 1
        loss = super()._loss(network, batch)
        return loss / 0 if self._left < 0 else loss


def test_a_loss_that_is_not_finite_is_an_error_that_says_where(tmp_path: Path) -> None:
    context = LocalContext(tmp_path / "kept")
    settings = replace(SETTINGS, precision="bf16")
    expected = (
        r"The loss is not finite: the training has diverged \(epoch 2, step 3\): got inf\. Lower "
        r"the learning rate, to 0\.005 say, .*precision: fp32\)"
    )
    with pytest.raises(RunError, match=expected):
        fit(Diverging(STEPS + 2).learner(), settings, context)
    assert len(context.reports) == 1  # the checkpoint of the epoch before is kept
    trainee = Trainee((1.0,), losses=(float("nan"),))
    expected = r"\(epoch 1, validation\): got nan\. Lower the learning rate[^;]*$"
    with pytest.raises(RunError, match=expected):
        fit(trainee.learner(), SETTINGS, LocalContext(tmp_path / "other"))


def test_a_stage_goes_on_from_the_last_weights(tmp_path: Path) -> None:
    trainee = Trainee((9, 1, 1, 1, 1, 1))
    settings = replace(SETTINGS, stop_after=1)
    progress = fit(trainee.learner(), settings, LocalContext(tmp_path / "kept"))
    assert [one["stage"] for one in progress.history] == [0, 0, 1, 1]
    assert torch.equal(progress.best["head.weight"], trainee.steps[STEPS]["head.weight"])
    assert not torch.equal(progress.best["head.weight"], trainee.steps[2 * STEPS]["head.weight"])


def test_average_is_kept_of_weights_and_buffers(tmp_path: Path) -> None:
    decay = 0.7
    trainee = Trainee()
    settings = replace(SETTINGS, ema_decay=decay)
    progress = fit(trainee.learner(), settings, LocalContext(tmp_path / "kept"))
    after = [*trainee.steps[1:], _state(trainee)]
    expected = {name: one.double() for name, one in after[0].items()}
    for state in after[1:]:
        for name, tensor in state.items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    kept = safetensors.torch.load_file(tmp_path / "kept" / AVERAGE_FILE)
    assert int(kept.pop("n_averaged")) == 5 * STEPS
    found = {name.removeprefix("module."): one for name, one in kept.items()}
    for name, tensor in found.items():
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float32
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not _equal(found, _state(trainee))
    # What is validated is the average, and what is kept is what was validated.
    (judged,) = set(trainee.validated)
    assert judged is not trainee.network
    assert _equal(dict(judged.state_dict()), found)
    rows_NF = torch.linspace(-1, 1, 4 * FACES).view(4, FACES)
    fresh = Net().eval()
    fresh.load_state_dict(progress.best)
    with torch.inference_mode():
        best = progress.history[progress.best_epoch]["score"]
        assert float(fresh(rows_NF).sum()) == best


def test_frozen_weights_are_their_own_average(tmp_path: Path) -> None:
    trainee = Trainee()
    settings = replace(SETTINGS, stages=SETTINGS.stages[:1], ema_decay=0.9)
    progress = fit(trainee.learner(), settings, LocalContext(tmp_path / "kept"))
    for name, tensor in _state(trainee).items():
        assert torch.equal(tensor, progress.best[name]) == name.startswith("body"), name
