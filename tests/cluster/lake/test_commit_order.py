"""Every table is committed: rows of one that is not listed would be lost without a word."""

from cluster.lake.commit import COMMIT_ORDER
from schemas.tables import TABLES


def test_all_tables_but_runs_are_committed_before_it() -> None:
    assert sorted(COMMIT_ORDER) == sorted(set(TABLES) - {"runs"})
