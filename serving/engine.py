"""The model behind the service: loads in the background, then answers requests.

Everything here blocks; the HTTP side calls it in threads.
"""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from qm9flow.config import ServeConfig
from qm9flow.errors import InferenceError, MoleculeError, Qm9FlowError
from qm9flow.inference.prediction import Prediction, entry
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.molecule import Structure
from qm9flow.molecules.parse import from_arrays, from_records
from qm9flow.molecules.pool import Job, MoleculePool
from qm9flow.registry.find import FoundModel, find_model
from serving import metrics
from serving.facts import add_positions, target_facts
from serving.requests import PredictRequest, encode, read_request

logger = logging.getLogger("bentoml.qm9flow")

Status = Literal["loading", "ready", "failed"]


class Engine:
    """An open model, warm, with the processes that make geometries."""

    def __init__(self, found: FoundModel, settings: ServeConfig) -> None:
        """Open a model and run it once.

        Args:
            found: The bundle.
            settings: Device and limits.

        Raises:
            InferenceError: The model cannot be opened or run, or not on the device required.
        """
        self.found = found
        self.settings = settings
        self.facts = found.facts()
        self.predictor = Predictor(
            found.bundle,
            provider=settings.device,
            threads=settings.threads,
            max_atoms=settings.max_atoms,
        )
        self.pool = MoleculePool(
            settings.conformer_workers, settings.molecule_seconds, settings.max_atoms
        )
        try:
            self._warm_up()
        except Qm9FlowError:
            self.pool.close()
            raise

    def identity(self) -> dict[str, Any]:
        """What answers: name, version, alias, provider."""
        return {
            "name": self.found.name,
            "version": self.found.version,
            "alias": self.found.alias,
            "provider": self.predictor.provider,
        }

    def describe(self) -> dict[str, Any]:
        """What answers, with its units, training and limits."""
        settings = self.settings
        return {
            **self.identity(),
            "provider_required": self.predictor.session.requested,
            "units": self.predictor.units,
            "targets": target_facts(),
            "training": self.facts,
            "limits": {
                "molecules": settings.max_molecules,
                "body_bytes": settings.max_body_bytes,
                "atoms": settings.max_atoms,
                "molecule_seconds": settings.molecule_seconds,
                "geometry_seconds": settings.geometry_seconds,
                "request_seconds": settings.request_seconds,
            },
        }

    def respond(self, body: bytes) -> bytes:
        """Answer a request.

        Args:
            body: As it came in.

        Returns:
            The answer's body, JSON.

        Raises:
            RequestError: The request as a whole is refused.
        """
        request = read_request(body, self.settings.max_molecules)
        units = {name: self.predictor.units[name] for name in request.targets}
        results = self.predict(request)
        return encode(
            {
                "model": self.identity(),
                "units": units,
                "level": self.predictor.level,
                "results": results,
            }
        )

    def predict(self, request: PredictRequest) -> list[dict[str, Any]]:
        """One entry a molecule, in order; a bad molecule touches no other.

        Args:
            request: Molecules and targets.

        Returns:
            Plain values.
        """
        molecules = self._molecules(request)
        started = time.monotonic()
        results = self._predictions(molecules, request.targets)
        metrics.observe_seconds("prediction", time.monotonic() - started)
        entries = [_counted(result) for result in results]
        if "positions" in request.include:
            add_positions(entries, molecules)
        return entries

    def close(self) -> None:
        """End the processes that make geometries."""
        self.pool.close()

    def _molecules(self, request: PredictRequest) -> list[Structure | MoleculeError]:
        started = time.monotonic()
        molecules = from_records(
            request.molecules, self.pool, budget_s=self.settings.geometry_seconds
        )
        metrics.observe_seconds("geometry", time.monotonic() - started)
        return molecules

    def _predictions(
        self, molecules: list[Structure | MoleculeError], targets: tuple[str, ...]
    ) -> list[Prediction | MoleculeError]:
        try:
            return self.predictor.predict_each(molecules, targets)
        except InferenceError as error:
            logger.warning("a batch failed, its molecules run one by one: %s", error)
        return [self._alone(molecule, targets) for molecule in molecules]

    def _alone(
        self, molecule: Structure | MoleculeError, targets: tuple[str, ...]
    ) -> Prediction | MoleculeError:
        try:
            return self.predictor.predict_each([molecule], targets)[0]
        except InferenceError as error:
            logger.warning("the network failed: %s", error)
            return MoleculeError("the network failed on this molecule; the service's log says why")

    def _warm_up(self) -> None:
        """The first run allocates, and the first geometry starts processes: not at users' cost."""
        jobs = [Job("smiles", "CCO")] * self.pool.workers
        for result in self.pool.build(jobs):
            if isinstance(result, MoleculeError):
                raise InferenceError(f"no geometry can be made from a SMILES: {result}")
        sizes = (1, 9, 18, 29)
        rows = [[[1.5 * i, 0.0, 0.0] for i in range(size)] for size in sizes]
        molecules = [from_arrays([6] * len(row), row) for row in rows]
        self.predictor.predict(molecules)


class Runtime:
    """The engine to be: loading, ready, or failed for a stated reason."""

    def __init__(self, settings: ServeConfig) -> None:
        """Start loading in the background.

        Args:
            settings: What to load.
        """
        self.settings = settings
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="loading")
        self._loading: Future[Engine] = self._threads.submit(_load, settings)
        self._loading.add_done_callback(_log_outcome)

    @property
    def engine(self) -> Engine | None:
        """The engine, once it is ready."""
        return self._loading.result() if self.status == "ready" else None

    @property
    def status(self) -> Status:
        """How far loading has come."""
        if not self._loading.done():
            return "loading"
        return "ready" if self._loading.exception() is None else "failed"

    def wait(self, timeout_s: float) -> Engine:
        """Wait for the engine.

        Args:
            timeout_s: Seconds at most.

        Returns:
            The engine.

        Raises:
            Qm9FlowError: It cannot be loaded.
            TimeoutError: Not in that time.
        """
        return self._loading.result(timeout_s)

    def close(self) -> None:
        """End what runs."""
        self._threads.shutdown(wait=True)
        engine = self.engine
        if engine is not None:
            engine.close()


def _load(settings: ServeConfig) -> Engine:
    if settings.bundle is None:
        found = find_model(settings.model)
        if found.remark:
            logger.warning(found.remark)
        return Engine(found, settings)
    return Engine(FoundModel(Path(settings.bundle), settings.version, settings.alias), settings)


def _log_outcome(loading: "Future[Engine]") -> None:
    error = loading.exception()
    if error is None:
        engine = loading.result()
        logger.info("ready: %s from %s", engine.identity(), engine.found.bundle)
    elif isinstance(error, Qm9FlowError):
        logger.error("the model cannot be served: %s", error)
    else:
        logger.error("the model cannot be served", exc_info=error)


def _counted(result: Prediction | MoleculeError) -> dict[str, Any]:
    metrics.count_molecule(result.code if isinstance(result, MoleculeError) else "ok")
    return entry(result)
