"""Annotations: boxes from masks and headers, their checks, and COCO files."""
