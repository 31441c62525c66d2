"""OpenVINO without the usage statistics that its converter sends and keeps in the user's home."""

import sys

# OpenVINO does without the package that sends them, where that can't be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino  # noqa: E402

__all__ = ["openvino"]
