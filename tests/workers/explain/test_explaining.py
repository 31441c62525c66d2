"""Explaining shards: heat where the evidence lies, on the upright original, through any recipe."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest
import safetensors.torch
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from schemas.bundle import CONFIG_FILE, BundleConfig, Calibration, Head, Preprocessing
from schemas.errors import BundleError, RejectedImage
from schemas.plan import Blob, ShardResult
from schemas.reasons import RejectReason
from schemas.tables import TABLES
from tests.workers.explain.small import ARCHITECTURE, small_bundle
from tests.workers.models.weights import save_weights
from workers.explain.explaining import Explainer, Network, load, load_network
from workers.explain.gradcam import scaled
from workers.explain.summary import STAGED
from workers.models.classifier.svm_head import SvmParameters
from workers.models.network import build_network
from workers.models.normalise import Normalised
from workers.phantoms.corpus import Corpus

SIDE = 64


class _Bright(nn.Module):
    """Calls an image bright by its brightest patches: evidence whose place is known."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.AvgPool2d(2), nn.Threshold(0.8, 0.0))
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[9.0], [-9.0]]))
            self.head.bias.zero_()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Logits of bright and dark."""
        logits: Tensor = self.head(self.features(images_NCHW).mean(dim=(2, 3)))
        return logits


def _explainer(recipe: Mapping[str, Any], read: Any = None, **params: Any) -> Explainer:
    torch.set_num_threads(1)
    preprocessing = Preprocessing(
        recipe={"size": SIDE, "channels": 1, **recipe}, mean=(0.0,), std=(1.0,)
    )
    config = BundleConfig(
        architecture="bright",
        num_classes=2,
        model_id="00112233aabbccdd",
        name="bright",
        family="classifier",
        classes=("bright", "dark"),
        preprocessing=preprocessing,
        calibration=Calibration(temperature=2.0),
    )
    network = _Bright()
    whole = Normalised(network, preprocessing.mean, preprocessing.std).eval()
    whole.requires_grad_(False)
    watched = Network(whole, "features", network.features, config, "cpu")
    stated = {
        "method": "gradcam",
        "opacity": 0.4,
        "region_source": "masks",
        "folder": "reports/explain/bright/1/gradcam",
    }
    return Explainer(watched, stated | params, read or (lambda files: {}))


def _rows(count: int, **changes: Sequence[Any]) -> pa.Table:
    columns: dict[str, Any] = {
        "image_id": [f"{n:032x}" for n in range(count)],
        "uri": [f"archive/{n}.png" for n in range(count)],
        "frame": pa.array([0] * count, pa.int32()),
        "etag": [f"e{n}" for n in range(count)],
        "actual": ["dark"] * count,
        "target": ["bright"] * count,
        "settings": ["s0"] * count,
        "overlay": [f"{n}-bright.jpg" for n in range(count)],
        "masks": [[{"uri": f"masks/{n}.png", "etag": f"m{n}"}] for n in range(count)],
        "boxes": [[]] * count,
    }
    return pa.table(columns | changes)


def _blob_image(height: int, width: int, y: int, x: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image with a bright disc at x, y, and the disc's mask."""
    view = np.random.default_rng(y).integers(20, 120, (height, width), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (x, y), min(height, width) // 6, 255, -1)
    view[mask > 0] = 250
    return view, mask


def _png(view: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", view)[1].tobytes())


def _explained(result: ShardResult) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = result.tables["explanations"].to_pylist()
    return found


RECIPES = [
    {},
    {"resize": "stretch"},
    {"crop_sector": True},
    {"crop_sector": True, "resize": "stretch"},
    {"size": 48, "channels": 1},
]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(("height", "width", "y", "x"), [(300, 180, 70, 120), (120, 400, 60, 300)])
def test_heat_lands_on_a_planted_disc(
    recipe: dict[str, Any], height: int, width: int, y: int, x: int
) -> None:
    view, mask = _blob_image(height, width, y, x)
    if recipe.get("crop_sector"):  # a black screen around it
        view, mask = (np.pad(one, ((31, 60), (47, 22))) for one in (view, mask))
        y, x = y + 31, x + 47
    explainer = _explainer(recipe, lambda files: {one: _png(mask) for one in files})
    result = explainer(_rows(1), [_png(view)])
    (row,) = _explained(result)
    assert row["pointing_hit"] is True
    cell = 2 * max(view.shape) / explainer.network.config.preprocessing.size_px
    assert abs(row["peak_x"] - x) < min(height, width) / 6 + cell / 2
    assert abs(row["peak_y"] - y) < min(height, width) / 6 + cell / 2
    assert row["energy_inside"] > 0.5 > 5 * row["region_share"]
    assert row["energy_padding"] < 0.01
    assert 0.5 < row["score"] <= 1
    found = cv2.imdecode(np.frombuffer(result.files["0-bright.jpg"], np.uint8), cv2.IMREAD_COLOR)
    assert found is not None
    assert found.shape[1] == view.shape[1] and found.shape[0] > view.shape[0]
    picture = found[: view.shape[0]].astype(int)
    redness = cv2.blur((picture[..., 2] - picture[..., 0]).astype(np.float32), (9, 9))
    hottest = np.unravel_index(redness.argmax(), redness.shape)
    assert np.hypot(hottest[0] - y, hottest[1] - x) < min(height, width) / 5


def test_heat_lands_on_lesions_of_phantoms_made_bright() -> None:
    corpus = Corpus(seed=3, count=30, size=192, modalities={"us": 1}, scale_bar_share=0)
    blobs, masks = list[Blob](), list[bytes]()
    for index in range(30):
        image, *marks = corpus.render(index).files
        if len(marks) == 1:
            found = cv2.imdecode(np.frombuffer(image.data, np.uint8), cv2.IMREAD_GRAYSCALE)
            mask = cv2.imdecode(np.frombuffer(marks[0].data, np.uint8), cv2.IMREAD_GRAYSCALE)
            assert found is not None and mask is not None
            blobs.append(_png(np.where(mask > 0, 255, np.minimum(found, 200)).astype(np.uint8)))
            masks.append(marks[0].data)
    count = len(blobs)
    assert count >= 6
    named = {f"masks/{n}.png": masks[n] for n in range(count)}
    explainer = _explainer({}, lambda files: {one: named[one] for one in files})
    rows = _explained(explainer(_rows(count), blobs))
    assert all(row["pointing_hit"] for row in rows)
    assert all(row["energy_inside"] > 0.5 > 3 * row["region_share"] for row in rows)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_turned_photographs_are_explained_upright(orientation: int) -> None:
    view, mask = _blob_image(160, 240, 40, 190)
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]  # quarter turns that EXIF asks to undo
    stored = np.rot90(view, turns)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(stored)).save(file, "JPEG", quality=95, exif=exif)
    explainer = _explainer({}, lambda files: {one: _png(mask) for one in files})
    (row,) = _explained(explainer(_rows(1), [file.getvalue()]))
    assert row["pointing_hit"] is True
    assert np.hypot(row["peak_x"] - 190, row["peak_y"] - 40) < 20


