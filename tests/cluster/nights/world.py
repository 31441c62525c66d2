"""An archive that grows from day to day, tiny models, and nights over `studies/nightly.yaml`."""

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import safetensors.torch
import timm
import torch
from numpy.typing import NDArray

from cluster.inline_pool import InlinePool
from cluster.lake.marking import mark_nightly
from cluster.lake.store import LakeStore
from cluster.nights.at_work import AtWork
from cluster.nights.night import Night
from cluster.nights.notifying import Notifier
from cluster.nights.watching import watched
from cluster.runner import Workplace, exit_code, work_through
from jobs.bundles import model_row
from schemas.bundle import (
    CONFIG_FILE,
    TORCH_FP32,
    WEIGHTS_FILE,
    BundleConfig,
    Calibration,
    OperatingPoint,
    Preprocessing,
    digest,
    make_model_id,
)
from schemas.jobfile import JobFile, load
from schemas.plan import Plan, ShardResult
from schemas.protocols import Pool, Report
from schemas.tables import rows_of
from tests.cluster.nights.told import Told
from workers.pixels.steps import Recipe
from workers.pseudonyms import Pseudonymizer

NIGHTLY = Path(__file__).resolve().parents[3] / "studies" / "nightly.yaml"
ARCHITECTURE = "test_efficientnet"
SIDE = 48
CLASSES = ("no", "yes")
MEAN, STD = 0.5, 0.25
FIRST = dt.date(2026, 11, 1)

Pixels = NDArray[np.uint8]


def day(number: int) -> dt.date:
    """Day 1 is the first night's."""
    return FIRST + dt.timedelta(days=number - 1)


def picture(seed: int, *, veiled: bool = False) -> Pixels:
    """Smooth random grey values with some noise; a bad scanner lays a bright veil over them."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (6, 6), dtype=np.uint8)
    smooth = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).astype(np.float64)
    image = smooth + generator.normal(0, 8, smooth.shape)
    if veiled:
        image = 215 + 0.15 * image
    return np.clip(image, 0, 255).astype(np.uint8)


def weights(seed: int) -> bytes:
    """A network's random weights, of a last layer that makes scores differ between images."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    network = timm.create_model(ARCHITECTURE, num_classes=2, in_chans=1)
    with torch.no_grad():
        network.get_classifier().weight.mul_(60)
    return safetensors.torch.save(dict(network.state_dict()))


def scores_of(pixels: list[Pixels], model: bytes) -> NDArray[np.float64]:
    """Probabilities (N, 2), computed with timm and torch alone."""
    network = timm.create_model(ARCHITECTURE, num_classes=2, in_chans=1).eval()
    network.load_state_dict(safetensors.torch.load(model))
    images_NCHW = torch.from_numpy(np.stack(pixels)[:, None]).to(torch.float32) / 255
    with torch.inference_mode():
        outputs_NC = network((images_NCHW - MEAN) / STD)
    return np.asarray(outputs_NC.to(torch.float64).softmax(1).numpy())


def bundle_config(model: bytes, name: str, threshold: float) -> BundleConfig:
    preprocessing = Preprocessing(
        recipe=Recipe(size=SIDE, channels=1).to_dict(), mean=(MEAN,), std=(STD,)
    )
    calibration = Calibration()
    return BundleConfig(
        architecture=ARCHITECTURE,
        num_classes=2,
        model_args={"in_chans": 1},
        model_id=make_model_id(model, ARCHITECTURE, CLASSES, preprocessing, calibration),
        name=name,
        family="classifier",
        classes=CLASSES,
        preprocessing=preprocessing,
        calibration=calibration,
        operating_point=OperatingPoint(positive="yes", threshold=threshold, rule="youden"),
        backend=TORCH_FP32,
        batch=8,
        files={WEIGHTS_FILE: digest(model)},
    )


