"""Near-duplicates among many hashes, and hashing itself, beside imagehash."""

import time
from collections.abc import Callable
from itertools import combinations

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness import Bar, Context, Figure, figure, paired
from workers.phantoms.corpus import Corpus
from workers.pixels.decode import open_image
from workers.pixels.hash import hash_thumbnails, phash, thumbnail
from workers.pixels.neighbours import Pairs, pairs
from workers.pixels.recipe import to_uint8

SMALL, LARGE = 84_000, 1_000_000
BARS = {SMALL: Bar(1, "s"), LARGE: Bar(60, "s")}
_DISTANCE, _LARGEST_DISTANCE = 6, 8
_DRAWN, _SIZE = 200, 256
_SAMPLE, _CHECKED = 300, 64
_CHANGED_SHARE, _FLIPS = 0.05, 8
_FACTORS = 24

Words = NDArray[np.uint64]


def measure(context: Context) -> list[Figure]:
    """Exact pairs at distance 6 and 8, and hashes an image at a time against a batch at a time."""
    figures = []
    peer_s = _imagehash_pair_s()
    for size, bar in BARS.items():
        count = context.count(size, least=2000)
        hashes = some_hashes(count)
        figures += [
            _pairs(hashes, _DISTANCE, bar, rounds=3, peer_s=peer_s),
            _pairs(hashes, _LARGEST_DISTANCE, None, rounds=1, peer_s=peer_s),
        ]
    return [*figures, _hashing(context)]


def _pairs(hashes: Words, distance: int, bar: Bar | None, *, rounds: int, peer_s: float) -> Figure:
    count, took, found = len(hashes), [], None
    for _ in range(rounds):
        start = time.perf_counter()
        found = pairs(hashes, distance)
        took.append(time.perf_counter() - start)
        _check(hashes, distance, found)
    return figure(
        f"near-duplicate pairs at distance {distance} among {count:,} hashes, one process",
        bar,
        took,
        unit="s",
        pairs=len(found or ()),
        imagehash_loop_extrapolated_s=peer_s * count * (count - 1) / 2,
        imagehash_pairs_measured=_SAMPLE * (_SAMPLE - 1) // 2,
    )


def some_hashes(count: int) -> Words:
    """Hashes as those of images of one kind: half the bits set, correlated, one in 20 a repeat.

    A repeat is an earlier hash with up to 8 bits flipped. The correlation comes from 24 factors
    that the 64 frequencies share.
    """
    random = np.random.default_rng(0)
    factors = random.standard_normal((_FACTORS, 64), np.float32)
    words = np.empty(count, np.uint64)
    for start in range(0, count, 50_000):
        rows = min(50_000, count - start)
        values = random.standard_normal((rows, _FACTORS), np.float32) @ factors
        values += 2.0 * random.standard_normal((rows, 64), np.float32)
        bits = values > np.median(values, axis=1, keepdims=True)
        words[start : start + rows] = np.packbits(bits, axis=1).view(">u8").ravel()
    changed = np.flatnonzero(random.random(count) < _CHANGED_SHARE)[1:]
    for index in changed:
        flips = random.choice(64, random.integers(0, _FLIPS + 1), replace=False)
        mask = np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0))
        words[index] = words[random.integers(index)] ^ mask
    return words


def _imagehash_pair_s() -> float:
    """Seconds of one subtraction of two of imagehash's hashes; its distances are ours."""
    words = some_hashes(_SAMPLE)
    hashes = [imagehash.hex_to_hash(f"{word:016x}") for word in words.tolist()]
    start = time.perf_counter()
    distances = [one - other for one, other in combinations(hashes, 2)]
    took = time.perf_counter() - start
    i, j = np.triu_indices(_SAMPLE, 1)
    assert np.array_equal(distances, np.bitwise_count(words[i] ^ words[j]))
    return took / (_SAMPLE * (_SAMPLE - 1) / 2)


def _check(hashes: Words, distance: int, found: Pairs) -> None:
    """Compare the pairs of some hashes with those that comparing with all hashes gives.

    Raises:
        AssertionError: if they differ.
    """
    chosen = np.random.default_rng(1).choice(len(hashes), _CHECKED, replace=False)
    _, first = np.unique(hashes, return_index=True)
    leads = np.zeros(len(hashes), np.bool_)
    leads[first] = True
    for index in chosen[leads[chosen]]:
        near = np.bitwise_count(hashes ^ hashes[index]) <= distance
        near[index] = False
        mine = np.concatenate([found.j[found.i == index], found.i[found.j == index]])
        assert set(mine[leads[mine]].tolist()) == set(np.flatnonzero(near & leads).tolist())


def _hashing(context: Context) -> Figure:
    """Hashes of a batch against imagehash, one image after the other; equal, bit for bit."""
    views = _views(context.count(_DRAWN, least=20))
    images = [Image.fromarray(view) for view in views]
    expected = [int(str(imagehash.phash(image)), 16) for image in images]
    assert hash_thumbnails([thumbnail(view) for view in views]).tolist() == expected
    assert [phash(view) for view in views[:10]] == expected[:10]
    taken = paired(
        lambda: _cpu(lambda: hash_thumbnails([thumbnail(view) for view in views])),
        lambda: _cpu(lambda: [imagehash.phash(image) for image in images]),
        max(5, context.rounds),
    )
    return figure(
        f"hashes of a batch against imagehash.phash, {_SIZE} px, equal bit for bit",
        None,
        taken.ratios,
        unit="x",
        images=len(views),
        ours_ms=[1000 * one / len(views) for one in taken.ours],
        imagehash_ms=[1000 * one / len(views) for one in taken.peer],
    )


def _cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _views(count: int) -> list[NDArray[np.uint8]]:
    corpus = Corpus(seed=4, count=10**5, size=_SIZE, modalities={"us": 1, "xray": 1})
    return [
        to_uint8(open_image(corpus.render(index).files[0].data).pixels()) for index in range(count)
    ]