def test_rows_say_what_was_explained_and_hold_the_schema() -> None:
    view, _ = _blob_image(90, 90, 30, 30)
    explainer = _explainer({})
    rows = _rows(2, masks=[[], []], boxes=[[[10.0, 10.0, 40.0, 40.0]], []])
    result = explainer(rows, [_png(view)] * 2)
    wanted = [field for field in TABLES["explanations"].schema if field.name != "run_id"]
    assert result.tables["explanations"].schema.equals(pa.schema(wanted))
    boxed, bare = _explained(result)
    assert boxed["overlay"] == "reports/explain/bright/1/gradcam/0-bright.jpg"
    assert (boxed["layer"], boxed["method"], boxed["settings"]) == ("features", "gradcam", "s0")
    assert (boxed["region_source"], bare["region_source"]) == ("masks", None)
    assert boxed["pointing_hit"] is True and bare["pointing_hit"] is None
    assert boxed["region_share"] == pytest.approx(1600 / 8100)
    assert result.tables[STAGED].num_rows == 2
    assert set(result.files) == {"0-bright.jpg", "1-bright.jpg"}


def test_the_score_is_the_calibrated_probability_of_the_target() -> None:
    view = np.full((SIDE, SIDE), 230, np.uint8)
    rows = _rows(2, masks=[[], []], target=["bright", "dark"])
    found = _explained(_explainer({})(rows, [_png(view)] * 2))
    logit = 9 * 230 / 255
    expected = 1 / (1 + np.exp(-2 * logit / 2.0))
    assert found[0]["score"] == pytest.approx(expected, rel=1e-5)
    assert found[1]["score"] == pytest.approx(1 - expected, rel=1e-3)
    # Nothing speaks for dark: no heat, so no peak.
    assert (found[1]["peak_x"], found[1]["energy_padding"]) == (None, None)


