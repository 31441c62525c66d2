"""The views against small cases by hand, and against the same rules written in plain Python."""

import json
import random
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cluster.lake.views import VIEWS
from tests.cluster.lake.small import SmallLake, at, image, prediction


@pytest.fixture
def lake(tmp_path: Path) -> SmallLake:
    return SmallLake(str(tmp_path / "lake"))


def rows(lake: SmallLake, view: str, columns: str = "*") -> list[dict[str, Any]]:
    found = lake.reader().query(f"SELECT {columns} FROM {view} ORDER BY ALL")
    return [dict(row) for row in found.to_pylist()]


def annotation(
    image_id: str, source: str, x: float | None = None, made_from: str | None = None
) -> dict[str, Any]:
    edges = {"x": x, "y": x, "w": x, "h": x, "category": None if x is None else "cyst"}
    return {"image_id": image_id, "source": source, "made_from": made_from, **edges}


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_has_the_columns_it_declares(lake: SmallLake, name: str) -> None:
    lake.publish(
        "r1",
        images=[image("a"), image("b", "/x"), image("b", "/y")],
        quality=[{"dataset": "d", "image_id": "a", "kept": True}],
        predictions=[prediction("a", "m", 0.5, 0.5)],
        models=[{"model_id": "m", "name": "n", "version": 1, "classes": ["x", "y"]}],
        annotations=[annotation("a", "reader", 1.0)],
        profiles=[{"profile": "p", "dataset": "d", "statistic": "count"}],
        suspects=[{"profile": "p", "dataset": "d", "image_id": "a"}],
    )
    found = lake.reader().query(f"SELECT * FROM {name}")
    assert found.num_rows > 0
    assert found.schema.names == VIEWS[name].schema.names
    assert found.schema.types == VIEWS[name].schema.types
    assert all((field.metadata or {}).get(b"description") for field in VIEWS[name].schema)


def test_the_newest_row_of_a_place_counts(lake: SmallLake) -> None:
    lake.publish("r1", images=[image("old", "/x", seen_at=at(1)), image("same", "/y")])
    lake.publish("r2", images=[image("new", "/x", seen_at=at(2), label="later")])
    lake.publish("r3", images=[image("same", "/y", seen_at=at(3), label="corrected")])
    assert rows(lake, "current_images", "image_id, uri, label, seen_at, run_id") == [
        {"image_id": "new", "uri": "/x", "label": "later", "seen_at": at(2), "run_id": "r2"},
        {"image_id": "same", "uri": "/y", "label": "corrected", "seen_at": at(3), "run_id": "r3"},
    ]


def test_of_two_rows_seen_at_once_the_later_run_counts(lake: SmallLake) -> None:
    lake.publish("r2", images=[image("b", "/x")])
    lake.publish("r1", images=[image("a", "/x")])
    assert rows(lake, "current_images", "image_id") == [{"image_id": "b"}]


def test_what_is_gone_is_no_longer_there(lake: SmallLake) -> None:
    lake.publish("r1", images=[image("a", "/x"), image("b", "/y"), image("b", "/z")])
    gone = {"seen_at": at(1), "state": "gone"}
    lake.publish("r2", images=[image("a", "/x", **gone), image("b", "/y", **gone)])
    assert rows(lake, "current_images", "image_id, uris") == [{"image_id": "b", "uris": ["/z"]}]
    lake.publish("r3", images=[image("a", "/x", seen_at=at(2))])
    assert [row["image_id"] for row in rows(lake, "current_images", "image_id")] == ["a", "b"]


def test_equal_bytes_under_two_uris_are_one_row(lake: SmallLake) -> None:
    one = image("a", "/2", etag="e2", bytes=9, patient_id="p2", label="x", split="test", age=None)
    lake.publish("r1", images=[one])
    other = image("a", "/1", etag="e1", bytes=9, patient_id=None, label="y", split="train", age=30)
    lake.publish("r2", images=[other, image("a", "/3", patient_id="p1", seen_at=at(7))])
    (found,) = rows(lake, "current_images")
    expected = {
        "uri": "/1",
        "uris": ["/1", "/2", "/3"],
        "etag": "e1",
        "bytes": 9,
        "patient_id": "p2",
        "patient_ids": ["p1", "p2"],
        "age": 30,
        "label": None,
        "labels": ["x", "y"],
        "label_conflict": "x, y",
        "split": "train",
        "splits": ["test", "train"],
        "seen_at": at(7),
        "run_id": "r2",
    }
    assert {name: found[name] for name in expected} == expected


