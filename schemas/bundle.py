"""A model bundle: what its files are called, what its `config.json` says, and its identity.

A bundle is a folder of `model.safetensors`, `config.json`, `README.md` and, where a backend needs
them, files made from the same weights. `config.json` begins with the keys timm reads, so that
``timm.create_model("local-dir:FOLDER", pretrained=True)`` opens a classifier's bundle.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.errors import BundleError
from schemas.plan import fingerprint

BUNDLE_FORMAT = 1
"""Version of `config.json`; a bundle of another version is refused."""

CONFIG_FILE = "config.json"
CARD_FILE = "README.md"
WEIGHTS_FILE = "model.safetensors"
OUTCOME_FILE = "_outcome.json"
"""Comes with a trained bundle's files but is no part of it: rejects and figures by epoch."""
OPENVINO_FILES = ("openvino.xml", "openvino.bin")
OPENVINO_MIXED_FILES = ("openvino-mixed.xml", "openvino.bin")
"""The same weights, in a graph that says which convolutions stay in float32."""

TORCH_FP32 = "torch-fp32"
TORCH_BF16 = "torch-bf16"
OPENVINO_FP32 = "openvino-fp32"
OPENVINO_BF16 = "openvino-bf16"
OPENVINO_MIXED = "openvino-mixed"
TORCH_CUDA_FP32 = "torch-cuda-fp32"
TORCH_CUDA_BF16 = "torch-cuda-bf16"
TORCH_CUDA_FP16 = "torch-cuda-fp16"
TORCH_CUDA_COMPILED = "torch-cuda-compiled"

Device = Literal["cpu", "cuda"]
Head = Literal["softmax", "corn", "svm"]
"""What makes probabilities: softmax of the network's outputs; CORN's conditional tasks, for classes
in an order; or a support vector machine on the network's features."""


@dataclass(frozen=True)
class Backend:
    """One way to compute a bundle's scores."""

    runtime: Literal["torch", "openvino"]
    """Which of the scorers in `workers/scoring` computes it."""
    device: Device
    files: tuple[str, ...]
    """What it reads beside `config.json`; a scorer fetches no others."""


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        TORCH_FP32: Backend("torch", "cpu", (WEIGHTS_FILE,)),
        TORCH_BF16: Backend("torch", "cpu", (WEIGHTS_FILE,)),
        OPENVINO_FP32: Backend("openvino", "cpu", OPENVINO_FILES),
        OPENVINO_BF16: Backend("openvino", "cpu", OPENVINO_FILES),
        OPENVINO_MIXED: Backend("openvino", "cpu", OPENVINO_MIXED_FILES),
        TORCH_CUDA_FP32: Backend("torch", "cuda", (WEIGHTS_FILE,)),
        TORCH_CUDA_BF16: Backend("torch", "cuda", (WEIGHTS_FILE,)),
        TORCH_CUDA_FP16: Backend("torch", "cuda", (WEIGHTS_FILE,)),
        TORCH_CUDA_COMPILED: Backend("torch", "cuda", (WEIGHTS_FILE,)),
    }
)
"""Every backend there is. Others must agree with `TORCH_FP32`: eager PyTorch in float32."""

LARGEST_DIFFERENCE = 0.01
"""How far a chosen backend's scores may lie from eager fp32 (a probability)."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preprocessing(_Part):
    """How source pixels become the network's input: (recipe(pixels) / 255 - mean) / std."""

    recipe: dict[str, Any]
    """The pixel recipe as JSON values."""
    mean: tuple[float, ...]
    """Per channel, of pixels scaled to 0-1."""
    std: tuple[float, ...]
    """Per channel, of pixels scaled to 0-1."""

    @property
    def channels(self) -> int:
        """Channels of the network's input: 1 or 3."""
        return len(self.mean)

    @property
    def size_px(self) -> int:
        """Side of the square input."""
        return int(self.recipe["size"])


class Calibration(_Part):
    """How the head's outputs become probabilities: softmax(outputs / temperature)."""

    temperature: float = Field(default=1.0, gt=0)


class OperatingPoint(_Part):
    """The label is ``positive`` where its probability reaches ``threshold`` (two classes)."""

    positive: str
    threshold: float
    rule: str
    """How the threshold was chosen on the validation part: youden or f1."""


class DetectionSettings(_Part):
    """What a detector's detections mean; its scores are no probabilities of an image."""

    score_threshold: float = Field(ge=0, le=1)
    """The operating point: a detection counts from this confidence on. It had the best macro F1 of
    21 thresholds on the validation part."""
    match_iou: float = Field(default=0.25, gt=0, le=1)
    """Intersection over union from which a detection belonged to a lesion there."""
    limit: int = Field(default=100, ge=1)
    """Detections of an image at most."""
    least_score: float = Field(default=0.01, ge=0, le=1)
    """Detections below are not told at all."""
    one_class: bool = False
    """All categories were merged into one for training."""
    maps: tuple[tuple[int, ...], ...] = ()
    """Shapes of what the network answers for an image, laid out one after the other."""


class BackendFigures(_Part):
    """One backend as measured when the bundle was made."""

    images_per_s: float
    """Forward passes alone on the machine that made the bundle: by CPU second of one thread, or
    by second on a GPU."""
    largest_difference: float
    """Of any probability from eager fp32: over the validation images for the chosen backend, over
    a sample of them for the others."""
    labels_equal: bool
    """Whether every label of the same images equals that of eager fp32."""