def test_what_can_not_be_read_is_rejected_and_the_rest_goes_on() -> None:
    view, _ = _blob_image(90, 90, 30, 30)
    white = _png(np.full((90, 90), 255, np.uint8))
    masks: dict[str, Blob] = {f"masks/{n}.png": white for n in range(5)}
    masks["masks/3.png"] = _png(np.full((90, 30), 255, np.uint8))
    read = lambda files: {one: masks[one] for one in files}  # noqa: E731
    blobs: list[Blob] = [_png(view)] * 5
    blobs[1] = b"no picture at all"
    blobs[2] = RejectedImage(RejectReason.GONE_DURING_RUN)
    result = _explainer({}, read)(_rows(5), blobs)
    assert (result.done, result.rejected) == (2, 3)
    rejects = result.tables["rejects"].to_pylist()
    assert [(one["uri"], one["reason"]) for one in rejects] == [
        ("archive/1.png", "unknown_format"),
        ("archive/2.png", "gone_during_run"),
        ("archive/3.png", "size_mismatch"),
    ]
    assert {(one["stage"], one["subject"]) for one in rejects} == {
        ("explain", "00112233aabbccdd-s0")
    }
    assert sorted(result.files) == ["0-bright.jpg", "4-bright.jpg"]
    assert not _explainer({}, read)(_rows(1), [b""]).tables["explanations"].num_rows


def test_a_rerun_gives_the_same_bytes() -> None:
    images = [_blob_image(150, 100, 40 + n, 30 + 2 * n) for n in range(11)]
    read = lambda files: {one: _png(images[0][1]) for one in files}  # noqa: E731
    blobs = [_png(view) for view, _ in images]
    first, again = (_explainer({}, read)(_rows(11), blobs) for _ in range(2))
    assert first.tables["explanations"].equals(again.tables["explanations"])
    assert first.files == again.files


def test_bundles_are_loaded_with_their_last_feature_map() -> None:
    bundle = small_bundle(("no", "yes"))
    network = load_network(bundle)
    assert network.layer_name == "bn2"
    assert not network.whole.training
    assert not any(one.requires_grad for one in network.whole.parameters())
    params = {
        "model_id": network.config.model_id,
        "method": "gradcam++",
        "opacity": 0.5,
        "region_source": None,
        "folder": "x",
    }
    explain = load(params, bundle, lambda files: {})
    rows = _rows(3, masks=[[]] * 3, target=["yes", "no", "yes"])
    result = explain(rows, [_png(_blob_image(60, 50, 10 + n, 20)[0]) for n in range(3)])
    assert result.done == 3
    assert {one["layer"] for one in _explained(result)} == {"bn2"}
    with pytest.raises(BundleError, match="another model than planned"):
        load(params | {"model_id": "00"}, bundle, lambda files: {})
    with pytest.raises(BundleError, match="no such module"):
        load(params | {"layer": "nowhere"}, bundle, lambda files: {})
    damaged = {**bundle, "model.safetensors": b"12345678"}
    with pytest.raises(BundleError, match="damaged"):
        load(params, {**damaged, CONFIG_FILE: bundle[CONFIG_FILE]}, lambda files: {})


