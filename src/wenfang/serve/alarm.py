"""A clock that ends the process when work hangs. Knows nothing of the work; one for each process, for the kernel keeps one."""

from __future__ import annotations

import signal

__all__ = ["Alarm"]


class Alarm:
    """Ends the process when work goes on without a sign of life: whoever watches it starts another. It rings inside foreign code too, for the kernel does it.

    Args:
        hang_s: of one batch of usual size; 0: it never rings.
    """

    def __init__(self, hang_s: float) -> None:
        self.hang_s = hang_s
        if hang_s:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def wind(self, batches: float = 1.0) -> None:
        """Work begins, or goes on.

        Cost: a system call; with `off` 9 microseconds a batch, measured on a busy machine.
        """
        if self.hang_s:
            signal.setitimer(signal.ITIMER_REAL, self.hang_s * max(1.0, batches))

    def off(self) -> None:
        """Work is over."""
        if self.hang_s:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
