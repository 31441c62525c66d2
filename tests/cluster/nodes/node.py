"""One Ray node as a process: ``python -m tests.cluster.nodes.node '{"num_cpus": 1, ...}'``.

What `ray start --block` does, less the server of Ray Client, which gives up on a busy host.
"""

import json
import signal
import sys
from typing import Any

from ray._private.node import Node
from ray._private.parameter import RayParams

UP = "This node is up."
_LESS: dict[str, Any] = {"include_log_monitor": False}


def main(settings: dict[str, Any]) -> None:
    """Start a node, the head if it is told no head's address, and stay."""
    head = "gcs_address" not in settings
    Node(
        RayParams(**settings, **_LESS),
        head=head,
        connect_only=False,
        shutdown_at_exit=False,
        spawn_reaper=False,
    )
    print(UP, flush=True)
    signal.pause()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
