"""Groups into parts by share, evenly over labels, and the same again when images are added."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Images that stay together."""

    name: str
    labels: Mapping[str, int]
    """Images by label."""
    place: str | None = None
    """Where an earlier split put it."""

    @property
    def size(self) -> int:
        return sum(self.labels.values())


def assign(groups: Sequence[Group], shares: Mapping[str, float], seed: int) -> dict[str, str]:
    """Return the place of each group by name.

    Groups with a place keep it. The others, larger ones first and equal ones in an order drawn
    from `seed` and their names, go where they leave the largest share of the labels' targets
    unfilled. So a group's place depends on no order of input, and later images fill what is
    short. Places whose share is 0 get nothing new.
    """
    total: dict[str, int] = {}
    for one in groups:
        for label, count in one.labels.items():
            total[label] = total.get(label, 0) + count
    target = {
        (place, label): share * count
        for place, share in shares.items()
        if share > 0
        for label, count in total.items()
    }
    filled = dict.fromkeys(target, 0)
    places: dict[str, str] = {}

    def put(one: Group, place: str) -> None:
        places[one.name] = place
        for label, count in one.labels.items():
            if (place, label) in filled:
                filled[place, label] += count

    for one in groups:
        if one.place is not None:
            put(one, one.place)
    todo = [one for one in groups if one.place is None]
    open_places = [place for place, share in shares.items() if share > 0]
    for one in sorted(todo, key=lambda new: (-new.size, _draw(seed, new.name))):
        put(one, max(open_places, key=lambda place: _room(one, place, target, filled)))
    return places


def _room(
    one: Group,
    place: str,
    target: Mapping[tuple[str, str], float],
    filled: Mapping[tuple[str, str], int],
) -> float:
    """Say how short of its targets a place would still be with this group in it."""
    return sum(
        count * (1 - (filled[place, label] + count) / target[place, label])
        for label, count in one.labels.items()
    )


def _draw(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
