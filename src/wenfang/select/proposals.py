"""Proposals of hyper-parameters from what was seen so far: TPE for one objective, NSGA-II for a front. Optuna lives here alone.

A proposer is a function of what it was told: the same calls in the same order give the same proposals, so a killed selection
that tells its journal again goes on as if nothing had happened. Knows nothing of families, time or fits.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from wenfang.models.space import Choice, Dimension, Float, Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["Proposer", "TellProposer", "available", "propose_from"]

STARTUP = 6
"""Random proposals before the model of the past speaks; what was taught counts."""
POPULATION = 10
CANDIDATES = 48


def available() -> bool:
    """Whether Optuna is installed; without it families are tried at their own candidates only."""
    from importlib.util import find_spec

    return find_spec("optuna") is not None


class TellProposer(Protocol):
    """What a lane asks and tells."""

    def ask(self) -> tuple[int, dict[str, Any]]:
        """The number of a proposal, and its values by field."""
        ...

    def tell(self, number: int, values: Sequence[float] | None) -> None:
        """How a proposal did; None: it failed."""
        ...

    def teach(self, params: Mapping[str, Any], values: Sequence[float]) -> None:
        """How something did that was not proposed here."""
        ...


def propose_from(space: Space, *, objectives: int, seed: int, name: str) -> TellProposer:
    """A proposer for one family.

    Args:
        space: not empty.
        objectives: how many values it is told, all the higher the better; more than one: NSGA-II.
        seed: of the selection.
        name: of the family: two families do not walk in step.
    """
    return Proposer(space, objectives=objectives, seed=zlib.crc32(f"{seed}/{name}".encode()))


class Proposer:
    """Optuna's samplers behind ask and tell.

    Args:
        space: what may vary.
        objectives: values a proposal is told.
        seed: of the sampler.

    Source: Bergstra et al. 2011 (TPE); Deb et al. 2002 (NSGA-II).
    """

    def __init__(self, space: Space, *, objectives: int, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = space
        self._distributions = {field: _distribution(d) for field, d in space.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna marks multivariate TPE as experimental
            sampler = (
                optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=STARTUP, n_ei_candidates=CANDIDATES)
                if objectives == 1
                else optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
            )
        self._study = optuna.create_study(directions=[optuna.study.StudyDirection.MAXIMIZE] * objectives, sampler=sampler)

    def ask(self) -> tuple[int, dict[str, Any]]:
        """The number of a proposal, and its values by field."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trial = self._study.ask(self._distributions)
        return trial.number, dict(trial.params)

    def tell(self, number: int, values: Sequence[float] | None) -> None:
        """How a proposal did; None: it failed, and the proposer learns nothing but that it was there."""
        import optuna

        if values is None:
            self._study.tell(number, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(number, list(values))

    def teach(self, params: Mapping[str, Any], values: Sequence[float]) -> None:
        """How something did that was not proposed here; left out where it lies outside the space."""
        import optuna

        inside = {field: params[field] for field, d in self.space.items() if field in params and d.holds(params[field])}
        if len(inside) == len(self.space):
            self._study.add_trial(optuna.trial.create_trial(params=inside, distributions=self._distributions, values=list(values)))


def _distribution(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.options)
    if isinstance(dimension, Float):
        return FloatDistribution(dimension.low, dimension.high, log=dimension.log)
    return IntDistribution(dimension.low, dimension.high, log=dimension.log)
