"""References to bundles."""

import pytest

from cluster.lake.bundles import parse_reference
from schemas.errors import BundleError


def test_a_reference_names_a_bundle_and_maybe_a_version() -> None:
    assert parse_reference("lungs") == ("lungs", None)
    assert parse_reference("lungs@12") == ("lungs", 12)


@pytest.mark.parametrize("reference", ["lungs@", "lungs@two", "lungs@²", "lungs@-1"])
def test_a_version_is_a_number(reference: str) -> None:
    with pytest.raises(BundleError, match="NAME@VERSION"):
        parse_reference(reference)
