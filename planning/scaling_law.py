"""Loss as a function of parameters N and tokens D: L = E + A / N^α + B / D^β, and what follows from it.

The law, the loss it is fitted with, and the optimum are those of Hoffmann et al. 2022 (Chinchilla), section
3.3 and appendix D.3; two published fits, and a fit to runs of one's own.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from scipy import optimize, special

from configs.errors import UserError

COEFFICIENTS = ('E', 'A', 'alpha', 'B', 'beta')
HUBER = 1e-3  # of differences of log losses; Hoffmann et al. 2022, section 3.3
FLOPS = 6  # for each parameter and token


@dataclasses.dataclass(frozen=True)
class Law:
    """The five coefficients; loss in nats a token."""

    E: float
    A: float
    alpha: float
    B: float
    beta: float

    def loss(self, params: float, tokens: float) -> float:
        """Returns the loss of a model of N parameters after D tokens."""
        return self.E + self.A / params**self.alpha + self.B / tokens**self.beta

    def optimum(self, flops: float) -> tuple[float, float]:
        """Returns (N, D) of the least loss where 6 N D = `flops` (Hoffmann et al. 2022, eq. 4)."""
        total = self.alpha + self.beta
        g = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        budget = flops / FLOPS
        return g * budget ** (self.beta / total), budget ** (self.alpha / total) / g


PUBLISHED = {
    # Digits as in the paper's source, quoted by Besiroglu et al. 2024, section 2; the paper rounds α and β.
    'Hoffmann et al. 2022, approach 3': Law(E=1.6934, A=406.4, alpha=0.3392, B=410.7, beta=0.2849),
    'Besiroglu et al. 2024, the same data': Law(E=1.8172, A=482.01, alpha=0.3478, B=2085.43, beta=0.3658),
}


@dataclasses.dataclass(frozen=True)
class Fit:
    """A law fitted to runs, and those fitted to as many drawn from them with replacement."""

    law: Law
    resampled: tuple[Law, ...]

    def interval(self, values: Sequence[float], confidence: float = 0.8) -> tuple[float, float]:
        """Returns the middle `confidence` of what `values`, one for each resampled law, are."""
        tail = 50 * (1 - confidence)
        low, high = np.percentile(np.array(values), [tail, 100 - tail])
        return float(low), float(high)


def fit(params: np.ndarray, tokens: np.ndarray, losses: np.ndarray, *, resamples: int = 100) -> Fit:
    """Fits the law to runs, and again to `resamples` bootstrap samples of them (Efron 1979).

    Minimises the Huber loss between log losses by L-BFGS from a grid of starts, as the paper does.

    Args:
      params, tokens, losses: of each run, float64 [R].
      resamples: samples drawn, from a fixed seed.

    Raises:
      UserError: if there are too few runs, or all have one size or one number of tokens.
    """
    if len(losses) < len(COEFFICIENTS) + 1 or len(set(params)) < 3 or len(set(tokens)) < 3:
        raise UserError(
            f'{len(losses)} runs of {len(set(params))} sizes and {len(set(tokens))} numbers of tokens do not '
            'determine five coefficients: at least 6 runs are needed, of 3 sizes and 3 numbers of tokens.'
        )
    data = np.log(np.stack([params, tokens, losses]).astype(np.float64))
    scale = data.mean(axis=1)
    centred = data - np.array([[scale[0]], [scale[1]], [0.0]])  # coefficients of like size are found sooner
    best = min((_minimise(centred, start) for start in _starts(losses)), key=lambda each: each.fun)
    random = np.random.default_rng(0)
    resampled = []
    for _ in range(resamples):
        drawn = random.integers(0, len(losses), len(losses))
        resampled.append(_law(_minimise(centred[:, drawn], best.x).x, scale))
    return Fit(_law(best.x, scale), tuple(resampled))


def _starts(losses: np.ndarray) -> list[tuple[float, ...]]:
    """Returns starts (log E, log A', α, log B', β), where A' and B' are of the mean run."""
    lowest = float(np.min(losses))
    shares = (0.5, 0.8, 0.95)
    exponents = (0.2, 0.4, 0.7)
    return [
        (np.log(share * lowest), np.log(rest), alpha, np.log(rest), beta)
        for share, alpha, beta in itertools.product(shares, exponents, exponents)
        for rest in [(1 - share) * lowest / 2 + 1e-3]
    ]


def _minimise(centred: np.ndarray, start: Sequence[float]):
    log_params, log_tokens, log_losses = centred

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        terms = np.stack([np.full_like(log_params, x[0]), x[1] - x[2] * log_params, x[3] - x[4] * log_tokens])
        predicted = special.logsumexp(terms, axis=0)
        difference = predicted - log_losses
        by_prediction = np.clip(difference, -HUBER, HUBER)
        shares = np.exp(terms - predicted)
        gradient = np.array(
            [
                np.sum(by_prediction * shares[0]),
                np.sum(by_prediction * shares[1]),
                np.sum(by_prediction * shares[1] * -log_params),
                np.sum(by_prediction * shares[2]),
                np.sum(by_prediction * shares[2] * -log_tokens),
            ]
        )
        scale = 1 / HUBER**2  # L-BFGS stops by absolute changes
        return float(np.sum(special.huber(HUBER, difference))) * scale, gradient * scale

    bounds = [(None, None), (None, None), (0.01, 3), (None, None), (0.01, 3)]
    options = {'maxiter': 2000, 'ftol': 1e-15, 'gtol': 1e-9}
    return optimize.minimize(
        objective, np.array(start), jac=True, method='L-BFGS-B', bounds=bounds, options=options
    )


def _law(x: np.ndarray, scale: np.ndarray) -> Law:
    return Law(
        E=float(np.exp(x[0])),
        A=float(np.exp(x[1] + x[2] * scale[0])),
        alpha=float(x[2]),
        B=float(np.exp(x[3] + x[4] * scale[1])),
        beta=float(x[4]),
    )
