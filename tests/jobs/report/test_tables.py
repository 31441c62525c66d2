"""Tables of studies against values computed by hand."""

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from jobs.report.cells import Cell, StudyTable, summary_cell
from jobs.report.figures import Looks
from jobs.report.outcomes import Figure, Measured
from jobs.report.tables import make_table
from jobs.report.text import cell_text, comma_separated, markdown, notes, study_notes
from schemas.metricnames import METRICS
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
    cell = summary_cell([Figure(float(one), 0.0, 1.0) for one in draws], expected=8)
    low, high = stats.t.interval(0.95, 6, loc=draws.mean(), scale=stats.sem(draws))
    assert cell == Cell(
        pytest.approx(draws.mean()), pytest.approx(low), pytest.approx(high), 7, expected=8
    )
    assert summary_cell([Figure(0.5, 0.4, 0.7)], 1) == Cell(0.5, 0.4, 0.7, 1, 1)
    assert summary_cell([], 2) == Cell(None, expected=2)


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
            "metrics": {"Acc": "accuracy", "Plus": "custom_plus", "p": "threshold"},
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
    (choice,) = table.choices
    # The best on test is b with ce; validation says otherwise, and validation counts.
    assert choice.labels == {"net": "a", "loss": "focal"}
    assert choice.value == pytest.approx(0.991)
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
    assert [one.labels for one in table.choices] == [{"net": "b"}]


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


def test_a_median_stands_with_the_smallest_and_the_largest() -> None:
    spec = study(
        {"name": "t", "rows": ["net"], "metrics": {"A": "accuracy"}, "where": {"loss": "ce"},
         "statistic": "median", "mean_rows": True}
    )  # fmt: skip
    table = make_table(spec, spec.tables[0], found(spec))
    assert values(table) == {("a",): [0.8], ("b",): [0.9], ("median",): [0.9]}
    cell = table.rows[0].cells[0]
    assert (cell.low, cell.high, cell.trials) == (0.7, 0.9, 3)
    told = notes(table)
    assert "Medians over trials, with the smallest and the largest of them." in told
    assert any("median of 3 trials" in note for note in told)


def leaking(*tables: Mapping[str, Any], **fields: Any) -> StudySpec:
    """Two networks on two splits; those of the naive one look better."""
    grid = {
        "net": {"a": {}, "b": {}},
        "split": {"safe": {"split": "x"}, "naive": {"split": "y", "allow_leaks": True}},
        "fold": [0, 1],
    }
    return study(*tables, grid=grid, **fields)


def of_splits(spec: StudySpec) -> list[Measured]:
    test = {("a", "safe"): 0.7, ("b", "safe"): 0.6, ("a", "naive"): 0.8, ("b", "naive"): 0.95}
    made = []
    for trial in trials_of(spec):
        (outcome,) = trial.outcomes
        value = test[trial.labels["net"], trial.labels["split"]]
        value += 0.02 * int(trial.labels["fold"]) * (2 if trial.labels["split"] == "naive" else 1)
        figures = {("test", "", "accuracy"): Figure(value, None, None)}
        figures["val", "", "auc"] = Figure(value, None, None)
        made.append(Measured(outcome, figures))
    return made


def test_nothing_is_best_across_splits() -> None:
    spec = leaking({"name": "t", "rows": ["split", "net"], "metrics": {"A": "accuracy"}})
    table = make_table(spec, spec.tables[0], of_splits(spec))
    assert [(one.labels["split"], one.labels["net"]) for one in table.choices] == [
        ("safe", "a"),
        ("naive", "b"),
    ]
    assert [row.labels for row in table.rows if row.cells[0].is_best] == [
        ("safe", "a"),
        ("naive", "b"),
    ]
    alone = leaking({"name": "t", "rows": ["split"], "metrics": {"A": "accuracy"}})
    table = make_table(alone, alone.tables[0], of_splits(alone))
    assert table.choices == ()
    assert not any(row.cells[0].is_best for row in table.rows)


def test_nothing_is_best_on_validation_across_training_sites() -> None:
    grid = {"at": {"A": {"sites": ["A"]}, "B": {"sites": ["B"]}}, "net": {"a": {}, "b": {}}}
    spec = study({"name": "t", "rows": ["at", "net"], "metrics": {"A": "accuracy"}}, grid=grid)
    made = [
        Measured(one.outcomes[0], {("val", "", "auc"): Figure(place / 10, None, None),
                                   ("test", "", "accuracy"): Figure(place / 10, None, None)})
        for place, one in enumerate(trials_of(spec))
    ]  # fmt: skip
    table = make_table(spec, spec.tables[0], made)
    assert [one.labels for one in table.choices] == [
        {"at": "A", "net": "b"},
        {"at": "B", "net": "b"},
    ]
    # All are tested on the same images, whatever they were trained on.
    assert [row.labels for row in table.rows if row.cells[0].is_best] == [("B", "b")]


