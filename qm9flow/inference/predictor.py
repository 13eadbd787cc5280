"""From molecules to named values: groups them by size, runs the graph, derives the rest."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qm9flow import properties
from qm9flow.elements import MAX_NUMBER
from qm9flow.errors import ConfigError, InferenceError, MoleculeError
from qm9flow.inference.domain import doubts, geometry_doubt
from qm9flow.inference.prediction import Domain, Prediction
from qm9flow.inference.session import Provider, Session, open_session
from qm9flow.molecules.geometry import rotational_constants_ragged
from qm9flow.molecules.molecule import Conformers, Molecule, Structure, validate
from qm9flow.properties import GEOMETRIC, LEARNED, TARGETS
from qm9flow.targets import derive

MAX_ATOMS = 256
"""Atoms a molecule may have; cost and memory grow with the square."""

MAX_PAIRS = {"cpu": 16_384, "cuda": 1_048_576}
"""Pairs of atoms, padding included, in one run of the graph (a larger molecule runs alone).

On a CPU larger runs are no faster, they only take more memory; a GPU needs them to be busy.
"""

_RUN_COST_PAIRS = 300
"""Pairs that cost about as much time as starting one more run."""

Floats = npt.NDArray[np.float64]


class Predictor:
    """An open model. Holds no state between calls; threads may share it."""

    def __init__(
        self,
        source: Path,
        *,
        provider: Provider = "auto",
        threads: int | None = None,
        max_atoms: int = MAX_ATOMS,
        max_pairs: int | None = None,
    ) -> None:
        """Open a model.

        Args:
            source: A bundle's folder, or its `.onnx` file.
            provider: Where to run: `auto`, `cpu` or `cuda`.
            threads: Threads inside one operation; None means one for each usable core.
            max_atoms: Molecules of more atoms are refused.
            max_pairs: Most pairs of atoms, padding included, in one run; None means `MAX_PAIRS`.

        Raises:
            ConfigError: There is no such provider, or `threads` is below 1.
            ProviderError: CUDA was required and is not active.
            InferenceError: The model is missing, damaged, or not qm9flow's.
        """
        path = Path(source)
        path = path / "model.onnx" if path.is_dir() else path
        self.session: Session = open_session(path, provider, threads)
        self.max_atoms = max_atoms
        self.max_pairs = max_pairs or MAX_PAIRS[self.session.active]
        if self.session.targets not in properties.TARGET_SETS.values():
            raise InferenceError(
                f"{path} predicts {', '.join(self.session.targets)}; this version of qm9flow "
                f"knows networks for {', '.join(LEARNED)}, or for all targets"
            )

    @property
    def provider(self) -> str:
        """What runs the graph: `cpu` or `cuda`."""
        return self.session.active

    @property
    def level(self) -> float | None:
        """Share of true values that lie inside their intervals; None for a model without any."""
        return None

    @property
    def units(self) -> dict[str, str]:
        """Unit of each target."""
        return {item.name: item.unit for item in properties.PROPERTIES}

    def predict(
        self, molecules: Sequence[Structure], targets: Sequence[str] | None = None
    ) -> list[Prediction]:
        """Predict molecules that must all be valid.

        Args:
            molecules: Any number, of any sizes up to `max_atoms`; conformers count as one.
            targets: Names of the targets to give; None for all 19.

        Returns:
            One prediction a molecule, in their order.

        Raises:
            MoleculeError: The first molecule that is refused, by its subclass.
            ConfigError: There is no such target.
            InferenceError: The runtime failed.
        """
        results = self.predict_each(molecules, targets)
        predictions = []
        for result in results:
            if isinstance(result, MoleculeError):
                raise result
            predictions.append(result)
        return predictions

    def predict_each(
        self,
        molecules: Sequence[Structure | MoleculeError],
        targets: Sequence[str] | None = None,
    ) -> list[Prediction | MoleculeError]:
        """Predict molecules, each on its own: a refused one does not touch the others.

        Args:
            molecules: Any number, of any sizes; conformers count as one molecule. What was refused
                before stays as it is.
            targets: Names of the targets to give; None for all 19.

        Returns:
            One prediction a molecule, or why it was refused, in their order.

        Raises:
            ConfigError: There is no such target.
            InferenceError: The runtime failed.
        """
        wanted = _wanted(targets)
        checked = [self._checked(molecule) for molecule in molecules]
        valid = [item for item in checked if not isinstance(item, MoleculeError)]
        predictions = iter(self._predict_valid(valid, wanted))
        return [item if isinstance(item, MoleculeError) else next(predictions) for item in checked]

    def _checked(self, molecule: Structure | MoleculeError) -> Structure | MoleculeError:
        if isinstance(molecule, MoleculeError):
            return molecule
        try:
            for geometry in _geometries(molecule):
                validate(geometry, self.max_atoms)
        except MoleculeError as error:
            return error
        return molecule

    def _predict_valid(
        self, molecules: Sequence[Structure], wanted: tuple[str, ...]
    ) -> list[Prediction]:
        if not molecules:
            return []
        values = self._values(molecules)
        cutoff = self.session.metadata.get("cutoff_angstrom")
        cutoff_angstrom = float(cutoff) if cutoff else None
        predictions = []
        for index, molecule in enumerate(molecules):
            row = {name: float(values[name][index]) for name in wanted}
            geometries = _geometries(molecule)
            domain = Domain(doubts(geometries[0], cutoff_angstrom))
            predictions.append(_prediction(row, domain, geometries))
        return predictions

    def _values(self, molecules: Sequence[Structure]) -> dict[str, Floats]:
        """(n_molecules,) for each of the 19 targets."""
        lowest = [_geometries(molecule)[0] for molecule in molecules]
        numbers = np.concatenate([molecule.numbers for molecule in lowest])
        positions = np.concatenate([molecule.positions for molecule in lowest])
        ptr = np.cumsum([0, *(len(molecule) for molecule in lowest)])
        rotational = rotational_constants_ragged(numbers, positions, ptr)
        predicted = self._averages(molecules)
        columns = {name: predicted[:, i] for i, name in enumerate(self.session.targets)}
        if self.session.targets == LEARNED:
            return derive(columns, _counts(numbers, ptr), rotational)
        columns |= {name: rotational[:, i] for i, name in enumerate(GEOMETRIC)}
        return columns

    def _averages(self, molecules: Sequence[Structure]) -> Floats:
        """(n_molecules, n_targets of the network), in the targets' units, over conformers."""
        geometries = [geometry for molecule in molecules for geometry in _geometries(molecule)]
        starts = np.cumsum([0, *(len(_geometries(molecule)) for molecule in molecules)])[:-1]
        weights = np.concatenate([_weights(molecule) for molecule in molecules])
        return np.add.reduceat(self._run(geometries) * weights[:, None], starts)

    def _run(self, molecules: Sequence[Molecule]) -> Floats:
        """(n_molecules, n_targets of the network), in the targets' units."""
        sizes = np.array([len(molecule) for molecule in molecules])
        values = np.empty((len(molecules), len(self.session.targets)))
        for group in groups_of_similar_size(sizes, self.max_pairs):
            numbers, positions = _padded([molecules[i] for i in group])
            values[group] = self.session.run(numbers, positions)
        return values