def add_bundle(store: LakeStore, model: bytes, name: str, *, threshold: float = 0.5) -> str:
    """Put a bundle into the lake as a training does; returns ``name@version``."""
    config = bundle_config(model, name, threshold)
    key = ("train", name)
    plan = Plan(
        kind="train",
        name=name,
        key=key,
        identity={"model": config.model_id},
        params={},
        inputs=rows_of("images", [{"image_id": "one"}]),
        bounds=(0, 1),
    )
    with store.lease(key):
        run = store.begin(plan, {})
        version, _ = store.put_bundle(
            run, name, {CONFIG_FILE: config.to_json(), WEIGHTS_FILE: model}
        )
        rows = rows_of("models", [model_row(config, version, nightly=False)])
        run.record(run.pending()[0], ShardResult({"models": rows}, done=1, rejected=0))
        store.commit(run, {})
    return f"{name}@{version}"


class Archive:
    """Files by day, and what is in each of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pixels: dict[str, Pixels] = {}
        self._seed = 0
        self._written = 0

    def write(self, path: str, *, veiled: bool = False) -> None:
        """Write a new picture, over the old one if there is one."""
        self._seed += 1
        self.pixels[path] = picture(self._seed, veiled=veiled)
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode(".png", self.pixels[path])[1].tobytes())
        self._written += 1  # two writes within a tick of the clock would share their etag
        os.utime(file, ns=(self._written * 10**9, self._written * 10**9))

    def arrive(self, date: dt.date, count: int, *, veiled: bool = False) -> list[str]:
        """So many pictures of one day; returns their paths."""
        paths = [f"{date.isoformat()}/{number:02d}.png" for number in range(count)]
        for path in paths:
            self.write(path, veiled=veiled)
        return paths

    def remove(self, path: str) -> None:
        (self.folder / path).unlink()
        del self.pixels[path]

    def content(self, path: str) -> str:
        """What is in a file now, as a name."""
        return digest(self.pixels[path].tobytes())


class World:
    """An archive, a lake, and nights that run in this process."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.archive = Archive(folder / "archive")
        self.lake = str(folder / "lake")
        self.store = LakeStore.open(self.lake, create=True)
        self.models: dict[str, bytes] = {}
        env = {"LAKE": self.lake, "ARCHIVE": str(self.archive.folder)}
        pattern = r"arrivals.fields.path='(?P<study_date>\d{4}-\d\d-\d\d)/.*'"
        sets = [pattern, "clean.min_sharpness=0", *(f"{k}={v}" for k, v in settings.items())]
        self.file: JobFile = load(NIGHTLY, sets=sets, env=env)

    def train(self, seed: int, name: str = "lungs") -> str:
        """A new version of a bundle; returns ``name@version``."""
        model = weights(seed)
        reference = add_bundle(self.store, model, name)
        self.models[reference] = model
        return reference

    def mark(self, reference: str, *, nightly: bool = True) -> None:
        mark_nightly(self.store, reference, nightly=nightly)

    def night(
        self,
        date: dt.date,
        *,
        pool: Pool | None = None,
        notifier: Notifier | None = None,
        clock: Callable[[], dt.datetime] | None = None,
    ) -> tuple[list[Report], int]:
        """One pass over the job file; returns its reports and the command's exit code."""
        at_three = dt.datetime.combine(date, dt.time(3), dt.UTC)
        night = Night.begin(self.file.night, date, clock or (lambda: at_three))
        store = LakeStore.open(self.lake, night=night.date)
        at_work = AtWork()
        place = Workplace(store, pool or InlinePool(self.lake, print), night, _no_study, at_work)
        found = work_through(self.file.jobs, place)
        reports = list(watched(found, at_work, night, notifier or Told()))
        return reports, exit_code(reports, self.file)

    def query(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.store.query(sql, parameters).to_pylist()
        return rows

    def seen(self) -> dict[str, tuple[str, str, tuple[float, ...]]]:
        """By path: the bundle that the analyst's query gives for an image, its label and scores."""
        reveal = Pseudonymizer.from_key_file().reveal
        rows = self.query(
            "SELECT uri, name, version, latest.label, scores"
            " FROM current_images JOIN latest_predictions AS latest USING (image_id)"
        )
        return {
            reveal(row["uri"]).removeprefix(f"{self.archive.folder}/"): (
                f"{row['name']}@{row['version']}",
                row["label"],
                tuple(row["scores"]),
            )
            for row in rows
        }


def _no_study(study: object) -> Report:
    raise AssertionError("a night has no study")
