"""Tables of the archive: what is known of images, and where they stand."""

from dataclasses import replace

import pyarrow as pa

from schemas.tables.columns import TIMESTAMP, TableSchema, box, column, image_id, recipe, table

ARCHIVE: tuple[TableSchema, ...] = (
    table(
        "images",
        "what ingest saw at a uri: an image, a frame of one, or that it is gone",
        (
            image_id(),
            column("dataset", pa.string(), "the data set's name"),
            column("uri", pa.string(), "where the file lies; identifiers in it are masked"),
            column("frame", pa.int32(), "frame number within the file, from 0"),
            column("seen_at", TIMESTAMP, "when ingest saw the file in this state"),
            column("bytes", pa.int64(), "size of the file", "B"),
            column("etag", pa.string(), "the store's entity tag, or modification time and size"),
            column("format", pa.string(), "file format found in the content"),
            column("modality", pa.string(), "DICOM modality, e.g. US, CT, CR"),
            column("width", pa.int32(), "width as shown upright", "px"),
            column("height", pa.int32(), "height as shown upright", "px"),
            column("bits", pa.int16(), "significant bits of a sample", "bit"),
            column("channels", pa.int16(), "samples of a pixel: 1 or 3"),
            column("patient_id", pa.string(), "keyed pseudonym of the patient"),
            column("age", pa.float32(), "age at the study", "year"),
            column("sex", pa.string(), "F, M or O"),
            column("site", pa.string(), "where the image was taken"),
            column("view", pa.string(), "view position or plane"),
            column("label", pa.string(), "the data set's own label"),
            column("split", pa.string(), "the part in the data set's own split"),
            column("study_date", pa.date32(), "day of the study"),
            column("state", pa.string(), "present or gone"),
        ),
        sort_by=("uri", "frame"),
    ),
    table(
        "annotations",
        "a box or mask; one without a box says that an image was looked at and has none",
        (
            image_id(),
            column("source", pa.string(), "who annotated, with version"),
            column("category", pa.string(), "what the box holds"),
            *box("box"),
            column("area", pa.float32(), "area of the mask or box", "px²"),
            column("iscrowd", pa.bool_(), "COCO: a region to ignore when scoring"),
            column(
                "made_from",
                pa.string(),
                "hash of the masks, rows and settings that all rows of the image come from; "
                "null in a row without a box: the annotation was withdrawn",
            ),
        ),
    ),
    table(
        "quality",
        "what cleaning found about an image",
        (
            image_id(),
            column("dataset", pa.string(), "the data set it was judged within"),
            recipe(),
            column("phash", pa.string(), "64-bit perceptual hash in hex, equal to imagehash"),
            column("duplicate_of", pa.string(), "image_id of the kept image this one repeats"),
            column("sharpness", pa.float32(), "Laplacian variance by grey variance, at 256 px"),
            column("brightness", pa.float32(), "mean grey value", "0-255"),
            column("colour_share", pa.float32(), "share of coloured pixels", "0-1"),
            column("bar_colour", pa.string(), "colour of a scale bar, if one was found"),
            column("bar_share", pa.float32(), "share of pixels of the scale bar", "0-1"),
            column("kept", pa.bool_(), "whether the image stays in"),
            column("reason", pa.string(), "why it does not"),
        ),
    ),
    # Shards read one recipe and a few hundred rows of it; measured in docs/adr/0008.
    replace(
        table(
            "prepared",
            "an image ready for a model",
            (
                image_id(),
                recipe(),
                column("height", pa.int32(), "height of the prepared image", "px"),
                column("width", pa.int32(), "width of the prepared image", "px"),
                column(
                    "pixels",
                    pa.binary(),
                    "a byte that says the layout (1: grey, 2: grey shown in colour, 3: RGB), then "
                    "8-bit planes, row by row; one plane for 1 and 2, three for 3",
                ),
                column("geometry", pa.string(), "JSON: the way back to the original's pixels"),
            ),
            partition_by=("recipe",),
        ),
        rows_per_group=64,
        compression="lz4",
        rows_per_file=512,
    ),
    table(
        "splits",
        "an image's place in a split",
        (
            column("split_name", pa.string(), "the split's name"),
            column("dataset", pa.string(), "the data set that is split"),
            image_id(),
            column("group_id", pa.string(), "images that must stay together share it"),
            column("fold", pa.int32(), "fold of a k-fold split, from 0"),
            column("part", pa.string(), "train, val or test"),
        ),
    ),
    table(
        "leaks",
        "an image of one part of a split that an earlier part has seen, and by what",
        (
            column("split_name", pa.string(), "the audited split's name"),
            column("dataset", pa.string(), "the data set that was split"),
            column("source", pa.string(), "given: the data set's own split; made: this one"),
            column("kind", pa.string(), "patient, image (equal bytes) or near_duplicate"),
            column("first_part", pa.string(), "the part that has seen it"),
            column("second_part", pa.string(), "the part the image stands in"),
            image_id(),
            column(
                "other_image_id",
                pa.string(),
                "an image of the first part: the nearest near-duplicate, or one of the patient",
            ),
            column("patient_id", pa.string(), "the patient they share; keyed pseudonym"),
            column("distance", pa.int32(), "Hamming distance of the two hashes", "bit"),
        ),
        sort_by=("split_name", "image_id"),
    ),
    table(
        "rejects",
        "an input that did not become a result",
        (
            column("uri", pa.string(), "where the file lies; identifiers in it are masked"),
            column("image_id", pa.string(), "the image, where it is known"),
            column("stage", pa.string(), "the kind of job that rejected it"),
            column("subject", pa.string(), "the recipe or model_id it was rejected for"),
            column("etag", pa.string(), "the file's entity tag at that time"),
            column("reason", pa.string(), "one of the closed list of reasons"),
            column("detail", pa.string(), "what exactly was found"),
        ),
        sort_by=("uri",),
    ),
)
"""From ingest to splits."""
