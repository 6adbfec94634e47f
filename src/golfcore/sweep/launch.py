"""Launch the runs of a sweep: as processes on this machine's devices, or as jobs of a scheduler through submitit."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from golfcore.config import CONTEST_ENV
from golfcore.errors import UsageError
from golfcore.machine import cores, threads
from golfcore.processes import python_command
from golfcore.suggest import nearest
from golfcore.sweep.worker import is_running


class Handle(Protocol):
    """A run that was started, or that was found running."""

    remote: str | None

    def ended(self) -> bool: ...

    def stop(self) -> None: ...


class Launcher(Protocol):
    """Starts runs, at most ``slots`` at once."""

    slots: int

    def start(self, folder: Path, name: str, command: Sequence[str], slot: int) -> Handle: ...

    def adopt(self, folder: Path, name: str, remote: str | None) -> Handle: ...


def worker_command(folder: Path, name: str, command: Sequence[str]) -> list[str]:
    return [*python_command("golfcore.sweep.worker"), str(folder), name, *command]


class _Process:
    remote: str | None = None

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, name: str) -> None:
        self._process, self._folder, self._name = process, folder, name

    def ended(self) -> bool:
        # A worker that found the job taken is gone at once; the run itself is whoever has the lock.
        return self._process.poll() is not None and is_running(self._folder, self._name) is None

    def stop(self) -> None:
        self._process.terminate()


class _Found:
    """A run that an earlier process of this sweep started and that outlived it."""

    remote: str | None = None

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name

    def ended(self) -> bool:
        return is_running(self._folder, self._name) is None

    def stop(self) -> None:
        if pid := is_running(self._folder, self._name):
            os.kill(pid, signal.SIGTERM)


class LocalLauncher:
    """Launches processes on this machine: one per GPU, or ``jobs`` processes that share the cores.

    Each has its own session: the end of the sweep's terminal does not end its runs.
    """

    def __init__(self, gpus: int, jobs: int) -> None:
        if jobs < 0 or (gpus and jobs > gpus) or jobs > 4 * cores() + gpus:
            raise UsageError(f"--jobs {jobs}: expected 1 to {gpus or 4 * cores()} on this machine")
        self.slots = jobs or gpus or 1
        self._gpus = gpus

    def start(self, folder: Path, name: str, command: Sequence[str], slot: int) -> Handle:
        process = subprocess.Popen(
            worker_command(folder, name, command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True, env=self._environment(slot),
        )  # fmt: skip
        return _Process(process, folder, name)

    def adopt(self, folder: Path, name: str, remote: str | None) -> Handle:
        return _Found(folder, name)

    def _environment(self, slot: int) -> dict[str, str]:
        """Return a run's environment: with its slot's device, without the contest's names (the recipe holds them)."""
        values = {key: value for key, value in os.environ.items() if key not in CONTEST_ENV}
        if self._gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            devices = visible.split(",") if visible else [str(i) for i in range(self._gpus)]
            values["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
        elif self.slots > 1:
            values["OMP_NUM_THREADS"] = str(max(1, threads() // self.slots))
        return values


class _Submitted:
    def __init__(self, job: Any, folder: Path, name: str) -> None:
        self._job, self._folder, self._name = job, folder, name
        self.remote: str | None = str(job.job_id)

    def ended(self) -> bool:
        # As with a process: a worker that found the job taken has ended, and the run has not.
        return bool(self._job.done()) and is_running(self._folder, self._name) is None

    def stop(self) -> None:
        self._job.cancel()


class SubmititLauncher:
    """Launches jobs of Slurm, or of submitit's local executor (``cluster="local"``).

    Args:
        folder: the sweep's folder, on a file system that the nodes see.
        cluster: slurm or local.
        parameters: those of ``submitit.AutoExecutor.update_parameters``, for example ``timeout_min=60
            gpus_per_node=8``.
        jobs: number of jobs at once; 0 for all.
    """

    def __init__(self, folder: Path, cluster: str, parameters: Mapping[str, Any], jobs: int) -> None:
        try:
            import submitit
        except ImportError as error:
            raise UsageError("--cluster needs submitit: pip install 'golfcore[sweep]'") from error
        self.slots = jobs or 10_000
        self._logs = folder / "submitit"
        self._submitit = submitit
        try:
            self._executor = submitit.AutoExecutor(folder=self._logs, cluster=cluster)
            self._executor.update_parameters(**{"name": folder.name, "timeout_min": 60, **parameters})
        except RuntimeError as error:
            raise UsageError(f"--cluster {cluster}: {error}; is this a login node of Slurm?") from error
        except (NameError, TypeError, ValueError) as error:
            known = ("timeout_min", "gpus_per_node", "cpus_per_task", "mem_gb", "nodes", "slurm_partition")
            word = next((key for key in parameters if key in str(error)), next(iter(parameters), ""))
            raise UsageError(f"--cluster-arg {word}: {str(error).splitlines()[0]}{nearest(word, known)}") from error
        self._cluster = cluster

    def start(self, folder: Path, name: str, command: Sequence[str], slot: int) -> Handle:
        words = worker_command(folder, name, command)
        try:
            job = self._executor.submit(self._submitit.helpers.CommandFunction(words, verbose=False))
        except RuntimeError as error:  # the scheduler takes no job at the moment
            why = next(iter(str(error).splitlines()), type(error).__name__)
            raise OSError(f"{self._cluster}: {why}") from error
        return _Submitted(job, folder, name)

    def adopt(self, folder: Path, name: str, remote: str | None) -> Handle:
        if remote is None or self._cluster != "slurm":
            return _Found(folder, name)  # a local executor's job is known by its lock alone
        return _Submitted(self._submitit.SlurmJob(folder=self._logs, job_id=remote), folder, name)
