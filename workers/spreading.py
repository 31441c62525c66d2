"""Computing parts of one computation side by side, wherever there is room."""

from collections.abc import Callable, Generator, Sequence
from typing import Protocol, TypeVar

Shared = TypeVar("Shared")
Part = TypeVar("Part")
Result = TypeVar("Result")


class Spread(Protocol):
    """Applies a function to parts, in processes of a cluster or right here."""

    def __call__(
        self,
        function: Callable[[Shared, Part], Result],
        shared: Shared,
        parts: Sequence[Part],
    ) -> Generator[Result]:
        """Yield ``function(shared, part)`` for each part, in order.

        ``function`` is defined at the top of a module; all arguments and results can be pickled.
        It may be computed more than once for a part. Closing the generator drops what is left.
        """
        ...


def here(
    function: Callable[[Shared, Part], Result], shared: Shared, parts: Sequence[Part]
) -> Generator[Result]:
    """Compute the parts one after the other in this process."""
    return (function(shared, part) for part in parts)