def test_labels_that_agree_or_are_missing_do_not_contradict(lake: SmallLake) -> None:
    pairs = {"a": ("x", "x"), "b": ("x", None), "c": (None, None)}
    lake.publish(
        "r1",
        images=[
            image(name, f"/{name}{place}", label=label)
            for name, labels in pairs.items()
            for place, label in enumerate(labels)
        ],
    )
    assert rows(lake, "current_images", "image_id, label, labels, label_conflict") == [
        {"image_id": "a", "label": "x", "labels": ["x"], "label_conflict": None},
        {"image_id": "b", "label": "x", "labels": ["x"], "label_conflict": None},
        {"image_id": "c", "label": None, "labels": [], "label_conflict": None},
    ]


def test_data_sets_and_frames_stay_apart(lake: SmallLake) -> None:
    frames = [image(f"h.{frame}", "/volume", frame=frame) for frame in range(3)]
    lake.publish("r1", images=[*frames, image("h.0", "/volume", dataset="other")])
    assert rows(lake, "current_images", "dataset, image_id, frame") == [
        {"dataset": "d", "image_id": "h.0", "frame": 0},
        {"dataset": "d", "image_id": "h.1", "frame": 1},
        {"dataset": "d", "image_id": "h.2", "frame": 2},
        {"dataset": "other", "image_id": "h.0", "frame": 0},
    ]


def test_kept_images_follow_the_latest_cleaning(lake: SmallLake) -> None:
    lake.publish("r1", images=[image(name) for name in "abcd"])
    verdicts = [("a", True), ("b", False), ("c", True)]
    lake.publish(
        "r2",
        quality=[
            {"dataset": "d", "image_id": one, "kept": kept, "recipe": "old"}
            for one, kept in verdicts
        ],
    )
    lake.publish(
        "r3",
        quality=[{"dataset": "d", "image_id": "b", "kept": True, "recipe": "new", "phash": "ff"}],
    )
    lake.add("quality", "r4", [{"dataset": "d", "image_id": "a", "kept": False}])
    lake.publish("r5", quality=[{"dataset": "d", "image_id": "c", "kept": False, "reason": "dark"}])
    assert rows(lake, "kept_images", "image_id, recipe, phash, quality_run_id, run_id") == [
        {
            "image_id": "a",
            "recipe": "old",
            "phash": None,
            "quality_run_id": "r2",
            "run_id": "r1",
        },
        {
            "image_id": "b",
            "recipe": "new",
            "phash": "ff",
            "quality_run_id": "r3",
            "run_id": "r1",
        },
    ]
    assert lake.reader().query("SELECT count(*) AS n FROM kept_images")["n"].to_pylist() == [2]


def test_planning_finds_what_a_model_has_not_scored(lake: SmallLake) -> None:
    lake.publish(
        "r1",
        images=[image(name) for name in "abcd"],
        quality=[{"dataset": "d", "image_id": name, "kept": name != "d"} for name in "abcd"],
        predictions=[prediction("a", "m1", 0.5), prediction("b", "m2", 0.5)],
    )
    lake.add("predictions", "r2", [prediction("c", "m1", 0.5)])
    found = lake.reader().query(
        "SELECT image_id FROM kept_images AS k WHERE dataset = $dataset AND NOT EXISTS ("
        "SELECT 1 FROM predictions WHERE model_id = $m AND image_id = k.image_id) ORDER BY ALL",
        {"dataset": "d", "m": "m1"},
    )
    assert found["image_id"].to_pylist() == ["b", "c"]


def _model(model_id: str, version: int, point: Mapping[str, Any] | None, **more: Any) -> Any:
    return {
        "model_id": model_id,
        "name": "lungs",
        "version": version,
        "classes": ["no", "yes"],
        "operating_point": json.dumps(point) if point else None,
        **more,
    }


