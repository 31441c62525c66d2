"""The views of images and of what cleaning said of them: one row each.

To find the latest row of a million, an aggregate would hold every column of every row in memory.
Nearly all rows have no rival, though. So one narrow pass hashes the keys (`View.hashes`), and the
images whose hashes occur twice are named (`View.rivals`); the rows of all others stream through,
and only theirs are ranked, by their full keys. A collision of hashes costs a little time and
changes no result. Rivals are named by image_id, because of rows that a plain column rules out a
reader of Parquet skips the other columns, and of those that an expression rules out it does not.
They are a table and not a CTE: under a materialized CTE DuckDB 2.0 reads every column for a mere
`count(*)`.
"""

import pyarrow as pa

from cluster.lake.view import View, column_of, new_column
from schemas.tables import TABLES

_FACTS = (
    *("frame", "etag", "bytes", "format", "modality", "width", "height", "bits", "channels"),
    *("age", "sex", "site", "view", "study_date"),
)
"""Columns that equal bytes share, or whose first known value stands for all uris."""

_CURRENT_SCHEMA = pa.schema(
    [
        column_of("images", "image_id"),
        column_of("images", "dataset"),
        column_of("images", "uri", meaning="where the file lies; the first by name of several"),
        new_column("uris", pa.list_(pa.string()), "every uri with these bytes, sorted"),
        *(column_of("images", name) for name in _FACTS),
        column_of(
            "images", "patient_id", meaning="keyed pseudonym of the patient; the first known"
        ),
        new_column(
            "patient_ids", pa.list_(pa.string()), "every patient these bytes are filed under"
        ),
        column_of("images", "label", meaning="the data set's own label; null if the uris disagree"),
        new_column("labels", pa.list_(pa.string()), "every label these bytes have, sorted"),
        new_column(
            "label_conflict", pa.string(), "the labels that contradict each other, by comma"
        ),
        column_of(
            "images", "split", meaning="the part in the data set's own split; the first known"
        ),
        new_column("splits", pa.list_(pa.string()), "every part these bytes are in, sorted"),
        column_of("images", "seen_at", meaning="when ingest last saw one of the files change"),
        column_of("images", "run_id", meaning="the run that last wrote about one of the files"),
    ]
)

_PLACE = "hash(dataset, uri, frame)"
_CONTENT = "hash(dataset, image_id)"

_HASHES_OF_IMAGES = f"SELECT {_PLACE} AS place, {_CONTENT} AS content FROM images"
_RIVAL_IMAGES = f"""
SELECT DISTINCT image_id FROM images
WHERE image_id IS NOT NULL
    AND ({_PLACE} IN (SELECT hash FROM _twice) OR {_CONTENT} IN (SELECT hash FROM _twice))
"""

_RANKED_FILES = """
SELECT * FROM images WHERE image_id IN (SELECT image_id FROM _rivals_current_files)
QUALIFY row_number() OVER (PARTITION BY dataset, uri, frame ORDER BY seen_at DESC, run_id DESC) = 1
"""

_CURRENT_FILES = f"""
SELECT * FROM images WHERE image_id NOT IN (SELECT image_id FROM _rivals_current_files)
UNION ALL ({_RANKED_FILES})
"""

_CURRENT_IMAGES = f"""
SELECT
    image_id, dataset, uri, [uri] AS uris, {", ".join(f'"{name}"' for name in _FACTS)},
    patient_id, CASE WHEN patient_id IS NULL THEN [] ELSE [patient_id] END AS patient_ids,
    label, CASE WHEN label IS NULL THEN [] ELSE [label] END AS labels,
    CAST(NULL AS VARCHAR) AS label_conflict,
    split, CASE WHEN split IS NULL THEN [] ELSE [split] END AS splits,
    seen_at, run_id
FROM images
WHERE state = 'present' AND image_id NOT IN (SELECT image_id FROM _rivals_current_files)
UNION ALL
SELECT
    image_id, dataset, min(uri), list_sort(list_distinct(list(uri))),
    {", ".join(f'arg_min("{name}", uri)' for name in _FACTS)},
    arg_min(patient_id, uri), list_sort(list_distinct(list(patient_id))),
    CASE WHEN min(label) = max(label) THEN min(label) END,
    list_sort(list_distinct(list(label))),
    CASE WHEN min(label) <> max(label)
        THEN array_to_string(list_sort(list_distinct(list(label))), ', ') END,
    arg_min(split, uri), list_sort(list_distinct(list(split))),
    max(seen_at), max(run_id)
FROM ({_RANKED_FILES}) WHERE state = 'present'
GROUP BY dataset, image_id
"""

_FINDINGS = (
    *("recipe", "phash", "sharpness", "brightness", "colour_share"),
    *("bar_colour", "bar_share"),
)

_HASHES_OF_QUALITY = "SELECT hash(image_id) AS content FROM quality"
_RIVAL_VERDICTS = """
SELECT DISTINCT image_id FROM quality
WHERE image_id IS NOT NULL AND hash(image_id) IN (SELECT hash FROM _twice)
"""

_CURRENT_QUALITY = """
SELECT * FROM quality WHERE image_id NOT IN (SELECT image_id FROM _rivals_current_quality)
UNION ALL
(SELECT * FROM quality WHERE image_id IN (SELECT image_id FROM _rivals_current_quality)
 QUALIFY row_number() OVER (PARTITION BY dataset, image_id ORDER BY run_id DESC) = 1)
"""

_KEPT_IMAGES = f"""
SELECT current_images.*, {", ".join(f"current_quality.{name}" for name in _FINDINGS)},
    current_quality.run_id AS quality_run_id
FROM current_images JOIN current_quality USING (dataset, image_id)
WHERE current_quality.kept
"""

_KEPT_SCHEMA = pa.schema(
    [
        *_CURRENT_SCHEMA,
        *(column_of("quality", name) for name in _FINDINGS),
        column_of(
            "quality", "run_id", name="quality_run_id", meaning="the run that kept the image"
        ),
    ]
)

IMAGE_VIEWS = (
    View(
        "current_files",
        "a file of an archive, or a frame of one, as ingest last saw it, gone or present",
        ("images",),
        _CURRENT_FILES,
        TABLES["images"].schema,
        _HASHES_OF_IMAGES,
        _RIVAL_IMAGES,
    ),
    View(
        "current_images",
        "an image of a data set as its archive stands now",
        ("images", "current_files"),
        _CURRENT_IMAGES,
        _CURRENT_SCHEMA,
    ),
    View(
        "current_quality",
        "what the latest cleaning found about an image of a data set",
        ("quality",),
        _CURRENT_QUALITY,
        TABLES["quality"].schema,
        _HASHES_OF_QUALITY,
        _RIVAL_VERDICTS,
    ),
    View(
        "kept_images",
        "a current image that the latest cleaning kept",
        ("current_images", "current_quality"),
        _KEPT_IMAGES,
        _KEPT_SCHEMA,
    ),
)
"""A view stands after those it reads."""
