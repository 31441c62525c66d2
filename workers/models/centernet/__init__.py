"""CenterNet: lesions as the peaks of a heat map (Zhou, Wang and Krähenbühl 2019)."""
