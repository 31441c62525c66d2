"""Ray Jobs of one cluster: submitting, listing, following and stopping, with errors of ours."""

import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from cluster.submission.access import AUTH_MODE, Access, is_loopback
from schemas.errors import RunError, UsageError

LAKE_NOTE, ORDER_NOTE, CHECK_NOTE = "rayward_lake", "rayward_order", "rayward_check"
"""Metadata of our jobs: where the lake lies, the fingerprint of the order, and for whose preflight
a job ran."""
_REQUEST_S = (10.0, 10.0)
"""Seconds until a cluster must answer: to connect, and between two pieces of an answer."""
_WORK_S = (10.0, 120.0)
"""The same for requests that make it work, such as taking a package."""
_DIRECT = MappingProxyType({"http": "", "https": "", "all": ""})
"""For requests that no proxy of the environment may see."""
_FIRST_POLL_S, _LONGEST_POLL_S = 0.2, 5.0
_NETWORK = (requests.exceptions.RequestException, ConnectionError, OSError)
ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.STOPPED)

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class RayJob:
    """A job as Ray knows it."""

    submission_id: str
    status: JobStatus
    started_at: datetime | None
    ended_at: datetime | None
    metadata: Mapping[str, str]

    @property
    def is_over(self) -> bool:
        """Whether Ray holds it for ended; its driver may think otherwise."""
        return self.status in ENDED


@dataclass(frozen=True)
class JobOrder:
    """What Ray is asked to run."""

    entrypoint: str
    package: Path
    env: Mapping[str, str]
    metadata: Mapping[str, str]