def test_the_newest_version_and_its_newest_row_count(lake: SmallLake) -> None:
    lake.publish("r1", models=[_model("m1", 1, None), _model("m2", 2, None)])
    lake.publish(
        "r2",
        predictions=[
            prediction("a", "m1", 0.9, 0.1),
            prediction("a", "m2", 0.2, 0.8),
            prediction("b", "m1", 0.9, 0.1),
        ],
    )
    lake.publish("r3", predictions=[prediction("b", "m1", 0.3, 0.7)])
    other = _model("m3", 1, None) | {"name": "heart"}
    lake.publish("r4", models=[other], predictions=[prediction("a", "m3", 1.0, 0.0)])
    lake.publish("r5", predictions=[prediction("z", "unknown", 1.0)])
    found = rows(lake, "latest_predictions", "name, image_id, version, model_id, label, run_id")
    assert [tuple(row.values()) for row in found] == [
        ("heart", "a", 1, "m3", "no", "r4"),
        ("lungs", "a", 2, "m2", "yes", "r2"),
        ("lungs", "b", 1, "m1", "yes", "r3"),
    ]


def test_the_label_follows_the_operating_point_as_it_is_now(lake: SmallLake) -> None:
    scores = {"a": 0.25, "b": 0.5, "c": 0.75}
    lake.publish(
        "r1",
        models=[_model("m", 1, {"positive": "yes", "threshold": 0.75})],
        predictions=[prediction(one, "m", 1 - score, score) for one, score in scores.items()],
    )

    def labels() -> dict[str, str]:
        return {
            row["image_id"]: row["label"]
            for row in rows(lake, "latest_predictions", "image_id, label")
        }

    assert labels() == {"a": "no", "b": "no", "c": "yes"}
    lake.publish("r2", models=[_model("m", 1, {"positive": "yes", "threshold": 0.25})])
    assert labels() == {"a": "yes", "b": "yes", "c": "yes"}
    lake.publish("r3", models=[_model("m", 1, {"positive": "no", "threshold": 0.5})])
    assert labels() == {"a": "no", "b": "no", "c": "yes"}
    lake.publish("r4", models=[_model("m", 1, None)])
    assert labels()["c"] == "yes"


@pytest.mark.parametrize(
    ("classes", "point", "scores", "label"),
    [
        (["x", "y", "z"], None, (0.2, 0.3, 0.5), "z"),
        (["x", "y", "z"], {"positive": "y", "threshold": 0.25}, (0.2, 0.3, 0.5), "y"),
        (["x", "y", "z"], {"positive": "y", "threshold": 0.4}, (0.2, 0.3, 0.5), "z"),
        # Its class has the best score and yet misses the threshold: the best of the others.
        (["x", "y", "z"], {"positive": "z", "threshold": 0.9}, (0.2, 0.3, 0.5), "y"),
        (["x", "y"], {"positive": "x", "threshold": 0.9}, (0.8, 0.2), "y"),
        (["x", "y"], {"positive": "elsewhere", "threshold": 0.1}, (0.8, 0.2), "x"),
        (["x", "y"], None, (0.5, 0.5), "x"),
        ([], None, (3.5,), None),
        (None, None, (3.5,), None),
    ],
)
def test_labels_of_any_number_of_classes(
    lake: SmallLake,
    classes: list[str] | None,
    point: dict[str, Any] | None,
    scores: tuple[float, ...],
    label: str | None,
) -> None:
    lake.publish(
        "r1",
        models=[_model("m", 1, point, classes=classes)],
        predictions=[prediction("a", "m", *scores)],
    )
    assert rows(lake, "latest_predictions", "label") == [{"label": label}]


@pytest.mark.parametrize(
    ("confidence", "scores", "label"),
    [
        (0.3, (0.1, 0.5), "yes"),
        (0.5, (0.1, 0.5), "yes"),
        (0.55, (0.1, 0.5), None),
        (0.0, (0.0, 0.25), "yes"),
        (0.0, (0.0, 0.0), None),  # without a box nothing was found, wherever the point lies
        (None, (0.0, 0.0), None),
    ],
)
def test_a_detector_has_a_label_where_a_box_reaches_its_operating_point(
    lake: SmallLake, confidence: float | None, scores: tuple[float, ...], label: str | None
) -> None:
    stated = {"ap50": 0.9} if confidence is None else {"ap50": 0.9, "threshold": confidence}
    lake.publish(
        "r1",
        models=[_model("m", 1, None, family="centernet", metrics=json.dumps(stated))],
        predictions=[prediction("a", "m", *scores)],
    )
    assert rows(lake, "latest_predictions", "label") == [{"label": label}]


