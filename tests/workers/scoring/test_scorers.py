"""Scoring shards: the right numbers, one row an image, no neighbour matters."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from schemas.bundle import (
    BACKENDS,
    CONFIG_FILE,
    OPENVINO_BF16,
    OPENVINO_FILES,
    OPENVINO_FP32,
    OPENVINO_MIXED,
    TORCH_BF16,
    TORCH_CUDA_FP16,
    TORCH_CUDA_FP32,
    TORCH_FP32,
    WEIGHTS_FILE,
    BackendFigures,
    parse_config,
)
from schemas.errors import BundleError, RejectedImage
from schemas.plan import Blob, ShardFunction
from schemas.reasons import RejectReason
from schemas.tables import TABLES
from tests.workers.scoring.conftest import picture
from workers.models.classifier.outputs import predicted, probabilities
from workers.models.network import build_network, load_weights
from workers.reading import Preparer
from workers.scoring import opening_openvino, openvino_scorer, probe, torch_scorer
from workers.scoring.choice import choose_backend, choose_batch
from workers.scoring.forward import Batched, OutOfDeviceMemory, Pixels
from workers.scoring.scorer import Scorer

Files = Mapping[str, bytes]


def _params(bundle: Files, backend: str, **changes: Any) -> dict[str, Any]:
    model_id = parse_config(bundle[CONFIG_FILE]).model_id
    stated = {
        "model_id": model_id,
        "batch": 8,
        "scored_at": "2026-11-21T08:00:00+00:00",
        "backend": backend,
        "device": "cpu",
    }
    return stated | changes


def _load(bundle: Files, backend: str, **changes: Any) -> ShardFunction:
    return _loader(backend)(_params(bundle, backend, **changes), bundle)


def _loader(backend: str) -> Callable[[Mapping[str, Any], Files], ShardFunction]:
    on_torch = BACKENDS[backend].runtime == "torch"
    return torch_scorer.load if on_torch else openvino_scorer.load


def _rows(count: int) -> pa.Table:
    return pa.table(
        {
            "image_id": [f"{number:032x}" for number in range(count)],
            "uri": [f"archive/{number}.png" for number in range(count)],
            "etag": [f"e{number}" for number in range(count)],
            "frame": pa.array([0] * count, pa.int32()),
        }
    )


def _scores(table: pa.Table) -> NDArray[np.float32]:
    return np.array(table["scores"].to_pylist(), np.float32)


IN_FP32 = pytest.mark.parametrize("backend", [TORCH_FP32, OPENVINO_FP32])
ON_CPU = pytest.mark.parametrize(
    "backend", [TORCH_FP32, TORCH_BF16, OPENVINO_FP32, OPENVINO_BF16, OPENVINO_MIXED]
)


@IN_FP32
def test_scores_equal_a_plain_forward_pass(bundle: Files, backend: str) -> None:
    blobs = [picture(seed) for seed in range(19)]
    result = _load(bundle, backend)(_rows(19), blobs)
    config = parse_config(bundle[CONFIG_FILE])
    network = build_network(config.architecture, 2, 1).eval()
    load_weights(network, bundle[WEIGHTS_FILE])
    preparer = Preparer(config.preprocessing.recipe)
    pixels = [preparer.prepare(blob, 0) for blob in blobs]
    batch = torch.from_numpy(np.stack(pixels)).double()  # type: ignore[arg-type]
    with torch.inference_mode():
        expected = network.double()((batch / 255 - 0.5) / 0.25).softmax(dim=1).numpy()
    table = result.tables["predictions"]
    assert np.abs(_scores(table) - expected).max() < 1e-5
    assert np.ptp(expected[:, 0]) > 0.05
    assert table["score"].to_pylist() == _scores(table).max(axis=1).tolist()
    wanted = [field for field in TABLES["predictions"].schema if field.name != "run_id"]
    assert table.schema.equals(pa.schema(wanted))
    assert set(table["backend"].to_pylist()) == {backend}
    assert set(table["model_id"].to_pylist()) == {config.model_id}
    assert table["scored_at"][0].as_py().isoformat() == "2026-11-21T08:00:00+00:00"
    assert table["image_id"].to_pylist() == _rows(19)["image_id"].to_pylist()
    assert (result.done, result.rejected) == (19, 0)


@ON_CPU
def test_a_score_does_not_depend_on_neighbours(bundle: Files, backend: str) -> None:
    score = _load(bundle, backend)
    together = _scores(
        score(_rows(11), [picture(seed) for seed in range(11)]).tables["predictions"]
    )
    for seed in (0, 7, 10):
        alone = _scores(score(_rows(1), [picture(seed)]).tables["predictions"])
        assert np.abs(alone[0] - together[seed]).max() <= 1e-6


@IN_FP32
def test_batch_size_changes_no_score_beyond_the_tolerance(bundle: Files, backend: str) -> None:
    blobs = [picture(seed) for seed in range(9)]
    one, other = (
        _scores(_load(bundle, backend, batch=batch)(_rows(9), blobs).tables["predictions"])
        for batch in (4, 16)
    )
    assert np.abs(one - other).max() <= 1e-5


@IN_FP32
def test_the_batch_is_the_bundles_own_where_none_is_given(bundle: Files, backend: str) -> None:
    params = _params(bundle, backend)
    del params["batch"]
    config = parse_config(bundle[CONFIG_FILE]).model_copy(update={"batch": 5})
    scorer = _loader(backend)(params, {**bundle, CONFIG_FILE: config.to_json()})
    assert isinstance(scorer, Scorer)
    assert scorer.network.batch == 5


@IN_FP32
def test_what_is_no_image_is_rejected_and_the_rest_scored(bundle: Files, backend: str) -> None:
    blobs: list[Blob] = [picture(seed) for seed in range(10)]
    blobs[2] = RejectedImage(RejectReason.CHANGED_DURING_RUN)
    blobs[5] = b""
    blobs[9] = picture(9)[:60]
    result = _load(bundle, backend)(_rows(10), blobs)
    assert (result.done, result.rejected) == (7, 3)
    rejects = result.tables["rejects"].to_pylist()
    assert [one["uri"] for one in rejects] == [f"archive/{row}.png" for row in (2, 5, 9)]
    assert [one["etag"] for one in rejects] == ["e2", "e5", "e9"]
    assert rejects[0]["reason"] == "changed_during_run"
    assert rejects[1]["reason"] == "empty_file"
    model_id = parse_config(bundle[CONFIG_FILE]).model_id
    assert {(one["stage"], one["subject"]) for one in rejects} == {("score", model_id)}
    whole = _load(bundle, backend)(_rows(10), [picture(seed) for seed in range(10)])
    kept = [row for row in range(10) if row not in (2, 5, 9)]
    difference = _scores(result.tables["predictions"]) - _scores(whole.tables["predictions"])[kept]
    assert np.abs(difference).max() <= 1e-6


def test_a_shard_without_a_single_image_has_no_rows(bundle: Files) -> None:
    result = _load(bundle, TORCH_FP32)(_rows(2), [b"", b"no image"])
    assert result.tables["predictions"].num_rows == 0
    assert (result.done, result.rejected) == (0, 2)


def test_openvino_scorer_imports_no_torch() -> None:
    code = (
        "import sys; from workers.scoring import openvino_scorer; "
        "print(*sorted({name.split('.')[0] for name in sys.modules}"
        " & {'torch', 'timm', 'torchvision', 'ray', 'sklearn'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_bundles_that_do_not_fit_are_refused(bundle: Files) -> None:
    with pytest.raises(
        BundleError, match=r"The bundle is another model than planned.*plan names 00"
    ):
        _load(bundle, TORCH_FP32, model_id="00")
    damaged = {**bundle, OPENVINO_FILES[1]: bundle[OPENVINO_FILES[1]][:-1] + b"\0"}
    with pytest.raises(BundleError, match=r"damaged \(tiny: openvino.bin\)"):
        _load(damaged, OPENVINO_FP32)
    config = parse_config(bundle[CONFIG_FILE])
    detector = config.model_copy(update={"family": "centernet"})
    with pytest.raises(BundleError, match=r"There is no scorer for this family.*got centernet"):
        _load({**bundle, CONFIG_FILE: detector.to_json()}, TORCH_FP32)


@ON_CPU
def test_a_backend_agrees_with_eager_fp32_within_its_stated_figure(
    bundle: Files, backend: str
) -> None:
    blobs = [picture(seed) for seed in range(40)]
    eager, other = (
        _scores(_load(bundle, name)(_rows(40), blobs).tables["predictions"])
        for name in (TORCH_FP32, backend)
    )
    stated = parse_config(bundle[CONFIG_FILE]).backends[backend].largest_difference
    # These pictures are not the validation images, so the figure holds in size only.
    assert np.abs(other - eager).max() <= 2 * stated + 1e-5


def test_bfloat16_falls_back_to_float32_on_a_cpu_without_it(
    bundle: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(bundle[CONFIG_FILE]).model_copy(update={"backend": OPENVINO_MIXED})
    own = {**bundle, CONFIG_FILE: config.to_json()}
    blobs = [picture(seed) for seed in range(8)]
    monkeypatch.setattr(opening_openvino, "computes_bf16", lambda: False)
    params = _params(bundle, OPENVINO_MIXED)
    fallen = openvino_scorer.load({**params, "backend": None}, own)(_rows(8), blobs)
    asked = openvino_scorer.load(params, own)(_rows(8), blobs)
    plain = _load(bundle, OPENVINO_FP32)(_rows(8), blobs)
    assert set(fallen.tables["predictions"]["backend"].to_pylist()) == {OPENVINO_FP32}
    assert set(asked.tables["predictions"]["backend"].to_pylist()) == {OPENVINO_MIXED}
    difference = _scores(fallen.tables["predictions"]) - _scores(plain.tables["predictions"])
    assert np.abs(difference).max() <= 1e-6


def test_backend_is_the_bundles_choice_or_the_one_asked_for(bundle: Files) -> None:
    config = parse_config(bundle[CONFIG_FILE])
    assert choose_backend(config, None, "cpu") == config.backend
    assert choose_backend(config, None, "cuda") == config.gpu_backend
    assert choose_backend(config, TORCH_FP32, "cpu") == TORCH_FP32
    figures = BackendFigures(images_per_s=1, largest_difference=0, labels_equal=True)
    measured = config.model_copy(
        update={"gpu_backend": TORCH_CUDA_FP16, "backends": {TORCH_CUDA_FP16: figures}}
    )
    assert choose_backend(measured, None, "cuda:1") == TORCH_CUDA_FP16
    assert choose_backend(measured, TORCH_CUDA_FP32, "cuda") == TORCH_CUDA_FP32
    with pytest.raises(BundleError, match=r"no such backend for a CPU.*got tpu.*has openvino-bf16"):
        choose_backend(config, "tpu", "cpu")
    with pytest.raises(
        BundleError, match=r"no such backend for a GPU.*got torch-fp32.*has torch-cuda"
    ):
        choose_backend(config, TORCH_FP32, "cuda")


def test_the_batch_follows_the_device_unless_it_is_stated(bundle: Files) -> None:
    config = parse_config(bundle[CONFIG_FILE])
    assert choose_batch(config, None, "cpu") == config.batch == 8
    assert choose_batch(config, None, "cuda") == config.gpu_batch == 256
    assert choose_batch(config, 3, "cuda") == 3


class Doubling:
    """A network with room for two images that answers with an image's first pixel."""

    made: Sequence[int] = ()

    def __init__(self, batch: int) -> None:
        self.batch = batch
        Doubling.made = [*Doubling.made, batch]

    def __call__(self, pixels_BCHW: Pixels) -> NDArray[np.float32]:
        assert len(pixels_BCHW) == self.batch
        if self.batch > 2:
            raise OutOfDeviceMemory
        return pixels_BCHW[:, 0, 0, :1].astype(np.float32)


