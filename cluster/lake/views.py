"""The views of the lake, most of them one row an image: SQL, and what the columns mean."""

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa

from cluster.lake.image_views import IMAGE_VIEWS
from cluster.lake.view import View, column_of, new_column
from schemas.tables import TABLES

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
        *(column_of("annotations", name) for name in ("image_id", "source")),
        new_column(
            "boxes", pa.int64(), "boxes of the image; 0 where it was looked at and has none"
        ),
        *(column_of("annotations", name) for name in ("made_from", "run_id")),
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
# classes, the other one. A detector's scores are those of its best box of each class, 0 without
# one, and its operating point is a confidence that no class has for itself: below it, as without a
# box, nothing was found.
_LATEST_PREDICTIONS = """
WITH bundles AS (
    SELECT model_id, name, version, family, classes,
        operating_point ->> '$.positive' AS positive,
        CAST(operating_point ->> '$.threshold' AS DOUBLE) AS threshold,
        CAST(metrics ->> '$.threshold' AS DOUBLE) AS confidence,
        list_position(classes, operating_point ->> '$.positive') AS place
    FROM current_models
    QUALIFY row_number() OVER (PARTITION BY model_id, name ORDER BY version DESC) = 1
),
latest AS (
    SELECT predictions.*, name, version, family, classes, positive, threshold, confidence, place
    FROM predictions JOIN bundles USING (model_id)
    QUALIFY row_number() OVER (
        PARTITION BY image_id, name ORDER BY version DESC, predictions.run_id DESC) = 1
)
SELECT
    image_id, name, version, model_id, family, classes, scores, score,
    CASE
        WHEN coalesce(len(classes), 0) = 0 OR list_max(scores) = 0 THEN NULL
        WHEN list_max(scores) < confidence THEN NULL
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
        column_of("predictions", "image_id"),
        *(column_of("models", name) for name in ("name", "version")),
        column_of("predictions", "model_id"),
        *(column_of("models", name) for name in ("family", "classes")),
        *(column_of("predictions", name) for name in ("scores", "score")),
        new_column(
            "label",
            pa.string(),
            "the class at the bundle's operating point as it is now; of a detector the class of its"
            " most confident box, null where no box reaches that point",
        ),
        *(column_of("predictions", name) for name in ("backend", "scored_at", "run_id")),
    ]
)

_ALL = (
    *IMAGE_VIEWS,
    View(
        "current_annotations",
        "a box as its source has it now",
        ("annotations",),
        f"SELECT * FROM ({_NEWEST_ANNOTATIONS}) WHERE x IS NOT NULL",
        TABLES["annotations"].schema,
    ),
    View(
        "annotated_images",
        "an image that a source has looked at, with or without a box",
        ("annotations",),
        _ANNOTATED_IMAGES,
        _ANNOTATED_SCHEMA,
    ),
    View(
        "current_profiles",
        "one figure of a distribution by the newest run of its profile",
        ("profiles",),
        f"SELECT profiles.* FROM profiles JOIN ({_NEWEST_PROFILES}) USING ({_OF_PROFILE})",
        TABLES["profiles"].schema,
    ),
    View(
        "current_suspects",
        "an image whose record looks wrong by the newest run of a profile",
        ("profiles", "suspects"),
        f"SELECT suspects.* FROM suspects JOIN ({_NEWEST_PROFILES}) USING ({_OF_PROFILE})",
        TABLES["suspects"].schema,
    ),
    View(
        "current_models",
        "a model bundle as it is marked now",
        ("models",),
        _CURRENT_MODELS,
        TABLES["models"].schema,
    ),
    View(
        "latest_predictions",
        "an image's score by the newest version of a bundle that scored it",
        ("predictions", "current_models"),
        _LATEST_PREDICTIONS,
        _PREDICTIONS_SCHEMA,
    ),
)

VIEWS: Mapping[str, View] = MappingProxyType({one.name: one for one in _ALL})
"""All views of a lake by name; a view stands after those it reads."""
