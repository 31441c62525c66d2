"""Tables of studies against values computed by hand."""

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from scipy import stats

from jobs.report.figures import Figure, Looks, Measured
from jobs.report.tables import Cell, StudyTable, make_table, mean_cell
from jobs.report.text import cell_text, comma_separated, markdown, notes, study_notes
from schemas.specs.study import StudySpec
from schemas.studies import trials_of

ACCURACY = {
    ("a", "ce"): (0.80, 0.90, 0.70),
    ("a", "focal"): (0.60, 0.70, 0.80),
    ("b", "ce"): (0.90, 0.90, 0.96),
    ("b", "focal"): (0.50, 0.40, 0.30),
}
"""Of three folds each."""
VALIDATION = {("a", "ce"): 0.7, ("a", "focal"): 0.99, ("b", "ce"): 0.8, ("b", "focal"): 0.1}


def study(*tables: Mapping[str, Any], **fields: Any) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "s",
            "train": {"dataset": "d", "split": "s"},
            "grid": {"net": {"a": {}, "b": {}}, "loss": {"ce": {}, "focal": {}}, "fold": [0, 1, 2]},
            "choose_by": "auc",
            "tables": list(tables),
            **fields,
        }
    )


def found(spec: StudySpec, without: tuple[str, ...] = ()) -> list[Measured]:
    made = []
    for trial in trials_of(spec):
        for outcome in trial.outcomes:
            key, fold = (trial.labels["net"], trial.labels["loss"]), int(trial.labels["fold"])
            value = ACCURACY[key][fold] - (0.1 if outcome.labels["head"] == "svm" else 0)
            figures = {
                ("test", "", "accuracy"): Figure(value, value - 0.05, value + 0.05),
                ("test", "", "custom_plus"): Figure(1 - value, None, None),
                ("test", "", "recall/ill"): Figure(value / 2, None, None),
                ("test", "site=B", "accuracy"): Figure(value - 0.2, None, None),
                ("test", "site=A", "accuracy"): Figure(value - 0.3, None, None),
                ("val", "", "auc"): Figure(VALIDATION[key] + fold / 1000, None, None),
            }
            made.append(Measured(outcome, {} if outcome.text in without else figures))
    return made


def values(table: StudyTable) -> dict[tuple[str, ...], list[float | None]]:
    return {
        row.labels: [None if cell.value is None else round(cell.value, 6) for cell in row.cells]
        for row in table.rows
    }


def test_a_cell_is_the_mean_over_what_the_table_does_not_show() -> None:
    spec = study({"name": "t", "rows": ["loss", "net"], "metrics": {"Acc": "accuracy"}})
    table = make_table(spec, spec.tables[0], found(spec))
    assert (table.row_axes, table.columns) == (("loss", "net"), (("Acc",),))
    assert values(table) == {
        ("ce", "a"): [0.8],
        ("ce", "b"): [0.92],
        ("focal", "a"): [0.7],
        ("focal", "b"): [0.4],
    }
    cell = table.rows[0].cells[0]
    low, high = stats.t.interval(0.95, 2, loc=0.8, scale=stats.sem([0.8, 0.9, 0.7]))
    assert (cell.low, cell.high, cell.trials) == (pytest.approx(low), pytest.approx(high), 3)


def test_the_interval_of_a_mean_is_students() -> None:
    draws = np.random.default_rng(1).normal(0.8, 0.1, 7)
    cell = mean_cell([Figure(float(one), 0.0, 1.0) for one in draws], expected=8)
    low, high = stats.t.interval(0.95, 6, loc=draws.mean(), scale=stats.sem(draws))
    assert cell == Cell(
        pytest.approx(draws.mean()), pytest.approx(low), pytest.approx(high), 7, expected=8
    )
    assert mean_cell([Figure(0.5, 0.4, 0.7)], 1) == Cell(0.5, 0.4, 0.7, 1, 1)
    assert mean_cell([], 2) == Cell(None, expected=2)


