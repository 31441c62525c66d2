"""Lakes as years of nights leave them: written by the lake's own writers, without any pixels.

Each night has one run of every kind, and every run writes one file of a few hundred rows. Files,
statistics, application transactions and checkpoints are what real runs leave; only many runs share
one entry of the Delta log, because 10,000 commits would take longer than everything they are for.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, PostCommitHookProperties, Transaction
from numpy.typing import NDArray

import jobs.clean
import jobs.prepare
import jobs.score
from cluster.lake.commit import ensure_table
from cluster.lake.files import DataFile, write_rows
from cluster.lake.maintenance import maintain
from cluster.lake.store import LakeStore
from cluster.storage import Storage
from jobs.ingest.planning import identity as ingest_identity
from schemas.plan import run_fingerprint
from schemas.protocols import LISTING
from schemas.specs.clean import CleanSpec
from schemas.specs.ingest import IngestSpec
from schemas.specs.prepare import PrepareSpec
from schemas.specs.score import ScoreSpec
from schemas.tables import TABLES, rows_of
from workers.pseudonyms import Pseudonymizer

ARCHIVE = "/archive"
DATASET, MODEL = "archive", "night-model"
FIRST_NIGHT = datetime(2022, 1, 1, 2, tzinfo=UTC)
IMAGES_A_PATIENT = 5
FILE_BYTES = 100
_MODEL_ID = "00112233aabbccdd"
_RUNS_A_COMMIT = 100
_BATCH_FILES = 8_192

INGEST = IngestSpec(
    name=DATASET,
    source=ARCHIVE,
    modality="US",
    fields={"path": "(?P<patient>[^/]+)/.*"},  # type: ignore[arg-type]
)
CLEAN = CleanSpec(dataset=DATASET)
PREPARE = PrepareSpec(dataset=DATASET)
SCORE = ScoreSpec(dataset=DATASET, model=MODEL)
RECIPE = jobs.prepare.key(PREPARE)[1]


class ListedStore(LakeStore):
    """A lake whose archive is a listing of ``count`` files that nobody has to make."""

    count = 0

    def list_batches(self, uri: str) -> Iterator[pa.RecordBatch]:
        """The files of the archive; they were all catalogued as they are."""
        for first in range(0, self.count, _BATCH_FILES):
            numbers = np.arange(first, min(first + _BATCH_FILES, self.count))
            names = _digits(numbers)
            paths = _joined("person", _digits(numbers // IMAGES_A_PATIENT), "/", names, ".png")
            sizes = pa.repeat(pa.scalar(FILE_BYTES, pa.int64()), len(numbers))
            etags = _joined(names, f"-{FILE_BYTES:x}")
            columns = [_joined(f"{uri}/", paths), paths, sizes, etags]
            arrays = [one.cast(kind) for one, kind in zip(columns, LISTING.types, strict=True)]
            yield pa.record_batch(arrays, schema=LISTING)


def build(folder: Path, images: int, nights: int) -> None:
    """Write a lake of ``images`` images that ``nights`` nights took in, up to their scores.

    The pseudonym key is the one that this process uses.
    """
    store = LakeStore.open(str(folder), create=True)
    key = Pseudonymizer.from_key_file(create=True)
    parts = _tables(images, key)
    ends = np.linspace(0, images, nights + 1).astype(int)
    moments = [FIRST_NIGHT + timedelta(days=1) * night for night in range(nights)]
    kinds = {
        "images": "ingest",
        "quality": "clean",
        "prepared": "prepare",
        "predictions": "score",
    }
    for table, whole in parts.items():
        runs = [_run_id(moment, kinds[table]) for moment in moments]
        files = [
            write_rows(
                store.storage, table, whole.slice(start, end - start), run_id=run, shard="00000"
            )
            for run, start, end in zip(runs, ends[:-1], ends[1:], strict=True)
        ]
        _commit(store.storage, table, runs, files)
    _write_bundle(store.storage)
    for kind, keyed, fingerprint in _runs(key):
        names = [_run_id(moment, kind) for moment in moments]
        rows = [
            {
                "kind": kind,
                "name": DATASET,
                "key": "/".join(keyed),
                "spec": "{}",
                "fingerprint": fingerprint,
                "counts": "{}",
                "facts": "{}",
                "state": "published",
                "recorded_at": moment,
            }
            for moment in moments
        ]
        _commit_runs(store.storage, names, rows)


def compact(folder: Path) -> None:
    """Merge the small files of every table that has more than `maintain` leaves alone."""
    maintain(LakeStore.open(str(folder)).storage)


def _tables(count: int, key: Pseudonymizer) -> dict[str, pa.Table]:
    """Rows of all images, in the order in which they came; ids and hashes are random."""
    random = np.random.default_rng(0)
    numbers = range(count)
    ids = pa.array([one.hex() for one in _chunks(random.bytes(16 * count), 16)])
    hashes = pa.array([one.hex() for one in _chunks(random.bytes(8 * count), 8)])
    patients = [_patient(number) for number in range(0, count, IMAGES_A_PATIENT)]
    tokens = [key.seal(one) for one in patients]
    codes = pa.array([key.patient(one) for one in patients])
    uris = [f"{ARCHIVE}/{tokens[n // IMAGES_A_PATIENT]}/{n:07d}.png" for n in numbers]
    whose = pa.array(np.arange(count) // IMAGES_A_PATIENT)
    images = _table(
        "images",
        count,
        image_id=ids,
        uri=pa.array(uris),
        etag=pa.array([_etag(number) for number in numbers]),
        patient_id=codes.take(whose),
        dataset=DATASET,
        frame=0,
        seen_at=FIRST_NIGHT,
        bytes=FILE_BYTES,
        format="png",
        modality="US",
        width=64,
        height=48,
        bits=8,
        channels=1,
        state="present",
    )
    quality = _table(
        "quality",
        count,
        image_id=ids,
        phash=hashes,
        dataset=DATASET,
        recipe=jobs.clean.recipe(CLEAN),
        sharpness=0.1,
        brightness=90.0,
        colour_share=0.0,
        kept=True,
    )
    prepared = _table(
        "prepared",
        count,
        image_id=ids,
        recipe=RECIPE,
        height=8,
        width=8,
        pixels=bytes(64),
        geometry="{}",
    )
    share = pa.array(random.random(count, np.float32))
    predictions = _table(
        "predictions",
        count,
        image_id=ids,
        model_id=_MODEL_ID,
        scores=pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(share, 2)), 2),
        score=share,
        backend="openvino-bf16",
        scored_at=FIRST_NIGHT,
    )
    return {
        "images": images,
        "quality": quality,
        "prepared": prepared,
        "predictions": predictions,
    }


def _table(name: str, count: int, **columns: object) -> pa.Table:
    """Rows of a table: arrays as they are, single values in every row, the rest null."""
    fields = [one for one in TABLES[name].schema if one.name != "run_id"]
    arrays = []
    for field in fields:
        value = columns.get(field.name)
        if not isinstance(value, pa.Array):
            value = pa.repeat(pa.scalar(value, field.type), count)
        arrays.append(value.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _write_bundle(storage: Storage) -> None:
    run = _run_id(FIRST_NIGHT - timedelta(days=1), "train")
    row = {
        "model_id": _MODEL_ID,
        "name": MODEL,
        "version": 1,
        "family": "classifier",
        "classes": ["ill", "well"],
        "operating_point": json.dumps({"positive": "ill", "threshold": 0.5}),
        "recipe": RECIPE,
        "created_at": FIRST_NIGHT,
    }
    files = write_rows(storage, "models", rows_of("models", [row]), run_id=run, shard="00000")
    _commit(storage, "models", [run], [files])
    named = {"kind": "train", "name": MODEL, "key": f"train/{MODEL}", "state": "published"}
    _commit_runs(storage, [run], [named | {"recorded_at": FIRST_NIGHT}])


def _runs(key: Pseudonymizer) -> list[tuple[str, tuple[str, ...], str]]:
    """Kind, key and fingerprint of the runs of a night."""
    bundle = {"model_id": _MODEL_ID}
    told = [
        ("ingest", ("ingest", DATASET), ingest_identity(INGEST, None, key.check)),
        ("clean", jobs.clean.key(CLEAN), jobs.clean.identity(CLEAN)),
        ("prepare", jobs.prepare.key(PREPARE), jobs.prepare.identity(PREPARE)),
        ("score", jobs.score.key(SCORE, bundle), jobs.score.identity(SCORE, bundle)),
    ]
    return [(kind, keyed, run_fingerprint(kind, identity)) for kind, keyed, identity in told]


def _commit_runs(storage: Storage, names: Sequence[str], rows: list[dict[str, object]]) -> None:
    files = [
        write_rows(storage, "runs", rows_of("runs", [row]), run_id=name, shard="run")
        for name, row in zip(names, rows, strict=True)
    ]
    _commit(storage, "runs", names, files)


def _commit(
    storage: Storage, table: str, runs: Sequence[str], files: Sequence[list[DataFile]]
) -> None:
    """Add the files of many runs to a table, a hundred runs at a time."""
    for start in range(0, len(runs), _RUNS_A_COMMIT):
        stop = start + _RUNS_A_COMMIT
        handle = ensure_table(storage, table)
        handle.create_write_transaction(
            [one.add_action(table) for some in files[start:stop] for one in some],
            mode="append",
            schema=handle.schema(),
            partition_by=list(TABLES[table].partition_by),
            commit_properties=CommitProperties(
                app_transactions=[Transaction(f"run/{run}", 1) for run in runs[start:stop]]
            ),
            post_commithook_properties=PostCommitHookProperties(
                create_checkpoint=True, cleanup_expired_logs=False
            ),
        )


def _run_id(moment: datetime, kind: str) -> str:
    return f"{moment:%Y%m%dT%H%M%S}000Z-{kind}-{moment.toordinal() % 0x1000000:06x}"


def _chunks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _patient(number: int) -> str:
    return f"person{number // IMAGES_A_PATIENT:07d}"


def _etag(number: int) -> str:
    return f"{number:07d}-{FILE_BYTES:x}"


def _digits(numbers: NDArray[np.int64]) -> pa.Array:
    return pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 7, "0")


def _joined(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")
