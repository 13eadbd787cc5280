"""A model that is open and proven on probe molecules, and the one that answers now."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import numpy as np

from qm9flow import properties
from qm9flow.config import ServeConfig
from qm9flow.cores import usable_cores
from qm9flow.errors import InferenceError, MoleculeError
from qm9flow.inference.prediction import Prediction
from qm9flow.inference.predictor import Predictor
from qm9flow.inference.probes import PROBES, as_from
from qm9flow.molecules.arrays import from_arrays
from qm9flow.molecules.molecule import Conformers, Structure
from qm9flow.registry.find import FoundModel
from serving import metrics
from serving.batching import Batcher, Call, CallOverError

logger = logging.getLogger("bentoml.qm9flow")

PROBE_LIMIT = 1e-2
"""How much a probe's values may depend on its company, in units of chemical accuracy: rounding in
float32 stays far below, a graph that mixes molecules far above."""

_ROUNDING = 1e-6
"""The same for large values, relative: what float32 can hold."""

_WARM_UP_SIZES = (1, 9, 18, 29)

Outcome = Prediction | MoleculeError


class Model:
    """A bundle that is open, warm and proven.

    Attributes:
        found: The bundle.
        predictor: What runs it.
        since: When it was opened, UTC.
    """

    def __init__(self, found: FoundModel, settings: ServeConfig) -> None:
        """Open a model, run it once, and look at its numbers.

        Args:
            found: The bundle.
            settings: Device and limits.

        Raises:
            InferenceError: It cannot be opened or run, or not on the device required, or its
                numbers make no sense.
        """
        self.found = found
        self.facts = found.facts()
        self.since = datetime.now(UTC)
        self.predictor = Predictor(
            found.bundle,
            provider=settings.device,
            threads=settings.threads,
            max_atoms=settings.max_atoms,
        )
        warm_up(self.predictor)
        prove(self.predictor)
        # One run at a time fills a GPU; on a CPU each has as many threads as it was told.
        is_cpu = self.predictor.provider == "cpu"
        lanes = max(1, usable_cores() // (settings.threads or usable_cores())) if is_cpu else 1
        self._batcher: Batcher[Structure, Outcome] = Batcher(
            "network",
            self._predicted,
            cost=pairs,
            budget=self.predictor.max_pairs,
            lanes=lanes,
            observe=metrics.observe_batch,
        )

    @property
    def version(self) -> int | None:
        """Its number in the registry; None for one that is not from there."""
        return self.found.version

    @property
    def waiting(self) -> int:
        """Molecules that wait for the network."""
        return self._batcher.waiting

    def identity(self) -> dict[str, Any]:
        """What answers: name, version, alias, provider."""
        return {
            "name": self.found.name,
            "version": self.found.version,
            "alias": self.found.alias,
            "provider": self.predictor.provider,
        }

    def predict(self, molecules: Sequence[Structure], call: Call) -> list[Outcome]:
        """Predict molecules together with those of other requests.

        Args:
            molecules: Any number.
            call: Says how long the results are wanted.

        Returns:
            All targets of each molecule, in order, or why there are none.

        Raises:
            CallOverError: Not all of it was done in time.
        """
        results = self._batcher.run(molecules, call)
        if call.is_over and None in results:
            raise CallOverError
        return [MoleculeError(_BROKEN) if item is None else item for item in results]

    def close(self) -> None:
        """End its threads."""
        self._batcher.close()

    def _predicted(self, molecules: Sequence[Structure]) -> list[Outcome]:
        """Never raises: what one molecule does to the network is not the others' fault."""
        try:
            return self.predictor.predict_each(molecules)
        except InferenceError as error:
            logger.warning("the network failed: %s", error)
        except Exception:
            logger.exception("the network broke down")
        if len(molecules) == 1:
            return [MoleculeError(_BROKEN)]
        return [self._predicted([molecule])[0] for molecule in molecules]


_BROKEN = "the network failed on this molecule; the service's log says why"


def pairs(molecule: Structure) -> int:
    """What a molecule costs the network.

    Args:
        molecule: One molecule, with all of its geometries.

    Returns:
        Pairs of atoms.
    """
    geometries = len(molecule.positions) if isinstance(molecule, Conformers) else 1
    return geometries * len(molecule) ** 2


def warm_up(predictor: Predictor) -> None:
    """Run all networks once for several sizes: the first run allocates, and not at users' cost.

    Args:
        predictor: An open model.

    Raises:
        InferenceError: One cannot be run.
    """
    rows = [[[1.5 * i, 0.0, 0.0] for i in range(size)] for size in _WARM_UP_SIZES]
    chains = [from_arrays([6] * len(row), row) for row in rows]
    predictor.predict([as_from(c, source) for source in predictor.sources for c in chains])


def prove(predictor: Predictor) -> None:
    """Look at the numbers of all of a model's networks before anybody else does.

    Args:
        predictor: An open model.

    Raises:
        InferenceError: A probe molecule has a value that is not finite, or that depends on the
            molecules it is computed with.
    """
    for source in predictor.sources:
        probes = [as_from(molecule, source) for molecule in PROBES]
        together = predictor.predict(probes)
        alone = [predictor.predict([molecule])[0] for molecule in probes]
        for molecule, one, other in zip(probes, together, alone, strict=True):
            _compare(f"{molecule.name} from {source}", one, other)


def _compare(name: str, one: Prediction, other: Prediction) -> None:
    """Refuse what is not finite, or not the same."""
    for target in properties.LEARNED:
        first, second = one.values[target], other.values[target]
        if first is None or second is None:
            raise InferenceError(f"the network gives no finite {target} for {name}")
        accuracy = properties.get(target).chemical_accuracy or 0.0
        allowed = max(PROBE_LIMIT * accuracy, _ROUNDING * abs(second))
        if not np.isclose(first, second, rtol=0.0, atol=allowed):
            raise InferenceError(
                f"the network gives {name} {target} {first:g} among other molecules, and "
                f"{second:g} alone"
            )


class Live:
    """The model that answers now, which may be swapped while requests are under way."""

    def __init__(self, model: Model) -> None:
        """Answer with a model.

        Args:
            model: It is closed by this object, once another has taken its place.
        """
        self._lock = threading.Lock()
        self._model = model
        self._users: dict[int, int] = {}

    @property
    def model(self) -> Model:
        """The model that answers now; to look at, not to predict with."""
        return self._model

    @contextmanager
    def borrow(self) -> Iterator[Model]:
        """The model for one request, open until the block is left.

        Yields:
            The model that answers now.
        """
        with self._lock:
            model = self._model
            self._users[id(model)] = self._users.get(id(model), 0) + 1
        try:
            yield model
        finally:
            with self._lock:
                self._users[id(model)] -= 1
                is_last = self._users[id(model)] == 0 and model is not self._model
                if self._users[id(model)] == 0:
                    del self._users[id(model)]
            if is_last:
                model.close()

    def replace(self, model: Model) -> None:
        """Answer with another model from now on; requests under way end with the old one.

        Args:
            model: The new one.
        """
        with self._lock:
            old, self._model = self._model, model
            is_idle = id(old) not in self._users
        if is_idle:
            old.close()

    def close(self) -> None:
        """Close the model that answers now."""
        self._model.close()
