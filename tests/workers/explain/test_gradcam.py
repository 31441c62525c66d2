"""Heat maps: equal to the package grad-cam, and to closed forms; nothing else touches them."""

import cv2
import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from schemas.bundle import Preprocessing
from schemas.errors import BundleError
from workers.explain.gradcam import Method, heat_maps, scaled
from workers.explain.layers import find_layer
from workers.models.classifier.heads import Corn
from workers.models.normalise import Normalised

REFERENCES = {"gradcam": GradCAM, "gradcam++": GradCAMPlusPlus}
SIDE = 96

FAMILIES = {
    "vgg16": "features.29",
    "vgg19": "features.35",
    "densenet121": "features",
    "densenet169": "features",
    "resnet18": "layer4",
    "resnet50": "layer4",
    "resnet10t": "layer4",
    "efficientnet_b0": "bn2",
    "efficientnet_b1": "bn2",
    "efficientnet_b2": "bn2",
    "efficientnet_b3": "bn2",
    "efficientnet_b4": "bn2",
    "mobilenetv2_100": "bn2",
    "mobilenetv3_small_050": "blocks",
    "regnetx_002": "final_conv",
    "convnext_atto": "norm_pre",
}
"""The layer found for each."""

QUICK = {"resnet18", "efficientnet_b0", "mobilenetv2_100", "densenet121", "vgg16"}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _network(name: str, classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    # A VGG's first fully connected layer has 100 million weights; its width changes no map.
    small = {"mlp_ratio": 0.005} if name.startswith("vgg") else {}
    network: nn.Module = timm.create_model(name, num_classes=classes, in_chans=1, **small)
    with torch.no_grad():  # random weights may leave a class without any evidence
        network.get_classifier().weight[0].abs_()  # type: ignore[operator]
    return network.eval()


def _images(count: int = 2) -> Tensor:
    return torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def _reference(
    network: nn.Module, layer: nn.Module, images: Tensor, targets: list[int], method: Method
) -> NDArray[np.float32]:
    with REFERENCES[method](model=network, target_layers=[layer]) as made:
        asked = [ClassifierOutputTarget(one) for one in targets]
        found: NDArray[np.float32] = made(input_tensor=images, targets=asked)
    return found


def _enlarged(heat_Nhw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Maps at the size of the input, 0-1, in the package's two steps."""
    return np.stack([scaled(cv2.resize(scaled(one), (SIDE, SIDE))) for one in heat_Nhw])


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[] if one in QUICK else pytest.mark.slow) for one in FAMILIES]
)
def test_maps_of_every_family_equal_grad_cam(name: str) -> None:
    network, images, targets = _network(name), _images(), [2, 0]
    found = find_layer(network, images[:1])
    assert found == FAMILIES[name]
    layer = network.get_submodule(found)
    for method in REFERENCES:
        ours = heat_maps(network, layer, images, targets, method)  # type: ignore[arg-type]
        expected = _reference(network, layer, images, targets, method)  # type: ignore[arg-type]
        assert np.abs(_enlarged(ours.heat_Nhw) - expected).max() < 1e-5
        assert np.ptp(expected) > 0.9  # there is something to compare
    with torch.no_grad():
        assert np.array_equal(ours.outputs_NK, network(images).numpy())


def test_a_network_of_one_linear_layer_has_the_map_of_zhou() -> None:
    """With global average pooling and a linear layer Grad-CAM is CAM (Zhou et al. 2016) / (h w)."""
    torch.manual_seed(4)
    features = nn.Conv2d(1, 5, 8, stride=8)
    head = nn.Linear(5, 3)
    whole = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    images = _images(3)
    targets = [1, 2, 0]
    found = heat_maps(whole, features, images, targets)
    maps = features(images).detach().numpy().astype(np.float64)
    weights = head.weight.detach().numpy().astype(np.float64)[targets]
    expected = np.maximum(np.einsum("nc,nchw->nhw", weights, maps), 0) / (12 * 12)
    np.testing.assert_allclose(found.heat_Nhw, expected, rtol=1e-4, atol=1e-8)
    # Gradients do not depend on the place, so those of Grad-CAM++ have a closed form too.
    gradient = weights / (12 * 12)
    sums = maps.sum(axis=(2, 3))
    share = gradient**2 / (2 * gradient**2 + sums * gradient**3 + 1e-6)
    plus = np.maximum(gradient, 0) * share * 12 * 12
    expected = np.maximum(np.einsum("nc,nchw->nhw", plus, maps), 0)
    found = heat_maps(whole, features, images, targets, "gradcam++")
    np.testing.assert_allclose(found.heat_Nhw, expected, rtol=1e-3, atol=1e-7)