def test_a_full_device_halves_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Doubling, "made", ())
    batched = Batched(Doubling, 8)
    pixels = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    assert batched.outputs(pixels)[:, 0].tolist() == list(range(7))
    assert Doubling.made == [8, 4, 2]


def test_a_device_without_room_for_one_image_fails() -> None:
    def full(_batch: int) -> Callable[[Pixels], NDArray[np.float32]]:
        class Full(Doubling):
            def __call__(self, pixels_BCHW: Pixels) -> NDArray[np.float32]:
                raise OutOfDeviceMemory

        return Full(_batch)

    batched = Batched(full, 2)  # type: ignore[arg-type]
    with pytest.raises(OutOfDeviceMemory):
        batched.outputs(np.zeros((3, 1, 1, 1), np.uint8))


def test_probabilities_equal_torch_and_labels_follow_the_point(bundle: Files) -> None:
    logits = np.random.default_rng(1).normal(0, 30, (50, 2)).astype(np.float32)
    expected = (torch.from_numpy(logits).double() / 1.7).softmax(dim=1).numpy()
    assert np.abs(probabilities(logits, 1.7) - expected).max() < 1e-7
    scores = np.array([[0.6, 0.4], [0.75, 0.25], [0.1, 0.9]], np.float32)
    point = parse_config(bundle[CONFIG_FILE]).operating_point
    assert point is not None
    moved = point.model_copy(update={"threshold": 0.3})
    assert predicted(scores, ("no", "yes"), moved).tolist() == [1, 0, 1]
    assert predicted(scores, ("yes", "no"), moved).tolist() == [0, 0, 1]
    assert predicted(scores, ("no", "yes"), None).tolist() == [0, 0, 1]


