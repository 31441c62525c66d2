"""What a process loads for its kind."""

import subprocess
import sys

import pytest
import torch

from cluster.works import WORKS
from schemas.errors import RaywardError
from workers.pixels.steps import Recipe

_LOAD = """
import sys
from cluster.works import WORKS
from workers.pixels.steps import Recipe
WORKS["prepare"].load({"recipe": Recipe().to_dict(), "subject": "s"})
print("torch" in sys.modules)
"""


def test_preparing_on_a_cpu_loads_no_torch() -> None:
    found = subprocess.check_output([sys.executable, "-c", _LOAD], text=True)
    assert found == "False\n"


def test_preparing_with_nvjpeg_asks_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe = Recipe(decoder="nvjpeg-1").to_dict()
    with pytest.raises(RaywardError, match="needs a GPU.*Set execution.gpus_per_worker to 1"):
        WORKS["prepare"].load({"recipe": recipe, "subject": "s"})
