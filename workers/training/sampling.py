"""Against unequal classes: weights of classes, or a draw in which they come equally often."""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def class_weights(targets_N: Indices, classes: int) -> NDArray[np.float64]:
    """Inverse frequencies, N / (K x images of the class); they weigh all images as N together."""
    counts_K = np.bincount(targets_N, minlength=classes)
    return len(targets_N) / (classes * np.maximum(counts_K, 1))


def balanced_order(targets_N: Indices, count: int, epoch: int, rank: int, seed: int) -> Indices:
    """Draw ``count`` positions so that every class there is comes equally often, in random order.

    Counts of classes differ by one at most; which classes get the odd image is drawn too. Of a
    class with enough images none comes twice; the images of a rarer one all come equally often,
    but for one. The draw is the same whenever this epoch is run.
    """
    generator = np.random.default_rng((seed, 2, epoch, rank))
    present = generator.permutation(np.unique(targets_N))
    drawn: list[Indices] = []
    for place, target in enumerate(present.tolist()):
        wanted = count // len(present) + (place < count % len(present))
        positions = np.flatnonzero(targets_N == target).astype(np.int64)
        rounds = -(-wanted // len(positions))
        turns = [generator.permutation(positions) for _ in range(rounds)]
        drawn.append(np.concatenate([*turns, positions[:0]])[:wanted])
    return generator.permutation(np.concatenate(drawn))
