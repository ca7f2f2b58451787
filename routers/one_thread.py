"""Linear algebra on one thread, for training and evaluation: they work on small matrices."""

from __future__ import annotations

from threadpoolctl import threadpool_limits


def one_thread() -> threadpool_limits:
    """Within it BLAS does not share its work out, whatever has been imported until now.

    On matrices of a few hundred rows its threads wait for one another more than they work: four times the CPU where
    other programs run, too. Weights do not depend on how many cores there were, either.
    """
    return threadpool_limits(1, user_api="blas")
