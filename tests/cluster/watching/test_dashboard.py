"""The Grafana dashboard: its form, its queries, and that it names what the code exports."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from cluster.watching.metrics import METRICS, exported_names

FILE = Path(__file__).resolve().parents[3] / "cluster/deploy/grafana/rayward-runs.json"
COLUMNS = 24
RAYS_OWN = {"le"}
"""Labels that the port adds and a query may name."""
VARIABLES = {"$kind": "k", "$job": "j"}

Dashboard = dict[str, Any]


def dashboard() -> Dashboard:
    found: Dashboard = json.loads(FILE.read_text())
    return found


def problems(board: Dashboard) -> Iterator[str]:
    """Everything that is wrong with a dashboard of Grafana's classic model."""
    for name, kind in {
        "uid": str, "title": str, "schemaVersion": int, "panels": list, "templating": dict,
        "time": dict, "refresh": str,
    }.items():  # fmt: skip
        if not isinstance(board.get(name), kind):
            yield f"{name} is no {kind.__name__}"
    panels = board["panels"]
    ids = [panel["id"] for panel in panels]
    if len(set(ids)) != len(ids):
        yield "two panels share an id"
    yield from _overlaps(panels)
    shown = {one for panel in panels for query in _queries(panel) for one in _metrics(query)}
    for panel in panels:
        if panel["type"] != "row":
            yield from _panel_problems(panel)
    unshown = {name for name in METRICS if not any(name in one for one in shown)}
    if unshown:
        yield f"no panel shows {sorted(unshown)}"


def _panel_problems(panel: Dashboard) -> Iterator[str]:
    title = panel["title"]
    if panel["type"] not in ("timeseries", "stat"):
        yield f"{title}: there is no panel of type {panel['type']}"
    if panel["datasource"] != {"type": "prometheus", "uid": "${datasource}"}:
        yield f"{title}: its data source is fixed"
    references = [target["refId"] for target in panel["targets"]]
    if not references or len(set(references)) != len(references):
        yield f"{title}: queries without a name of their own"
    if "unit" not in panel["fieldConfig"]["defaults"]:
        yield f"{title}: no unit"
    for query in _queries(panel):
        try:
            tree = promql_parser.parse(query)
        except ValueError as error:
            yield f"{title}: {error}"
            continue
        yield from (f"{title}: {one}" for one in _query_problems(tree))


def _query_problems(tree: Any, function: str = "") -> Iterator[str]:
    """Names, labels, and that counters are read as rates, and rates are taken of counters."""
    if isinstance(tree, promql_parser.VectorSelector):
        yield from _selector_problems(tree, function)
    elif isinstance(tree, promql_parser.MatrixSelector):
        yield from _selector_problems(tree.vector_selector, function)
    elif isinstance(tree, promql_parser.Call):
        for argument in tree.args:
            yield from _query_problems(argument, tree.func.name)
    elif isinstance(tree, promql_parser.AggregateExpr):
        labels = set(tree.modifier.labels) if tree.modifier else set()
        known = set().union(*(_labels(name) for name in _metrics(str(tree.expr))))
        if labels - known:
            yield f"no metric of it bears {sorted(labels - known)}"
        yield from _query_problems(tree.expr, function)
    elif isinstance(tree, promql_parser.BinaryExpr):
        yield from _query_problems(tree.lhs, function)
        yield from _query_problems(tree.rhs, function)


def _selector_problems(selector: Any, function: str) -> Iterator[str]:
    name = selector.name
    if name not in exported_names():
        yield f"nobody exports {name}"
        return
    matched = {one.name for one in selector.matchers.matchers}
    if matched - _labels(name):
        yield f"{name} bears no {sorted(matched - _labels(name))}"
    if not {"kind", "job"} <= matched:
        yield f"{name} is not chosen by kind and job"
    grows = name.endswith(("_total", "_bucket", "_count", "_sum"))
    if grows != (function in ("rate", "increase")):
        yield f"{name} within {function or 'nothing'}"


def _labels(exported: str) -> set[str]:
    name = exported.removeprefix("ray_")
    for end in ("_total", "_bucket", "_count", "_sum"):
        name = name.removesuffix(end) if name.removesuffix(end) in METRICS else name
    return set(METRICS[name].labels) | RAYS_OWN if name in METRICS else set()


def _queries(panel: Dashboard) -> list[str]:
    found = [target["expr"] for target in panel.get("targets", ())]
    for variable, value in VARIABLES.items():
        found = [one.replace(variable, value) for one in found]
    return found


def _metrics(query: str) -> set[str]:
    words = query.replace("{", " ").replace("(", " ").replace(")", " ").split()
    return {word for word in words if word.startswith("ray_")}


def _overlaps(panels: list[Dashboard]) -> Iterator[str]:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        if place["x"] + place["w"] > COLUMNS:
            yield f"{panel['title']} leaves the grid"
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                if (x, y) in taken:
                    yield f"{panel['title']} covers {taken[x, y]}"
                    return
                taken[x, y] = panel["title"]


def test_the_dashboard_is_sound() -> None:
    assert list(problems(dashboard())) == []


def test_variables_are_filled_from_our_metrics() -> None:
    variables = {one["name"]: one for one in dashboard()["templating"]["list"]}
    assert variables.pop("datasource")["query"] == "prometheus"
    assert {f"${name}" for name in variables} == set(VARIABLES)
    for name, one in variables.items():
        assert one["query"]["query"] == f"label_values(ray_rayward_images_total, {name})"
        assert name in METRICS["rayward_images"].labels


def _expression(text: str) -> Callable[[Dashboard], None]:
    def change(board: Dashboard) -> None:
        board["panels"][1]["targets"][0]["expr"] = text

    return change


def _place(**changes: int) -> Callable[[Dashboard], None]:
    def change(board: Dashboard) -> None:
        board["panels"][2]["gridPos"].update(changes)

    return change


def _without(title: str) -> Callable[[Dashboard], None]:
    def change(board: Dashboard) -> None:
        board["panels"] = [one for one in board["panels"] if one["title"] != title]

    return change


OURS = '{kind=~"$kind", job=~"$job"}'


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_expression(f"sum(rate(rayward_images_total{OURS}[2m]))"), "nobody exports"),
        (_expression(f"sum(rate(ray_rayward_images{OURS}[2m]))"), "nobody exports"),
        (_expression(f"sum(ray_rayward_images_total{OURS})"), "within nothing"),
        (_expression(f"rate(ray_rayward_processes{OURS}[2m])"), "within rate"),
        (_expression(f"sum(rate(ray_rayward_images_total{OURS}[2m])"), "unclosed"),
        (_expression("sum(rate(ray_rayward_images_total[2m]))"), "not chosen by kind"),
        (
            _expression('rate(ray_rayward_images_total{kind="a", job="b", run_id="c"}[2m])'),
            "bears no",
        ),
        (
            _expression(f"sum by (patient) (rate(ray_rayward_images_total{OURS}[2m]))"),
            "no metric of it bears",
        ),
        (_place(x=20), "leaves the grid"),
        (_place(x=0), "covers"),
        (lambda board: board["panels"][3].update(id=2), "share an id"),
        (lambda board: board["panels"][3].update(type="graph"), "no panel of type"),
        (_without("Stalls, by stage"), "no panel shows"),
        (lambda board: board.update(title=None), "title is no str"),
    ],
)
def test_a_wrong_dashboard_is_found_out(change: Callable[[Dashboard], None], found: str) -> None:
    board = copy.deepcopy(dashboard())
    change(board)
    assert any(found in one for one in problems(board)), list(problems(board))
