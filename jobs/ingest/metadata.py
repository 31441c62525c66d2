"""Metadata from outside the files: named groups of a path pattern, and a CSV file."""

import csv
import datetime
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as tables

from schemas.errors import SourceError
from schemas.specs.ingest import METADATA_FIELDS, IngestSpec, MetadataFile

_NULLS = ["", "NA", "N/A", "NaN", "nan", "null", "NULL"]
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"}
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0, "": 1.0}
_AGE = re.compile(r"(\d{1,3}(?:\.\d+)?)\s*([DWMY]?)")

TYPES: Mapping[str, pa.DataType] = {
    name: {"age": pa.float32(), "study_date": pa.date32()}.get(name, pa.string())
    for name in METADATA_FIELDS
}


@dataclass(frozen=True)
class Metadata:
    """What is known about each of some files, and what was odd on the way."""

    columns: Mapping[str, pa.Array]
    """A value or null for each file, by field; ``patient`` in the clear."""
    identifiers: tuple[pa.Array, ...]
    """Arrays of patient identifiers, one for each place that names some."""
    findings: Mapping[str, int]
    """Counts of what was odd, by label; only those above zero."""


def read_metadata(
    spec: IngestSpec,
    paths: Sequence[str],
    content: bytes | None,
    *,
    others: Sequence[str] | None = None,
) -> Metadata:
    """What the spec's pattern and CSV file say about the files at ``paths``.

    ``content`` is the CSV file. ``others`` are the paths of all other files of the archive; where
    they are not given, rows of the CSV file without a file are not counted. Where both speak, the
    CSV file wins. Values that are none of their field (an age of ``abc``) count as not given.

    Raises:
        SourceError: if the CSV file can't be parsed or lacks a column the spec names.
    """
    findings: dict[str, int] = {}
    sources: list[Mapping[str, pa.Array]] = []
    if spec.metadata is not None and content is not None:
        table = _parse(spec.metadata, content)
        sources.append(_join(spec.metadata.match, table, paths, findings))
        if others is not None:
            findings["rows of the metadata file without a file"] = _count_unmatched(
                table, [_normal(path, spec.metadata.match) for path in (*paths, *others)]
            )
    if spec.fields is not None:
        sources.append(_match(spec.fields.path, paths, findings))
    texts: dict[str, pa.Array] = {}
    for name in METADATA_FIELDS:
        given = [source[name] for source in sources if name in source]
        texts[name] = pc.coalesce(*given) if given else pa.nulls(len(paths), pa.string())
    texts["label"] = _renamed(texts["label"], spec.labels, findings)
    columns = {name: _typed(name, texts[name], findings) for name in METADATA_FIELDS}
    identifiers = tuple(source["patient"] for source in sources if "patient" in source)
    return Metadata(columns, identifiers, {key: n for key, n in findings.items() if n})


def _renamed(
    texts: pa.Array | pa.ChunkedArray, labels: Mapping[str, str], findings: dict[str, int]
) -> pa.Array | pa.ChunkedArray:
    """Labels by their new names; names that no file has are counted."""
    if not labels:
        return texts
    stripped = pc.utf8_trim_whitespace(texts)
    at = pc.index_in(stripped, value_set=pa.array(list(labels), pa.string()))
    found = len(pc.unique(at.drop_null()))
    findings["labels to rename that no file has"] = len(labels) - found if len(texts) else 0
    return pc.coalesce(pa.array(list(labels.values()), pa.string()).take(at), texts)


def _match(pattern: str, paths: Sequence[str], findings: dict[str, int]) -> dict[str, pa.Array]:
    """Groups of the pattern, matched from the beginning of each path."""
    expression = re.compile(pattern)
    groups = sorted(expression.groupindex)
    columns: dict[str, list[str | None]] = {name: [] for name in groups}
    missed = 0
    for path in paths:
        found = expression.match(path)
        missed += found is None
        for name in groups:
            columns[name].append((found[name] or None) if found else None)
    findings["paths that do not match the pattern"] = missed
    return {name: pa.array(values, pa.string()) for name, values in columns.items()}


def _parse(spec: MetadataFile, content: bytes) -> pa.Table:
    """The CSV as a table of strings: ``key``, and one column a field; one row a key."""
    delimiter = _delimiter(content)
    try:
        names = _header(content, delimiter)
        table = tables.read_csv(
            io.BytesIO(content),
            # With names given, the header counts as a row. No name may be read in two ways.
            read_options=tables.ReadOptions(column_names=names),
            parse_options=tables.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=tables.ConvertOptions(
                strings_can_be_null=True,
                null_values=_NULLS,
                column_types=dict.fromkeys(names, pa.string()),
            ),
        ).slice(1)
    except (csv.Error, pa.ArrowInvalid) as error:
        # Arrow's message quotes the row, which holds identifiers.
        where = re.search(r"Expected \d+ columns, got \d+", str(error))
        raise SourceError(
            "The metadata file can't be parsed",
            where=spec.file,
            got=where[0].lower() if where else "no table",
            remedy="it must be CSV in UTF-8 with a header and equally long rows",
        ) from None
    columns = _columns(spec, names)
    fields = {name: table.column(names.index(column)) for name, column in columns.items()}
    keys = [_normal(key, spec.match) for key in fields["key"].to_pylist()]
    keyed = pa.table(fields | {"key": pa.array(keys, pa.string())})
    return keyed.filter(pc.is_valid(keyed["key"]))


