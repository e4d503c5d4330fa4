"""How often classes are right, and how far confidence can be trusted.

N examples · C classes
"""

from __future__ import annotations

import numpy as np

from tasks.metrics import bootstrap
from tasks.metrics.bootstrap import Score

BINS = 15


def macro_f1(true_NC: np.ndarray, predicted_NC: np.ndarray) -> float:
    """Returns the mean over classes of F1 = 2 · hits / (true + predicted), in percent.

    Both are booleans [N, C]. A class that neither is true nor predicted counts nothing, as in scikit-learn
    when labels are those that occur.
    """
    hits_C = (true_NC & predicted_NC).sum(axis=0)
    occurs_C = true_NC.sum(axis=0) + predicted_NC.sum(axis=0)
    return 100 * float(np.mean(2 * hits_C[occurs_C > 0] / occurs_C[occurs_C > 0])) if occurs_C.any() else 0.0


def calibration_error(confidence_N: np.ndarray, right_N: np.ndarray) -> float:
    """Returns the expected calibration error in percent.

    It is |accuracy − confidence|, mean over BINS equal bins of confidence (Guo et al. 2017, equation 3).
    """
    bins_N = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins_N, minlength=BINS)
    gaps = np.abs(np.bincount(bins_N, right_N - confidence_N, minlength=BINS))
    return 100 * float(gaps.sum() / counts.sum())


def scores(
    true_NC: np.ndarray, predicted_NC: np.ndarray, probabilities_NC: np.ndarray | None
) -> dict[str, Score]:
    """Returns accuracy (of all classes of an example together), macro_f1, and with probabilities
    calibration_error (of the likeliest class), in percent.
    """
    size = len(true_NC)
    right_N = (true_NC == predicted_NC).all(axis=1).astype(np.float64)
    results = {
        'accuracy': bootstrap.mean(100 * right_N),
        'macro_f1': bootstrap.interval(lambda n: macro_f1(true_NC[n], predicted_NC[n]), size),
    }
    if probabilities_NC is not None:
        likeliest_N = probabilities_NC.argmax(axis=1)
        confidence_N = probabilities_NC.max(axis=1)
        hit_N = true_NC[np.arange(size), likeliest_N].astype(np.float64)
        results['calibration_error'] = bootstrap.interval(
            lambda n: calibration_error(confidence_N[n], hit_N[n]), size
        )
    return results


def confusion(true_NC: np.ndarray, predicted_NC: np.ndarray) -> np.ndarray:
    """Returns int [C, C + 1]: true class by predicted class, and last those of no known class."""
    known_N = predicted_NC.any(axis=1)
    predicted_N = np.where(known_N, predicted_NC.argmax(axis=1), predicted_NC.shape[1])
    counts = np.zeros((true_NC.shape[1], true_NC.shape[1] + 1), int)
    np.add.at(counts, (true_NC.argmax(axis=1), predicted_N), 1)
    return counts