def test_axes_may_be_columns_and_metrics_rows() -> None:
    spec = study(
        {
            "name": "t",
            "rows": ["metric"],
            "columns": ["net", "loss"],
            "metrics": {"Acc": "accuracy", "Plus": "custom_plus"},
        }
    )
    table = make_table(spec, spec.tables[0], found(spec))
    assert table.columns == (("a", "ce"), ("a", "focal"), ("b", "ce"), ("b", "focal"))
    assert values(table) == {("Acc",): [0.8, 0.7, 0.92, 0.4], ("Plus",): [0.2, 0.3, 0.08, 0.6]}
    assert [[cell.is_best for cell in row.cells] for row in table.rows] == [
        [False, False, True, False],
        [False, False, True, False],
    ]


def test_the_best_of_a_column_is_the_lowest_where_less_is_better() -> None:
    spec = study(
        {
            "name": "t",
            "rows": ["net", "loss"],
            "metrics": {"Acc": "accuracy", "Plus": "custom_plus", "p": "mcnemar_p"},
            "mean_rows": True,
        }
    )
    table = make_table(spec, spec.tables[0], found(spec))
    best = [(row.labels, place) for row in table.rows for place in (0, 1, 2)
            if row.cells[place].is_best]  # fmt: skip
    assert best == [(("b", "ce"), 0), (("b", "ce"), 1)]


def test_mean_rows_follow_each_group() -> None:
    spec = study({"name": "t", "rows": ["loss", "net"], "metrics": {"A": "accuracy"},
                  "mean_rows": True})  # fmt: skip
    table = make_table(spec, spec.tables[0], found(spec))
    assert [row.labels for row in table.rows if row.is_mean] == [("ce", "mean"), ("focal", "mean")]
    assert values(table)["ce", "mean"] == [pytest.approx((0.8 + 0.92) / 2)]
    flat = study({"name": "t", "rows": ["net"], "metrics": {"A": "accuracy"}, "mean_rows": True})
    table = make_table(flat, flat.tables[0], found(flat))
    assert [row.labels for row in table.rows] == [("a",), ("b",), ("mean",)]
    assert values(table)["mean",] == [pytest.approx((0.8 + 0.7 + 0.92 + 0.4) / 4)]


def test_heads_are_an_axis_and_where_keeps_one_value() -> None:
    spec = study(
        {"name": "h", "rows": ["net"], "columns": ["head", "metric"],
         "metrics": {"A": "accuracy"}, "where": {"loss": "ce", "fold": 1}},
        {"name": "one", "rows": ["head"], "metrics": {"A": "accuracy"}, "where": {"net": "b"}},
        heads=["network", "svm"],
    )  # fmt: skip
    table = make_table(spec, spec.tables[0], found(spec))
    assert table.columns == (("network", "A"), ("svm", "A"))
    assert values(table) == {("a",): [0.9, 0.8], ("b",): [0.9, 0.8]}
    table = make_table(spec, spec.tables[1], found(spec))
    assert values(table) == {("network",): [0.66], ("svm",): [0.56]}


def test_subgroups_are_an_axis() -> None:
    spec = study(
        {"name": "t", "rows": ["net"], "columns": ["subgroup"], "subgroup": "site",
         "metrics": {"A": "accuracy"}},
        {"name": "u", "rows": ["net"], "subgroup": "site=B", "metrics": {"A": "accuracy"}},
        evaluate={"subgroups": ["site"]},
    )  # fmt: skip
    table = make_table(spec, spec.tables[0], found(spec))
    assert table.columns == (("site=A",), ("site=B",))
    assert values(table)["a",] == [pytest.approx(0.45), pytest.approx(0.55)]
    table = make_table(spec, spec.tables[1], found(spec))
    assert values(table)["a",] == [pytest.approx(0.55)]


def test_the_setting_is_chosen_on_validation_and_its_test_figures_are_stated() -> None:
    spec = study({"name": "t", "rows": ["net", "loss"], "metrics": {"Acc": "accuracy"}})
    table = make_table(spec, spec.tables[0], found(spec))
    assert table.choice is not None
    # The best on test is b with ce; validation says otherwise, and validation counts.
    assert table.choice.labels == {"net": "a", "loss": "focal"}
    assert table.choice.value == pytest.approx(0.991)
    assert [row.labels for row in table.rows if row.cells[0].is_chosen] == [("a", "focal")]
    assert any(
        note.startswith("† Best on the validation part by auc (0.991, mean of 3 trials): net=a, "
                        "loss=focal. Part test: Acc 0.700 [0.452, 0.948]")
        for note in notes(table)
    )  # fmt: skip


