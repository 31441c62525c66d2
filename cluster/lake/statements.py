"""SQL: its words, what may run of what comes from outside, and what errors of it tell."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import duckdb
import pyarrow as pa

from cluster.lake.views import VIEWS
from schemas.errors import QueryError
from schemas.jobtree import hint
from schemas.tables import TABLES

_KIND = re.compile(r"[A-Z][A-Za-z ]* Error(?=:)")
"""How DuckDB's messages begin."""
_EXPLAIN = re.compile(
    r"EXPLAIN\s+(?:ANALYZE\s+)?(?:\(\s*(?:ANALYZE|FORMAT)\b[\w\s,]*\)\s*)?", re.IGNORECASE
)


def literal(value: str | Sequence[str]) -> str:
    """A text, or a list of texts, as SQL writes it."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return "[" + ", ".join(literal(one) for one in value) + "]"


def parquet(paths: Sequence[str]) -> str:
    """The rows of files on this machine's disk."""
    # A folder `site=7` above the lake must not become a column: partitions come from the log.
    return f"read_parquet({literal(paths)}, hive_partitioning = false)"


def columns(table: str, partition: Mapping[str, str]) -> str:
    """The columns of a table; those it is partitioned by are not in its files."""
    return ", ".join(
        f'{literal(partition[name])} AS "{name}"' if name in partition else f'"{name}"'
        for name in TABLES[table].schema.names
    )


def named(sql: str) -> list[str]:
    """The tables and views a statement needs, each after those it rests on.

    Every name stands in the text as a word, so no query is short of a table; a column of the same
    name costs a table that is opened for nothing.
    """
    words = set(re.findall(r"\w+", sql.lower()))
    for name in reversed(tuple(VIEWS)):
        if name in words:
            words.update(VIEWS[name].needs)
    return [name for name in (*TABLES, *VIEWS) if name in words]


def check_statement(sql: str) -> None:
    """Let pass one SELECT.

    Raises:
        QueryError: if it is another statement, or more than one.
        duckdb.Error: if it is no SQL.
    """
    statements = duckdb.extract_statements(sql)
    if len(statements) != 1:
        raise QueryError("A query is one statement", got=f"{len(statements)} statements")
    kind = statements[0].type
    if kind == duckdb.StatementType.EXPLAIN:
        # EXPLAIN ANALYZE runs what it explains, a COPY into a file of the lake included.
        explained = duckdb.extract_statements(_EXPLAIN.sub("", statements[0].query, count=1))
        kind = explained[0].type if len(explained) == 1 else kind
    if kind != duckdb.StatementType.SELECT:
        raise QueryError(
            "A query only reads",
            got=kind.name,
            remedy="use SELECT; a PIVOT needs its values listed: PIVOT … ON column IN (…)",
        )


def query_error(error: Exception) -> QueryError:
    """What to show of an error of DuckDB's or Arrow's."""
    kind, _, said = str(error).strip().partition(": ")
    got = said.partition("\nLINE ")[0].strip() or kind
    if isinstance(error, duckdb.PermissionException):
        return QueryError(
            "A query reads the tables and views of the lake and nothing else", got=got
        )
    missing = re.search("Table with name (.+?) does not exist", got)
    if isinstance(error, duckdb.CatalogException) and missing:
        known = (*TABLES, *VIEWS)
        return QueryError(
            f"The lake has no such table or view{hint(missing[1].lower(), known)}",
            got=missing[1],
            remedy=f"it has {', '.join(known)}",
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        return QueryError(
            "The query needs more memory than it may use",
            got=got.partition("\n")[0],
            remedy="select fewer columns or rows",
        )
    return QueryError("The query failed", got=got)


def told_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches of DuckDB's stream, of whose errors only the kind is told.

    They come as an OSError, whose message may quote what is in the rows.

    Raises:
        QueryError: if the stream breaks.
    """
    try:
        yield from batches
    except (OSError, duckdb.Error, pa.ArrowException) as error:
        kind = _KIND.match(str(error))
        told = kind[0] if kind else type(error).__name__
        starved = told == "Out of Memory Error"
        plain = duckdb.OutOfMemoryException(told) if starved else duckdb.Error(told)
        raise query_error(plain) from plain
