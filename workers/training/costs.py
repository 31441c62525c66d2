"""What wrong decisions cost, as a loss takes it; no torch, so that planning can check it."""

import math
from collections.abc import Sequence

from schemas.errors import UsageError


def check_costs(costs: Sequence[Sequence[float]], classes: Sequence[str]) -> None:
    """Check that a matrix states a cost for every actual (row) and decided (column) class.

    Raises:
        UsageError: when it is not K x K, charges for right decisions, or holds a negative or
            infinite cost or nothing but zeros.
    """
    names = ", ".join(classes)
    widths = [len(row) for row in costs]
    if widths != [len(classes)] * len(classes):
        raise UsageError(
            "The cost matrix does not fit the classes",
            where="loss.costs",
            got=f"{len(costs)} rows of {', '.join(map(str, widths)) or 'no'} costs",
            remedy=f"give {len(classes)} rows of {len(classes)} costs, in the order {names}",
        )
    for actual, row in zip(classes, costs, strict=True):
        for decided, cost in zip(classes, row, strict=True):
            if cost < 0 or not math.isfinite(cost) or (actual == decided and cost):
                raise UsageError(
                    "A cost must be 0 for a right decision, and 0 or more for a wrong one",
                    where=f"loss.costs, {actual} decided as {decided}",
                    got=f"{cost:g}",
                )
    if not any(map(any, costs)):
        raise UsageError(
            "The cost matrix charges for no mistake",
            where="loss.costs",
            got="zeros only",
            remedy="give the cost of at least one mistake",
        )
