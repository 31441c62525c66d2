"""The doctor's checks of what is installed."""

import sys
from importlib import metadata
from pathlib import Path

import pytest

from cluster.doctor.check import Check, State, worst
from cluster.doctor.installation import (
    TRANSFER_SYNTAXES,
    _runs_on,
    check_cuda,
    check_dicom_decoders,
    check_modules,
    check_openvino,
    check_packages,
    check_python,
)


@pytest.fixture
def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of distributions and modules that are found before the real ones."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def pretend_distribution(folder: Path, name: str, version: str, *requires: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {one}" for one in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


def test_old_python_fails() -> None:
    check = check_python((3, 10, 13))
    assert (check.state, check.detail) == (State.FAIL, "3.10.13")
    assert "3.11" in check.remedy
    assert check_python((3, 11, 0)).state is State.OK


def test_packages_of_another_version_are_named(pretended: Path) -> None:
    numpy = metadata.version("numpy")
    pretend_distribution(
        pretended,
        "wardrobe",
        "1.0",
        "numpy<1",
        "no-such-package-anywhere>=2",
        "pyarrow",
        "not-needed-here; python_version < '3'",
        "only-with-an-extra; extra == 'more'",
    )
    check = check_packages("wardrobe")
    assert check.state is State.FAIL
    assert check.detail == f"numpy {numpy} is not <1; no-such-package-anywhere is missing"
    assert "make setup" in check.remedy


def test_packages_that_fit_are_shown_with_versions(pretended: Path) -> None:
    pretend_distribution(pretended, "wardrobe", "1.2", "numpy>=2")
    check = check_packages("wardrobe")
    assert check.state is State.OK
    assert check.detail.startswith("wardrobe 1.2, ray ")
    assert f"pydicom {metadata.version('pydicom')}" in check.detail


def test_a_checkout_that_was_not_set_up_fails() -> None:
    check = check_packages("no-such-distribution")
    assert check.state is State.FAIL
    assert check.detail == "no-such-distribution itself is not installed"


def test_a_module_that_breaks_on_loading_is_a_finding(pretended: Path) -> None:
    (pretended / "torn_vision.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist\\nand more')"
    )
    check = check_modules(("numpy", "torn_vision"))
    assert check.state is State.FAIL
    assert check.detail == (
        "torn_vision: torn_vision does not load: RuntimeError: "
        "operator torchvision::nms does not exist"
    )


def test_the_installed_modules_load() -> None:
    assert check_modules(("numpy", "cv2", "pyarrow")).state is State.OK


def test_every_transfer_syntax_has_a_decoder_here() -> None:
    check = check_dicom_decoders()
    assert (check.state, check.detail) == (
        State.OK,
        f"all {len(TRANSFER_SYNTAXES)} transfer syntaxes",
    )


def test_a_missing_decoder_names_the_transfer_syntax(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom import pixels

    class Absent:
        is_available = False

    class Present:
        is_available = True

    def get_decoder(uid: str) -> object:
        return Absent() if uid.endswith((".201", ".203")) else Present()

    monkeypatch.setattr(pixels, "get_decoder", get_decoder)
    check = check_dicom_decoders()
    assert check.state is State.WARN
    assert check.detail.startswith("none for HTJ2K Lossless, HTJ2K: ")


def test_openvino_finds_this_processor() -> None:
    check = check_openvino()
    assert check.state is State.OK
    assert "bf16" in check.detail


def test_a_broken_openvino_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    check = check_openvino()
    assert check.state is State.FAIL
    assert check.detail.startswith("openvino does not load: ModuleNotFoundError")


def test_a_machine_without_a_gpu_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert check_cuda().state is State.OK


def test_a_gpu_without_kernels_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: ["New", "Old"][index])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: [(9, 0), (6, 1)][index])
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_80", "sm_90", "compute_90"])
    check = check_cuda()
    assert (check.state, check.detail) == (State.WARN, "torch has no kernels for Old (sm_61)")


@pytest.mark.parametrize(
    ("built_for", "version", "runs"),
    [
        ({"sm_80"}, (8, 6), True),  # a newer minor version runs older kernels
        ({"sm_86"}, (8, 0), False),  # an older one does not run newer kernels
        ({"sm_80"}, (9, 0), False),  # nor does another major version
        ({"compute_80"}, (9, 0), True),  # unless the driver compiles portable code
        ({"sm_90a"}, (9, 0), True),
    ],
)
def test_kernels_fit_a_gpu(built_for: set[str], version: tuple[int, int], runs: bool) -> None:
    assert _runs_on(built_for, *version) is runs


def test_the_worst_state_counts() -> None:
    good, bad = Check("a", State.OK, ""), Check("b", State.FAIL, "", "mend it")
    odd = Check("c", State.WARN, "")
    assert [worst([]), worst([good, odd]), worst([odd, bad, good])] == ["ok", "warn", "fail"]
    assert bad.to_dict() == {"name": "b", "state": "fail", "detail": "", "remedy": "mend it"}