def _svm_weights(machines: int) -> bytes:
    """A tiny network's weights, and those of a radial machine on its features."""
    torch.manual_seed(3)
    network = build_network(ARCHITECTURE, machines, 1)
    features = network.head_hidden_size
    generator = np.random.default_rng(0)
    machine = SvmParameters(
        mean_D=np.zeros(features),
        scale_D=np.ones(features),
        vectors_SD=generator.normal(size=(6, features)),
        duals_MS=generator.normal(size=(machines, 6)),
        intercepts_M=np.zeros(machines),
        gamma=np.array([1 / features]),
        slopes_M=np.full(machines, -2.0),
        offsets_M=np.zeros(machines),
    )
    own = safetensors.torch.load(save_weights(network))
    return safetensors.torch.save(own | machine.tensors())


@pytest.mark.parametrize("head", ["softmax", "corn", "svm"])
def test_the_evidence_is_that_of_the_whole_networks_output(head: Head) -> None:
    torch.set_num_threads(1)
    weights = _svm_weights(3) if head == "svm" else None
    network = load_network(small_bundle(("a", "b", "c"), head=head, weights=weights))
    images_NCHW = np.random.default_rng(1).integers(0, 256, (2, 1, 48, 48), dtype=np.uint8)
    found = network.explain(images_NCHW, ["c", "a"], "gradcam")
    assert found.outputs_NK.shape == (2, 3)
    if head != "softmax":
        np.testing.assert_allclose(np.exp(found.outputs_NK).sum(axis=1), 1, rtol=1e-5)
    network.whole.requires_grad_(True)  # the package needs a graph through the whole network
    with GradCAM(model=network.whole, target_layers=[network.layer]) as reference:
        targets = [ClassifierOutputTarget(place) for place in (2, 0)]
        expected = reference(input_tensor=torch.from_numpy(images_NCHW), targets=targets)
    ours = np.stack([scaled(cv2.resize(scaled(one), (48, 48))) for one in found.heat_Nhw])
    assert np.ptp(expected) > 0.9
    assert np.abs(ours - expected).max() < 1e-5


class _Small(nn.Module):
    """A network on a GPU that has room for so many images; notes what it is given."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.inner, self.room = _Bright(), room
        self.asked: list[int] = []
        self.rounding: list[bool] = []

    def forward(self, images_NCHW: Tensor) -> Tensor:
        self.asked.append(len(images_NCHW))
        self.rounding.append(torch.backends.cudnn.allow_tf32)
        if len(images_NCHW) > self.room:
            raise torch.cuda.OutOfMemoryError
        logits: Tensor = self.inner(images_NCHW.float() / 255)
        return logits


def _on_small(room: int) -> tuple[Network, _Small]:
    whole = _Small(room).eval().requires_grad_(False)
    config = _explainer({}).network.config
    return Network(whole, "features", whole.inner.features, config, "cpu"), whole


def test_a_gpu_without_room_gets_smaller_batches() -> None:
    pixels = np.random.default_rng(1).integers(150, 256, (7, 1, 16, 16), dtype=np.uint8)
    network, small = _on_small(room=2)
    assert network.batch == 8
    found = network.explain(pixels, ["bright", "dark"] * 3 + ["bright"], "gradcam")
    assert small.asked == [7, 4, 2, 2, 2, 1]
    assert network.batch == 2  # for good
    # Scoring computes in full float32; so that figures agree, so does this.
    assert set(small.rounding) == {False}
    roomy, _ = _on_small(room=7)
    whole = roomy.explain(pixels, ["bright", "dark"] * 3 + ["bright"], "gradcam")
    np.testing.assert_allclose(found.heat_Nhw, whole.heat_Nhw, rtol=1e-6)
    np.testing.assert_allclose(found.outputs_NK, whole.outputs_NK, rtol=1e-6)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        _on_small(room=0)[0].explain(pixels, ["bright"] * 7, "gradcam")