def _delimiter(content: bytes) -> str:
    """What stands oftenest between the names of the first line."""
    head = re.sub(rb'"[^"]*"', b"", content[:65536]).lstrip(b"\r\n").splitlines()
    return chr(max(b",;\t", key=lambda one: head[0].count(one) if head else 0))


def _header(content: bytes, delimiter: str) -> list[str]:
    """The first line that is not empty, whatever ends it.

    Raises:
        csv.Error: if there is none, or it is no CSV.
    """
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", "replace", newline=None)
    for names in csv.reader(text, delimiter=delimiter):
        if names:
            return names
    raise csv.Error("no header")


def _columns(spec: MetadataFile, names: Sequence[str]) -> dict[str, str]:
    """Which CSV column gives the key and each field."""
    wanted = {"key": spec.key} | dict(spec.columns)
    unknown = [f"`{field}`" for field in spec.columns if field not in METADATA_FIELDS]
    missing = [f"`{column}`" for column in wanted.values() if column not in names]
    if unknown or missing:
        raise SourceError(
            "The metadata file does not fit" if missing else "No such field of metadata",
            where=spec.file,
            got=f"no column {', '.join(missing)}" if missing else ", ".join(unknown),
            remedy=f"columns of the file: {', '.join(names)}; fields: {', '.join(METADATA_FIELDS)}",
        )
    same = {name: name for name in METADATA_FIELDS if name in names}
    used = {**same, **wanted}
    twice = sorted({f"`{column}`" for column in used.values() if names.count(column) > 1})
    if twice:
        raise SourceError(
            "The metadata file names a column twice",
            where=spec.file,
            got=", ".join(twice),
            remedy="rename one of the two",
        )
    return used


def _join(
    match: str, table: pa.Table, paths: Sequence[str], findings: dict[str, int]
) -> dict[str, pa.Array]:
    """One value for each path and field.

    Rows that repeat a key are one where they agree; where they contradict each other the field
    is not given.
    """
    fields = [name for name in table.column_names if name != "key"]
    ends = [(name, end) for name in fields for end in ("min", "max")]
    merged = table.group_by("key").aggregate(ends)
    wanted = pa.array([_normal(path, match) for path in paths], pa.string())
    at = pc.index_in(wanted, value_set=merged["key"].combine_chunks())
    findings["repeated rows of the metadata file"] = table.num_rows - merged.num_rows
    findings["files without metadata"] = at.null_count
    columns, conflicts = {}, 0
    for name in fields:
        low, high = (merged[f"{name}_{end}"].combine_chunks() for end in ("min", "max"))
        agree = pc.fill_null(pc.equal(low, high), True)
        conflicts += len(agree) - (pc.sum(agree).as_py() or 0)
        columns[name] = pc.if_else(agree, low, pa.scalar(None, low.type)).take(at)
    findings["contradictions in the metadata file"] = conflicts
    return columns


def _count_unmatched(table: pa.Table, paths: Sequence[str | None]) -> int:
    """Distinct keys that name none of the paths."""
    keys = table["key"].unique()
    return len(keys) - (pc.sum(pc.is_in(keys, value_set=pa.array(paths, pa.string()))).as_py() or 0)


def _normal(path: str | None, match: str) -> str | None:
    """A path, a name or a stem in the form in which they are compared."""
    if path is None or not path.strip():
        return None
    posix = PurePosixPath(path.strip().replace("\\", "/"))
    return {"path": str(posix), "name": posix.name, "stem": posix.stem}[match]


def _typed(name: str, texts: pa.Array, findings: dict[str, int]) -> pa.Array:
    """Convert the texts of a field; each distinct text once."""
    convert = _CONVERTERS.get(name, _text)
    coded = texts.dictionary_encode() if not isinstance(texts, pa.ChunkedArray) else None
    if coded is None:
        coded = texts.combine_chunks().dictionary_encode()
    values = [convert(one) for one in coded.dictionary.to_pylist()]
    typed = pa.array(values, TYPES[name]).take(coded.indices)
    label = f"values that are no {name.replace('_', ' ')}"
    findings[label] = findings.get(label, 0) + typed.null_count - texts.null_count
    return typed


def _text(text: str) -> str | None:
    return text.strip() or None


def _age(text: str) -> float | None:
    """Years, as a number or as DICOM writes ages (`034Y`, `006M`)."""
    found = _AGE.fullmatch(text.strip().upper())
    return float(found[1]) * _YEARS[found[2]] if found else None


def _sex(text: str) -> str | None:
    return _SEXES.get(text.strip().lower())


def _date(text: str) -> datetime.date | None:
    digits = re.sub(r"[-./]", "", text.strip()[:10])
    try:
        return datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        return None


def _modality(text: str) -> str | None:
    return text.strip().upper() or None


_CONVERTERS: Mapping[str, Callable[[str], Any]] = {
    "age": _age,
    "sex": _sex,
    "study_date": _date,
    "modality": _modality,
}
