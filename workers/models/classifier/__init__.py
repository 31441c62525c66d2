"""Image classifiers on any architecture timm names.

`network` builds and loads networks, `fitting` trains one, `bundling` writes its bundle,
`outputs` (no torch) turns raw outputs into rows.
"""