def test_freezing_changes_nothing_and_no_gradient_is_left_behind() -> None:
    network, images = _network("resnet10t"), _images()
    free = heat_maps(network, network.get_submodule("layer4"), images, [0, 1])
    assert all(one.grad is None for one in network.parameters())
    for name, one in network.named_parameters():
        one.requires_grad_(name.startswith("fc"))
    backbone = heat_maps(network, network.get_submodule("layer4"), images, [0, 1])
    network.requires_grad_(False)
    frozen = heat_maps(network, network.get_submodule("layer4"), images, [0, 1])
    assert free.heat_Nhw.max() > 0
    assert np.array_equal(free.heat_Nhw, backbone.heat_Nhw)
    assert np.array_equal(free.heat_Nhw, frozen.heat_Nhw)


@pytest.mark.parametrize("method", list(REFERENCES))
def test_a_map_is_the_same_again_and_beside_others(method: Method) -> None:
    network, images = _network("resnet10t").requires_grad_(False), _images(5)
    layer, targets = network.get_submodule("layer4"), [0, 1, 2, 1, 0]
    together = heat_maps(network, layer, images, targets, method).heat_Nhw
    assert np.array_equal(heat_maps(network, layer, images, targets, method).heat_Nhw, together)
    for place, target in enumerate(targets):
        alone = heat_maps(network, layer, images[place : place + 1], [target], method).heat_Nhw[0]
        np.testing.assert_allclose(alone, together[place], rtol=1e-3, atol=1e-5 * together.max())


def test_a_layer_before_an_activation_in_place_keeps_its_own_values() -> None:
    torch.manual_seed(2)
    features = nn.Conv2d(1, 4, 8, stride=8)
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)]
    in_place = nn.Sequential(features, nn.ReLU(inplace=True), *pooled).eval()
    apart = nn.Sequential(features, nn.ReLU(), *pooled).eval()
    images = _images()
    found = [heat_maps(one, features, images, [0, 1]).heat_Nhw for one in (in_place, apart)]
    assert found[1].max() > 0
    assert np.array_equal(*found)


def test_pixels_and_ordinal_heads_are_explained_as_a_bundle_holds_them() -> None:
    network = _network("resnet10t", classes=2)
    facts = Preprocessing(recipe={"size": SIDE}, mean=(0.4,), std=(0.3,))
    whole = Normalised(nn.Sequential(network, Corn()), facts.mean, facts.std).eval()
    pixels = torch.randint(0, 256, (2, 1, SIDE, SIDE), dtype=torch.uint8)
    layer = network.get_submodule("layer4")
    found = heat_maps(whole, layer, pixels, [2, 1])
    np.testing.assert_allclose(np.exp(found.outputs_NK).sum(axis=1), 1, rtol=1e-6)
    expected = _reference(whole, layer, pixels, [2, 1], "gradcam")
    assert np.abs(_enlarged(found.heat_Nhw) - expected).max() < 1e-5


def test_what_can_not_be_explained_is_refused() -> None:
    network, images = _network("resnet10t"), _images(1)
    with pytest.raises(BundleError, match=r"no feature map.*\(1, 3\).*Name a `layer`"):
        heat_maps(network, network.get_submodule("fc"), images, [0])
    twice = nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    again = nn.Sequential(twice[0], twice[0], *twice[1:]).eval()
    with pytest.raises(BundleError, match=r"not used once.*2 times"):
        heat_maps(again, twice[0], images, [0])
    with pytest.raises(ValueError, match="eval mode"):
        heat_maps(network.train(), network.get_submodule("layer4"), images, [0])


def test_layers_are_looked_up_and_missing_ones_named() -> None:
    network, images = _network("resnet10t"), _images(1)
    assert find_layer(network, images, "layer3.0") == "layer3.0"
    with pytest.raises(BundleError, match=r"no such module: got layer5.*layer4"):
        find_layer(network, images, "layer5")
    windows = timm.create_model("swin_tiny_patch4_window7_224", num_classes=2).eval()
    with pytest.raises(BundleError, match="laid out as NHWC"):
        find_layer(windows, torch.zeros(1, 3, 224, 224))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 2))
    with pytest.raises(BundleError, match="no module global_pool"):
        find_layer(plain, images)


def test_scaling_is_for_showing_and_spares_empty_maps() -> None:
    assert scaled(np.array([[1, 3], [2, 5]], np.float32)) == pytest.approx(
        np.array([[0, 0.5], [0.25, 1]])
    )
    assert not scaled(np.zeros((2, 2), np.float32)).any()
