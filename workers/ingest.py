"""The shard function of `ingest`: from files to rows of `images`, or to rejects."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from schemas.errors import KeyFileError, RejectedImage
from schemas.plan import Blob, PreparedPixels, ShardFunction, ShardResult
from schemas.reasons import TRANSIENT, RejectReason
from schemas.rejects import reject_row
from schemas.tables import rows_of
from workers.content import content_id, frame_id
from workers.ingest_actions import FACTS, GONE, READ, STAGE
from workers.pixels.decode import FrameFacts, HeaderFacts, ImageFile, Limits, open_image
from workers.pseudonyms import Pseudonymizer, key_file

_GIVEN = ("age", "sex", "site", "view", "label", "split", "modality", "study_date")

Row = dict[str, Any]


def load(params: Mapping[str, Any]) -> ShardFunction:
    """Prepare the shard function.

    ``params`` are the plan's: ``dataset``, ``seen_at`` (ISO 8601), ``modality`` (of files that
    do not say, or None), ``subject``, ``key_check``, ``numbering`` (whose the patients' numbers
    are, or None), ``max_pixels`` and ``max_bytes``.

    Raises:
        KeyFileError: if this machine has no key, or another one than the plan was made with.
    """
    pseudonymizer = Pseudonymizer.from_key_file()
    if pseudonymizer.check != params["key_check"]:
        raise KeyFileError(
            "This machine has another pseudonym key than the one that planned the run",
            where=str(key_file()),
            remedy="copy the key of the planning machine to every node (mode 0600)",
        )
    ingest = _Ingest(params, pseudonymizer)
    return ingest.shard


class _Ingest:
    def __init__(self, params: Mapping[str, Any], pseudonymizer: Pseudonymizer) -> None:
        self._pseudonymizer = pseudonymizer
        self._dataset: str = params["dataset"]
        self._numbering: str | None = params["numbering"]
        self._modality: str | None = params["modality"]
        self._subject: str = params["subject"]
        self._seen_at = datetime.datetime.fromisoformat(params["seen_at"])
        self._limits = Limits(params["max_pixels"], params["max_bytes"])
        self._actions: Mapping[str, Callable[[Row, Blob], list[Row]]] = {
            READ: self._read,
            FACTS: self._correct,
            GONE: lambda row, blob: self._gone(row, kept=()),
        }

    def shard(self, rows: pa.Table, blobs: Sequence[Blob]) -> ShardResult:
        """Catalogue the rows' files.

        ``rows`` has the columns of the plan (`jobs.ingest.inputs.INPUTS`). Returns rows of
        `images` and `rejects`; never raises for one file.
        """
        images: list[Row] = []
        rejects: list[Row] = []
        done = gone = 0
        for row, blob in zip(rows.to_pylist(), blobs, strict=True):
            try:
                images += self._actions[row["action"]](row, blob)
            except RejectedImage as reject:
                rejects.append(self._reject(row, reject))
                if reject.reason not in TRANSIENT:
                    images += self._gone(row, kept=())
            else:
                done += row["action"] != GONE
                gone += row["action"] == GONE
        present = sum(one["state"] == "present" for one in images)
        return ShardResult(
            tables={"images": rows_of("images", images), "rejects": rows_of("rejects", rejects)},
            done=done,
            rejected=len(rejects),
            gone=gone,
            facts={"frames": present},
        )

    def _read(self, row: Row, blob: Blob) -> list[Row]:
        """Rows of a file that is new or changed; those of frames it no longer has, too."""
        if isinstance(blob, RejectedImage):
            raise blob
        if isinstance(blob, PreparedPixels):
            raise TypeError("ingest reads sources, not prepared pixels")
        try:
            self._limits.check_bytes(row["bytes"], "the file")
            image = open_image(blob, self._limits)
            written = self._frames(row, blob, image)
        except RejectedImage:
            raise
        except MemoryError:
            raise RejectedImage(RejectReason.OUT_OF_MEMORY) from None
        except Exception as error:  # one file never ends a shard
            raise RejectedImage(RejectReason.FAILED, type(error).__name__) from error
        return written + self._gone(row, kept=written)

    def _frames(self, row: Row, blob: bytes, image: ImageFile) -> list[Row]:
        header = image.header
        content = content_id(blob)
        several = len(image.frames) > 1
        shared = {
            "dataset": self._dataset,
            "uri": self._masked(row, header.identifiers),
            "seen_at": self._seen_at,
            "bytes": len(blob),
            "etag": row["etag"],
            "format": image.format,
            "patient_id": row["patient_id"] or self._pseudonym(header.patient_id),
            "state": "present",
        }
        return [
            {
                **shared,
                **self._facts(row, header, frame),
                "image_id": frame_id(content, number if several else None),
                "frame": number,
                "width": frame.width,
                "height": frame.height,
                "bits": frame.bits,
                "channels": frame.channels,
            }
            for number, frame in enumerate(image.frames)
        ]

    def _facts(self, row: Row, header: HeaderFacts, frame: FrameFacts) -> Row:
        """Given metadata first, then what the file says, then the job's modality."""
        day = header.study_date
        found = {
            "age": header.age,
            "sex": header.sex,
            "site": header.site,
            "view": header.view,
            "label": frame.label,
            "split": frame.split,
            "modality": header.modality or self._modality,
            "study_date": datetime.date.fromisoformat(day) if day else None,
        }
        return {name: found[name] if row[name] is None else row[name] for name in _GIVEN}

    def _correct(self, row: Row, blob: Blob) -> list[Row]:
        """Rows with corrected metadata; all that was read off the pixels stays."""
        uri = self._masked(row, ())
        written = []
        for known in row["known"]:
            facts = {name: row[name] for name in (*_GIVEN, "patient_id")}
            if known["format"] == "npz":
                # Labels and parts differ from frame to frame, and stand in the file.
                for name in ("label", "split"):
                    facts[name] = known[name] if row[name] is None else row[name]
            written.append({**known, **facts, "uri": uri, "seen_at": self._seen_at})
        return written + self._gone(row, kept=written)

    def _gone(self, row: Row, kept: Sequence[Row]) -> list[Row]:
        """Rows saying that what the catalogue knows of this file, and ``kept`` lacks, is gone."""
        places = {(one["uri"], one["frame"]) for one in kept}
        return [
            {**known, "seen_at": self._seen_at, "state": "gone"}
            for known in row["known"] or ()
            if (known["uri"], known["frame"]) not in places
        ]

    def _reject(self, row: Row, reject: RejectedImage) -> Row:
        place = {"uri": self._masked(row, ()), "etag": row["etag"]}
        return reject_row(place, reject, stage=STAGE, subject=self._subject)

    def _masked(self, row: Row, found: Sequence[str]) -> str:
        """The file's uri without the identifiers of the metadata and of its header.

        What stands masked in the catalogue stays masked: its header is not read again for that.
        """
        given = [self._pseudonymizer.reveal(one) for one in row["identifiers"] or ()]
        for known in row["known"] or ():
            given += self._pseudonymizer.identifiers_in(known["uri"])
        return self._pseudonymizer.mask(self._pseudonymizer.reveal(row["uri"]), (*given, *found))

    def _pseudonym(self, identifier: str | None) -> str | None:
        return self._pseudonymizer.patient(identifier, self._numbering) if identifier else None
