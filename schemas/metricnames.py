"""The names of an evaluation's figures; docs/evaluation.md and docs/severity.md explain them."""

OF_ALL = (
    "accuracy", "balanced_accuracy", "brier", "nll", "ece",
    "custom_plus", "custom_multi", "custom_precision", "expected_cost", "quadratic_kappa",
)  # fmt: skip
"""Of all images together."""

OF_CLASSES = (
    "precision", "recall", "f1", "auc", "average_precision", "classwise_ece",
    "sensitivity", "specificity", "under_triage", "threshold",
)  # fmt: skip
"""Of a class, as `recall/PNEUMONIA`; most have a mean over classes, too, or of two classes one."""

OF_BUNDLES = (
    "auc_difference", "accuracy_difference", "delong_p", "delong_patients_p", "mcnemar_p",
)  # fmt: skip
"""Of two bundles; the category is the other's name@version, or name@version|class."""

OF_PAIRS = ("confusion", *OF_BUNDLES)
"""Of an actual and a predicted class, or of two bundles."""

METRICS = (*OF_ALL, *OF_CLASSES, *OF_PAIRS)
"""All names."""

LOWER_IS_BETTER = frozenset(
    {
        "under_triage", "custom_plus", "custom_multi", "expected_cost",
        "brier", "nll", "ece", "classwise_ece",
    }
)  # fmt: skip
"""Metrics of which less is better; of all others, more is."""

P_VALUES = frozenset({"delong_p", "delong_patients_p", "mcnemar_p"})
"""Of a comparison of two bundles."""

UNRANKED = P_VALUES | {"threshold", "confusion"}
"""Metrics that are neither good nor bad."""
