"""What a pre-training sees: the images of a split, with labels where there are any."""

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from jobs.corpora import Placed, read_placed
from schemas.errors import SplitError
from schemas.protocols import Store
from schemas.specs.pretrain import PretrainSpec


@dataclass(frozen=True)
class Corpus:
    """The images a pre-training takes, and what was found about them."""

    rows: pa.Table
    """Columns ``image_id, uri, frame, etag, bytes, part, label, group``; parts train and val. The
    label is null where there is none, or where there are several that contradict each other."""
    classes: tuple[str, ...]
    """Of the probe: the labels of the training part, sorted; none where parts train and val have no
    label in common."""
    placed: Placed

    def counts(self) -> dict[str, dict[str, int]]:
        """By part: ``images``, and those that serve the probe."""
        found = {}
        for part in ("train", "val"):
            rows = self.rows.filter(pc.equal(self.rows["part"], part))
            labelled = pc.is_in(rows["label"], value_set=pa.array(self.classes, pa.string()))
            found[part] = {"images": rows.num_rows, "of the probe": pc.sum(labelled).as_py() or 0}
        return found


def read_corpus(spec: PretrainSpec, store: Store) -> Corpus:
    """Read the images of parts train and val, of the spec's sites alone if it names some.

    Leaks are looked for among the images of all sites and parts: what is learned without labels
    leaks as well, where a patient's other images are tested on.

    Raises:
        LeakError: if a patient or group of duplicates stands in two parts, unless the spec
            allows it.
        SplitError: if train or val has no image, or none of a site, or the split has no such fold.
    """
    rows, placed = read_placed(spec, store, "images.label")
    if spec.images == "labelled":
        rows = rows.filter(pc.is_valid(rows["label"]))
    images = Counter(rows["part"].to_pylist())
    missing = [part for part in ("train", "val") if not images[part]]
    if missing:
        raise SplitError(
            "Pre-training needs images to learn from and images to watch",
            where=f"data set {spec.dataset}, split {spec.split}",
            got=f"no image in {' and '.join(missing)}",
            remedy="check the names of the data set and the split, or split with larger shares",
        )
    classes = _classes(rows) if spec.probe is not None else ()
    return Corpus(rows, classes, placed)


def _classes(rows: pa.Table) -> tuple[str, ...]:
    known: dict[str, set[str]] = {"train": set(), "val": set()}
    for part, label in zip(rows["part"].to_pylist(), rows["label"].to_pylist(), strict=True):
        if label is not None:
            known[part].add(label)
    return tuple(sorted(known["train"])) if known["train"] & known["val"] else ()
