"""From molecules to named values: groups them by size, runs the graph, derives the rest."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt

from qm9flow import properties
from qm9flow.config.choices import GeometrySource
from qm9flow.elements import MAX_NUMBER
from qm9flow.errors import InferenceError, InvalidRecordError, MoleculeError
from qm9flow.inference.calibration import FILE, Calibration, SourceCalibration
from qm9flow.inference.choice import ChoiceSession, open_choice
from qm9flow.inference.domain import (
    domain_of,
    doubts,
    geometry_doubt,
    isomer_doubt,
    isomer_factors,
    widening,
)
from qm9flow.inference.judged import Judged, over_conformers
from qm9flow.inference.prediction import Domain, Prediction, Shape
from qm9flow.inference.screen import flawless, ordinary
from qm9flow.inference.session import Provider, Session, open_session
from qm9flow.inference.table import Table
from qm9flow.inference.weighed import Weighed, weighed
from qm9flow.molecules.geometry import rotational_constants_ragged
from qm9flow.molecules.given import shown, wanted_targets
from qm9flow.molecules.molecule import (
    Conformers,
    Molecule,
    Structure,
    validate,
    validate_conformers,
)
from qm9flow.molecules.pool import MAX_ATOMS
from qm9flow.properties import GEOMETRIC, LEARNED
from qm9flow.targets import derive

MODEL = "model.onnx"
ROUGH, CHOICE = "rough.onnx", "choice.onnx"
"""What a bundle may hold for geometries that are not DFT's."""

