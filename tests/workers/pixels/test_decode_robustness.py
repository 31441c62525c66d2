"""Tests that no file, however broken, ends a process, holds it up or makes it talk."""

import io
import logging
import os
import random
import resource
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import RejectedImage
from schemas.reasons import RejectReason
from workers.pixels.decode import Limits, open_image
from workers.pixels.decode.guard import LOGGERS, quiet, rejecting

CHECKOUT = Path(__file__).resolve().parents[3]


def outcome(data: bytes) -> str:
    """What became of a file: ``decoded`` or the reason; anything else is raised."""
    try:
        image = open_image(data)
        for frame in range(min(len(image.frames), 3)):
            facts, pixels = image.frames[frame], image.pixels(frame)
            array = pixels.array
            assert array.shape[:2] == (facts.height, facts.width)
            assert array.ndim == (2 if facts.channels == 1 else 3)
            assert array.dtype.isnative
            if array.dtype in (np.uint8, np.uint16):
                assert int(array.max()) < 2**pixels.bits
            else:
                assert array.dtype in (np.int16, np.float32)
                assert pixels.window is not None
    except RejectedImage as rejected:
        return rejected.reason.value
    return "decoded"


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_broken_picture_ends_in_frames_or_a_reason(shared_data: Path) -> None:
    outcomes = Counter(
        outcome(path.read_bytes()) for path in files_below(shared_data / "malformed-images")
    )
    assert outcomes.total() == len(files_below(shared_data / "malformed-images"))
    assert outcomes["decoded"] > 300
    assert outcomes["animated"] > 20
    assert outcomes[RejectReason.FAILED.value] == 0


def test_every_dicom_file_ends_in_frames_or_a_reason(shared_data: Path) -> None:
    outcomes = Counter(outcome(path.read_bytes()) for path in files_below(shared_data / "dicom"))
    assert outcomes.total() == 274
    assert outcomes["decoded"] >= 171
    assert outcomes["no_pixels"] == 76
    assert outcomes[RejectReason.FAILED.value] == 0


def test_memory_and_time_stay_bounded_and_stderr_silent(shared_data: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from schemas.errors import RejectedImage\n"
        "from workers.pixels.decode import open_image\n"
        "for path in sys.argv[1:]:\n"
        "    started = time.monotonic()\n"
        "    try:\n"
        "        image = open_image(Path(path).read_bytes(), '')\n"
        "        [image.pixels(frame) for frame in range(len(image.frames))]\n"
        "    except RejectedImage:\n"
        "        pass\n"
        "    assert time.monotonic() - started < 20, path\n"
    )
    paths = [*files_below(shared_data / "dicom"), *files_below(shared_data / "malformed-images")]
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, *map(str, paths)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # libpng tells one harmless thing by itself on the fast path, and no value of a header.
    assert done.stderr.replace("libpng warning: IDAT: Extra compressed data\n", "") == ""
    assert done.stdout == ""


def mutations(data: bytes, count: int, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    made = []
    for number in range(count):
        broken = bytearray(data)
        for _ in range(chance.choice((1, 4, 32))):
            at = chance.randrange(min(len(broken), 2048) if number % 2 else len(broken))
            broken[at] = chance.randrange(256)
        made.append(bytes(broken[: chance.randrange(len(broken))] if number % 5 == 0 else broken))
    return made


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_random_damage_to_pictures_ends_in_pixels_or_a_reason(kind: str) -> None:
    y, x = np.mgrid[0:40, 0:50]
    picture = Image.fromarray(np.stack([x * 5, y * 6, x + y], -1).astype(np.uint8))
    sink = io.BytesIO()
    picture.save(sink, kind, **({"compression": "tiff_deflate"} if kind == "TIFF" else {}))
    with quiet(native=True):
        assert {outcome(one) for one in mutations(sink.getvalue(), 300, 4)} - {"decoded"}


def test_random_damage_to_dicom_ends_in_pixels_or_a_reason(shared_data: Path) -> None:
    folder = shared_data / "dicom" / "pydicom" / "test_files"
    for name in ("CT_small.dcm", "MR_small_RLE.dcm", "examples_palette.dcm", "rtdose.dcm"):
        for one in mutations((folder / name).read_bytes(), 60, 5):
            outcome(one)


class Odd(Exception):
    """Something no decoder documents."""


class PanicException(BaseException):
    """A panic of a decoder written in Rust."""


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (Odd("patient 4711"), RejectReason.CORRUPT),
        (EOFError("patient 4711"), RejectReason.TRUNCATED),
        (OSError("image file is truncated (4711 bytes)"), RejectReason.TRUNCATED),
        (NotImplementedError("4711"), RejectReason.UNSUPPORTED_ENCODING),
        (RecursionError("4711"), RejectReason.CORRUPT),
        (MemoryError(), RejectReason.OUT_OF_MEMORY),
        (PanicException("4711"), RejectReason.CORRUPT),
    ],
)
def test_whatever_a_decoder_raises_is_a_reject_without_its_message(
    raised: BaseException, reason: RejectReason
) -> None:
    with pytest.raises(RejectedImage) as rejected, rejecting():
        raise raised
    assert rejected.value.reason == reason
    assert "4711" not in str(rejected.value)


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_a_call_to_stop_is_no_reject(raised: type[BaseException]) -> None:
    with pytest.raises(raised), rejecting():
        raise raised


def test_quiet_keeps_warnings_logs_and_descriptor_two_in(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with quiet(native=True):
        warnings.warn("patient 4711", UserWarning, stacklevel=1)
        os.write(2, b"patient 4711\n")
        for name in LOGGERS:
            logging.getLogger(name).error("patient 4711")
    os.write(2, b"heard again\n")
    assert capfd.readouterr().err == "heard again\n"
    assert "4711" not in caplog.text
    with pytest.warns(UserWarning, match="heard again"):
        warnings.warn("heard again", UserWarning, stacklevel=1)


def test_quiet_ends_when_the_last_of_many_threads_leaves(
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = list(warnings.filters)
    started = threading.Barrier(8)

    def work(number: int) -> None:
        started.wait()
        for _ in range(50):
            with quiet(native=number % 2 == 0):
                warnings.warn("noise", UserWarning, stacklevel=1)
                time.sleep(0.0001 * number)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert warnings.filters == before
    os.write(2, b"heard\n")
    assert capfd.readouterr().err == "heard\n"


def test_headers_never_reach_the_words_of_an_image_file(shared_data: Path) -> None:
    path = shared_data / "dicom" / "pydicom" / "test_files" / "CT_small.dcm"
    image = open_image(path.read_bytes())
    assert image.header.patient_id
    assert image.header.patient_id not in repr(image) + repr(image.header)


def test_limits_have_sensible_defaults() -> None:
    assert Limits() == Limits(max_pixels=100_000_000, max_bytes=2**30)
