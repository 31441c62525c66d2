"""A training as a run of MLflow; the only module that needs ``mlflow-skinny`` (or ``mlflow``).

Addresses and credentials are MLflow's own: ``MLFLOW_TRACKING_URI``, ``MLFLOW_TRACKING_TOKEN`` and
the rest, in the environment of the process that trains.
"""

import time
from collections.abc import Mapping

from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

_RUN_TAG = "rayward.run"
_LONGEST_VALUE = 500
"""Of a parameter; servers of older versions refuse longer ones."""
_MOST_AT_ONCE = 100
"""Parameters or metrics of one request."""
_FIRST_WAIT_S = 60.0


class MlflowRun:
    """Follows one training; a training that is resumed goes on in the same run.

    A server that can't be reached is asked again after a minute, then after two, four and so on;
    the epochs meanwhile are sent late.
    """

    def __init__(self, uri: str, experiment: str, run_id: str, settings: Mapping[str, str]) -> None:
        # Named as the registry too: the client refuses some stores as one, and none is used.
        self._client = MlflowClient(uri, registry_uri="file:///nowhere")
        self._experiment, self._name, self._settings = experiment, run_id, settings
        self._run = ""
        self._sent = 0
        self._pending: list[Metric] = []
        self._wait_s, self._next_try_s = _FIRST_WAIT_S, 0.0

    def epoch(self, figures: Mapping[str, float]) -> None:
        """Log every figure; the step is the number of epochs done."""
        step, now_ms = int(figures["epoch"]) + 1, int(time.time() * 1000)
        self._pending += [
            Metric(name, value, now_ms, step) for name, value in figures.items() if name != "epoch"
        ]
        if time.monotonic() >= self._next_try_s:
            self._send()

    def close(self, *, finished: bool) -> None:
        """Send what is left and end the run."""
        self._send()
        self._client.set_terminated(self._run, "FINISHED" if finished else "FAILED")

    def _send(self) -> None:
        # Holds only if what follows raises.
        self._next_try_s, self._wait_s = time.monotonic() + self._wait_s, 2 * self._wait_s
        self._run = self._run or self._find() or self._create()
        # A process that was killed may have sent epochs whose checkpoint was never written.
        fresh = [one for one in self._pending if one.step > self._sent]
        for start in range(0, len(fresh), _MOST_AT_ONCE):
            self._client.log_batch(self._run, metrics=fresh[start : start + _MOST_AT_ONCE])
        self._sent = max((one.step for one in fresh), default=self._sent)
        self._pending.clear()
        self._next_try_s, self._wait_s = 0.0, _FIRST_WAIT_S

    def _find(self) -> str:
        """The run that an earlier process made of this training."""
        there = self._client.get_experiment_by_name(self._experiment)
        if there is None:
            return ""
        wanted = f"tags.`{_RUN_TAG}` = '{self._name}'"
        found = self._client.search_runs([there.experiment_id], wanted, max_results=1)
        if not found:
            return ""
        run_id: str = found[0].info.run_id
        self._client.update_run(run_id, status="RUNNING")
        history = self._client.get_metric_history(run_id, "loss")
        self._sent = max((one.step for one in history), default=0)
        return run_id

    def _create(self) -> str:
        tags = {_RUN_TAG: self._name}
        made = self._client.create_run(self._experiment_id(), tags=tags, run_name=self._name)
        run_id: str = made.info.run_id
        params = [Param(name, value[:_LONGEST_VALUE]) for name, value in self._settings.items()]
        for start in range(0, len(params), _MOST_AT_ONCE):
            self._client.log_batch(run_id, params=params[start : start + _MOST_AT_ONCE])
        return run_id

    def _experiment_id(self) -> str:
        there = self._client.get_experiment_by_name(self._experiment)
        if there is None:
            try:
                made: str = self._client.create_experiment(self._experiment)
                return made
            except MlflowException:
                # Another training of the same study made it meanwhile, or this asks in vain again.
                there = self._client.get_experiment_by_name(self._experiment)
                if there is None:
                    raise
        found: str = there.experiment_id
        return found
