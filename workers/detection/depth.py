"""Freezing the backbone of a detector, whole or by blocks; neck and heads always train."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from schemas.errors import BundleError
from workers.models.blocks import depth_setter
from workers.training.config import EVERY_BLOCK


def backbone_depth_setter(network: nn.Module, depths: Sequence[int]) -> Callable[[int], None]:
    """What freezes all of a detector's backbone but so many blocks, counted from the neck.

    0 freezes the whole backbone; see `depth_setter` for what freezing means. A backbone of timm is
    divided as timm describes it; another one into its stem and its stages.

    Raises:
        BundleError: when the backbone has fewer blocks than a depth.
    """
    backbone = network.get_submodule("backbone")
    if hasattr(backbone, "group_matcher"):
        return depth_setter(backbone, depths)
    blocks = [backbone.get_submodule("stem"), *backbone.get_submodule("stages").children()]
    if max(depths) > len(blocks):
        raise BundleError(
            "the network has fewer blocks than are to be trained",
            where=type(backbone).__name__,
            got=f"unfrozen {max(depths)} of {len(blocks)} blocks",
            remedy=f"give a depth of 0 (neck and heads alone) to {len(blocks)}, or all",
        )

    def set_depth(depth: int) -> None:
        trained = len(blocks) if depth == EVERY_BLOCK else depth
        for place, block in enumerate(blocks):
            _set_trained(block, trained=place >= len(blocks) - trained)

    return set_depth


def _set_trained(block: nn.Module, *, trained: bool) -> None:
    for parameter in block.parameters():
        parameter.requires_grad_(trained)
    if trained:
        return
    for module in block.modules():
        # A frozen batch norm neither follows the batches nor normalises by them.
        if isinstance(getattr(module, "running_mean", None), Tensor):
            module.eval()
