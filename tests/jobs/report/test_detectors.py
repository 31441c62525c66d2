"""Tables of detectors' evaluations from the lake."""

from pathlib import Path

import pytest

from cluster.lake.store import LakeStore
from jobs.bundles import model_row
from jobs.report.cells import StudyTable
from jobs.report.detectors import (
    Evaluated,
    all_tables,
    category_table,
    confusion_table,
    detector_notes,
    evaluated,
    precision_table,
    sensitivity_table,
)
from jobs.report.text import comma_separated, markdown
from tests.jobs.detecting import detector_config
from tests.jobs.report.evaluated_detector import (
    FIGURE_4B,
    NAMES,
    asked,
    open_evaluated,
    publish,
    trained,
)
from tests.jobs.seeding import seed


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LakeStore:
    return open_evaluated(str(tmp_path_factory.mktemp("made") / "lake"))


@pytest.fixture(scope="module")
def found(store: LakeStore) -> list[Evaluated]:
    return evaluated([asked(), asked(model="unmade")], store)


def shown(table: StudyTable) -> list[tuple[str, ...]]:
    return [
        (*one.labels, *("-" if c.value is None else f"{c.value:.4g}" for c in one.cells))
        for one in table.rows
    ]


def test_average_precision_with_how_the_model_was_trained(found: list[Evaluated]) -> None:
    table = precision_table(found)
    first, second = shown(table)
    assert first == (
        "test", "flex", "centernet", "resnet18", "stepwise", "none", "4", "12", "512",
        "0.344", "0.639", "-", "-", "-", "-",
    )  # fmt: skip
    assert second[:2] == ("test", "unmade")
    assert set(second[2:]) == {"-"}
    assert "0.639 [0.600, 0.700]" in markdown(table)
    assert detector_notes(found) == ["No figures of 1 of 2: unmade."]


def test_each_version_is_told_as_it_was_trained(tmp_path: Path) -> None:
    lake = open_evaluated(str(tmp_path / "lake"))
    publish(lake, *trained(2, epochs=40, preprocess={"size": 256}))
    marked = model_row(detector_config("flex"), 1, nightly=True)
    seed(lake, {"models": [marked]})  # for nights: another row of version 1, by another run
    first, newest = evaluated([asked(model="flex@1"), asked()], lake)
    columns = ("weights", "epochs", "size")
    assert [first.trained[name] for name in columns] == ["stepwise", "12", "512"]
    assert [newest.trained[name] for name in columns] == ["flex", "40", "256"]
    seed(lake, {"models": [model_row(detector_config("brought"), 1, nightly=False)]})
    (brought,) = evaluated([asked(model="brought")], lake)
    assert [brought.trained[name] for name in columns] == ["-", "-", "-"]


def test_the_printed_table_by_category(found: list[Evaluated]) -> None:
    rows = shown(category_table(found))
    assert {one[:4] for one in rows[:5]} == {("test", "flex", "0.25", "0.3")}
    rows = [one[3:] for one in rows]
    assert [one[1] for one in rows[:5]] == ["cyst", "HCC", "hemangioma", "Meta", "all"]
    # Precision and F1 are not among the seeded figures.
    assert rows[0][2:] == ("3037", "619", "208", "-", "0.919", "-")
    assert rows[3][2:6] == ("1021", "173", "265", "-")
    assert rows[4][2] == "8391"
    assert [one[:3] for one in rows[5:]] == [("-", "all", "-")]  # of what has no figures


def test_the_printed_confusion_matrix(found: list[Evaluated]) -> None:
    table = confusion_table(found[0], "test")
    assert "part test, confidence 0.3" in table.name
    assert table.row_axes == ("trial", "actual", *NAMES)
    assert [tuple(map(int, one.labels[2:])) for one in table.rows] == list(FIGURE_4B)
    assert comma_separated(table).splitlines()[1].endswith("flex,none,0,619,147,398,173")


def test_sensitivities_and_what_is_shown_of_what_has_no_figures(found: list[Evaluated]) -> None:
    rows = shown(sensitivity_table(found))
    assert rows[0] == ("test", "flex", "-", "-", "-", "0.87", "-", "-", "-")
    assert [table.name.partition(",")[0] for table in all_tables(found)] == [
        "Average precision (COCO)",
        "Sensitivity at false positives an image",
        "By category",
        "Confusion",
    ]