def _current(found: list[dict[str, Any]]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """`current_images` by the letter: newest row of each place, present ones by content."""
    newest: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in sorted(found, key=lambda one: (one["seen_at"], one["run_id"])):
        newest[row["dataset"], row["uri"], row["frame"]] = row
    contents = defaultdict(list)
    for row in newest.values():
        if row["state"] == "present":
            contents[row["dataset"], row["image_id"]].append(row)
    return {key: _merged(sorted(group, key=_by_uri)) for key, group in contents.items()}


def _by_uri(row: dict[str, Any]) -> str:
    return str(row["uri"])


def _merged(group: list[dict[str, Any]]) -> tuple[Any, ...]:
    labels = sorted({row["label"] for row in group if row["label"] is not None})
    patients = [row["patient_id"] for row in group if row["patient_id"] is not None]
    return (
        [row["uri"] for row in group],
        group[0]["etag"],
        labels[0] if len(labels) == 1 else None,
        labels,
        ", ".join(labels) if len(labels) > 1 else None,
        patients[0] if patients else None,
        sorted(set(patients)),
        max(row["seen_at"] for row in group),
        max(row["run_id"] for row in group),
    )


@pytest.mark.parametrize("seed", range(4))
def test_current_images_equals_the_same_rules_in_python(lake: SmallLake, seed: int) -> None:
    """Places seen again, contents moved and doubled, files gone: more rivals in every seed."""
    chance = random.Random(seed)
    places, contents = 400 // (seed + 1), 600 // (seed + 1) ** 2
    everything = []
    for run in range(5):
        seen = {}
        for _ in range(60):
            name = f"{chance.randrange(contents):05d}"
            place = chance.choice("de"), f"/{chance.randrange(places):04d}"
            seen[place] = image(
                name,
                place[1],
                dataset=place[0],
                seen_at=at(chance.randrange(4)),
                etag=f"{run}{place}",
                label=chance.choice(["x", "y", None]),
                patient_id=chance.choice(["p", "q", None]),
                state=chance.choice(["present", "present", "present", "gone"]),
            )
        lake.publish(f"r{run}", images=list(seen.values()))
        everything += [row | {"run_id": f"r{run}"} for row in seen.values()]
    found = rows(
        lake,
        "current_images",
        "dataset, image_id, uris, etag, label, labels, label_conflict,"
        " patient_id, patient_ids, seen_at, run_id",
    )
    assert {
        (row["dataset"], row["image_id"]): tuple(row.values())[2:] for row in found
    } == _current(everything)
    assert len(found) == len(_current(everything))


def test_the_newest_run_of_a_source_says_all_about_an_image(lake: SmallLake) -> None:
    lake.publish(
        "r1",
        annotations=[
            *(annotation("a", "reader", x, "1") for x in (1.0, 2.0)),
            annotation("b", "reader", 3.0, "1"),
            annotation("c", "reader", 4.0, "1"),
            annotation("d", "reader", made_from="1"),
            annotation("a", "other", 5.0, "1"),
        ],
    )
    lake.publish(
        "r2",
        annotations=[
            annotation("a", "reader", 6.0, "2"),
            annotation("b", "reader", made_from="2"),  # looked at again: nothing there
            annotation("c", "reader"),  # withdrawn
        ],
    )
    lake.add("annotations", "r3", [annotation("d", "reader", 7.0, "3")])
    lake.state("r3", "held")
    boxes = rows(lake, "current_annotations", "image_id, source, x, run_id")
    assert [tuple(row.values()) for row in boxes] == [
        ("a", "other", 5.0, "r1"),
        ("a", "reader", 6.0, "r2"),
    ]
    looked = rows(lake, "annotated_images", "image_id, source, boxes, made_from")
    assert [tuple(row.values()) for row in looked] == [
        ("a", "other", 1, "1"),
        ("a", "reader", 1, "2"),
        ("b", "reader", 0, "2"),
        ("d", "reader", 0, "1"),
    ]


def test_the_newest_run_of_a_profile_counts_and_may_find_nothing_odd(lake: SmallLake) -> None:
    def figure(profile: str, value: float) -> dict[str, Any]:
        return {"profile": profile, "dataset": "d", "value": value}

    odd = [{"profile": name, "dataset": "d", "image_id": "a"} for name in ("p", "q")]
    lake.publish("r1", profiles=[figure("p", 1), figure("q", 2)], suspects=odd)
    lake.publish("r2", profiles=[figure("p", 3)])
    assert [row["value"] for row in rows(lake, "current_profiles", "value")] == [2, 3]
    assert [row["profile"] for row in rows(lake, "current_suspects", "profile")] == ["q"]