def test_a_metric_of_which_less_is_better_chooses_the_lowest() -> None:
    spec = study({"name": "t", "rows": ["net"], "metrics": {"A": "accuracy"}}, choose_by="nll")
    measured = [
        Measured(one.outcome, {**one.figures, ("val", "", "nll"): Figure(loss, None, None)})
        for one in found(spec)
        for loss in [0.3 if one.outcome.labels["net"] == "b" else 0.4]
    ]
    table = make_table(spec, spec.tables[0], measured)
    assert table.choice is not None
    assert table.choice.labels == {"net": "b"}


def test_gaps_are_shown_and_counted() -> None:
    spec = study({"name": "t", "rows": ["net", "loss"], "metrics": {"Acc": "accuracy"}})
    gone = [one.outcome.text for one in found(spec) if "net=b, loss=ce" in one.outcome.text]
    some = found(spec, without=(*gone, "net=a, loss=ce, fold=1"))
    table = make_table(spec, spec.tables[0], some)
    texts = {row.labels: cell_text(row.cells[0]) for row in table.rows}
    assert texts["b", "ce"] == "-"
    low, high = stats.t.interval(0.95, 1, loc=0.75, scale=0.05)
    assert texts["a", "ce"] == f"0.750 [{low:.3f}, {high:.3f}] (2 of 3)"
    told = study_notes(spec, some, [Looks("s", True, 9, 8)], ["net=a, loss=ce, fold=0"])
    assert told[0].startswith("No figures of 4 of 12: net=a, loss=ce, fold=1; net=b, loss=ce, ")
    assert told[1] == "Settings differ from the file's in 1 trials: net=a, loss=ce, fold=0."
    assert told[2] == "Held-out folds of s: looked at by 9 evaluations, 8 of them of s."


def test_a_metric_of_one_class_goes_by_its_name() -> None:
    spec = study({"name": "t", "rows": ["net"], "metrics": {"R": "recall", "S": "recall/ill"}})
    table = make_table(spec, spec.tables[0], found(spec))
    assert values(table)["a",] == [pytest.approx(0.375), pytest.approx(0.375)]


def test_markdown_has_the_best_in_bold() -> None:
    spec = study({"name": "Nets | losses", "rows": ["net", "loss"], "metrics": {"Acc": "accuracy"},
                  "where": {"fold": 0}})  # fmt: skip
    text = markdown(make_table(spec, spec.tables[0], found(spec)))
    assert text.splitlines()[:8] == [
        "### Nets \\| losses",
        "",
        "| net | loss | Acc |",
        "| --- | --- | ---: |",
        "| a | ce | 0.800 [0.750, 0.850] |",
        "| a | focal | 0.600 [0.550, 0.650]† |",
        "| b | ce | **0.900 [0.850, 0.950]** |",
        "| b | focal | 0.500 [0.450, 0.550] |",
    ]
    assert "Of a single trial: the 95 % interval of a bootstrap over patients, if any." in text


def test_csv_can_be_read_back() -> None:
    spec = study({"name": "T", "rows": ["net"], "metrics": {"Acc": "accuracy", "Plus": "brier"}})
    rows = list(csv.DictReader(io.StringIO(
        comma_separated(make_table(spec, spec.tables[0], found(spec)))
    )))  # fmt: skip
    assert [(row["table"], row["net"], row["Acc"]) for row in rows] == [
        ("T", "a", "0.75"),
        ("T", "b", "0.66"),
    ]
    assert float(rows[0]["Acc low"]) < 0.75 < float(rows[0]["Acc high"])
    assert (rows[0]["Acc trials"], rows[0]["Acc marks"], rows[0]["Plus"]) == (
        "6",
        "best chosen",
        "",
    )
