"""The operator's pages name every file, and no file that is not there."""

import re

from ray.autoscaler._private.constants import AUTOSCALER_METRIC_PORT
from ray.dashboard.consts import DASHBOARD_METRIC_PORT

from tests.cluster.deploy.manifests import CHECKOUT, DEPLOY

PAGE = (CHECKOUT / "docs" / "deploy.md").read_text()
README = (DEPLOY / "README.md").read_text()


def test_every_file_is_named() -> None:
    files = [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    unnamed = [one.name for one in files if one.name not in README]
    assert sorted(unnamed) == ["README.md", "__init__.py"]


def test_every_path_of_the_page_is_there() -> None:
    named = set(re.findall(r"cluster/deploy/[\w./*-]+\w", PAGE + README))
    assert len(named) > 5
    assert [one for one in named if not list(CHECKOUT.glob(one))] == []


def test_every_secret_of_the_manifests_is_explained() -> None:
    text = "".join(path.read_text() for path in (DEPLOY / "kuberay").glob("*.yaml"))
    secrets = set(re.findall(r"secretName: ([\w-]+)|secretRef: \{name: ([\w-]+)", text))
    names = {one or other for one, other in secrets}
    assert names == {"rayward-pseudonym-key", "rayward-s3", "rayward-notify"}
    assert [one for one in names if f"secret generic {one}" not in PAGE] == []


def test_every_fixed_port_of_the_units_is_explained() -> None:
    text = "".join(path.read_text() for path in (DEPLOY / "vm").glob("*.service"))
    ports = set(re.findall(r"port=(\d+)", text))
    table = PAGE[PAGE.index("| port |") : PAGE.index("The night runs as")]
    explained = set(re.findall(r"\d{4,5}", table))
    assert ports - explained == {"52366"}  # within a range
    # Of the head, by no flag.
    assert explained - ports == {str(AUTOSCALER_METRIC_PORT), str(DASHBOARD_METRIC_PORT)}
