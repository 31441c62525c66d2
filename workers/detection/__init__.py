"""What all detectors share: boxes, augmentation with boxes, matching, operating points."""
