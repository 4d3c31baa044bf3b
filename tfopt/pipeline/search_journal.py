"""The journal of a search, which several processes share, and who tries which trial.

A journal is a file of optuna's, a line for each thing that was done. A lock beside the
directory of a trial says that a process is at work there; the system releases it when
the process dies, and another one goes on with the trial.
"""

from __future__ import annotations

import contextlib
import fcntl
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfopt.pipeline import run_dir

if TYPE_CHECKING:
    import optuna

JOURNAL = "search.journal"
LOCKS = ".lock-"  # before the name of a trial that is at work
TWIN = "twin"  # attribute of a trial: the one that it is once more
_MADE_FOR = "made_for"  # attribute of the study
_STUDY = "tfopt"
_TWINS = 10  # for each trial, at most


def imported() -> Any:
    """optuna, which is an extra.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ValueError("A search needs optuna: pip install 'tfopt[search]'. "
                         f"Received: {error}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def opened(out: Path, made_for: str, directions: Sequence[str], sampler: str,
           seed: int) -> optuna.Study:
    """Opens the study of a directory, or makes it.

    Args:
        out: the directory.
        made_for: what tells this search from others.
        directions: of its goals, "maximize" or "minimize".
        sampler: "tpe" or "nsga2".
        seed: of what is drawn.

    Raises:
        ValueError: the journal is damaged, or of another search.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    module, place = imported(), out / JOURNAL
    try:
        study = module.create_study(
            storage=JournalStorage(JournalFileBackend(str(place))),
            study_name=_STUDY, load_if_exists=True, directions=directions)
    except Exception as error:  # a damaged one raises whatever comes
        raise ValueError(f"A search's journal is damaged. Received: {place}: "
                         f"{error}") from error
    if study.user_attrs.get(_MADE_FOR, made_for) != made_for:
        raise ValueError("A journal must be of this space, these goals and this "
                         f"job. Received: {place} of another search")
    study.set_user_attr(_MADE_FOR, made_for)
    # Not what a killed process, or another one, has drawn before.
    seed += len(study.get_trials(deepcopy=False))
    with warnings.catch_warnings():  # `group` may change, it says
        warnings.simplefilter("ignore", module.exceptions.ExperimentalWarning)
        study.sampler = (
            module.samplers.NSGAIISampler(seed=seed) if sampler == "nsga2" else
            module.samplers.TPESampler(multivariate=True, group=True,
                                       constant_liar=True, seed=seed))
    return study


def directory_of(number: int) -> str:
    """The name of a trial's directory."""
    return f"t{number:03d}"


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Waits until no other process is in such a block of the same directory."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / run_dir.SEARCH_LOCK, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def next_trial(study: optuna.Study, out: Path, most: int
               ) -> Iterator[optuna.Trial | None]:
    """A trial that a killed process has left, or a new one; None for enough of them.

    While the block runs, a lock beside the trial's directory says that it is at work.
    """
    import optuna
    from optuna.trial import TrialState

    with contextlib.ExitStack() as held:
        with alone(out):
            trial = None
            for left in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
                # Another process may have come to its end meanwhile.
                if _hold(held, out, left.number) and study.get_trials(deepcopy=False)[
                        left.number].state == TrialState.RUNNING:
                    trial = optuna.Trial(study, left._trial_id)
                    break
            begun = [one for one in study.get_trials(deepcopy=False)
                     if one.state != TrialState.WAITING]
            twins = sum(TWIN in one.user_attrs for one in begun)
            # A small space is known one day, and gives nothing but twins.
            if trial is None and len(begun) - twins < most and twins < _TWINS * most:
                trial = study.ask()
                _hold(held, out, trial.number)
        yield trial


def _hold(held: contextlib.ExitStack, out: Path, number: int) -> bool:
    """Takes a trial's lock, if no other process has it."""
    file = held.enter_context(open(out / f"{LOCKS}{directory_of(number)}", "a"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