LEAST_WEIGHT = 0.01
"""Conformers of less weight are left out: no value depends on them, and most cost more time than
they are worth."""

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
        is_file = not path.is_dir()
        self.session: Session = open_session(path if is_file else path / MODEL, provider, threads)
        self.max_atoms = max_atoms
        self.max_pairs = max_pairs or MAX_PAIRS[self.session.active]
        if self.session.targets not in properties.TARGET_SETS.values():
            raise InferenceError(
                f"{path} predicts {', '.join(self.session.targets)}; this version of qm9flow "
                f"knows networks for {', '.join(LEARNED)}, or for all targets"
            )
        self.rough: Session | None = None
        self.choice: ChoiceSession | None = None
        self.calibration: Calibration | None = None
        if not is_file:
            self._open_rest(path, provider, threads)

    def _open_rest(self, folder: Path, provider: Provider, threads: int | None) -> None:
        """What a bundle holds beside its main graph."""
        path = folder / ROUGH
        if path.is_file():
            self.rough = open_session(path, provider, threads)
            self.choice = open_choice(folder / CHOICE, provider, threads)
            if self.rough.targets != self.session.targets:
                raise InferenceError(
                    f"{path} predicts {', '.join(self.rough.targets)}, {MODEL} beside it "
                    f"{', '.join(self.session.targets)}: fetch or write the bundle again"
                )
        path = folder / FILE
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            self.calibration = Calibration.from_json(text, str(path))

    @property
    def sources(self) -> tuple[GeometrySource, ...]:
        """Sources of geometries that the model has learned from."""
        return ("dft",) if self.rough is None else ("dft", "smiles", "approximate")

    @property
    def provider(self) -> str:
        """What runs the graph: `cpu` or `cuda`."""
        return self.session.active

    @property
    def level(self) -> float | None:
        """Share of true values that lie inside their intervals; None for a model without any."""
        return None if self.calibration is None else self.calibration.level

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
        wanted = wanted_targets(targets)
        checked = self._checked(molecules)
        valid = [item for item in checked if not isinstance(item, MoleculeError)]
        predictions = iter(self._predict_valid(valid, wanted))
        return [item if isinstance(item, MoleculeError) else next(predictions) for item in checked]

    def _checked(
        self, molecules: Sequence[Structure | MoleculeError]
    ) -> list[Structure | MoleculeError]:
        """Each as it is, or why it is refused."""
        found = [_together(molecule) for molecule in molecules]
        owners = [
            (i, geometry)
            for i, molecule in enumerate(found)
            if not isinstance(molecule, MoleculeError)
            for geometry in _geometries(molecule)
        ]
        sound = flawless([geometry for _, geometry in owners], self.max_atoms)
        for place in np.flatnonzero(~sound).tolist():
            i, geometry = owners[place]
            try:
                validate(geometry, self.max_atoms)
            except MoleculeError as error:
                found[i] = error
        return found

    def _predict_valid(
        self, molecules: Sequence[Structure], wanted: tuple[str, ...]
    ) -> list[Prediction]:
        predictions: dict[int, Prediction] = {}
        for source in get_args(GeometrySource):
            places = [i for i, item in enumerate(molecules) if item.geometry == source]
            if places:
                of_source = [molecules[i] for i in places]
                found = self._predict_source(of_source, source, wanted)
                predictions |= dict(zip(places, found, strict=True))
        return [predictions[i] for i in range(len(molecules))]

    def _predict_source(
        self, molecules: Sequence[Structure], source: GeometrySource, wanted: tuple[str, ...]
    ) -> list[Prediction]:
        judged, likeliest = self._judged(molecules, source)
        calibrated = self.calibration.sources.get(source) if self.calibration else None
        geometries = [_geometries(molecule) for molecule in molecules]
        cutoff = self._network(source).metadata.get("cutoff_angstrom")
        cutoff_angstrom = float(cutoff) if cutoff else None
        first = [shapes[0] for shapes in geometries]
        domains = _domains(first, cutoff_angstrom, judged.distances, calibrated)
        widened = [
            widening(shape, domain, distance, calibrated)
            for shape, domain, distance in zip(
                first, domains, _each(judged.distances, len(first)), strict=True
            )
        ]
        factors = np.array(widened)[:, None] * isomer_factors(molecules, wanted)
        table = Table.of(judged, wanted, calibrated, factors)
        has_network = source in self.sources
        found = []
        for i, (molecule, shape, domain) in enumerate(
            zip(molecules, likeliest, domains, strict=True)
        ):
            doubt = geometry_doubt(source, has_network=has_network, is_refined=shape.is_refined)
            made_of = source, len(geometries[i]), shape
            found.append(table.prediction(i, domain, doubt + isomer_doubt(molecule), made_of))
        return found

    def judge(self, molecules: Sequence[Structure], source: GeometrySource) -> Judged:
        """What the network says of valid molecules, as columns.

        Args:
            molecules: At least one.
            source: Where their geometries come from, which says what network is asked.

        Returns:
            Values, spreads, distances.

        Raises:
            InferenceError: The runtime failed.
        """
        return self._judged(molecules, source)[0]

    def _judged(
        self, molecules: Sequence[Structure], source: GeometrySource
    ) -> tuple[Judged, list[Shape]]:
        """The same, and the likeliest geometry of each."""
        session = self._network(source)
        values, spreads, distances, likeliest = self._averages(session, molecules)
        numbers = np.concatenate([molecule.numbers for molecule in molecules])
        positions = np.concatenate([shape.positions for shape in likeliest])
        ptr = np.cumsum([0, *(len(molecule.numbers) for molecule in molecules)])
        rotational = rotational_constants_ragged(numbers, positions, ptr)
        columns = {name: values[:, i] for i, name in enumerate(session.targets)}
        if session.targets == LEARNED:
            columns = derive(columns, _counts(numbers, ptr), rotational)
        else:
            columns |= {name: rotational[:, i] for i, name in enumerate(GEOMETRIC)}
        by_name = {name: spreads[:, i] for i, name in enumerate(session.spreads)}
        judged = Judged(columns, values, by_name, distances if session.spreads else None)
        return judged, likeliest

    def _network(self, source: GeometrySource) -> Session:
        """The one for such geometries, else the main one."""
        return self.session if source == "dft" or self.rough is None else self.rough

    def _averages(
        self, session: Session, molecules: Sequence[Structure]
    ) -> tuple[Floats, Floats, Floats, list[Shape]]:
        """(n, T), (n, S) and (n,): over the conformers of each molecule; and the likeliest ones."""
        chosen = self._chosen(session, molecules)
        starts = chosen.starts
        values, spreads, distances, refined = self._run(session, chosen.geometries)
        weights = chosen.weights
        spread_values = _columns_of_spreads(session, values)
        _, spreads = over_conformers(spread_values, spreads, weights, starts)
        mean = np.add.reduceat(values * weights[:, None], starts)
        likeliest = [_shape(chosen.geometries[i], refined[i]) for i in chosen.likeliest]
        return mean, spreads, np.add.reduceat(distances * weights, starts), likeliest

    def _chosen(self, session: Session, molecules: Sequence[Structure]) -> Weighed:
        """The geometries that count, and how much."""
        if session is not self.rough or self.choice is None:
            return weighed(molecules, None, LEAST_WEIGHT)
        shapes = [item for item in molecules if isinstance(item, Conformers)]
        geometries = [geometry for item in shapes for geometry in item.molecules]
        energies = np.concatenate([[], *(item.energies - item.energies.min() for item in shapes)])
        logits = np.zeros(len(geometries))
        for group in self._groups(geometries):
            numbers, positions = _padded([geometries[i] for i in group])
            logits[group] = self.choice.run(numbers, positions, energies[group].astype(np.float32))
        return weighed(molecules, logits, LEAST_WEIGHT)

    def _groups(self, molecules: Sequence[Molecule]) -> Iterable[npt.NDArray[np.int64]]:
        sizes = np.array([len(molecule) for molecule in molecules], dtype=np.int64)
        return groups_of_similar_size(sizes, self.max_pairs)

    def _run(
        self, session: Session, molecules: Sequence[Molecule]
    ) -> tuple[Floats, Floats, Floats, list[Floats | None]]:
        """(n, T) and (n, S) in the targets' units, (n,), and each one's positions where it was
        refined, angstrom from its centre.
        """
        values = np.empty((len(molecules), len(session.targets)))
        spreads = np.empty((len(molecules), len(session.spreads)))
        distances = np.zeros(len(molecules))
        refined: list[Floats | None] = [None] * len(molecules)
        for group in self._groups(molecules):
            numbers, positions = _padded([molecules[i] for i in group])
            if not session.spreads:
                values[group] = session.run(numbers, positions)
                continue
            found = session.run_judged(numbers, positions)
            values[group], spreads[group] = found[:2]
            distances[group] = np.where(np.isnan(found[2]), np.inf, found[2])
            if found[3] is not None:
                for row in np.flatnonzero(_is_refined(numbers, positions, found[3])).tolist():
                    i = group[row]
                    refined[i] = found[3][row, : len(molecules[i])]
        return values, spreads, distances, refined


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


