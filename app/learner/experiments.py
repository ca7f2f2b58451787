"""All experiments of `bursar eval loop` by name; needs scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from app.learner import experiment_poisoned, experiment_replay, experiment_tasks
from routers import eval_loop, eval_loop_adequate
from routers.eval_loop import Experiment
from routers.eval_loop_world import Setting

EXPERIMENTS: Final[Mapping[str, Callable[[Setting], Experiment]]] = {
    **eval_loop.EXPERIMENTS,
    "adequate": eval_loop_adequate.experiment,
    "poisoned": experiment_poisoned.experiment,
    "replay": experiment_replay.experiment,
    "tasks": experiment_tasks.experiment,
}
