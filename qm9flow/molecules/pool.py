"""Processes that run RDKit and can be killed.

One molecule that hangs, crashes or eats memory costs its own answer and one process, which is
started again. Processes are started when first needed, by their own command line rather than by
`multiprocessing`, so that the caller's main module is never imported a second time, and hold
neither torch nor the caller's open files.
"""

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import qm9flow
from qm9flow import errors
from qm9flow.cores import usable_cores
from qm9flow.errors import (
    ConformerError,
    DrawingError,
    InferenceError,
    MoleculeError,
    MoleculeTimeoutError,
)
from qm9flow.molecules.molecule import Conformers, Geometry, Molecule, Structure

TIMEOUT_S = 10.0
"""Seconds for one molecule; a SMILES of QM9 takes 0.11 on average."""

MAX_ATOMS = 256
"""Most atoms of a molecule, hydrogens included; QM9's largest has 29. Cost and memory of networks
grow with the square."""

CONFORMERS = 60
"""Starts of a SMILES, at most, and so geometries: 21 and 6 on average for QM9's molecules
(`qm9flow.molecules.embed` says when they end)."""

START_TIMEOUT_S = 120.0
"""Seconds for a process to start and load RDKit; some tenths on an idle machine."""

Progress = Callable[[str, int, int], None]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Job:
    """One text to turn into a molecule.

    Attributes:
        kind: `smiles`, `sdf` for a mol block, `relaxed` for a mol block that a force field is
            to relax.
        text: The SMILES or the mol block.
        geometry: Where a mol block's coordinates come from; a SMILES always gives `smiles`.
        conformers: Starts of a SMILES, which has as many conformers at most.
    """

    kind: Literal["smiles", "sdf", "relaxed"]
    text: str
    geometry: Geometry = "smiles"
    conformers: int = CONFORMERS


@dataclass(frozen=True)
class DrawingJob:
    """One text to draw in two dimensions.

    Attributes:
        form: `smiles`, `sdf` for a mol block, or `xyz` for a geometry without bonds.
        text: The SMILES, the mol block or the XYZ text.
    """

    form: Literal["smiles", "sdf", "xyz"]
    text: str


_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from qm9flow.molecules.worker import main; main()"
)
"""Finds this package even where it is not installed, without shadowing anything."""


_ATTEMPTS = 2
"""At a molecule: one that breaks RDKit breaks it again."""


class _StoppedError(Exception):
    """The process ended before it answered."""


class _ExpiredError(_StoppedError):
    """It was killed because it took too long."""


class _StartError(_StoppedError):
    """It ended before it took a job: no job can be the reason."""


class _Alarm:
    """Kills a process unless called off in time; knows for certain which came first."""

    def __init__(self, process: "subprocess.Popen[str]", timeout_s: float) -> None:
        self.has_struck = False
        self._process = process
        self._lock = threading.Lock()
        self._is_off = False
        self._timer = threading.Timer(timeout_s, self._strike)
        self._timer.daemon = True
        self._timer.start()

    def _strike(self) -> None:
        with self._lock:
            if not self._is_off:
                self.has_struck = True
                self._process.kill()

    def call_off(self) -> None:
        """From here on the process is safe, or it is already dead and `has_struck` says so."""
        with self._lock:
            self._is_off = True
        self._timer.cancel()


