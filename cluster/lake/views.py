"""The views of the lake, most of them one row an image: SQL, and what the columns mean.

To find the latest row of a million, an aggregate would hold every column of every row in memory.
Nearly all rows have no rival, though. So one narrow pass hashes the keys and keeps the hashes
that occur twice (`View.prepare`); rows whose hash is not among them stream through, and only the
others are ranked, by their full keys. A collision of hashes costs a little time and changes no
result. The hashes are a table and not a CTE: under a materialized CTE DuckDB 2.0 reads every
column for a mere `count(*)`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pyarrow as pa

from schemas.tables import TABLES


@dataclass(frozen=True)
class View:
    """One view of the lake."""

    name: str
    row: str
    """What one row is."""
    needs: tuple[str, ...]
    """The tables and views it reads."""
    prepare: str
    """SQL that makes the table `_repeated_NAME`, run once before a query; empty for none."""
    sql: str
    schema: pa.Schema
    """Its columns; units and descriptions stand in the metadata of the fields."""


def _field(table: str, column: str, *, name: str = "", meaning: str = "") -> pa.Field:
    """A table's column as a view shows it."""
    field = TABLES[table].schema.field(column)
    if meaning:
        field = field.with_metadata({**(field.metadata or {}), b"description": meaning.encode()})
    return field.with_name(name or column)


