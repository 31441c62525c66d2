"""Where the blocks of a network lie, and what freezing them stops."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import timm
import torch
from torch import Tensor, nn

from schemas.errors import BundleError
from tests.workers.models.backbones import BACKBONES
from workers.models.blocks import BLOCKS, HEAD, depth_setter, find_parts
from workers.models.network import build_network
from workers.models.normalise import Normalised
from workers.training.config import EVERY_BLOCK

OTHERS = (
    "vgg16_bn",
    "vit_tiny_patch16_224",
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
    "dla34",
)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
SMALL = "test_resnet"


def _shapes_only(architecture: str) -> nn.Module:
    with torch.device("meta"):
        return build_network(architecture, 2, 1).eval()


@pytest.mark.parametrize("architecture", [*BACKBONES, *OTHERS])
def test_every_parameter_and_norm_belongs_to_one_part(architecture: str) -> None:
    network = _shapes_only(architecture)
    parts = find_parts(network)
    assert set(parts.values()) == set(range(BLOCKS + 1))
    owned = [
        f"{name}.{own}".lstrip(".")
        for name in parts
        for own, _ in network.get_submodule(name).named_parameters(recurse=False)
    ]
    assert sorted(owned) == sorted(name for name, _ in network.named_parameters())
    norms = {name for name, module in network.named_modules() if isinstance(module, NORMS)}
    assert bool(norms) != (architecture in ("vgg16", "vgg19"))
    assert norms <= parts.keys()
    heads = {name for name, part in parts.items() if part == HEAD}
    classifier = network.get_classifier()  # type: ignore[operator]
    assert any(network.get_submodule(name) is classifier for name in heads)


@contextmanager
def _calls(network: nn.Module) -> Iterator[list[tuple[str, Tensor]]]:
    """The layers that ran, in their order, with their outputs."""
    seen: list[tuple[str, Tensor]] = []

    def note(name: str) -> object:
        return lambda module, inputs, output: seen.append((name, output))

    hooks = [
        module.register_forward_hook(note(name))  # type: ignore[arg-type]
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d)
    ]
    yield seen
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("architecture", BACKBONES)
def test_a_block_is_what_works_at_one_resolution(architecture: str) -> None:
    network = _shapes_only(architecture)
    parts = find_parts(network)
    side = 128
    with _calls(network) as calls:
        network(torch.zeros(2, 1, side, side, device="meta"))
    order = [parts[name] for name, _ in calls]
    assert order == sorted(order, reverse=True), "blocks do not run one after the other"
    first = 0 if architecture.startswith("vgg") else 1
    for block in range(BLOCKS):
        # Squeeze and excitation works on one pixel.
        sides = [
            int(output.shape[-1])
            for name, output in calls
            if parts[name] == BLOCKS - block and ".se." not in name
        ]
        resolution = side >> (first + block)
        assert sides[-1] == resolution
        # A block that halves the resolution may begin at the one before it.
        assert set(sides) <= {resolution, 2 * resolution}
        if block and first:
            assert sides.count(2 * resolution) < sides.count(resolution)


@pytest.mark.parametrize(("architecture", "convolutions"), [("vgg16", 13), ("vgg19", 16)])
def test_blocks_of_a_vgg_lie_between_its_poolings(architecture: str, convolutions: int) -> None:
    network = _shapes_only(architecture)
    expected: dict[str, int] = {}
    block = BLOCKS
    for name, layer in network.features.named_children():
        if isinstance(layer, nn.MaxPool2d):
            block -= 1
        elif isinstance(layer, nn.Conv2d):
            expected[f"features.{name}"] = block
    assert block == 0
    assert len(expected) == convolutions
    expected |= dict.fromkeys(("pre_logits.fc1", "pre_logits.fc2", "head.fc"), HEAD)
    assert find_parts(network) == expected


def test_blocks_of_a_resnet_and_a_vision_transformer() -> None:
    tops = {"conv1": 5, "bn1": 5, "layer1": 4, "layer2": 3, "layer3": 2, "layer4": 1, "fc": HEAD}
    parts = find_parts(_shapes_only("resnet50"))
    assert all(part == tops[name.partition(".")[0]] for name, part in parts.items())
    parts = find_parts(_shapes_only("vit_tiny_patch16_224"))
    blocks = [parts[f"blocks.{number}.norm1"] for number in range(12)]
    assert blocks == [5, 5, 4, 4, 4, 3, 3, 3, 2, 2, 1, 1]
    # The network itself holds the class token and the positions.
    assert (parts[""], parts["patch_embed.proj"], parts["norm"], parts["head"]) == (5, 5, 1, HEAD)


def _network() -> Normalised:
    torch.manual_seed(0)
    return Normalised(build_network(SMALL, 2, 1), (0.4,), (0.2,))


def _step(network: nn.Module) -> None:
    pixels = torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8)
    network.zero_grad(set_to_none=True)
    network(pixels).square().sum().backward()


@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4, 5, EVERY_BLOCK])
def test_depth_stops_gradients_and_statistics_of_the_rest(depth: int) -> None:
    whole = _network()
    parts = find_parts(whole.network)
    set_depth = depth_setter(whole.network, [depth])
    for _ in range(2):  # again after each call of train
        before = {name: tensor.clone() for name, tensor in whole.network.state_dict().items()}
        whole.train()
        set_depth(depth)
        _step(whole)
        after = whole.network.state_dict()
        for name, part in parts.items():
            module = whole.network.get_submodule(name)
            trained = depth == EVERY_BLOCK or part <= depth
            for parameter in module.parameters(recurse=False):
                assert (parameter.grad is not None) == trained
            if isinstance(module, nn.BatchNorm2d):
                assert module.training == trained
                same = torch.equal(after[f"{name}.running_mean"], before[f"{name}.running_mean"])
                assert same != trained
                count = f"{name}.num_batches_tracked"
                assert int(after[count] - before[count]) == int(trained)


def test_batch_norms_come_back_on_unfreezing() -> None:
    whole = _network()
    set_depth = depth_setter(whole.network, [0, 2, EVERY_BLOCK])
    norms = [one for one in whole.modules() if isinstance(one, nn.BatchNorm2d)]
    awake = []
    for depth in (0, 2, EVERY_BLOCK, 0):
        whole.train()
        set_depth(depth)
        awake.append(sum(one.training for one in norms))
        assert whole.training
        whole.eval()
        set_depth(depth)
        assert not any(one.training for one in norms)
    assert awake[0] == awake[3] == 0
    assert 0 < awake[1] < awake[2] == len(norms)


def test_depth_beyond_the_blocks_is_refused() -> None:
    network = _shapes_only("resnet18")
    with pytest.raises(BundleError, match=r"got unfrozen 6 of 5 blocks\. Give a depth of 0 .* 5"):
        depth_setter(network, [1, 6])
    with torch.device("meta"):
        four = timm.create_model("levit_128s", num_classes=2)
    with pytest.raises(BundleError, match=r"Levit.*got unfrozen 5 of 4 blocks"):
        depth_setter(four, [5])


def test_networks_without_layers_are_trained_whole_or_not_at_all() -> None:
    with torch.device("meta"):
        network = timm.create_model("pit_ti_224", num_classes=2)
    with pytest.raises(BundleError, match=r"describes no layers.*Train all of it"):
        depth_setter(network, [2])
    depth_setter(network, [EVERY_BLOCK])(EVERY_BLOCK)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_what_a_network_holds_fixed_is_never_trained() -> None:
    network = _network().network
    network.layer3[0].conv1.weight.requires_grad_(False)
    set_depth = depth_setter(network, [1, EVERY_BLOCK])
    for depth in (EVERY_BLOCK, 1, EVERY_BLOCK):
        set_depth(depth)
        assert not network.layer3[0].conv1.weight.requires_grad
    frozen = [name for name, one in network.named_parameters() if not one.requires_grad]
    assert frozen == ["layer3.0.conv1.weight"]
