"""TensorBoard's event files in the lake: ``tensorboard --logdir LAKE/reports/training`` reads them.

On disk events are appended in place, so that TensorBoard shows a training that is going on; on S3
an object is written whole, so the file is put again after every epoch.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import scalar, text

from cluster.storage import open_storage


class EventFiles:
    """Writes one event file for each time a training is begun or gone on with."""

    def __init__(self, lake: str, prefix: str, settings: Mapping[str, str]) -> None:
        """``prefix`` is a folder below the lake's root; ``settings`` are shown as a text."""
        self._storage, self._prefix = open_storage(lake), prefix
        self._settings = settings
        self._scratch: TemporaryDirectory[str] | None = None
        if self._storage.local_path is not None:
            self._folder = self._storage.local_path / prefix
            self._folder.mkdir(parents=True, exist_ok=True)
        else:
            self._scratch = TemporaryDirectory(prefix="rayward-events-")
            self._folder = Path(self._scratch.name)
        self._writer: EventsWriter | None = None

    def epoch(self, figures: Mapping[str, float]) -> None:
        """Add a scalar for every figure; the step is the number of epochs done."""
        step = int(figures["epoch"]) + 1
        writer = self._writer or self._begin(step)
        for name, value in figures.items():
            if name != "epoch":
                _write(writer, step, scalar(name, value))
        self._keep(writer)

    def close(self, *, finished: bool) -> None:
        """Close the file; what it says is the same whether the training ``finished`` or not."""
        if self._writer is not None:
            self._writer.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _begin(self, step: int) -> EventsWriter:
        # Two that begin within a second would share a name, so the later one says where it begins.
        self._writer = EventsWriter(str(self._folder / "events"), f".{step:06d}")
        # Readers drop what an earlier process noted of this and later epochs: it was cut off
        # before their checkpoint, and they are trained again.
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(step=step, session_log=start))
        lines = [f"| {name} | {_cell(value)} |" for name, value in self._settings.items()]
        table = "\n".join(["| setting | value |", "|---|---|", *lines])
        _write(self._writer, step, text("settings", table))
        return self._writer

    def _keep(self, writer: EventsWriter) -> None:
        writer.flush()
        if self._scratch is not None:
            for file in self._folder.iterdir():
                self._storage.put(f"{self._prefix}/{file.name}", file.read_bytes())


def _write(writer: EventsWriter, step: int, summary: Summary) -> None:
    event = Event(step=step, summary=summary)
    event.wall_time = time.time()
    writer.write_event(event)


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
