"""Scoring images with a bundle: one module per runtime, so that a process loads only its own.

`openvino_scorer` imports no torch; `torch_scorer` imports no OpenVINO.
"""