def groups_of_similar_size(
    sizes: npt.NDArray[np.integer], max_pairs: int
) -> Iterable[npt.NDArray[np.int64]]:
    """Cut molecules into runs of bounded memory and little padding.

    Args:
        sizes: (n_molecules,), atoms of each molecule.
        max_pairs: Most pairs of atoms, padding included, in a run of several molecules.

    Yields:
        Indices of molecules, smallest molecules first; each molecule exactly once.
    """
    order = np.argsort(sizes, kind="stable")
    first = padding = 0
    for place, index in enumerate(order):
        size = int(sizes[index])
        count = place - first
        if count == 0:
            padding = 0
            continue
        before = int(sizes[order[place - 1]])
        padding += count * (size**2 - before**2)
        if padding > _RUN_COST_PAIRS or (count + 1) * size**2 > max_pairs:
            yield order[first:place]
            first, padding = place, 0
    if len(order):
        yield order[first:]


def _wanted(names: Sequence[str] | None) -> tuple[str, ...]:
    if names is None:
        return TARGETS
    if not names:
        raise ConfigError(f"no target is named; the targets are {', '.join(TARGETS)}")
    return tuple(dict.fromkeys(properties.get(name).name for name in names))


def _geometries(molecule: Structure) -> Sequence[Molecule]:
    if isinstance(molecule, Molecule):
        return (molecule,)
    return molecule.molecules


def _weights(molecule: Structure) -> Floats:
    return molecule.weights() if isinstance(molecule, Conformers) else np.ones(1)


def _prediction(
    row: dict[str, float], domain: Domain, geometries: Sequence[Molecule]
) -> Prediction:
    values: dict[str, float | None] = dict(row)
    source = geometries[0].geometry
    warnings = (*geometry_doubt(source), *domain.reasons)
    strange = [name for name, value in row.items() if not np.isfinite(value)]
    for name, value in row.items():
        if name in strange or (name in GEOMETRIC and value == 0.0):
            values[name] = None
    if strange:
        warnings += (f"the network gives no finite value for {', '.join(strange)}",)
    intervals = dict.fromkeys(row)
    return Prediction(values, warnings, intervals, domain, source, len(geometries))


def _counts(numbers: npt.NDArray[np.int64], ptr: npt.NDArray[np.int64]) -> Floats:
    """(n_molecules, MAX_NUMBER + 1), atoms of each atomic number."""
    counts = np.zeros((len(ptr) - 1, MAX_NUMBER + 1))
    molecule = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    np.add.at(counts, (molecule, numbers), 1.0)
    return counts


def _padded(
    molecules: Sequence[Molecule],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """(B, N) numbers and (B, N, 3) positions around each molecule's centre, angstrom."""
    width = max(len(molecule) for molecule in molecules)
    numbers = np.zeros((len(molecules), width), dtype=np.int64)
    positions = np.zeros((len(molecules), width, 3), dtype=np.float32)
    for row, molecule in enumerate(molecules):
        numbers[row, : len(molecule)] = molecule.numbers
        # Centred before the cast: far from the origin float32 would blur the distances.
        positions[row, : len(molecule)] = molecule.positions - molecule.positions.mean(axis=0)
    return numbers, positions