class _Worker:
    """One process, started when first asked; after a kill, started again when next asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def ask(self, payload: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a job, wait for its answer, kill the process when that takes too long."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        try:
            return self._exchange(json.dumps(payload), timeout_s)
        except _StoppedError:
            self._discard()
            raise

    def close(self) -> None:
        """End the process for good."""
        with self._lock:
            self._is_closed = True
        self._discard()

    def _discard(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            _dispose(process)

    def _start(self) -> None:
        self._discard()
        with self._lock:
            if self._is_closed:
                raise _StoppedError
            self._process = _spawn()
        try:
            self._exchange(None, START_TIMEOUT_S)
        except _StoppedError as error:
            self._discard()
            raise (_StoppedError if self._is_closed else _StartError) from error

    def _exchange(self, line: str | None, timeout_s: float) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise _StoppedError
        alarm, answer = _Alarm(process, timeout_s), ""
        try:
            if line is not None:
                process.stdin.write(line + "\n")
                process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError) as error:  # a broken or closed pipe
            raise (_ExpiredError if alarm.has_struck else _StoppedError) from error
        finally:
            alarm.call_off()
        if alarm.has_struck:
            raise _ExpiredError
        if not answer.endswith("\n"):
            raise _StoppedError
        parsed: dict[str, Any] = json.loads(answer)
        return parsed


def _spawn() -> "subprocess.Popen[str]":
    home = str(Path(qm9flow.__file__).resolve().parent.parent)
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is the caller's business
        )
    except OSError as error:  # no molecule's fault
        raise InferenceError(
            f"no process can be started that makes geometries ({error.strerror}): this machine is "
            "at its limit of processes, files or memory; ask for fewer workers"
        ) from error


def _dispose(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was not yet written to a dead process is lost, and may be
                continue


class MoleculePool:
    """Turns texts into conformers, molecules and drawings, in processes that can be killed.

    Safe to use from several threads at a time. A context manager: leaving it ends the processes.
    """

    def __init__(
        self,
        workers: int | None = None,
        timeout_s: float = TIMEOUT_S,
        max_atoms: int = MAX_ATOMS,
    ) -> None:
        """Start nothing yet.

        Args:
            workers: Processes at most; none means one for each usable core.
            timeout_s: Seconds for one molecule.
            max_atoms: Most atoms of a molecule, hydrogens included.
        """
        self.workers = workers or usable_cores()
        self.timeout_s = timeout_s
        self.max_atoms = max_atoms
        self._all = [_Worker() for _ in range(self.workers)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for worker in reversed(self._all):
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="molecules")

    def build(
        self,
        jobs: Sequence[Job],
        *,
        budget_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[Structure | MoleculeError]:
        """Conformers of SMILES, molecules of mol blocks, or why there are none, in order.

        Args:
            jobs: What to build.
            budget_s: Seconds for all of them together; those not done by then count as timed out.
                None means no limit beyond each molecule's own.
            progress: Called with (what, done, total) after each molecule.

        Returns:
            One entry for each job, in order.

        Raises:
            InferenceError: No process can be started, or none takes a job.
        """
        tasks = [(_payload(job), partial(_structure, job)) for job in jobs]
        return self._work(tasks, budget_s, progress)

    def draw(
        self, jobs: Sequence[DrawingJob], *, budget_s: float | None = None
    ) -> list[str | MoleculeError]:
        """Drawings in two dimensions, or why there are none, in order.

        Args:
            jobs: What to draw.
            budget_s: Seconds for all of them together, as in `build`.

        Returns:
            An SVG document for each job, in order.

        Raises:
            InferenceError: No process can be started, or none takes a job.
        """
        tasks = [
            ({"kind": "drawing", "form": job.form, "text": job.text}, _drawing) for job in jobs
        ]
        return self._work(tasks, budget_s, None)

    def _work(
        self,
        tasks: "Sequence[_Task[Made]]",
        budget_s: float | None,
        progress: Progress | None,
    ) -> list[Made | MoleculeError]:
        until = None if budget_s is None else time.monotonic() + budget_s
        futures = [self._threads.submit(self._one, asked, read, until) for asked, read in tasks]
        try:
            return _gather(futures, progress)
        finally:
            for future in futures:  # after Ctrl-C those not yet begun would still be worked off
                future.cancel()

    def close(self) -> None:
        """End all processes now; jobs under way answer with an error."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._all:
            worker.close()
        self._threads.shutdown(wait=True)

    def __enter__(self) -> "MoleculePool":
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _one(
        self, payload: dict[str, Any], read: "Callable[[dict[str, Any]], Made]", until: float | None
    ) -> Made | MoleculeError:
        """A process that dies may have been killed for another's sake: its job is done again."""
        advice = "" if payload["kind"] == "drawing" else ": give a geometry instead"
        false_starts = 0
        for _ in range(_ATTEMPTS):
            limit = self.timeout_s
            if until is not None:
                limit = min(limit, until - time.monotonic())
            if limit <= 0:
                return MoleculeTimeoutError("the time for all molecules of this call ran out")
            worker = self._idle.get()
            try:
                answer = worker.ask(
                    payload | {"max_atoms": self.max_atoms, "limit_s": limit}, limit
                )
                return _error(answer) if "error" in answer else read(answer)
            except _ExpiredError:
                return MoleculeTimeoutError(
                    f"RDKit took longer than {limit:.3g} s for this molecule{advice}"
                )
            except _StartError:
                false_starts += 1
            except _StoppedError:
                continue
            finally:
                self._idle.put(worker)
        if false_starts == _ATTEMPTS:
            raise InferenceError(
                "the processes that make geometries end before they take a molecule: see whether "
                "`import rdkit` works in this Python, and whether there is memory left"
            )
        failure = DrawingError if payload["kind"] == "drawing" else ConformerError
        return failure(f"RDKit broke down on this molecule{advice}")


_Task = tuple[dict[str, Any], Callable[[dict[str, Any]], Made]]
"""What to tell a process, and what to make of its answer."""


def _payload(job: Job) -> dict[str, Any]:
    return {
        "kind": job.kind,
        "text": job.text,
        "geometry": job.geometry,
        "conformers": job.conformers,
    }


def _drawing(answer: dict[str, Any]) -> str:
    svg: str = answer["svg"]
    return svg


def _error(answer: dict[str, Any]) -> MoleculeError:
    error: MoleculeError = getattr(errors, answer["error"])(answer["message"])
    return error


def _structure(job: Job, answer: dict[str, Any]) -> Structure:
    if job.kind == "sdf":
        return Molecule(answer["numbers"], answer["positions"], job.geometry, answer["name"])
    return Conformers(**answer)


def _gather(
    futures: "Sequence[Future[Made | MoleculeError]]", progress: Progress | None
) -> list[Made | MoleculeError]:
    results: list[Made | MoleculeError] = []
    for done, future in enumerate(futures, start=1):
        try:
            results.append(future.result())
        except CancelledError:
            results.append(MoleculeTimeoutError("stopped before its turn came"))
        if progress is not None:
            progress("molecules", done, len(futures))
    return results


def or_raise(result: Structure | MoleculeError) -> Structure:
    """What a pool made of the single molecule of a call.

    Args:
        result: A molecule, or why there is none.

    Returns:
        The molecule.

    Raises:
        MoleculeError: There is none.
    """
    if isinstance(result, MoleculeError):
        raise result
    return result


_shared: dict[int, MoleculePool] = {}
_shared_lock = threading.Lock()


def shared_pool() -> MoleculePool:
    """The pool of this process that single calls use; ends with the process.

    Returns:
        The pool, with default limits.
    """
    with _shared_lock:
        pool = _shared.get(os.getpid())
        if pool is None:
            pool = _shared[os.getpid()] = MoleculePool()
            atexit.register(pool.close)
        return pool