class BundleConfig(_Part):
    """The content of `config.json`."""

    architecture: str
    """timm's name of the architecture, or the family's own."""
    num_classes: int
    """Outputs of timm's network; with head softmax as many as classes."""
    label_names: tuple[str, ...] = ()
    """The classes again, under the name timm reads."""
    model_args: dict[str, Any] = Field(default_factory=dict)
    """Arguments timm needs to rebuild the network, such as ``in_chans``."""
    pretrained_cfg: dict[str, Any] = Field(default_factory=dict)
    """timm's description of the weights: input size, mean, std."""

    format: int = BUNDLE_FORMAT
    model_id: str
    name: str
    family: str
    classes: tuple[str, ...]
    head: Head = "softmax"
    preprocessing: Preprocessing
    calibration: Calibration = Calibration()
    operating_point: OperatingPoint | None = None
    detection: DetectionSettings | None = None
    """Of a detector."""
    backend: str = TORCH_FP32
    """The backend scoring uses on a CPU: the fastest within the tolerance."""
    backends: dict[str, BackendFigures] = Field(default_factory=dict)
    batch: int = 16
    """Images per forward pass on a CPU; tails are padded to it."""
    gpu_backend: str = TORCH_CUDA_FP32
    """The backend scoring uses on a GPU: the fastest within the tolerance where a GPU was there to
    measure on when the bundle was made, otherwise float32."""
    gpu_batch: int = 256
    """Images per forward pass on a GPU; halved where they do not fit."""
    left_out: dict[str, str] = Field(default_factory=dict)
    """Backends that could not compute this network when the bundle was made, and why."""
    metrics: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    """What it was trained on: data set, split, images and classes by part, leaks allowed."""
    fingerprint: str = ""
    """Hash of everything that determined the training."""
    files: dict[str, str] = Field(default_factory=dict)
    """Digest of every other machine-read file of the bundle."""

    def to_json(self) -> bytes:
        """`config.json` as UTF-8, indented for people."""
        return (json.dumps(self.model_dump(mode="json"), indent=2) + "\n").encode()


def parse_config(data: bytes, where: str = "") -> BundleConfig:
    """Read `config.json`.

    Raises:
        BundleError: when it is no bundle's configuration or of another format.
    """
    try:
        found = json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError("config.json is no JSON", where=where, got=type(error).__name__) from None
    version = found.get("format") if isinstance(found, dict) else None
    if version != BUNDLE_FORMAT:
        raise BundleError(
            "The bundle has another format",
            where=where,
            got=repr(version),
            remedy=f"this version of Rayward reads format {BUNDLE_FORMAT}",
        )
    try:
        return BundleConfig.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"config.json is not valid: {field}: {first['msg']}", where=where
        ) from None


def digest(data: bytes) -> str:
    """Hash a file of a bundle: 32 hex digits of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def check_files(config: BundleConfig, files: Mapping[str, bytes], needed: tuple[str, ...]) -> None:
    """Check that the files a backend reads are there and undamaged.

    Raises:
        BundleError: naming the file that is missing or differs from what `config.json` states.
    """
    for name in needed:
        if name not in files:
            raise BundleError("A file of the bundle is missing", where=f"{config.name}: {name}")
        if config.files.get(name) != digest(files[name]):
            raise BundleError(
                "A file of the bundle is damaged",
                where=f"{config.name}: {name}",
                remedy="copy the bundle again, or train anew",
            )


def weights_digest(safetensors: bytes) -> str:
    """Hash the tensors of a safetensors file by name, type, shape and bytes.

    The order of tensors in the file and its metadata do not count. The format is an 8-byte
    little-endian length, a JSON header of that length, then the tensors' bytes.
    """
    length = int.from_bytes(safetensors[:8], "little")
    header = json.loads(safetensors[8 : 8 + length])
    header.pop("__metadata__", None)
    body = memoryview(safetensors)[8 + length :]
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(header):
        start, end = header[name]["data_offsets"]
        state.update(json.dumps([name, header[name]["dtype"], header[name]["shape"]]).encode())
        state.update(body[start:end])
    return state.hexdigest()


def make_model_id(
    weights: bytes,
    architecture: str,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    calibration: Calibration,
    head: Head = "softmax",
) -> str:
    """The identity of a model's scores: sixteen hex digits.

    The operating point is no part of it, so moving a threshold re-scores nothing.
    """
    stated = {
        "weights": weights_digest(weights),
        "architecture": architecture,
        "classes": list(classes),
        "preprocessing": preprocessing.model_dump(mode="json"),
        "calibration": calibration.model_dump(mode="json"),
    }
    # Named only where it differs: bundles made before there were other heads keep their ids.
    return fingerprint(stated if head == "softmax" else stated | {"head": head})


def make_detector_id(
    weights: bytes,
    architecture: str,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    detection: DetectionSettings,
) -> str:
    """The identity of a detector's detections, like `make_model_id`.

    Its operating point is no part of it either, but how many detections it tells is.
    """
    stated = {
        "weights": weights_digest(weights),
        "architecture": architecture,
        "classes": list(classes),
        "preprocessing": preprocessing.model_dump(mode="json"),
        "detection": {"limit": detection.limit, "least_score": detection.least_score},
    }
    return fingerprint(stated)
