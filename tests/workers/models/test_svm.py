"""The support vector machine: equal to scikit-learn's own, as parameters and as a torch module."""

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from schemas.errors import BundleError, RunError
from workers.models.classifier import svm
from workers.models.classifier.outputs import probabilities
from workers.models.classifier.svm import SvmSettings, fit_svm, patient_folds
from workers.models.classifier.svm_head import SvmHead, network_weights

Features = NDArray[np.float32]
Targets = NDArray[np.int64]


def _clouds(classes: int, count: int, seed: int = 0) -> tuple[Features, Targets, list[str]]:
    """Overlapping clouds of unequal size, scale and share; two images a patient."""
    fixed, generator = np.random.default_rng(7), np.random.default_rng(seed)
    centres, scales = fixed.normal(0, 0.5, (classes, 24)), fixed.uniform(0.01, 30, 24)
    shares = np.arange(classes, 0, -1) / np.arange(1, classes + 1).sum()
    targets = np.repeat(generator.choice(classes, size=count // 2, p=shares), 2)
    features = (centres[targets] + generator.normal(0, 1, (count, 24))) * scales
    features[:, 3] = 7.5  # a dead feature, as behind a ReLU
    return features.astype(np.float32), targets, [f"p{row // 2}" for row in range(count)]


def _pipeline(targets: Targets, groups: list[str], settings: SvmSettings) -> OneVsRestClassifier:
    weights = "balanced" if settings.balanced else None
    machine = SVC(C=settings.c, gamma=settings.gamma, class_weight=weights)
    if settings.kernel == "linear":
        machine = LinearSVC(C=settings.c, class_weight=weights, dual=False)
    folds = patient_folds(targets, groups)
    calibrated = CalibratedClassifierCV(machine, method="sigmoid", ensemble=False, cv=folds)
    return make_pipeline(StandardScaler(), OneVsRestClassifier(calibrated))


def _by_head(head: SvmHead, features: Features) -> NDArray[np.float32]:
    with torch.inference_mode():
        return probabilities(head(torch.from_numpy(features)).numpy())


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "settings",
    [
        SvmSettings(gamma=0.02),
        SvmSettings(c=10.0, gamma=0.1, balanced=True),
        SvmSettings(kernel="linear", c=0.1),
        SvmSettings(kernel="linear", c=1.0, balanced=True),
    ],
)
def test_probabilities_equal_those_of_scikit_learn(classes: int, settings: SvmSettings) -> None:
    features, targets, groups = _clouds(classes, 160)
    unseen, _, _ = _clouds(classes, 200, seed=1)
    far = (unseen[:5] * 40).astype(np.float32)
    parameters = fit_svm(features, targets, groups, settings)
    own = _by_head(SvmHead(parameters.tensors()), np.concatenate([unseen, far]))
    pipeline = _pipeline(targets, groups, settings).fit(features.astype(np.float64), targets)
    expected = pipeline.predict_proba(np.concatenate([unseen, far]).astype(np.float64))
    assert own.shape == expected.shape == (205, classes)
    assert np.abs(own - expected).max() < 1e-6
    assert np.ptp(expected, axis=0).min() > 0.2
    assert len(parameters.intercepts_M) == (1 if classes == 2 else 3)


def test_kernel_rbf_is_refused_where_it_would_take_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "MOST_RADIAL", 159)
    features, targets, groups = _clouds(2, 160)
    message = r"kernel rbf.*\(svm.kernel\): got 160 images, at most 159. Take `kernel: linear`"
    with pytest.raises(RunError, match=message):
        fit_svm(features, targets, groups, SvmSettings())
    fit_svm(features[:159], targets[:159], groups[:159], SvmSettings())
    # Its time grows with the rows only.
    fit_svm(features, targets, groups, SvmSettings(kernel="linear"))


def test_gamma_scale_is_that_of_all_training_rows() -> None:
    features, targets, groups = _clouds(3, 160)
    parameters = fit_svm(features, targets, groups, SvmSettings())
    standard = StandardScaler().fit_transform(features.astype(np.float64))
    machine = SVC(gamma="scale").fit(standard, targets == 1)
    assert parameters.gamma[0] == pytest.approx(machine._gamma, rel=1e-12)
    kernel = np.exp(
        -parameters.gamma[0]
        * np.square(standard[:, None] - parameters.vectors_SD[None]).sum(axis=2)
    )
    decisions = kernel @ parameters.duals_MS.T + parameters.intercepts_M
    assert np.abs(decisions[:, 1] - machine.decision_function(standard)).max() < 1e-6


def test_the_same_rows_give_the_same_numbers() -> None:
    features, targets, groups = _clouds(3, 120)
    one, other = (fit_svm(features, targets, groups, SvmSettings()).tensors() for _ in range(2))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_tensors_travel_beside_the_networks_own() -> None:
    features, targets, groups = _clouds(3, 120)
    parameters = fit_svm(features, targets, groups, SvmSettings())
    own = {"head.fc.weight": torch.ones(2)}
    stored = safetensors.torch.save({**own, **parameters.tensors()})
    assert set(safetensors.torch.load(network_weights(stored))) == {"head.fc.weight"}
    assert network_weights(safetensors.torch.save(own)) == safetensors.torch.save(own)
    tensors = safetensors.torch.load(stored)
    there = _by_head(SvmHead(parameters.tensors()), features)
    assert np.array_equal(_by_head(SvmHead(tensors), features), there)
    del tensors["svm.duals"]
    with pytest.raises(BundleError, match=r"lack a tensor: got no svm\.duals"):
        SvmHead(tensors)


def test_probabilities_stay_finite_where_every_machine_says_no() -> None:
    features, targets, groups = _clouds(3, 120)
    tensors = fit_svm(features, targets, groups, SvmSettings()).tensors()
    tensors["svm.offsets"] = torch.full((3,), 5000.0, dtype=torch.float64)
    found = _by_head(SvmHead(tensors), features)
    assert np.isfinite(found).all()
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-6


def test_a_patient_is_held_out_whole_and_every_row_once() -> None:
    generator = np.random.default_rng(2)
    targets = generator.choice(3, size=90, p=[0.6, 0.3, 0.1])
    groups = [f"p{generator.integers(30)}" for _ in range(90)]
    folds = patient_folds(targets, groups)
    held_out = np.concatenate([rows for _, rows in folds])
    assert sorted(held_out.tolist()) == list(range(90))
    for fit, rows in folds:
        assert not {groups[row] for row in fit} & {groups[row] for row in rows}
        assert set(targets[fit].tolist()) == {0, 1, 2}


def test_few_patients_mean_fewer_folds_and_one_is_refused() -> None:
    targets = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    groups = ["a", "b", "c", "d", "e", "e", "f", "g"]
    assert len(patient_folds(targets, groups)) == 3
    with pytest.raises(RunError, match=r"two patients of each class.*got 1 patients of the small"):
        patient_folds(targets, ["a", "b", "c", "d", "e", "e", "e", "e"])
