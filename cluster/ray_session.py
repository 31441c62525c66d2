"""The Ray this process works on: an embedded one of its own, or a cluster that is there already."""

import logging
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import ray
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray._raylet import Config, GcsClient  # type: ignore[attr-defined]  # compiled, without types
from ray.exceptions import AuthenticationError, RpcError

from cluster.own_folders import make_folder
from cluster.submission.access import (
    AUTH_MODE,
    TOKEN_MODE,
    TOKEN_PATH_VARIABLE,
    find_token,
    is_loopback,
    secure_default_token,
)
from schemas.errors import UsageError

_STORE_SHARE = 0.1
"""Share of the memory for Ray's object store: shards are references, so little lies there."""
_LARGEST_STORE = 2 * 2**30


class RaySession:
    """Starts Ray with the first work there is, and stops what it started."""

    def __init__(self, address: str | None = None, *, cpus: int | None = None) -> None:
        named = address or os.environ.get("RAY_ADDRESS")
        # Ray's own word for none.
        self._address = None if named == "local" else named
        self._cpus = cpus
        self._directory: Path | None = None
        self._started = False

    def start(self) -> None:
        """Start or join Ray, once; a process that Ray started is there already."""
        if self._started or ray.is_initialized():
            return
        # What runs on a hospital's images reports to nobody.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if self._address:
            _agree_on_tokens(self._address)
            ray.init(self._address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            self._start_embedded()
        self._started = True

    def _start_embedded(self) -> None:
        """Start a Ray of this process's own.

        Raises:
            UsageError: if the environment turns tokens off: Ray's ports are open to the network,
                and who reaches them may run code here.
        """
        mode = os.environ.get(AUTH_MODE, TOKEN_MODE)
        if mode.lower() != TOKEN_MODE:
            raise UsageError(
                "An embedded Ray without tokens would run code for anyone on the network",
                where=AUTH_MODE,
                got=mode,
                remedy=f"set it to {TOKEN_MODE}, or leave it unset",
            )
        secure_default_token()
        _require_token()
        # The path stays short: Ray puts sockets below it, and their names are limited.
        self._directory = make_folder(str(os.getpid()))
        memory = psutil.virtual_memory().available
        ray.init(
            num_cpus=self._cpus or len(os.sched_getaffinity(0)),
            object_store_memory=min(int(memory * _STORE_SHARE), _LARGEST_STORE),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(self._directory),
        )

    def stop(self) -> None:
        """Leave Ray; an embedded one ends."""
        if self._started:
            ray.shutdown()
            self._started = False
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)


def _agree_on_tokens(address: str) -> None:
    """Show our token to a cluster that is there already, if it wants one.

    Raises:
        UsageError: if the token file is open to others; or if the cluster may lie beyond this
            machine, no token passes between us, and the environment does not say that this is
            meant.
    """
    token = find_token()
    if os.environ.get(AUTH_MODE):
        return
    if token and _wants_token(address):
        _require_token()
    elif address != "auto" and not _is_this_machine(address):
        raise UsageError(
            "The cluster beyond this machine wants no token: whoever reaches it may run code there"
            if token
            else "There is no token for a cluster beyond this machine",
            where=address,
            remedy=f"name the cluster's token file (mode 0600) in {TOKEN_PATH_VARIABLE}, or say "
            f"{AUTH_MODE}=disabled if it takes none",
        )


def _wants_token(address: str) -> bool:
    """Whether a cluster refuses who shows no token.

    One that wants none shows none either, and a driver that does would take it for an intruder:
    its actors would end before they began.

    Raises:
        UsageError: if there is no cluster.
    """
    try:
        GcsClient(address=canonicalize_bootstrap_address_or_die(address))
    except AuthenticationError:
        return True
    except (ConnectionError, ValueError, RpcError) as error:
        raise UsageError(
            "No Ray cluster answers",
            where=address,
            got=type(error).__name__,
            remedy="name its head as HOST:PORT; without an address, a Ray is started here",
        ) from None
    return False


def _is_this_machine(address: str) -> bool:
    """Whether an address is one of this machine's own: Ray writes its nodes' for loopback."""
    host = urlsplit(f"//{address}").hostname
    own = {one.address for some in psutil.net_if_addrs().values() for one in some}
    return host in own or is_loopback(f"//{address}")


def _require_token() -> None:
    """Make this process and those it starts use tokens."""
    os.environ[AUTH_MODE] = TOKEN_MODE
    # Ray read the variable when it was imported; its own `ray.init` has it read again like this.
    Config.initialize("")
