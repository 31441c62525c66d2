"""The night's wrapper: what counts as done for an operator that knows only done and failed."""

import subprocess
from pathlib import Path

import pytest

from tests.cluster.deploy.manifests import DEPLOY

SCRIPT = DEPLOY / "night.sh"


@pytest.mark.parametrize(
    ("code", "told"), [(0, 0), (1, 1), (2, 2), (3, 0), (4, 0), (5, 5), (137, 137)]
)
def test_a_night_that_is_over_is_not_started_anew(tmp_path: Path, code: int, told: int) -> None:
    command = tmp_path / "rayward"
    command.write_text(f'#!/bin/sh\nprintf "%s|" "$@"\nexit {code}\n')
    command.chmod(0o755)
    done = subprocess.run(
        ["sh", SCRIPT, "studies/nightly.yaml", "--set", "score.batch_size=8 x"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == told
    assert done.stdout == "run|studies/nightly.yaml|--set|score.batch_size=8 x|"