class _RayClient(JobSubmissionClient):
    """Ray's own client, which waits for ever and sends a token to any proxy, with neither fault."""

    def _do_request(
        self,
        method: str,
        endpoint: str,
        *,
        data: bytes | None = None,
        json_data: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> requests.Response:
        asked = {**kwargs, "timeout": _WORK_S, "proxies": proxies(self._address)}
        return super()._do_request(method, endpoint, data=data, json_data=json_data, **asked)


class Cluster:
    """The jobs of one cluster."""

    def __init__(self, access: Access) -> None:
        self.access = access
        with self._told():
            self._client = _RayClient(access.url, headers=access.headers)

    @staticmethod
    def reach(access: Access, *, allow_no_token: bool = False) -> "Cluster":
        """Connect, after a look at whether the cluster wants tokens at all.

        Raises:
            UsageError: if the cluster can't be reached, refuses the token, or takes jobs from
                anyone beyond this machine and ``allow_no_token`` does not say that this is meant.
        """
        # Ray tells of every upload on stderr; what goes is said before, and better.
        for name in ("dashboard_sdk", "job.sdk"):
            logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
        if auth_mode(access.url) != "token" and not access.is_local and not allow_no_token:
            raise UsageError(
                "The cluster takes jobs from anyone who reaches it",
                where=access.url,
                got="no token authentication",
                remedy=f"start it with {AUTH_MODE}=token; --allow-no-token submits nevertheless",
            )
        return Cluster(access)

    def ray_version(self) -> str:
        """The version of Ray on the cluster."""
        url = f"{self.access.url}/api/version"
        with self._told():
            answer = requests.get(
                url, headers=self.access.headers, timeout=_REQUEST_S, proxies=proxies(url)
            )
            answer.raise_for_status()
            return str(answer.json()["ray_version"])

    def submit(self, submission_id: str, order: JobOrder) -> bool:
        """Submit a job; says whether the id was free."""
        runtime_env = {"working_dir": str(order.package), "env_vars": dict(order.env)}
        try:
            with self._told():
                self._client.submit_job(
                    entrypoint=order.entrypoint,
                    submission_id=submission_id,
                    runtime_env=runtime_env,
                    metadata=dict(order.metadata),
                )
        except RuntimeError as error:
            if "already exists" in str(error):
                return False
            raise _refused("take the job", error) from error
        return True

    def job(self, submission_id: str) -> RayJob | None:
        """A job by its id; none if the cluster knows none of that name."""
        try:
            with self._told():
                return _job(self._client.get_job_info(submission_id))
        except RuntimeError as error:
            if "does not exist" in str(error):
                return None
            raise _refused("say how the job stands", error) from error

    def jobs(self) -> list[RayJob]:
        """All jobs that were submitted, but for preflights, the newest first."""
        with self._told():
            every = [_job(one) for one in self._client.list_jobs() if one.submission_id]
        found = [one for one in every if CHECK_NOTE not in one.metadata]
        first = datetime.fromtimestamp(0, UTC)
        return sorted(found, key=lambda one: one.started_at or first, reverse=True)

    def logs(self, submission_id: str) -> str:
        """What a job wrote so far."""
        try:
            with self._told():
                return str(self._client.get_job_logs(submission_id))
        except RuntimeError as error:
            raise _refused("show the logs", error) from error

    def tail(self, submission_id: str) -> AsyncIterator[str]:
        """What a job writes, from its beginning until it ends or the connection does."""
        return self._client.tail_job_logs(submission_id)

    def stop(self, submission_id: str) -> bool:
        """Ask a job to end; says whether it was running."""
        try:
            with self._told():
                return bool(self._client.stop_job(submission_id))
        except RuntimeError as error:
            raise _refused("stop the job", error) from error

    def wait(self, submission_id: str, patience_s: float) -> RayJob | None:
        """Wait until Ray holds a job for ended; the job as it stands then, or after the wait."""
        return poll(
            lambda: self.job(submission_id), lambda job: job is None or job.is_over, patience_s
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of the connection in our words."""
        try:
            yield
        except AuthenticationError as error:
            wanted = "no token" if self.access.token is None else "a token it does not know"
            raise UsageError(
                "The cluster refuses the request",
                where=self.access.url,
                got=wanted,
                remedy="RAY_AUTH_TOKEN_PATH names the file of the cluster's token",
            ) from error
        except _NETWORK as error:
            raise unreachable(self.access.url, error) from error


def poll(ask: Callable[[], Answer], enough: Callable[[Answer], bool], patience_s: float) -> Answer:
    """Ask again and again, less and less often, until the answer is enough or patience ends."""
    deadline_s, pause_s = time.monotonic() + patience_s, _FIRST_POLL_S
    while not enough(answer := ask()) and time.monotonic() < deadline_s:
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, _LONGEST_POLL_S)
    return answer


def auth_mode(url: str) -> str:
    """How a cluster tells friend from foe, which it says to anyone: `token`, `disabled`, ...

    Raises:
        UsageError: if it can't be reached.
    """
    try:
        # Without the token: who it is has yet to be seen.
        answer = requests.get(
            f"{url}/api/authentication_mode", timeout=_REQUEST_S, proxies=proxies(url)
        )
        return str(answer.json()["authentication_mode"]) if answer.ok else "unknown"
    except ValueError:
        return "unknown"
    except _NETWORK as error:
        raise unreachable(url, error) from error


def proxies(url: str) -> dict[str, str]:
    """What `requests` is told of proxies: none for this machine, else those of the environment.

    Without it `http://127.0.0.1` and its token would go to the proxy where NO_PROXY is not set.
    """
    return dict(_DIRECT) if is_loopback(url) else {}


def unreachable(url: str, error: Exception) -> UsageError:
    """The error for a cluster that does not answer."""
    return UsageError(
        "The cluster can't be reached",
        where=url,
        got=type(error).__name__,
        remedy="check --address, that the cluster runs, and the tunnel to it if there is one",
    )


def _refused(what: str, error: RuntimeError) -> RunError:
    # Ray's text is a traceback of the cluster's; the last line of it names the cause.
    lines = [line.strip(" .") for line in str(error).splitlines() if line.strip(" .")]
    return RunError(f"The cluster could not {what}", got=lines[-1][:300] if lines else "")


def _job(details: JobDetails) -> RayJob:
    return RayJob(
        details.submission_id or "",
        details.status,
        _time(details.start_time),
        _time(details.end_time),
        details.metadata or {},
    )


def _time(milliseconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