def test_probe_decodes_without_a_model() -> None:
    result = probe.load({})(_rows(3), [picture(0), b"", RejectedImage(RejectReason.UNREADABLE)])
    assert (result.done, result.rejected) == (1, 2)
    assert not result.tables


class Unsound:
    """Its outputs are no numbers for some images of each batch."""

    batch = 4

    def outputs(self, pixels_NCHW: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits_NC = np.tile(np.array([1.0, 3.0], np.float32), (len(pixels_NCHW), 1))
        logits_NC[1, 0] = np.nan
        logits_NC[2, 1] = np.inf
        return logits_NC


def test_scores_that_are_no_numbers_are_rejects(bundle: Files) -> None:
    config = parse_config(bundle[CONFIG_FILE])
    scorer = Scorer(config, Unsound(), TORCH_FP32, "2026-11-21T08:00:00+00:00")  # type: ignore[arg-type]
    blobs: list[Blob] = [b"", *(picture(seed) for seed in range(7))]
    result = scorer(_rows(8), blobs)
    assert (result.done, result.rejected) == (3, 5)
    predictions, rejects = result.tables["predictions"], result.tables["rejects"].to_pylist()
    # Of the first batch images 1 to 3 are some, of the second images 4 to 7.
    assert [int(one, 16) for one in predictions["image_id"].to_pylist()] == [1, 4, 7]
    assert np.isfinite(_scores(predictions)).all()
    assert [int(one["image_id"], 16) for one in rejects] == [0, 2, 3, 5, 6]
    assert [one["reason"] for one in rejects] == ["empty_file", *["failed"] * 4]
    assert rejects[1]["detail"] == "the model's outputs are no finite numbers"
