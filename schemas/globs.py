"""Patterns of file names as `.gitignore` has them, and as regular expressions.

`*_mask*` or `masks/` match at any depth, `/top/*.png` and `a/**/b` from the source's root on; `*`
and `?` stay within one name, and a pattern that matches a folder matches all below it. There is no
`!`: what comes in and what stays out have lists of their own.
"""

import re
import warnings
from typing import Annotated

from pathspec import GitIgnoreSpec
from pathspec.pattern import RegexPattern
from pydantic import AfterValidator

_NAMED_GROUP = re.compile(r"\(\?P<\w+>")


def glob_regex(pattern: str) -> str:
    """The regular expression of a pattern, over a relative path; means the same to Python and RE2.

    Raises:
        ValueError: if it is no such pattern.
    """
    if pattern.startswith(("!", "#")) or "[:" in pattern:
        raise ValueError(
            f"{pattern} is no pattern here: ! and # at its beginning, and classes like [:alpha:], "
            "mean something else to .gitignore"
        )
    with warnings.catch_warnings():
        # Sets that a later Python may read otherwise.
        warnings.simplefilter("error", FutureWarning)
        try:
            (found,) = GitIgnoreSpec.from_lines([pattern]).patterns
        except (ValueError, FutureWarning):
            found = None
    if not isinstance(found, RegexPattern) or found.regex is None or not found.include:
        raise ValueError(
            f"{pattern or 'empty text'} is no pattern; write it as .gitignore has it: *_mask*, "
            "masks/, /top/**/*.png"
        )
    return _NAMED_GROUP.sub("(?:", found.regex.pattern)


def _checked(pattern: str) -> str:
    glob_regex(pattern)
    return pattern


Glob = Annotated[str, AfterValidator(_checked)]
"""A pattern of file names as `.gitignore` has it."""
