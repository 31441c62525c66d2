"""Building networks and loading weights into them."""

from pathlib import Path

import huggingface_hub.constants
import pytest
import safetensors.torch
import timm
import torch

from schemas.errors import BundleError
from tests.workers.models.backbones import BACKBONES
from tests.workers.models.weights import save_weights
from workers.models.network import (
    build_network,
    load_weights,
    pretrained_statistics,
    start_from,
)
from workers.models.normalise import Normalised

SMALL = "test_resnet"


def test_network_has_the_classes_and_channels_asked_for() -> None:
    network = build_network(SMALL, 3, 1)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 3)


def test_unknown_architecture_is_named_with_known_ones() -> None:
    with pytest.raises(BundleError, match=r"got resnet19.*Names like it: .*resnet18"):
        build_network("resnet19", 2, 1)


def test_weights_survive_a_file() -> None:
    torch.manual_seed(0)
    one, other = build_network(SMALL, 2, 1), build_network(SMALL, 2, 1)
    load_weights(other, save_weights(one))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BundleError, match="do not fit the network"):
        load_weights(build_network(SMALL, 2, 1), save_weights(build_network(SMALL, 3, 1)))
    with pytest.raises(BundleError, match="no safetensors file"):
        load_weights(build_network(SMALL, 2, 1), b"PK\x03\x04 a pickle in a zip")


@pytest.mark.parametrize("architecture", [SMALL, "test_efficientnet", "test_vit", "test_convnext"])
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 5), (1, 5), (3, 2)])
def test_start_adapts_head_and_first_convolution(
    architecture: str, channels: int, classes: int
) -> None:
    source = build_network(architecture, 2, 3)
    target = build_network(architecture, classes, channels)
    stem, head = target.pretrained_cfg["first_conv"], target.pretrained_cfg["classifier"]
    before = target.state_dict()[f"{head}.weight"].clone()
    left = start_from(target, save_weights(source))
    found, given = target.state_dict(), source.state_dict()
    kernel = given[f"{stem}.weight"]
    expected = kernel if channels == 3 else kernel.sum(dim=1, keepdim=True)
    torch.testing.assert_close(found[f"{stem}.weight"], expected)
    if classes == 2:
        assert left == ()
        assert torch.equal(found[f"{head}.weight"], given[f"{head}.weight"])
    else:
        assert set(left) == {f"{head}.weight", f"{head}.bias"}
        assert torch.equal(found[f"{head}.weight"], before)
    same = [name for name in found if not name.startswith((stem, head))]
    assert all(torch.equal(found[name], given[name]) for name in same)


@pytest.mark.parametrize("architecture", BACKBONES)
def test_start_fits_every_named_backbone(architecture: str) -> None:
    """On shapes alone: a checkpoint of three channels and a thousand classes."""
    with torch.device("meta"):
        source, target = build_network(architecture, 1000, 3), build_network(architecture, 3, 1)
    described = target.pretrained_cfg
    known = source.state_dict()
    # Only these two differ in shape, and each is one of the layers that are adapted.
    other = {name for name, one in target.state_dict().items() if one.shape != known[name].shape}
    head, stem = described["classifier"], described["first_conv"]
    assert other == {f"{head}.weight", f"{head}.bias", f"{stem}.weight"}


def test_start_without_a_head_or_for_other_classes_leaves_the_head_as_it_was() -> None:
    source, target = build_network(SMALL, 2, 1), build_network(SMALL, 2, 1)
    head = {name for name in target.state_dict() if name.startswith("fc.")}
    before = {name: target.state_dict()[name].clone() for name in head}
    assert set(start_from(target, save_weights(source), new_head=True)) == head
    backbone = safetensors.torch.load(save_weights(source))
    for name in head:
        del backbone[name]
    assert set(start_from(target, safetensors.torch.save(backbone))) == head
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, before[name] if name in head else source.state_dict()[name])
    assert start_from(target, save_weights(source)) == ()
    assert torch.equal(target.state_dict()["fc.weight"], source.state_dict()["fc.weight"])


def _publish(cache: Path, architecture: str, network: torch.nn.Module) -> None:
    """Put weights where Hugging Face's client keeps those of timm's that it has fetched."""
    described = timm.get_pretrained_cfg(architecture)
    folder = cache / f"models--{described.hf_hub_id.replace('/', '--')}"
    revision = "0" * 40
    for path, content in {
        folder / "refs" / "main": revision.encode(),
        folder / "snapshots" / revision / "model.safetensors": save_weights(network),
    }.items():
        path.parent.mkdir(parents=True)
        path.write_bytes(content)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a machine without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("architecture", [SMALL, "test_efficientnet"])
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 4), (3, 1000)])
def test_pretrained_weights_are_timms(
    hub_cache: Path, architecture: str, channels: int, classes: int
) -> None:
    source = build_network(architecture, 1000, 3).eval()
    _publish(hub_cache, architecture, source)
    network = build_network(architecture, classes, channels, pretrained=True).eval()
    grey = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        found = network.forward_features(grey.expand(-1, channels, -1, -1))
        expected = source.forward_features(grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(found, expected)
        assert network(grey.expand(-1, channels, -1, -1)).shape == (2, classes)
    head = f"{network.pretrained_cfg['classifier']}.weight"
    same = torch.equal(network.state_dict()[head], source.state_dict()[head])
    assert same == (classes == 1000)


def test_pretrained_weights_that_cannot_be_had_are_named(hub_cache: Path) -> None:
    with pytest.raises(BundleError, match=rf"weights can't be had \({SMALL}\).*HF_HOME"):
        build_network(SMALL, 2, 1, pretrained=True)
    with pytest.raises(BundleError, match=r"can't be had.*No pretrained weights exist for coatnet"):
        build_network("coatnet_pico_rw_224", 2, 1, pretrained=True)
    with pytest.raises(BundleError, match=r"can't build the network.*Invalid pretrained tag"):
        build_network("resnet18.of_another_time", 2, 1)


def test_grey_checkpoint_starts_a_colour_network_with_equal_answers_on_grey() -> None:
    source, target = build_network(SMALL, 2, 1).eval(), build_network(SMALL, 2, 3).eval()
    start_from(target, save_weights(source))
    grey = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(target(grey.expand(-1, 3, -1, -1)), source(grey))


def test_start_that_differs_elsewhere_is_refused() -> None:
    weights = safetensors.torch.load(save_weights(build_network(SMALL, 2, 1)))
    name = next(one for one in sorted(weights) if one.endswith("conv1.weight"))
    del weights[name]
    with pytest.raises(BundleError, match=f"checkpoint does not fit.*{name}"):
        start_from(build_network(SMALL, 2, 1), safetensors.torch.save(weights))


def test_normalised_network_sees_scaled_pixels() -> None:
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    whole = Normalised(torch.nn.Identity(), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    expected = timm.data.transforms_factory.transforms.Normalize((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))(
        pixels / 255
    )
    torch.testing.assert_close(whole(pixels), expected)
    assert not whole.state_dict()


def test_pretrained_statistics_are_timms() -> None:
    mean, std = pretrained_statistics("resnet18")
    assert mean == pytest.approx([0.485, 0.456, 0.406])
    assert std == pytest.approx([0.229, 0.224, 0.225])
