"""Corpora the tests share."""

import pytest

from workers.phantoms.corpus import Corpus, Phantom


@pytest.fixture(scope="session")
def mixed() -> Corpus:
    """All modalities, all roles, small images."""
    return Corpus(
        seed=7,
        count=400,
        size=96,
        modalities={"us": 2.0, "ct": 1.0, "xray": 1.0},
        sites=3,
        near_duplicate_share=0.08,
        duplicate_share=0.05,
        broken_share=0.08,
        flawed_share=0.08,
    )


@pytest.fixture(scope="session")
def rendered(mixed: Corpus) -> list[Phantom]:
    """The mixed corpus, rendered in order."""
    return [mixed.render(index) for index in range(mixed.count)]
