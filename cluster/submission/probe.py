"""Asks every node of the cluster it runs on, and prints the answers as one line of JSON.

Runs as a Ray job of its own, before anything is submitted: `python -m cluster.submission.probe`.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.foreign import told
from cluster.submission.witness import NodeAnswer, Question, look
from schemas.errors import RaywardError
from schemas.masking import masked

QUESTION_FILE = ".rayward/question.json"
MARK = "rayward-preflight "
"""How the line begins."""
FAILED = "error: "
"""How the line begins that says why there is none."""
_PATIENCE_S = 120.0


def ask_all(question: Question, patience_s: float = _PATIENCE_S) -> list[dict[str, Any]]:
    """Each live node's resources and its answer, or the class of the error that came instead."""
    task: Any = ray.remote(num_cpus=0, max_retries=1)(look)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(question)
        for node in nodes
    ]
    ray.wait(asked, num_returns=len(asked), timeout=patience_s)
    return [_entry(node, ref) for node, ref in zip(nodes, asked, strict=True)]


def _entry(node: dict[str, Any], ref: "ray.ObjectRef[NodeAnswer]") -> dict[str, Any]:
    resources = node["Resources"]
    entry: dict[str, Any] = {
        "address": node["NodeManagerAddress"],
        "cpus": resources.get("CPU", 0.0),
        "gpus": resources.get("GPU", 0.0),
        "answer": None,
        "error": "",
    }
    try:
        entry["answer"] = asdict(ray.get(ref, timeout=0))
    except RayError as error:
        entry["error"] = type(getattr(error, "cause", None) or error).__name__
    return entry


def main() -> None:
    """Ask, and print the answers; of an error that is not ours only class and place."""
    try:
        question = Question.from_dict(json.loads(Path(QUESTION_FILE).read_text()))
        ray.init(log_to_driver=False)
        answers = ask_all(question)
    except Exception as error:  # noqa: BLE001 - a traceback would show its message in the log
        why = masked(str(error)) if isinstance(error, RaywardError) else told(error)
        sys.stdout.write(f"{FAILED}{why}\n")
        sys.exit(1)
    sys.stdout.write(f"{MARK}{json.dumps(answers)}\n")


if __name__ == "__main__":
    main()
