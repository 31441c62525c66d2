"""Tables of what was found about data sets: distributions, suspicions, missing boxes."""

import pyarrow as pa

from schemas.tables.columns import TableSchema, box, column, image_id, table

FINDINGS: tuple[TableSchema, ...] = (
    table(
        "profiles",
        "one figure of a distribution of a data set",
        (
            column("profile", pa.string(), "the profile's name"),
            column("dataset", pa.string(), "the data set"),
            column("distribution", pa.string(), "images, age, width, height or box_share"),
            column("label", pa.string(), "the data set's own label; null for images without one"),
            column("sex", pa.string(), "F, M, O or unknown, in the distribution images"),
            column("statistic", pa.string(), "count, or mean, std, min, q1, median, q3, max"),
            column("low", pa.float64(), "where the bin of a count begins", "year, px or 0-1"),
            column("high", pa.float64(), "where it ends; the last bin includes its end"),
            column("value", pa.float64(), "the figure"),
            column("n", pa.int64(), "images, or boxes for box_share, the figure rests on"),
        ),
        sort_by=("dataset", "profile", "distribution"),
    ),
    table(
        "suspects",
        "an image whose record looks wrong, by a profile",
        (
            column("profile", pa.string(), "the profile's name"),
            column("dataset", pa.string(), "the data set"),
            image_id(),
            column("reason", pa.string(), "one of the closed list of suspicions"),
            column("value", pa.float64(), "the age, or the box's share of the image"),
            column("detail", pa.string(), "what is odd about it"),
        ),
    ),
    table(
        "candidates",
        "a box that annotations are likely to lack, by a review",
        (
            column("review", pa.string(), "the review's name"),
            column("dataset", pa.string(), "the data set"),
            column("source", pa.string(), "whose annotations lack it"),
            column("rank", pa.int32(), "place in the list, from 1, the most confident first"),
            image_id(),
            column("model_id", pa.string(), "the model that is most confident of it"),
            column("votes", pa.int32(), "models of the review that see it"),
            column("category", pa.string(), "what that model takes it for"),
            column("score", pa.float32(), "its confidence", "0-1"),
            *box("box"),
            column(
                "overlap", pa.float32(), "largest intersection over union with a marked box", "0-1"
            ),
        ),
        sort_by=("dataset", "review", "rank"),
    ),
)
"""Of profiles and reviews."""
