"""What answers requests: geometries from processes that can be killed, numbers from the live model.

Everything here blocks; the HTTP side calls it in threads.
"""

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from qm9flow.config import ServeConfig
from qm9flow.errors import InferenceError, MoleculeError, MoleculeTimeoutError
from qm9flow.inference.prediction import Prediction, entry
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.molecule import Structure
from qm9flow.molecules.pool import DrawingJob, Job, MoleculePool
from qm9flow.molecules.records import read_drawings, read_records
from qm9flow.registry.find import FoundModel
from serving import metrics
from serving.batching import Batcher, Call, CallOverError
from serving.encoding import encode_results
from serving.facts import add_positions, target_facts
from serving.model import Live, Model, Outcome
from serving.requests import Note, PredictRequest, read_request

logger = logging.getLogger("bentoml.qm9flow")

_Timed = tuple[Job | DrawingJob, float]
"""What to build or draw, and until when, on the monotonic clock."""

_Made = Structure | str | MoleculeError

_BROKEN = (
    "the service cannot start what makes geometries and drawings now; its log says why: ask again "
    "later, or give a geometry"
)


class Engine:
    """The live model, with the processes that make geometries.

    Attributes:
        live: The model that answers now.
        settings: Device and limits.
        pool: The processes that make geometries.
    """

    def __init__(self, found: FoundModel, settings: ServeConfig) -> None:
        """Open a model and run it once.

        Args:
            found: The bundle.
            settings: Device and limits.

        Raises:
            InferenceError: The model cannot be opened or run, or not on the device required.
        """
        self.settings = settings
        self.live = Live(Model(found, settings))
        self.pool = MoleculePool(
            settings.conformer_workers, settings.molecule_seconds, settings.max_atoms
        )
        self._geometries: Batcher[_Timed, _Made] = Batcher(
            "geometries", self._build, lanes=self.pool.workers
        )
        try:
            self._warm_up()
        except Exception:  # another try would leave these threads and processes behind
            self.close()
            raise

    @property
    def found(self) -> FoundModel:
        """The bundle that answers now."""
        return self.live.model.found

    @property
    def predictor(self) -> Predictor:
        """What runs it."""
        return self.live.model.predictor

    def waiting(self) -> dict[str, int]:
        """Molecules that wait.

        Returns:
            By what they wait for: `geometry` or `network`.
        """
        return {"geometry": self._geometries.waiting, "network": self.live.model.waiting}

    def identity(self) -> dict[str, Any]:
        """What answers: name, version, alias, provider."""
        return self.live.model.identity()

    def describe(self) -> dict[str, Any]:
        """What answers, with its units, training and limits."""
        model, settings = self.live.model, self.settings
        return {
            **model.identity(),
            "provider_required": model.predictor.session.requested,
            "since": model.since.isoformat(timespec="seconds"),
            "units": model.predictor.units,
            "targets": target_facts(),
            "training": model.facts,
            "limits": {
                "molecules": settings.max_molecules,
                "body_bytes": settings.max_body_bytes,
                "atoms": settings.max_atoms,
                "molecule_seconds": settings.molecule_seconds,
                "geometry_seconds": settings.geometry_seconds,
                "request_seconds": settings.request_seconds,
            },
        }

    def respond(self, body: bytes, call: Call | None = None, note: Note | None = None) -> bytes:
        """Answer a request.

        Args:
            body: As it came in.
            call: Says how long the answer is wanted; None means as long as a request may take.
            note: Is told how it went; None where nobody asks.

        Returns:
            The answer's body, JSON.

        Raises:
            RequestError: The request as a whole is refused.
            CallOverError: It was not done in time.
        """
        call = call or Call(self.settings.request_seconds)
        note = note or Note()
        request = read_request(body, self.settings.max_molecules)
        note.molecules = len(request.molecules)
        with self.live.borrow() as model:
            note.model = model.version
            units = {name: model.predictor.units[name] for name in request.targets}
            results = self.predict(request, model, call)
            head = {"model": model.identity(), "units": units, "level": model.predictor.level}
        note.failed = sum(not result["ok"] for result in results)
        return encode_results(head, results)

    def predict(self, request: PredictRequest, model: Model, call: Call) -> list[dict[str, Any]]:
        """One entry a molecule, in order; a bad molecule touches no other.

        Args:
            request: Molecules and targets.
            model: What computes them.
            call: Says how long the answer is wanted.

        Returns:
            Plain values.

        Raises:
            CallOverError: It was not done in time.
        """
        molecules = self._molecules(request, call)
        started = time.monotonic()
        results = self._predictions(molecules, model, call)
        metrics.observe_seconds("prediction", time.monotonic() - started)
        entries = [_entry(result, request.targets) for result in results]
        if "positions" in request.include:
            add_positions(entries, results)
        return entries

    def draw(self, records: Sequence[object], call: Call) -> list[str | MoleculeError]:
        """Drawings, in the same line as geometries: both take turns at the processes.

        Args:
            records: Entries of a request.
            call: Says how long the answer is wanted.

        Returns:
            An SVG document or an error for each entry, in order.

        Raises:
            CallOverError: It was not done in time.
        """
        read = read_drawings(records, self.settings.max_atoms)
        drawn = self._made([item for item in read if isinstance(item, DrawingJob)], call)
        return [_drawn(next(drawn)) if isinstance(item, DrawingJob) else item for item in read]

    def close(self) -> None:
        """End the processes that make geometries, and the model."""
        self._geometries.stop()
        self.pool.close()
        self._geometries.close()
        self.live.close()

    def _molecules(self, request: PredictRequest, call: Call) -> list[Structure | MoleculeError]:
        started = time.monotonic()
        read = read_records(request.molecules, self.settings.max_atoms)
        built = self._made([item for item in read if isinstance(item, Job)], call)
        molecules = [_built(next(built)) if isinstance(item, Job) else item for item in read]
        metrics.observe_seconds("geometry", time.monotonic() - started)
        return molecules

    def _made(self, jobs: Sequence[Job | DrawingJob], call: Call) -> Iterator[_Made | None]:
        limit = min(self.settings.geometry_seconds, call.seconds_left)
        until = time.monotonic() + limit
        made = self._geometries.run([(job, until) for job in jobs], call, limit)
        if call.is_given_up:  # what was not made is nobody's timeout
            raise CallOverError
        return iter(made)

    def _build(self, jobs: Sequence[_Timed]) -> list[_Made]:
        return [self._one(job, until - time.monotonic()) for job, until in jobs]

    def _one(self, job: Job | DrawingJob, seconds: float) -> _Made:
        """Never raises: where no process can be started, no molecule has taken too long."""
        try:
            return self._asked(job, seconds)
        except InferenceError as error:
            logger.error("no geometry or drawing can be made: %s", error)
        except Exception:
            logger.exception("making a geometry or drawing broke down")
        return MoleculeError(_BROKEN)

    def _asked(self, job: Job | DrawingJob, seconds: float) -> _Made:
        if isinstance(job, DrawingJob):
            return self.pool.draw([job], budget_s=seconds)[0]
        started = time.monotonic()
        made = self.pool.build([job], budget_s=seconds)[0]
        metrics.observe_conformer(time.monotonic() - started)
        return made

    def _predictions(
        self, molecules: Sequence[Structure | MoleculeError], model: Model, call: Call
    ) -> list[Outcome]:
        valid = [item for item in molecules if not isinstance(item, MoleculeError)]
        predicted = iter(model.predict(valid, call))
        return [item if isinstance(item, MoleculeError) else next(predicted) for item in molecules]

    def _warm_up(self) -> None:
        """The first geometry starts processes: not at users' cost."""
        jobs = [Job("smiles", "CCO")] * self.pool.workers
        for result in self.pool.build(jobs):
            if isinstance(result, MoleculeError):
                raise InferenceError(f"no geometry can be made from a SMILES: {result}")


def _drawn(result: _Made | None) -> str | MoleculeError:
    if result is None:
        return MoleculeTimeoutError("the time for the drawings of this request ran out")
    assert isinstance(result, str | MoleculeError)
    return result


def _built(result: _Made | None) -> Structure | MoleculeError:
    if result is None:
        return MoleculeTimeoutError(
            "the time for the geometries of this request ran out: send fewer SMILES at a time, or "
            "geometries"
        )
    assert not isinstance(result, str)
    return result


def _entry(result: Outcome, targets: Sequence[str]) -> dict[str, Any]:
    if isinstance(result, MoleculeError):
        metrics.count_molecule(result.code)
        return entry(result)
    metrics.count_molecule("ok")
    metrics.count_domain(result.domain)
    return entry(_of(result, targets))


def _of(result: Prediction, targets: Sequence[str]) -> Prediction:
    """Batches of all requests are computed together, so with all targets."""
    values = {name: result.values[name] for name in targets}
    intervals = {name: result.intervals[name] for name in targets if name in result.intervals}
    return dataclasses.replace(result, values=values, intervals=intervals)
