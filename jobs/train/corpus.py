"""What a training sees: its rows, its classes, and whether the split leaks."""

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from jobs.rows import GROUP, LATEST_SPLITS, ROLE, count_folds
from schemas.errors import LeakError, SplitError, UsageError
from schemas.protocols import Store
from schemas.specs.train import TrainSpec

_ROLES = f"SELECT image_id, group_id, {ROLE} AS part FROM ({LATEST_SPLITS})"

_NEWEST_RUN = (
    "SELECT max(run_id) AS run_id FROM splits WHERE split_name = $split AND dataset = $dataset"
)

_ROWS = f"""
WITH places AS ({_ROLES})
SELECT places.image_id, images.uri, images.frame, images.etag, images.bytes, places.part,
    images.label, images.label_conflict IS NOT NULL AS contradicted, {GROUP} AS "group"
FROM places JOIN current_images AS images ON images.image_id = places.image_id
WHERE images.dataset = $dataset AND places.part IN ('train', 'val')
    AND (len(CAST($sites AS VARCHAR[])) = 0 OR list_contains($sites, images.site))
ORDER BY places.image_id
"""

_SITES = f"""
WITH places AS ({_ROLES})
SELECT images.site, count(*) AS images
FROM places JOIN current_images AS images ON images.image_id = places.image_id
WHERE images.dataset = $dataset AND places.part IN ('train', 'val')
GROUP BY images.site ORDER BY images.site NULLS LAST
"""

_LEAKS = f"""
WITH places AS ({_ROLES}),
members AS (
    SELECT places.part, places.image_id, places.group_id, images.patient_ids
    FROM places JOIN current_images AS images ON images.image_id = places.image_id
    WHERE images.dataset = $dataset AND places.part IN ('train', 'val', 'test')
)
SELECT
    (SELECT count(*) FROM (
        SELECT patient FROM (SELECT unnest(patient_ids) AS patient, part FROM members)
        GROUP BY patient HAVING count(DISTINCT part) > 1)) AS patients,
    (SELECT count(*) FROM (
        SELECT image_id FROM members GROUP BY image_id HAVING count(DISTINCT part) > 1)) AS images,
    (SELECT count(*) FROM (
        SELECT group_id FROM members WHERE group_id IS NOT NULL
        GROUP BY group_id HAVING count(DISTINCT part) > 1)) AS duplicate_groups
"""


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
    leaks: dict[str, int]
    """Patients, images and groups of duplicates that stand in more than one part."""
    folds: dict[str, int]
    """The ``fold`` held out and the ``inner_fold`` validated on; empty where parts are taken."""
    split_run: str | None
    """The newest run that gave places in the split: splitting again may move images."""

    def label_counts(self) -> dict[str, dict[str, int]]:
        """Images by part and label."""
        parts, labels = self.rows["part"].to_pylist(), self.rows["label"].to_pylist()
        counts = Counter(zip(parts, labels, strict=True))
        return {
            part: {name: counts[part, name] for name in self.classes} for part in ("train", "val")
        }


def read_corpus(spec: TrainSpec, store: Store) -> Corpus:
    """Read the labelled images of parts train and val, of the spec's sites alone if it names some.

    An image that lies under several uris has the site of the first uri that has one. Leaks are
    looked for among the images of all sites.

    Raises:
        LeakError: if a patient, image or group of duplicates stands in two parts, unless the spec
            allows it.
        SplitError: if the split has no images, or none of a site, or a class has none in train or
            val, or the split has no such fold.
        UsageError: if the spec's classes don't fit each other.
    """
    folds = _folds(spec, store)
    wanted = {
        "split": spec.split,
        "dataset": spec.dataset,
        "fold": folds.get("fold"),
        "inner_fold": folds.get("inner_fold"),
    }
    _check_sites(spec, store, wanted)
    found = store.query(_ROWS, {**wanted, "sites": list(spec.sites)})
    leaks = _leaks(spec, store, wanted)
    classes = _classes(spec, found)
    known = pc.is_in(found["label"], value_set=pa.array(classes, pa.string()))
    rows = found.filter(known).drop_columns(["contradicted"])
    contradicting = int(pc.sum(found["contradicted"]).as_py() or 0)
    unlabelled = found.num_rows - rows.num_rows - contradicting
    newest = store.query(_NEWEST_RUN, {"split": spec.split, "dataset": spec.dataset})
    corpus = Corpus(
        rows, classes, contradicting, unlabelled, leaks, folds, newest["run_id"][0].as_py()
    )
    _check_parts(spec, corpus)
    return corpus


def _folds(spec: TrainSpec, store: Store) -> dict[str, int]:
    if spec.fold is None:
        return {}
    asked = max(spec.fold, spec.inner_fold or 0)
    count = count_folds(store, spec.dataset, spec.split, asked)
    if count < 3:
        raise SplitError(
            "Holding out a fold takes three: one held out, one to validate on, one to train on",
            where=f"data set {spec.dataset}, split {spec.split}",
            got=f"{count} folds",
            remedy="split with `folds: 3` or more",
        )
    inner = (spec.fold + 1) % count if spec.inner_fold is None else spec.inner_fold
    return {"fold": spec.fold, "inner_fold": inner}


def _check_sites(spec: TrainSpec, store: Store, wanted: dict[str, str | int | None]) -> None:
    """Refuse a site without images: it would go unnoticed beside others."""
    if not spec.sites:
        return
    counts = {row["site"]: row["images"] for row in store.query(_SITES, wanted).to_pylist()}
    missing = [site for site in spec.sites if site not in counts]
    if missing:
        known = [f"{site or 'without a site'}: {count} images" for site, count in counts.items()]
        raise SplitError(
            "Parts train and val have no image of a site",
            where=f"data set {spec.dataset}, split {spec.split}, train.sites",
            got=", ".join(missing),
            remedy=f"sites there: {', '.join(known) or 'none, the split has no image'}",
        )


def _leaks(spec: TrainSpec, store: Store, wanted: dict[str, str | int | None]) -> dict[str, int]:
    leaks: dict[str, int]
    (leaks,) = store.query(_LEAKS, wanted).to_pylist()
    if any(leaks.values()) and not spec.allow_leaks:
        counted = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in leaks.items())
        raise LeakError(
            "The split has the same patients, images or near-duplicates in more than one part",
            where=spec.split,
            got=counted,
            remedy="split anew with `kind: split`, or set `allow_leaks: true` to train anyway",
        )
    return leaks


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
