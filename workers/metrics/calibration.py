"""Temperature scaling (Guo et al. 2017): one number that makes probabilities mean what they say."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

COOLEST, HOTTEST = 0.05, 20.0
"""Temperatures between which one is sought."""
LEAST_GAIN = 1e-6
"""In mean log-likelihood, over either bound, that makes a temperature the best one."""
DECIMALS = 4
"""Kept of a temperature, so that the last bits of a machine's sums do not change a model's id."""


def fit_temperature(logits_NC: NDArray[np.floating], actual_N: NDArray[np.int64]) -> float:
    """The temperature at which softmax(logits / temperature) makes the actual classes likeliest.

    1 where there is nothing to fit: fewer than two classes are present, or the likelihood grows up
    to either bound, as it does where outputs separate the classes or tell nothing about them.
    """
    if len(np.unique(actual_N)) < 2:
        return 1.0
    logits_NC = logits_NC.astype(np.float64)

    def unlikely(log_temperature: float) -> float:
        return negative_log_likelihood(logits_NC, actual_N, math.exp(log_temperature))

    bounds = (math.log(COOLEST), math.log(HOTTEST))
    # The likelihood is concave in 1 / temperature, so there is one best temperature.
    found = minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    if min(map(unlikely, bounds)) - found.fun < LEAST_GAIN:
        return 1.0
    return round(math.exp(found.x), DECIMALS)


def negative_log_likelihood(
    logits_NC: NDArray[np.floating], actual_N: NDArray[np.int64], temperature: float = 1.0
) -> float:
    """Mean of -log of the actual class's probability, softmax(logits / temperature)."""
    logs_NC = log_softmax(logits_NC.astype(np.float64) / temperature, axis=1)
    return float(-logs_NC[np.arange(len(actual_N)), actual_N].mean())
