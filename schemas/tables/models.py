"""Tables of models: bundles, what they said of images, and how right they were."""

import pyarrow as pa

from schemas.tables.columns import (
    TIMESTAMP,
    TableSchema,
    box,
    column,
    image_id,
    model_id,
    recipe,
    table,
)

MODELS: tuple[TableSchema, ...] = (
    table(
        "models",
        "a model bundle",
        (
            model_id(),
            column("name", pa.string(), "the bundle's name"),
            column("version", pa.int32(), "the bundle's version, from 1"),
            column("family", pa.string(), "model family, e.g. classifier"),
            column("architecture", pa.string(), "architecture within the family"),
            recipe(),
            column("classes", pa.list_(pa.string()), "classes in the order of the scores"),
            column("operating_point", pa.string(), "JSON: class and threshold"),
            column("calibration", pa.string(), "JSON: how scores were calibrated"),
            column("nightly", pa.bool_(), "whether nights score with it"),
            column("metrics", pa.string(), "JSON: figures at training"),
            column("data", pa.string(), "JSON: what it was trained on"),
            column("fingerprint", pa.string(), "hash of what determined the training"),
            column("created_at", TIMESTAMP, "when it was made"),
        ),
        sort_by=("name", "version"),
    ),
    table(
        "predictions",
        "a scored image",
        (
            image_id(),
            model_id(),
            column("scores", pa.list_(pa.float32()), "probabilities in the bundle's class order"),
            column("score", pa.float32(), "the winning probability, or the anomaly score"),
            column("backend", pa.string(), "what computed it; within the bundle's tolerance"),
            column("scored_at", TIMESTAMP, "when the run that scored it began"),
        ),
        partition_by=("model_id",),
    ),
    table(
        "detections",
        "a detected box; an image with none still has its row in predictions",
        (
            image_id(),
            model_id(),
            column("category", pa.string(), "what was detected"),
            column("score", pa.float32(), "confidence", "0-1"),
            *box("box"),
        ),
        partition_by=("model_id",),
    ),
    table(
        "anomalies",
        "a scored patch",
        (
            image_id(),
            model_id(),
            column("x", pa.int32(), "left edge of the patch in the original image", "px"),
            column("y", pa.int32(), "top edge of the patch in the original image", "px"),
            column("size", pa.int32(), "side of the patch", "px"),
            column("sad", pa.float32(), "sum of absolute differences to the reconstruction"),
            column("score", pa.float32(), "anomaly score"),
        ),
        partition_by=("model_id",),
    ),
    table(
        "embeddings",
        "a feature vector",
        (
            image_id(),
            model_id(),
            # The length is the model's own, so the table can't fix it; a reader's fixed-size
            # list is made by the view that names one model.
            column("vector", pa.list_(pa.float32()), "features; equal length for one model"),
        ),
        partition_by=("model_id",),
    ),
    table(
        "explanations",
        "where in an image a model found the evidence of a class",
        (
            image_id(),
            model_id(),
            column("method", pa.string(), "gradcam or gradcam++"),
            column("target", pa.string(), "the class whose evidence is shown"),
            column("score", pa.float32(), "the model's probability of that class"),
            column("layer", pa.string(), "the network's module whose activations are weighted"),
            column("settings", pa.string(), "hash of method, layer asked for, opacity, region"),
            column("overlay", pa.string(), "path of the picture below the lake's root"),
            column("peak_x", pa.float32(), "the hottest place in the original image", "px"),
            column("peak_y", pa.float32(), "the hottest place in the original image", "px"),
            column("energy_inside", pa.float32(), "share of the image's heat in the region", "0-1"),
            column("pointing_hit", pa.bool_(), "whether the hottest place lies in the region"),
            column("region_share", pa.float32(), "share of the image in the region: chance", "0-1"),
            column("energy_padding", pa.float32(), "share of all heat outside the image", "0-1"),
            column("region_source", pa.string(), "folder of masks, or source of the annotations"),
        ),
        partition_by=("model_id",),
    ),
    table(
        "metrics",
        "one figure of one evaluation",
        (
            column("study", pa.string(), "the study or job that evaluated"),
            column("trial", pa.string(), "the trial within the study"),
            column("fold", pa.int32(), "the fold, where there are folds"),
            column("dataset", pa.string(), "the data set evaluated on"),
            column("part", pa.string(), "train, val or test"),
            column("subgroup", pa.string(), "e.g. sex=F; empty for all"),
            model_id(),
            column("metric", pa.string(), "e.g. auc, accuracy, confusion"),
            column("category", pa.string(), "class, or actual|predicted for confusion"),
            column("value", pa.float64(), "the figure"),
            column("ci_low", pa.float64(), "lower end of the 95 % interval"),
            column("ci_high", pa.float64(), "upper end of the 95 % interval"),
            column("n", pa.int64(), "images the figure rests on"),
        ),
        sort_by=("study", "part", "metric"),
    ),
)
"""From bundles to metrics."""
