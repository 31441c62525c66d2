"""Checks of what is installed: Python, packages, decoders, inference engines, GPUs."""

import importlib
import sys
from collections.abc import Mapping
from importlib import metadata
from types import MappingProxyType, ModuleType

from packaging.requirements import Requirement

from cluster.doctor.check import Check, fail, ok, warn

PYTHON_AT_LEAST = (3, 11)
SET_UP = "run `make setup`"

SHOWN = ("ray", "torch", "pyarrow", "deltalake", "duckdb", "openvino", "pydicom")
"""Packages whose versions a bug report needs."""

COMPUTED_WITH = ("numpy", "pyarrow", "cv2", "PIL", "torch", "torchvision", "timm", "deltalake")
"""Modules whose compiled parts may fit neither each other nor this machine."""

TRANSFER_SYNTAXES: Mapping[str, str] = MappingProxyType(
    {
        "1.2.840.10008.1.2": "Implicit VR Little Endian",
        "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
        "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
        "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
        "1.2.840.10008.1.2.5": "RLE Lossless",
        "1.2.840.10008.1.2.4.50": "JPEG Baseline",
        "1.2.840.10008.1.2.4.51": "JPEG Extended",
        "1.2.840.10008.1.2.4.57": "JPEG Lossless",
        "1.2.840.10008.1.2.4.70": "JPEG Lossless SV1",
        "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
        "1.2.840.10008.1.2.4.81": "JPEG-LS Near-lossless",
        "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
        "1.2.840.10008.1.2.4.91": "JPEG 2000",
        "1.2.840.10008.1.2.4.201": "HTJ2K Lossless",
        "1.2.840.10008.1.2.4.202": "HTJ2K Lossless RPCL",
        "1.2.840.10008.1.2.4.203": "HTJ2K",
    }
)
"""The still-image transfer syntaxes of DICOM PS3.5 that archives hold, by UID."""


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Check:
    """Whether this Python is new enough."""
    shown = ".".join(map(str, version))
    if version < PYTHON_AT_LEAST:
        return fail("python", shown, "install Python 3.11 or newer, then " + SET_UP)
    return ok("python", shown)


def check_packages(distribution: str = "rayward") -> Check:
    """Whether every direct requirement of the project is installed in a version it accepts."""
    try:
        requirements = metadata.requires(distribution) or []
        version = metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return fail("packages", f"{distribution} itself is not installed", SET_UP)
    wrong = [problem for text in requirements if (problem := _unmet(Requirement(text)))]
    if wrong:
        return fail("packages", "; ".join(wrong), SET_UP)
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in SHOWN)
    return ok("packages", f"{distribution} {version}, {shown}")


def _unmet(requirement: Requirement) -> str:
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        return ""
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{requirement.name} {found} is not {requirement.specifier}"
    return ""


def check_modules(names: tuple[str, ...] = COMPUTED_WITH) -> Check:
    """Whether the compiled packages load: torch and torchvision of two builds, say, do not."""
    broken = [f"{name}: {problem}" for name in names if isinstance(problem := _load(name), str)]
    if broken:
        return fail("modules", "; ".join(broken), SET_UP)
    return ok("modules", f"{len(names)} compiled packages load")


def check_dicom_decoders(syntaxes: Mapping[str, str] = TRANSFER_SYNTAXES) -> Check:
    """Whether a decoder is installed for each transfer syntax an archive may hold."""
    pixels = _load("pydicom.pixels")
    if isinstance(pixels, str):
        return fail("dicom decoders", pixels, SET_UP)
    missing = [name for uid, name in syntaxes.items() if not pixels.get_decoder(uid).is_available]
    if missing:
        return warn(
            "dicom decoders",
            f"none for {', '.join(missing)}: such files become rejects (unsupported_encoding)",
            SET_UP,
        )
    return ok("dicom decoders", f"all {len(syntaxes)} transfer syntaxes")


def check_openvino() -> Check:
    """Whether OpenVINO, which scores on the CPU, finds it."""
    openvino = _load("openvino")
    if isinstance(openvino, str):
        return fail("openvino", openvino, SET_UP)
    core = openvino.Core()
    if "CPU" not in core.available_devices:
        return fail("openvino", "has no CPU plug-in", SET_UP)
    abilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    fast = "with bf16" if "BF16" in abilities else "fp32 only: this processor has no bf16"
    return ok("openvino", f"{core.get_property('CPU', 'FULL_DEVICE_NAME').strip()}, {fast}")


def check_cuda() -> Check:
    """Which GPUs torch can use; a machine without one is fine."""
    torch = _load("torch")
    if isinstance(torch, str):
        return fail("cuda", torch, SET_UP)
    if not torch.version.cuda:
        return ok("cuda", "this build of torch is for CPUs only")
    if not torch.cuda.is_available():
        return ok("cuda", f"no usable GPU; torch is built for CUDA {torch.version.cuda}")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    known = set(torch.cuda.get_arch_list())
    for index, name in enumerate(gpus):
        major, minor = torch.cuda.get_device_capability(index)
        if known and not _runs_on(known, major, minor):
            return warn(
                "cuda",
                f"torch has no kernels for {name} (sm_{major}{minor})",
                "install a build of torch for this GPU",
            )
    return ok("cuda", f"{', '.join(gpus)}; CUDA {torch.version.cuda}")


def _runs_on(built_for: set[str], major: int, minor: int) -> bool:
    """Kernels run on the same major version of a GPU, from their minor version on."""
    exact = {int(name[3:].rstrip("af")) for name in built_for if name.startswith("sm_")}
    portable = {int(name[8:]) for name in built_for if name.startswith("compute_")}
    version = 10 * major + minor
    return any(one // 10 == major and one <= version for one in exact) or any(
        one <= version for one in portable
    )


def _load(name: str) -> ModuleType | str:
    """The module, or why it does not load: the one place where a broken import is a finding."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - compiled modules fail with whatever they like
        return f"{name} does not load: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
