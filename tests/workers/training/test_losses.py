"""Losses against independent references, hard and blended targets, gradients, hard cases."""

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax, softmax
from torch import Tensor
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from schemas.errors import UsageError
from workers.training.config import LossSettings
from workers.training.losses import Criterion, make_criterion

CLASSES = ("normal", "benign", "malignant", "unsure")
COSTS = ((0.0, 1.0, 2.0, 0.5), (3.0, 0.0, 1.0, 0.5), (9.0, 4.0, 0.0, 0.5), (1.0, 1.0, 1.0, 0.0))
SETTINGS = {
    "cross_entropy": LossSettings(),
    "binary": LossSettings("binary"),
    "focal": LossSettings("focal", gamma=1.5),
    "cost": LossSettings("cost", costs=COSTS, cross_entropy_share=0.25),
}
Floats = NDArray[np.float64]


def _logits(count: int = 9, outputs: int = 4, spread: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return spread * torch.randn(count, outputs, generator=generator, dtype=torch.float64)


def _targets(count: int = 9, classes: int = 4) -> Tensor:
    return torch.arange(count) * 3 % classes


def _criterion(name: str, weights_K: Tensor | None = None, smoothing: float = 0.0) -> Criterion:
    head = "corn" if name == "corn" else "softmax"
    settings = SETTINGS.get(name, LossSettings())
    return make_criterion(settings, head, CLASSES, weights_K=weights_K, smoothing=smoothing)  # type: ignore[arg-type]


def _outputs_of(name: str) -> int:
    return 3 if name == "corn" else 4


def _binary(logits_NK: Floats, target_N: NDArray[np.int64]) -> Floats:
    """As Keras computes it: probabilities first, then logarithms, then the mean over classes."""
    p_NK, one_hot_NK = softmax(logits_NK, axis=1), np.eye(logits_NK.shape[1])[target_N]
    found_NK = -(one_hot_NK * np.log(p_NK) + (1 - one_hot_NK) * np.log(1 - p_NK))
    return np.asarray(found_NK.mean(axis=1))


def _focal(logits_NK: Floats, target_N: NDArray[np.int64]) -> Floats:
    p_N = softmax(logits_NK, axis=1)[np.arange(len(target_N)), target_N]
    return np.asarray(-((1 - p_N) ** 1.5) * np.log(p_N))


def _cost(logits_NK: Floats, target_N: NDArray[np.int64]) -> Floats:
    p_NK = softmax(logits_NK, axis=1)
    own_N = -np.log(p_NK[np.arange(len(target_N)), target_N])
    return np.einsum("nk,nk->n", np.array(COSTS)[target_N], p_NK) + 0.25 * own_N


def _cross_entropy(logits_NK: Floats, target_N: NDArray[np.int64]) -> Floats:
    return np.asarray(-log_softmax(logits_NK, axis=1)[np.arange(len(target_N)), target_N])


REFERENCES = {
    "cross_entropy": _cross_entropy,
    "binary": _binary,
    "focal": _focal,
    "cost": _cost,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_losses_equal_their_definitions(name: str) -> None:
    logits, targets = _logits(), _targets()
    losses_N = REFERENCES[name](logits.numpy(), targets.numpy())
    assert float(_criterion(name)(logits, targets)) == pytest.approx(losses_N.mean(), rel=1e-12)
    weights_K = torch.tensor([0.5, 1.0, 2.0, 4.0])
    weight_N = weights_K.numpy()[targets.numpy()]
    expected = (weight_N * losses_N).sum() / weight_N.sum()
    assert float(_criterion(name, weights_K)(logits, targets)) == pytest.approx(expected, rel=1e-12)


def _corn_by_tasks(tasks_NT: Floats, target_N: NDArray[np.int64]) -> float:
    """Equation 4 of the paper: each task over its own subset, divided by all examples of tasks."""
    total, examples = 0.0, 0
    for task in range(tasks_NT.shape[1]):
        subset = target_N >= task
        logits, above = tasks_NT[subset, task], target_N[subset] > task
        total -= float((log_expit(logits) * above + log_expit(-logits) * ~above).sum())
        examples += int(subset.sum())
    return total / examples


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_corn_equals_its_tasks_taken_one_by_one(classes: int) -> None:
    tasks, targets = _logits(11, classes - 1), _targets(11, classes)
    criterion = make_criterion(LossSettings(), "corn", CLASSES[:classes])
    expected = _corn_by_tasks(tasks.numpy(), targets.numpy())
    assert float(criterion(tasks, targets)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_equals_torch(smoothing: float, weighted: bool) -> None:
    weights_K = torch.tensor([0.5, 1.0, 2.0, 4.0]) if weighted else None
    logits, targets = _logits(), _targets()
    found = _criterion("cross_entropy", weights_K, smoothing)(logits, targets)
    weight = weights_K.double() if weights_K is not None else None
    expected = functional.cross_entropy(logits, targets, weight, label_smoothing=smoothing)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_of_two_classes_equals_torchvision(gamma: float) -> None:
    logit_N = _logits(12, 1)[:, 0]
    targets = _targets(12, 2)
    criterion = make_criterion(LossSettings("focal", gamma=gamma), "softmax", CLASSES[:2])
    found = criterion(torch.stack([torch.zeros_like(logit_N), logit_N], dim=1), targets)
    expected = sigmoid_focal_loss(logit_N, targets.double(), -1, gamma, "mean")
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


ALL = [*SETTINGS, "corn"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("soft", [False, True])
def test_gradients_are_those_of_finite_differences(name: str, soft: bool) -> None:
    criterion = _criterion(name, torch.tensor([0.5, 1.0, 2.0, 4.0]), 0.1)
    targets = _targets(5)
    if soft:
        targets = 0.3 * functional.one_hot(targets, 4).double() + 0.7 / 4
    logits = _logits(5, _outputs_of(name)).requires_grad_()
    assert torch.autograd.gradcheck(lambda outputs: criterion(outputs, targets), (logits,))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("weighted", [False, True])
def test_blended_targets_blend_the_losses(name: str, weighted: bool) -> None:
    criterion = _criterion(name, torch.tensor([0.5, 1.0, 2.0, 4.0]) if weighted else None)
    outputs, one = _logits(outputs=_outputs_of(name)), _targets()
    assert criterion(outputs, functional.one_hot(one, 4).double()) == criterion(outputs, one)
    # A mixup of a batch with itself in another order: both sides hold the same classes.
    partners = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    blended = 0.3 * functional.one_hot(one, 4) + 0.7 * functional.one_hot(one[partners], 4)
    expected = 0.3 * criterion(outputs, one) + 0.7 * criterion(outputs, one[partners])
    torch.testing.assert_close(criterion(outputs, blended.double()), expected)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("hot", range(4))
def test_certain_networks_give_finite_losses_and_gradients(name: str, hot: int) -> None:
    count = _outputs_of(name)
    outputs = torch.full((4, count), -300.0)
    outputs[:, hot % count] = 300.0
    outputs.requires_grad_()
    loss = _criterion(name)(outputs, torch.arange(4))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert outputs.grad is not None
    assert bool(torch.isfinite(outputs.grad).all())
    if name != "focal":
        assert float(loss.detach()) > 0.1


def test_binary_is_exact_where_a_probability_rounds_to_one() -> None:
    logits = torch.tensor([[40.0, 0.0]])
    # One minus the probability of the first class is exp(-40), which float32 can't subtract.
    wrong = make_criterion(LossSettings("binary"), "softmax", CLASSES[:2])
    assert float(wrong(logits, torch.tensor([1]))) == pytest.approx(40.0)
    assert float(wrong(logits, torch.tensor([0]))) == pytest.approx(np.exp(-40.0), rel=1e-4)


def test_what_costs_more_pushes_harder() -> None:
    logits = torch.zeros(1, 4, requires_grad=True)
    criterion = make_criterion(LossSettings("cost", costs=COSTS), "softmax", CLASSES)
    criterion(logits, torch.tensor([2])).backward()
    assert logits.grad is not None
    # Costs 9, 4, 0 and 0.5 at equal probabilities: the gradient is p (cost - mean cost).
    expected = 0.25 * (torch.tensor([9.0, 4.0, 0.0, 0.5]) - 13.5 / 4)
    torch.testing.assert_close(logits.grad[0], expected)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("soft", [False, True])
def test_losses_are_computed_where_the_outputs_lie(name: str, soft: bool) -> None:
    # Tensors of the meta device hold no values, and refuse to meet those of another device.
    criterion = _criterion(name, torch.ones(4), 0.1).to("meta")
    targets = torch.ones(9, 4, device="meta") if soft else torch.ones(9, device="meta").long()
    loss = criterion(torch.ones(9, _outputs_of(name), device="meta"), targets)
    assert loss.device.type == "meta"
    assert loss.shape == ()


def _changed(row: int, column: int, cost: float) -> tuple[tuple[float, ...], ...]:
    rows = [list(one) for one in COSTS]
    rows[row][column] = cost
    return tuple(tuple(one) for one in rows)


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        (
            COSTS[:3],
            r"does not fit the classes \(loss.costs\): got 3 rows of 4, 4, 4 costs. Give 4",
        ),
        (tuple(row[:3] for row in COSTS), r"got 4 rows of 3, 3, 3, 3 costs.*order normal, benign"),
        ((), "got 0 rows of no costs"),
        (_changed(1, 1, 2.0), r"0 for a right.*loss.costs, benign decided as benign\): got 2"),
        (_changed(2, 0, -1.0), r"malignant decided as normal\): got -1"),
        (_changed(0, 3, float("inf")), r"normal decided as unsure\): got inf"),
        (_changed(0, 3, float("nan")), r"normal decided as unsure\): got nan"),
        (((0.0,) * 4,) * 4, "charges for no mistake"),
    ],
)
def test_cost_matrices_that_make_no_sense_are_refused(
    costs: tuple[tuple[float, ...], ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make_criterion(LossSettings("cost", costs=costs), "softmax", CLASSES)


def test_losses_differ_from_each_other() -> None:
    outputs, targets = _logits(), _targets()
    found = [float(_criterion(name)(outputs, targets)) for name in SETTINGS]
    assert all(abs(one - other) > 0.01 for one, other in itertools.combinations(found, 2))
