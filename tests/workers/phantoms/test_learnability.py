"""Labels must not be readable off trivial statistics, and must be learnable from the picture."""

import io

import cv2
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from workers.phantoms.corpus import Corpus


def _grey(path: str, data: bytes) -> np.ndarray:
    """The image as a viewer shows it, uint8."""
    if not path.endswith("dcm"):
        shown = np.asarray(Image.open(io.BytesIO(data)))
        return shown[..., 1] if shown.ndim == 3 else (shown >> 8 if shown.max() > 255 else shown)
    image = pydicom.dcmread(io.BytesIO(data))
    if image.Modality == "CT":
        return np.clip((image.pixel_array - 1024 + 1350.0) / 1500 * 255, 0, 255)
    return 255 - image.pixel_array / 4095 * 255


@pytest.mark.parametrize("modality", ["us", "ct", "xray"])
def test_trivial_statistics_do_not_give_labels_away(modality: str) -> None:
    corpus = Corpus(seed=21, count=420, size=64, modalities={modality: 1.0}, sites=3)
    features, labels, patients = [], [], []
    for index in range(corpus.count):
        phantom = corpus.render(index)
        row, image = phantom.rows["metadata"][0], phantom.files[0]
        grey = _grey(image.path, image.data)
        features.append(
            [
                grey.mean(),
                grey.std(),
                len(image.data),
                len(image.data) if image.path.endswith("jpg") else 0,
                *grey.shape,
                "scale_bars" in phantom.rows,
                row["age"],
                row["sex"] == "F",
                *(row["site"] == f"SITE-0{site}" for site in (1, 2, 3)),
                *(image.path.endswith(ending) for ending in ("jpg", "png", "dcm")),
                row["view"] in ("PA", "subcostal"),
                row["study_date"].toordinal(),
            ]
        )
        labels.append(row["label"] != "normal")
        patients.append(row["patient"])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    guesses = cross_val_predict(
        model,
        np.array(features, dtype=float),
        labels,
        groups=patients,
        cv=GroupKFold(5),
        method="predict_proba",
    )
    assert roc_auc_score(labels, guesses[:, 1]) < 0.7


def _network() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 1
    for width in (16, 32, 64):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = width
    layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels, 2))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_small_network_learns_ultrasound() -> None:
    corpus = Corpus(seed=22, count=2000, size=256, modalities={"us": 1.0})
    images, labels, patients = [], [], []
    for index in range(corpus.count):
        file = corpus.render(index).files[0]
        images.append(
            cv2.resize(_grey(file.path, file.data), (56, 56), interpolation=cv2.INTER_AREA)
        )
        row = corpus.metadata(index)
        labels.append(row["label"] != "normal")
        patients.append(int(row["patient"][2:]))
    image_N1HW = torch.tensor(np.stack(images))[:, None].float() / 128 - 0.7
    label_N = torch.tensor(labels).long()
    test_N = torch.tensor(patients) % 4 == 0
    training = torch.nonzero(~test_N)[:, 0]
    torch.manual_seed(0)
    network, epochs, batch = _network(), 12, 32
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=1e-2)
    steps = len(training) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * steps)
    for _ in range(epochs):
        order = training[torch.randperm(len(training))]
        for chosen in order[: steps * batch].split(batch):
            image = image_N1HW[chosen]
            image = image.flip(3) if torch.rand(1) < 0.5 else image
            loss = nn.functional.cross_entropy(network(image), label_N[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    network.eval()
    with torch.no_grad():
        scores = torch.cat([network(part)[:, 1] - network(part)[:, 0]
                            for part in image_N1HW[test_N].split(128)])  # fmt: skip
    assert roc_auc_score(label_N[test_N], scores) > 0.85
