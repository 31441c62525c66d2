"""The tables of the lake: every column, its type, its unit and its meaning."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import pyarrow as pa

FORMAT_VERSION = 2
"""The version written to `lake.json`; a lake of another version is refused."""

TIMESTAMP = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True)
class TableSchema:
    """One table of the lake."""

    name: str
    row: str
    """What one row is."""
    schema: pa.Schema
    partition_by: tuple[str, ...] = ()
    sort_by: tuple[str, ...] = ("image_id",)
    rows_per_group: int = 122_880
    """Rows of a Parquet row group: what a reader of a few rows has to read at least."""
    rows_per_file: int | None = None
    """Rows of a compacted file, about, where readers want a few hundred; otherwise size decides."""
    compression: str = "zstd"
    """Codec of the Parquet files."""


def _column(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    metadata = {"description": meaning} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, metadata=metadata)


def _image_id() -> pa.Field:
    return _column(
        "image_id", pa.string(), "128-bit content hash of the source bytes in hex, plus '.frame'"
    )


def _model_id() -> pa.Field:
    return _column(
        "model_id", pa.string(), "hash of weights, classes, preprocessing and calibration"
    )


def _run_id() -> pa.Field:
    return _column("run_id", pa.string(), "the run that wrote the row; begins with its UTC time")


def _recipe() -> pa.Field:
    return _column("recipe", pa.string(), "hash of the recipe")


def _box(of: str) -> tuple[pa.Field, ...]:
    return (
        _column("x", pa.float32(), f"left edge of the {of} in the original image", "px"),
        _column("y", pa.float32(), f"top edge of the {of} in the original image", "px"),
        _column("w", pa.float32(), f"width of the {of}", "px"),
        _column("h", pa.float32(), f"height of the {of}", "px"),
    )


def _table(
    name: str,
    row: str,
    columns: tuple[pa.Field, ...],
    *,
    partition_by: tuple[str, ...] = (),
    sort_by: tuple[str, ...] = ("image_id",),
) -> TableSchema:
    return TableSchema(name, row, pa.schema([*columns, _run_id()]), partition_by, sort_by)


_ALL = (
    _table(
        "images",
        "what ingest saw at a uri: an image, a frame of one, or that it is gone",
        (
            _image_id(),
            _column("dataset", pa.string(), "the data set's name"),
            _column("uri", pa.string(), "where the file lies; identifiers in it are masked"),
            _column("frame", pa.int32(), "frame number within the file, from 0"),
            _column("seen_at", TIMESTAMP, "when ingest saw the file in this state"),
            _column("bytes", pa.int64(), "size of the file", "B"),
            _column("etag", pa.string(), "the store's entity tag, or modification time and size"),
            _column("format", pa.string(), "file format found in the content"),
            _column("modality", pa.string(), "DICOM modality, e.g. US, CT, CR"),
            _column("width", pa.int32(), "width as shown upright", "px"),
            _column("height", pa.int32(), "height as shown upright", "px"),
            _column("bits", pa.int16(), "significant bits of a sample", "bit"),
            _column("channels", pa.int16(), "samples of a pixel: 1 or 3"),
            _column("patient_id", pa.string(), "keyed pseudonym of the patient"),
            _column("age", pa.float32(), "age at the study", "year"),
            _column("sex", pa.string(), "F, M or O"),
            _column("site", pa.string(), "where the image was taken"),
            _column("view", pa.string(), "view position or plane"),
            _column("label", pa.string(), "the data set's own label"),
            _column("split", pa.string(), "the part in the data set's own split"),
            _column("study_date", pa.date32(), "day of the study"),
            _column("state", pa.string(), "present or gone"),
        ),
        sort_by=("uri", "frame"),
    ),
    _table(
        "annotations",
        "a box or mask; one without a box says that an image was looked at and has none",
        (
            _image_id(),
            _column("source", pa.string(), "who annotated, with version"),
            _column("category", pa.string(), "what the box holds"),
            *_box("box"),
            _column("area", pa.float32(), "area of the mask or box", "px²"),
            _column("iscrowd", pa.bool_(), "COCO: a region to ignore when scoring"),
            _column(
                "made_from",
                pa.string(),
                "hash of the masks, rows and settings that all rows of the image come from; "
                "null in a row without a box: the annotation was withdrawn",
            ),
        ),
    ),
    _table(
        "quality",
        "what cleaning found about an image",
        (
            _image_id(),
            _column("dataset", pa.string(), "the data set it was judged within"),
            _recipe(),
            _column("phash", pa.string(), "64-bit perceptual hash in hex, equal to imagehash"),
            _column("duplicate_of", pa.string(), "image_id of the kept image this one repeats"),
            _column("sharpness", pa.float32(), "Laplacian variance by grey variance, at 256 px"),
            _column("brightness", pa.float32(), "mean grey value", "0-255"),
            _column("colour_share", pa.float32(), "share of coloured pixels", "0-1"),
            _column("bar_colour", pa.string(), "colour of a scale bar, if one was found"),
            _column("bar_share", pa.float32(), "share of pixels of the scale bar", "0-1"),
            _column("kept", pa.bool_(), "whether the image stays in"),
            _column("reason", pa.string(), "why it does not"),
        ),
    ),
    # Shards read one recipe and a few hundred rows of it; measured in docs/adr/0008.
    replace(
        _table(
            "prepared",
            "an image ready for a model",
            (
                _image_id(),
                _recipe(),
                _column("height", pa.int32(), "height of the prepared image", "px"),
                _column("width", pa.int32(), "width of the prepared image", "px"),
                _column(
                    "pixels",
                    pa.binary(),
                    "a byte that says the layout (1: grey, 2: grey shown in colour, 3: RGB), then "
                    "8-bit planes, row by row; one plane for 1 and 2, three for 3",
                ),
                _column("geometry", pa.string(), "JSON: the way back to the original's pixels"),
            ),
            partition_by=("recipe",),
        ),
        rows_per_group=64,
        compression="lz4",
        rows_per_file=512,
    ),
    _table(
        "splits",
        "an image's place in a split",
        (
            _column("split_name", pa.string(), "the split's name"),
            _column("dataset", pa.string(), "the data set that is split"),
            _image_id(),
            _column("group_id", pa.string(), "images that must stay together share it"),
            _column("fold", pa.int32(), "fold of a k-fold split, from 0"),
            _column("part", pa.string(), "train, val or test"),
        ),
    ),
    _table(
        "leaks",
        "an image of one part of a split that an earlier part has seen, and by what",
        (
            _column("split_name", pa.string(), "the audited split's name"),
            _column("dataset", pa.string(), "the data set that was split"),
            _column("source", pa.string(), "given: the data set's own split; made: this one"),
            _column("kind", pa.string(), "patient, image (equal bytes) or near_duplicate"),
            _column("first_part", pa.string(), "the part that has seen it"),
            _column("second_part", pa.string(), "the part the image stands in"),
            _image_id(),
            _column(
                "other_image_id",
                pa.string(),
                "an image of the first part: the nearest near-duplicate, or one of the patient",
            ),
            _column("patient_id", pa.string(), "the patient they share; keyed pseudonym"),
            _column("distance", pa.int32(), "Hamming distance of the two hashes", "bit"),
        ),
        sort_by=("split_name", "image_id"),
    ),
    _table(
        "rejects",
        "an input that did not become a result",
        (
            _column("uri", pa.string(), "where the file lies; identifiers in it are masked"),
            _column("image_id", pa.string(), "the image, where it is known"),
            _column("stage", pa.string(), "the kind of job that rejected it"),
            _column("subject", pa.string(), "the recipe or model_id it was rejected for"),
            _column("etag", pa.string(), "the file's entity tag at that time"),
            _column("reason", pa.string(), "one of the closed list of reasons"),
            _column("detail", pa.string(), "what exactly was found"),
        ),
        sort_by=("uri",),
    ),
    _table(
        "models",
        "a model bundle",
        (
            _model_id(),
            _column("name", pa.string(), "the bundle's name"),
            _column("version", pa.int32(), "the bundle's version, from 1"),
            _column("family", pa.string(), "model family, e.g. classifier"),
            _column("architecture", pa.string(), "architecture within the family"),
            _recipe(),
            _column("classes", pa.list_(pa.string()), "classes in the order of the scores"),
            _column("operating_point", pa.string(), "JSON: class and threshold"),
            _column("calibration", pa.string(), "JSON: how scores were calibrated"),
            _column("nightly", pa.bool_(), "whether nights score with it"),
            _column("metrics", pa.string(), "JSON: figures at training"),
            _column("data", pa.string(), "JSON: what it was trained on"),
            _column("fingerprint", pa.string(), "hash of what determined the training"),
            _column("created_at", TIMESTAMP, "when it was made"),
        ),
        sort_by=("name", "version"),
    ),
    _table(
        "predictions",
        "a scored image",
        (
            _image_id(),
            _model_id(),
            _column("scores", pa.list_(pa.float32()), "probabilities in the bundle's class order"),
            _column("score", pa.float32(), "the winning probability, or the anomaly score"),
            _column("backend", pa.string(), "what computed it; within the bundle's tolerance"),
            _column("scored_at", TIMESTAMP, "when the run that scored it began"),
        ),
        partition_by=("model_id",),
    ),
    _table(
        "detections",
        "a detected box; an image with none still has its row in predictions",
        (
            _image_id(),
            _model_id(),
            _column("category", pa.string(), "what was detected"),
            _column("score", pa.float32(), "confidence", "0-1"),
            *_box("box"),
        ),
        partition_by=("model_id",),
    ),
    _table(
        "anomalies",
        "a scored patch",
        (
            _image_id(),
            _model_id(),
            _column("x", pa.int32(), "left edge of the patch in the original image", "px"),
            _column("y", pa.int32(), "top edge of the patch in the original image", "px"),
            _column("size", pa.int32(), "side of the patch", "px"),
            _column("sad", pa.float32(), "sum of absolute differences to the reconstruction"),
            _column("score", pa.float32(), "anomaly score"),
        ),
        partition_by=("model_id",),
    ),
    _table(
        "embeddings",
        "a feature vector",
        (
            _image_id(),
            _model_id(),
            # The length is the model's own, so the table can't fix it; a reader's fixed-size
            # list is made by the view that names one model.
            _column("vector", pa.list_(pa.float32()), "features; equal length for one model"),
        ),
        partition_by=("model_id",),
    ),
    _table(
        "explanations",
        "where in an image a model found the evidence of a class",
        (
            _image_id(),
            _model_id(),
            _column("method", pa.string(), "gradcam or gradcam++"),
            _column("target", pa.string(), "the class whose evidence is shown"),
            _column("score", pa.float32(), "the model's probability of that class"),
            _column("layer", pa.string(), "the network's module whose activations are weighted"),
            _column("settings", pa.string(), "hash of method, layer asked for, opacity, region"),
            _column("overlay", pa.string(), "path of the picture below the lake's root"),
            _column("peak_x", pa.float32(), "the hottest place in the original image", "px"),
            _column("peak_y", pa.float32(), "the hottest place in the original image", "px"),
            _column(
                "energy_inside", pa.float32(), "share of the image's heat in the region", "0-1"
            ),
            _column("pointing_hit", pa.bool_(), "whether the hottest place lies in the region"),
            _column(
                "region_share", pa.float32(), "share of the image in the region: chance", "0-1"
            ),
            _column("energy_padding", pa.float32(), "share of all heat outside the image", "0-1"),
            _column("region_source", pa.string(), "folder of masks, or source of the annotations"),
        ),
        partition_by=("model_id",),
    ),
    _table(
        "metrics",
        "one figure of one evaluation",
        (
            _column("study", pa.string(), "the study or job that evaluated"),
            _column("trial", pa.string(), "the trial within the study"),
            _column("fold", pa.int32(), "the fold, where there are folds"),
            _column("dataset", pa.string(), "the data set evaluated on"),
            _column("part", pa.string(), "train, val or test"),
            _column("subgroup", pa.string(), "e.g. sex=F; empty for all"),
            _model_id(),
            _column("metric", pa.string(), "e.g. auc, accuracy, confusion"),
            _column("category", pa.string(), "class, or actual|predicted for confusion"),
            _column("value", pa.float64(), "the figure"),
            _column("ci_low", pa.float64(), "lower end of the 95 % interval"),
            _column("ci_high", pa.float64(), "upper end of the 95 % interval"),
            _column("n", pa.int64(), "images the figure rests on"),
        ),
        sort_by=("study", "part", "metric"),
    ),
    _table(
        "profiles",
        "one figure of a distribution of a data set",
        (
            _column("profile", pa.string(), "the profile's name"),
            _column("dataset", pa.string(), "the data set"),
            _column("distribution", pa.string(), "images, age, width, height or box_share"),
            _column("label", pa.string(), "the data set's own label; null for images without one"),
            _column("sex", pa.string(), "F, M, O or unknown, in the distribution images"),
            _column("statistic", pa.string(), "count, or mean, std, min, q1, median, q3, max"),
            _column("low", pa.float64(), "where the bin of a count begins", "year, px or 0-1"),
            _column("high", pa.float64(), "where it ends; the last bin includes its end"),
            _column("value", pa.float64(), "the figure"),
            _column("n", pa.int64(), "images, or boxes for box_share, the figure rests on"),
        ),
        sort_by=("dataset", "profile", "distribution"),
    ),
    _table(
        "suspects",
        "an image whose record looks wrong, by a profile",
        (
            _column("profile", pa.string(), "the profile's name"),
            _column("dataset", pa.string(), "the data set"),
            _image_id(),
            _column("reason", pa.string(), "one of the closed list of suspicions"),
            _column("value", pa.float64(), "the age, or the box's share of the image"),
            _column("detail", pa.string(), "what is odd about it"),
        ),
    ),
    _table(
        "candidates",
        "a box that annotations are likely to lack, by a review",
        (
            _column("review", pa.string(), "the review's name"),
            _column("dataset", pa.string(), "the data set"),
            _column("source", pa.string(), "whose annotations lack it"),
            _column("rank", pa.int32(), "place in the list, from 1, the most confident first"),
            _image_id(),
            _column("model_id", pa.string(), "the model that is most confident of it"),
            _column("votes", pa.int32(), "models of the review that see it"),
            _column("category", pa.string(), "what that model takes it for"),
            _column("score", pa.float32(), "its confidence", "0-1"),
            *_box("box"),
            _column(
                "overlap", pa.float32(), "largest intersection over union with a marked box", "0-1"
            ),
        ),
        sort_by=("dataset", "review", "rank"),
    ),
    _table(
        "runs",
        "a state a finished run took; the last row of a run is where it stands",
        (
            _column("kind", pa.string(), "kind of job"),
            _column("name", pa.string(), "the job's name"),
            _column("key", pa.string(), "what the run alone may write"),
            _column("spec", pa.string(), "JSON: the resolved job, secrets masked"),
            _column("fingerprint", pa.string(), "hash of what determines the result"),
            _column("code_version", pa.string(), "version of Rayward"),
            _column("inputs", pa.string(), "JSON: version of each table read"),
            _column("counts", pa.string(), "JSON: where the inputs ended"),
            _column("facts", pa.string(), "JSON: findings by label"),
            _column("seconds", pa.string(), "JSON: seconds by stage", "s"),
            _column("cost", pa.string(), "JSON: CPU and GPU seconds", "s"),
            _column("state", pa.string(), "held, published, discarded or abandoned"),
            _column("recorded_at", TIMESTAMP, "when the row was written"),
        ),
        sort_by=("recorded_at",),
    ),
)

TABLES: Mapping[str, TableSchema] = MappingProxyType({one.name: one for one in _ALL})
"""All tables of a lake by name."""


def rows_of(name: str, rows: list[dict[str, object]]) -> pa.Table:
    """Make an Arrow table of ``name``'s columns without ``run_id``; missing values are null."""
    schema = TABLES[name].schema
    return pa.Table.from_pylist(rows, schema=schema.remove(schema.get_field_index("run_id")))