def test_the_choice_is_made_on_the_subgroup_of_the_table() -> None:
    table = {"name": "t", "rows": ["net"], "metrics": {"A": "accuracy"}, "subgroup": "site=B"}
    spec = study(table, evaluate={"subgroups": ["site"]})
    made = [
        Measured(one.outcome, {**one.figures, ("val", "site=B", "auc"): Figure(auc, None, None)})
        for one in found(spec)
        for auc in [0.6 if one.outcome.labels["net"] == "b" else 0.5]
    ]
    (choice,) = make_table(spec, spec.tables[0], made).choices
    assert (choice.labels, choice.value) == ({"net": "b"}, pytest.approx(0.6))
    assert make_table(spec, spec.tables[0], found(spec)).choices == ()  # no figure of the site


def test_a_difference_is_of_trials_that_are_alike_in_all_else() -> None:
    spec = leaking(
        {"name": "t", "rows": ["net"], "columns": ["split", "metric"], "difference": "split",
         "metrics": {"A": "accuracy"}}
    )  # fmt: skip
    table = make_table(spec, spec.tables[0], of_splits(spec))
    assert table.columns == (("safe", "A"), ("naive", "A"), ("naive minus safe", "A"))
    assert values(table) == {("a",): [0.71, 0.82, 0.11], ("b",): [0.61, 0.97, 0.36]}
    cell = table.rows[0].cells[2]
    low, high = stats.t.interval(0.95, 1, loc=0.11, scale=stats.sem([0.1, 0.12]))
    assert (cell.low, cell.high) == (pytest.approx(low), pytest.approx(high))
    assert (cell.trials, cell.expected, cell.is_best, cell.is_chosen) == (2, 2, False, False)
    gone = [one for one in of_splits(spec) if one.outcome.text != "net=a, split=naive, fold=1"]
    cell = make_table(spec, spec.tables[0], gone).rows[0].cells[2]
    assert (cell.value, cell.trials, cell.expected) == (pytest.approx(0.1), 1, 2)
    one_split = leaking(*spec.model_dump()["tables"], only={"split": ["safe"]})
    assert make_table(one_split, one_split.tables[0], of_splits(one_split)).columns == (
        ("safe", "A"),
    )


@pytest.mark.parametrize(
    ("table", "fields", "said"),
    [
        ({"rows": ["net"], "difference": "net"}, {}, "needs the axis among columns"),
        ({"rows": ["net"], "difference": "fold"}, {}, "is no axis of two values"),
        ({"rows": ["net"], "metrics": {"A": "acuracy"}}, {}, "is no metric"),
        ({"rows": ["net"]}, {"choose_by": "aucc"}, "is no metric"),
        (
            {"rows": ["net"], "metrics": {"R": "recall/bad"}},
            {"train": {"dataset": "d", "split": "s", "classes": ["well", "ill"]}},
            "is of no class of the study",
        ),
        (
            {"rows": ["net"]},
            {"grid": {"net": {"a": {}, "b": {}}, "on": {"x": {"split": "x"}, "y": {}}}},
            "would average over on, whose figures are of other images",
        ),
    ],
)
def test_what_a_table_can_not_show_is_refused(
    table: dict[str, Any], fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        study({"name": "t", **table}, **fields)


def test_names_of_metrics_are_those_of_the_documents_and_of_what_is_computed() -> None:
    folder = Path(__file__).resolve().parents[3] / "docs"
    text = "".join((folder / name).read_text() for name in ("evaluation.md", "severity.md"))
    told = {
        name
        for line in text.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([a-z0-9_]+)`", line.split("|")[1])
    }
    assert {name for name in METRICS if name not in told} == set()
    assert len(set(METRICS)) == len(METRICS)


@pytest.mark.parametrize("metric", ["delong_p", "delong_patients_p", "mcnemar_p", "threshold"])
def test_what_is_neither_good_nor_bad_has_no_best(metric: str) -> None:
    shown = {"rows": ["net"], "metrics": {"M": metric, "Acc": "accuracy"}}
    spec = study({"name": "t", **shown, "where": {"loss": "ce", "fold": 0}})
    labelled = [
        Measured(one.outcome, {**one.figures, ("test", "", metric): Figure(0.5, None, None)})
        for one in found(spec)
    ]
    table = make_table(spec, spec.tables[0], labelled)
    assert [[cell.is_best for cell in row.cells] for row in table.rows] == [
        [False, False],
        [False, True],
    ]