def _new(name: str, kind: pa.DataType, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": meaning})


_FACTS = (
    *("frame", "etag", "bytes", "format", "modality", "width", "height", "bits", "channels"),
    *("age", "sex", "site", "view", "study_date"),
)
"""Columns that equal bytes share, or whose first known value stands for all uris."""

_CURRENT_SCHEMA = pa.schema(
    [
        _field("images", "image_id"),
        _field("images", "dataset"),
        _field("images", "uri", meaning="where the file lies; the first by name of several"),
        _new("uris", pa.list_(pa.string()), "every uri with these bytes, sorted"),
        *(_field("images", name) for name in _FACTS),
        _field("images", "patient_id", meaning="keyed pseudonym of the patient; the first known"),
        _new("patient_ids", pa.list_(pa.string()), "every patient these bytes are filed under"),
        _field("images", "label", meaning="the data set's own label; null if the uris disagree"),
        _new("labels", pa.list_(pa.string()), "every label these bytes have, sorted"),
        _new("label_conflict", pa.string(), "the labels that contradict each other, by comma"),
        _field("images", "split", meaning="the part in the data set's own split; the first known"),
        _new("splits", pa.list_(pa.string()), "every part these bytes are in, sorted"),
        _field("images", "seen_at", meaning="when ingest last saw one of the files change"),
        _field("images", "run_id", meaning="the run that last wrote about one of the files"),
    ]
)

_PLACE = "hash(dataset, uri, frame)"
_CONTENT = "hash(dataset, image_id)"

_REPEATED_IMAGES = f"""
SELECT coalesce(place, content) AS hash
FROM (SELECT {_PLACE} AS place, {_CONTENT} AS content FROM images)
GROUP BY GROUPING SETS ((place), (content)) HAVING count(*) > 1
"""
_IS_RIVAL = f"""(
    {_PLACE} IN (SELECT hash FROM _repeated_current_images)
    OR {_CONTENT} IN (SELECT hash FROM _repeated_current_images))"""

_CURRENT_IMAGES = f"""
WITH rivals AS (SELECT * FROM images WHERE {_IS_RIVAL}),
latest AS (
    SELECT * FROM rivals
    QUALIFY row_number() OVER (
        PARTITION BY dataset, uri, frame ORDER BY seen_at DESC, run_id DESC) = 1
)
SELECT
    image_id, dataset, uri, [uri] AS uris, {", ".join(f'"{name}"' for name in _FACTS)},
    patient_id, CASE WHEN patient_id IS NULL THEN [] ELSE [patient_id] END AS patient_ids,
    label, CASE WHEN label IS NULL THEN [] ELSE [label] END AS labels,
    CAST(NULL AS VARCHAR) AS label_conflict,
    split, CASE WHEN split IS NULL THEN [] ELSE [split] END AS splits,
    seen_at, run_id
FROM images
WHERE state = 'present' AND NOT {_IS_RIVAL}
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
FROM latest WHERE state = 'present'
GROUP BY dataset, image_id
"""

_FINDINGS = (
    *("recipe", "phash", "sharpness", "brightness", "colour_share"),
    *("bar_colour", "bar_share"),
)

_REPEATED_QUALITY = """
SELECT hash(image_id) AS hash FROM quality GROUP BY ALL HAVING count(*) > 1
"""

_KEPT_IMAGES = f"""
WITH latest AS (
    SELECT * FROM quality
    WHERE hash(image_id) NOT IN (SELECT hash FROM _repeated_kept_images)
    UNION ALL
    (SELECT * FROM quality WHERE hash(image_id) IN (SELECT hash FROM _repeated_kept_images)
     QUALIFY row_number() OVER (PARTITION BY dataset, image_id ORDER BY run_id DESC) = 1)
)
SELECT current_images.*, {", ".join(f"latest.{name}" for name in _FINDINGS)},
    latest.run_id AS quality_run_id
FROM current_images JOIN latest USING (dataset, image_id)
WHERE latest.kept
"""

_KEPT_SCHEMA = pa.schema(
    [
        *_CURRENT_SCHEMA,
        *(_field("quality", name) for name in _FINDINGS),
        _field("quality", "run_id", name="quality_run_id", meaning="the run that kept the image"),
    ]
)

# An image is annotated whole: the newest run of a source that wrote about it replaces what earlier
# ones wrote. So the latest run of each image is found in one narrow pass.
_NEWEST_ANNOTATIONS = """
SELECT annotations.* FROM annotations JOIN (
    SELECT image_id, source, max(run_id) AS run_id FROM annotations GROUP BY image_id, source
) USING (image_id, source, run_id)
"""

_ANNOTATED_IMAGES = f"""
SELECT image_id, source, count(x) AS boxes, any_value(made_from) AS made_from, run_id
FROM ({_NEWEST_ANNOTATIONS}) WHERE x IS NOT NULL OR made_from IS NOT NULL
GROUP BY image_id, source, run_id
"""

_ANNOTATED_SCHEMA = pa.schema(
    [
        *(_field("annotations", name) for name in ("image_id", "source")),
        _new("boxes", pa.int64(), "boxes of the image; 0 where it was looked at and has none"),
        *(_field("annotations", name) for name in ("made_from", "run_id")),
    ]
)

# A profile that finds nothing suspicious any more writes no suspects, but it does write figures.
_NEWEST_PROFILES = """
SELECT dataset, profile, max(run_id) AS run_id FROM profiles GROUP BY dataset, profile
"""
_OF_PROFILE = "dataset, profile, run_id"

# Marking a bundle adds a row, so a version may have several.
_CURRENT_MODELS = """
SELECT * FROM models
QUALIFY row_number() OVER (PARTITION BY name, version ORDER BY run_id DESC) = 1
"""

# A bundle's operating point is that of the highest version that has its model_id. Where the
# point's class does not reach the threshold, the best of the other classes is the label: for two
# classes, the other one.
_LATEST_PREDICTIONS = """
WITH bundles AS (
    SELECT model_id, name, version, family, classes,
        operating_point ->> '$.positive' AS positive,
        CAST(operating_point ->> '$.threshold' AS DOUBLE) AS threshold,
        list_position(classes, operating_point ->> '$.positive') AS place
    FROM current_models
    QUALIFY row_number() OVER (PARTITION BY model_id, name ORDER BY version DESC) = 1
),
latest AS (
    SELECT predictions.*, name, version, family, classes, positive, threshold, place
    FROM predictions JOIN bundles USING (model_id)
    QUALIFY row_number() OVER (
        PARTITION BY image_id, name ORDER BY version DESC, predictions.run_id DESC) = 1
)
SELECT
    image_id, name, version, model_id, family, classes, scores, score,
    CASE
        WHEN coalesce(len(classes), 0) = 0 THEN NULL
        WHEN place IS NULL OR threshold IS NULL
            THEN classes[list_position(scores, list_max(scores))]
        WHEN scores[place] >= threshold THEN positive
        ELSE list_concat(classes[:place - 1], classes[place + 1:])[list_position(
            list_concat(scores[:place - 1], scores[place + 1:]),
            list_max(list_concat(scores[:place - 1], scores[place + 1:])))]
    END AS label,
    backend, scored_at, run_id
FROM latest
"""

_PREDICTIONS_SCHEMA = pa.schema(
    [
        _field("predictions", "image_id"),
        *(_field("models", name) for name in ("name", "version")),
        _field("predictions", "model_id"),
        *(_field("models", name) for name in ("family", "classes")),
        *(_field("predictions", name) for name in ("scores", "score")),
        _new("label", pa.string(), "the class at the bundle's operating point as it is now"),
        *(_field("predictions", name) for name in ("backend", "scored_at", "run_id")),
    ]
)

_ALL = (
    View(
        "current_images",
        "an image of a data set as its archive stands now",
        ("images",),
        _REPEATED_IMAGES,
        _CURRENT_IMAGES,
        _CURRENT_SCHEMA,
    ),
    View(
        "kept_images",
        "a current image that the latest cleaning kept",
        ("current_images", "quality"),
        _REPEATED_QUALITY,
        _KEPT_IMAGES,
        _KEPT_SCHEMA,
    ),
    View(
        "current_annotations",
        "a box as its source has it now",
        ("annotations",),
        "",
        f"SELECT * FROM ({_NEWEST_ANNOTATIONS}) WHERE x IS NOT NULL",
        TABLES["annotations"].schema,
    ),
    View(
        "annotated_images",
        "an image that a source has looked at, with or without a box",
        ("annotations",),
        "",
        _ANNOTATED_IMAGES,
        _ANNOTATED_SCHEMA,
    ),
    View(
        "current_profiles",
        "one figure of a distribution by the newest run of its profile",
        ("profiles",),
        "",
        f"SELECT profiles.* FROM profiles JOIN ({_NEWEST_PROFILES}) USING ({_OF_PROFILE})",
        TABLES["profiles"].schema,
    ),
    View(
        "current_suspects",
        "an image whose record looks wrong by the newest run of a profile",
        ("profiles", "suspects"),
        "",
        f"SELECT suspects.* FROM suspects JOIN ({_NEWEST_PROFILES}) USING ({_OF_PROFILE})",
        TABLES["suspects"].schema,
    ),
    View(
        "current_models",
        "a model bundle as it is marked now",
        ("models",),
        "",
        _CURRENT_MODELS,
        TABLES["models"].schema,
    ),
    View(
        "latest_predictions",
        "an image's score by the newest version of a bundle that scored it",
        ("predictions", "current_models"),
        "",
        _LATEST_PREDICTIONS,
        _PREDICTIONS_SCHEMA,
    ),
)

VIEWS: Mapping[str, View] = MappingProxyType({one.name: one for one in _ALL})
"""All views of a lake by name; a view stands after those it reads."""
