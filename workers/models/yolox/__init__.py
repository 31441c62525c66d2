"""YOLOX: a detector without anchors that assigns boxes while it learns (Ge et al. 2021)."""
