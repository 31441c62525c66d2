"""What a training sees: its rows, its classes, and whether the split leaks."""

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from jobs.corpora import Placed, read_placed
from schemas.errors import SplitError, UsageError
from schemas.protocols import Store
from schemas.specs.train import TrainSpec

_COLUMNS = "images.label, images.label_conflict IS NOT NULL AS contradicted"


@dataclass(frozen=True)
class Corpus:
    """The images a training takes, and what was found about them."""

    rows: pa.Table
    """Columns ``image_id, uri, frame, etag, bytes, part, label, group``; parts train and val."""
    classes: tuple[str, ...]
    contradicting: int
    """Images left out because their labels contradict each other."""
    unlabelled: int
    """Images left out because they have no label, or one that is none of the classes."""
    placed: Placed

    def label_counts(self) -> dict[str, dict[str, int]]:
        """Images by part and label."""
        parts, labels = self.rows["part"].to_pylist(), self.rows["label"].to_pylist()
        counts = Counter(zip(parts, labels, strict=True))
        return {
            part: {name: counts[part, name] for name in self.classes} for part in ("train", "val")
        }


def read_corpus(spec: TrainSpec, store: Store) -> Corpus:
    """Read the labelled images of parts train and val, of the spec's sites alone if it names some.

    Raises:
        LeakError: if a patient or group of duplicates stands in two parts, unless the spec
            allows it.
        SplitError: if the split has no images, or none of a site, or a class has none in train or
            val, or the split has no such fold.
        UsageError: if the spec's classes don't fit each other.
    """
    found, placed = read_placed(spec, store, _COLUMNS)
    classes = _classes(spec, found)
    known = pc.is_in(found["label"], value_set=pa.array(classes, pa.string()))
    rows = found.filter(known).drop_columns(["contradicted"])
    contradicting = int(pc.sum(found["contradicted"]).as_py() or 0)
    unlabelled = found.num_rows - rows.num_rows - contradicting
    corpus = Corpus(rows, classes, contradicting, unlabelled, placed)
    _check_parts(spec, corpus)
    return corpus


def _classes(spec: TrainSpec, found: pa.Table) -> tuple[str, ...]:
    train = found.filter(pc.equal(found["part"], "train"))
    every = tuple(sorted(pc.unique(train["label"].drop_null()).to_pylist()))
    classes = spec.classes or every
    if spec.positive is not None and (spec.positive not in classes or len(classes) > 2):
        raise UsageError(
            "The positive class must be one of two classes",
            where="train.positive",
            got=f"{spec.positive} of the classes {', '.join(classes)}",
            remedy="name one of two classes, or leave `positive` out",
        )
    return classes


def _check_parts(spec: TrainSpec, corpus: Corpus) -> None:
    classes = corpus.classes
    if len(classes) < 2:
        raise SplitError(
            "Training needs at least two classes in the training part",
            where=f"data set {spec.dataset}, split {spec.split}",
            got=", ".join(classes) or "no labelled image",
            remedy="check the names of the data set and the split, and the labels with "
            '`rayward query "SELECT label, count(*) FROM current_images GROUP BY 1"`',
        )
    counts = corpus.label_counts()
    missing = [f"{name} in {part}" for part in counts for name in classes if not counts[part][name]]
    if missing:
        raise SplitError(
            "Every class needs images in train and in val",
            where=f"data set {spec.dataset}, split {spec.split}",
            got=f"no {', no '.join(missing)}",
            remedy="split with larger shares, or name the classes to train on",
        )
