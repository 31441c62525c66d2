"""Checks of what guards the clusters this machine starts and reaches: Ray's tokens."""

import os

from cluster.doctor.check import Check, fail, ok, warn
from cluster.submission.access import (
    AUTH_MODE,
    TOKEN_MODE,
    TOKEN_PATH_VARIABLE,
    TOKEN_VARIABLE,
    default_token_file,
    find_token,
)
from schemas.errors import UsageError

_NAME = "ray token"


def check_token() -> Check:
    """Whether Ray asks for a token here, and whether only its owner can read it."""
    mode = os.environ.get(AUTH_MODE)
    if mode and mode.lower() != TOKEN_MODE:
        return fail(
            _NAME,
            f"{AUTH_MODE} is {mode}: a Ray started here runs code for anyone on the network",
            f"set it to {TOKEN_MODE}, or leave it unset",
        )
    try:
        token = find_token()
    except UsageError as error:
        return _unusable(error)
    if token is None:
        return ok(_NAME, "none yet; an embedded Ray makes one, a cluster hands its own out")
    if os.environ.get(TOKEN_VARIABLE):
        return ok(_NAME, f"from {TOKEN_VARIABLE}")
    return ok(_NAME, f"from {os.environ.get(TOKEN_PATH_VARIABLE) or default_token_file()}")


def _unusable(error: UsageError) -> Check:
    detail = f"{error.where}: {error.got}" if error.got else error.where
    if os.environ.get(TOKEN_PATH_VARIABLE):
        return fail(_NAME, f"{error.what} ({detail})", error.remedy)
    # The default file is Ray's own, and an embedded Ray closes it; `submit` refuses it.
    return warn(_NAME, f"{error.what} ({detail})", error.remedy)
