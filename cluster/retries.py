"""Which failures of a store time may heal, and how long to wait for that."""

import re
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from obstore.exceptions import GenericError

DELAYS_S = (0.1, 0.5, 2.0, 5.0)
"""Seconds before each further attempt at what obstore gave up."""
_REFUSAL = re.compile(r"status code: 4(?!08|29)\d\d")
"""A client's error in HTTP, but for those that time may heal.

409 comes as `AlreadyExistsError`, and whoever creates objects deals with it.
"""

_T = TypeVar("_T")


def repeat(
    action: Callable[[], _T],
    delays_s: Iterable[float],
    repeated: type[Exception] | tuple[type[Exception], ...] = GenericError,
) -> _T:
    """Carry out what may be repeated without harm, again after each delay as long as it fails.

    ``repeated`` are the errors by which a client tells that the store failed.
    """
    for delay_s in delays_s:
        try:
            return action()
        except repeated as error:
            if is_refusal(error):
                raise
            time.sleep(delay_s)
    return action()


def is_refusal(error: Exception) -> bool:
    """Whether a store understood and refused, as for a bucket that is not there: no use to wait.

    obstore has no other sign of it than its text.
    """
    return isinstance(error, GenericError) and _REFUSAL.search(str(error)) is not None
