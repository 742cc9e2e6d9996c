"""Models whose answers come from somebody else's server: asked as seldom as possible while they are judged and measured, and told beforehand what that costs.

A question is asked once: the model of a run stays and remembers. Its latency is that of the answers it was judged by. Knows nothing of protocols.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from wenfang.core.examples import Examples, ask
from wenfang.core.ports import Progress, ReplicaHost
from wenfang.models.base import Model

from .latency import Latency, load_per_core, percentile
from .robustness.suite import RobustnessTest
from .trial import Run

__all__ = ["SAMPLE", "Remotes"]

SINGLES = 20
"""Answers that its latency is told from at least."""
CHECKED = 16
"""Questions a fit may ask."""
SAMPLE = 40
"""Texts that a robustness test asks."""


class Remotes:
    """The remote models of one selection.

    Args:
        read: the model of a run that was not asked yet in this process; None: there is none, and replicas are asked.
    """

    def __init__(self, read: Callable[[Run], Model] | None) -> None:
        self._read = read
        self._models: dict[str, Model] = {}

    def of(self, run: Run, family: type[Model]) -> Model | None:
        """The model of a run, with the answers it remembers; None: it is not remote."""
        if not family.remote:
            return None
        if run.name not in self._models and self._read is not None:
            self._models[run.name] = self._read(run)
            self._models[run.name].remember()
        return self._models.get(run.name)

    def measure(self, run: Run, model: Model, host: ReplicaHost, bundle: Path, examples: Examples) -> Latency:
        """What the server takes for single answers, from what it was asked anyway; a replica is started to be weighed, and asked nothing.

        Args:
            run: whose model this is; it stays.
            model: having answered.
            host: starts replicas.
            bundle: unpacked.
            examples: asked where it has given fewer than twenty single answers.

        Raises:
            WenfangError: what starting the replica or asking the server raised.

        Cost: at most twenty questions. Our own way to the replica, about a millisecond, is not in the figure.
        """
        self._models[run.name] = model
        for row in range(min(SINGLES - len(model.answer_ms()), len(examples))):
            ask(model, examples.take([row]))
        begun = time.perf_counter()
        replica = host.start(bundle)
        try:
            start_s, memory_bytes = time.perf_counter() - begun, replica.memory_bytes()
        finally:
            replica.close()
        took = list(model.answer_ms()) or [0.0]
        return Latency(percentile(took, 0.5), percentile(took, 0.99), memory_bytes, len(took), 1, start_s, load_per_core())

    @staticmethod
    def tell(run: Run, model: Model, train: Examples, *, valid_n: int, test_n: int, tests: list[RobustnessTest], progress: Progress) -> None:
        """Say how often a run's model will be asked and what that may cost, before the first question."""
        asked = {"valid_n": valid_n, "test_n": test_n, "robustness_n": SAMPLE * sum(train.task in t.tasks and not t.waits for t in tests)}
        requests_n = CHECKED + SINGLES + sum(asked.values())
        progress.note("select.remote-asks", run=run.name, requests_n=requests_n, charge=f"{model.expected_charge(train, requests_n):.2g}", **asked)