def _together(molecule: Structure | MoleculeError) -> Structure | MoleculeError:
    """The same, or why it is refused before each of its geometries is looked at."""
    if isinstance(molecule, Conformers):
        try:
            validate_conformers(molecule)
        except MoleculeError as error:
            return error
    elif isinstance(molecule, Molecule) and molecule.geometry not in get_args(GeometrySource):
        return InvalidRecordError(
            f"geometry must be dft, approximate or smiles, got {shown(molecule.geometry)}"
        )
    return molecule


def _geometries(molecule: Structure) -> Sequence[Molecule]:
    if isinstance(molecule, Molecule):
        return (molecule,)
    return molecule.molecules


def _columns_of_spreads(session: Session, values: Floats) -> Floats:
    """(n, S), the values that the spreads are of."""
    columns = {name: values[:, i] for i, name in enumerate(session.targets)}
    if "gap" not in columns and "gap" in session.spreads:
        columns["gap"] = columns["lumo"] - columns["homo"]
    if not session.spreads:
        return np.empty((len(values), 0))
    return np.stack([columns[name] for name in session.spreads], axis=1)


def _each(distances: Floats | None, count: int) -> list[float | None]:
    return [None] * count if distances is None else distances.tolist()


def _domains(
    molecules: Sequence[Molecule],
    cutoff_angstrom: float | None,
    distances: Floats | None,
    calibrated: SourceCalibration | None,
) -> list[Domain]:
    usual = ordinary(molecules, cutoff_angstrom).tolist()
    return [
        domain_of(() if is_usual else doubts(molecule, cutoff_angstrom), distance, calibrated)
        for molecule, is_usual, distance in zip(
            molecules, usual, _each(distances, len(molecules)), strict=True
        )
    ]


def _counts(numbers: npt.NDArray[np.int64], ptr: npt.NDArray[np.int64]) -> Floats:
    """(n_molecules, MAX_NUMBER + 1), atoms of each atomic number."""
    counts = np.zeros((len(ptr) - 1, MAX_NUMBER + 1))
    molecule = np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))
    np.add.at(counts, (molecule, numbers), 1.0)
    return counts


def _is_refined(
    numbers: npt.NDArray[np.int64], before: npt.NDArray[np.float32], after: Floats
) -> npt.NDArray[np.bool_]:
    """(B,), which geometries were moved; those too strange to be refined were not."""
    is_padding = (numbers == 0)[:, :, None]
    is_finite = (np.isfinite(after) | is_padding).all(axis=(1, 2))
    return np.asarray(is_finite & ((after != before) & ~is_padding).any(axis=(1, 2)))


def _shape(molecule: Molecule, refined: Floats | None) -> Shape:
    """A geometry as the network took it, where it was given."""
    if refined is None:
        return Shape(molecule.numbers, molecule.positions, is_refined=False)
    return Shape(molecule.numbers, refined + molecule.positions.mean(axis=0), is_refined=True)


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
