"""From a trained model to an ONNX graph, and the proof that both say the same."""

import contextlib
import copy
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from qm9flow import __version__, properties
from qm9flow.data.store import Dataset
from qm9flow.elements import NUMBERS
from qm9flow.errors import ExportError, ParityError
from qm9flow.inference.choice import OUTPUT as LOGIT
from qm9flow.inference.choice import open_choice
from qm9flow.inference.session import OUTPUTS, Session, open_session
from qm9flow.nn.choice import Choice
from qm9flow.nn.contract import PropertyModel
from qm9flow.properties import LEARNED, spread_names

OPSET = 20
"""Version of the ONNX operators that graphs are written in."""
PARITY_LIMIT = 1e-3
"""Largest difference that is accepted, in units of chemical accuracy."""
FLOAT32_LIMIT = 1e-5
"""Largest relative difference where a network learns values as they are: float32 holds 7 digits,
and a total energy of 11,000 eV is 250,000 times its chemical accuracy."""

TRUST_LIMIT = 1e-2
"""Largest relative difference of spreads and distances."""

_PER_SIZE = 3
_STACK_TRACE = "pkg.torch.onnx.stack_trace"
_NOISY_LOGGERS = ("torch.onnx._internal.exporter._registration", "onnxscript", "onnx_ir")


def export_onnx(model: PropertyModel, path: Path) -> None:
    """Write a model as an ONNX graph: everything from atoms to physical values.

    Inputs are `numbers` (B, N) int64, zero-padded, and `positions` (B, N, 3) float32, angstrom,
    B and N any from 1 on; the output is `values` (B, T) float64 in the targets' units, and, where
    the model has `trust`, `spread` (B, S) and `distance` (B,), and where it has a `refiner`, too,
    `refined` (B, N, 3), angstrom, float32. Targets, their units, the
    cutoff and the elements are in the graph's metadata.

    Args:
        model: On any device, in any mode; it is not changed.
        path: File to write; replaced as a whole, or not at all.

    Raises:
        ExportError: The exporter cannot translate the network, or the file cannot be written.
    """
    if not path.parent.is_dir():
        raise ExportError(f"cannot write {path}: there is no folder {path.parent}")
    network, trust, refiner = copy.deepcopy((model.network, model.trust, model.refiner))
    twin = PropertyModel(network.exportable(), model.codec, trust, refiner).cpu().eval()
    twin.requires_grad_(False)
    whole = twin if trust is None else _JudgedModel(twin)
    graph = _exported(whole, ["numbers", "positions"], _outputs(model), type(network).__name__)
    onnx.helper.set_model_props(graph, _metadata(model))
    _write(graph.SerializeToString(), path)


def export_choice(choice: Choice, path: Path) -> None:
    """Write what weighs conformers as an ONNX graph.

    Inputs are `numbers` and `positions` as in `export_onnx`, and `energies` (B,) float32, kcal/mol
    above each molecule's lowest; the output is `logit` (B,) float32.

    Args:
        choice: On any device, in any mode; it is not changed.
        path: File to write; replaced as a whole, or not at all.

    Raises:
        ExportError: The exporter cannot translate it, or the file cannot be written.
    """
    if not path.parent.is_dir():
        raise ExportError(f"cannot write {path}: there is no folder {path.parent}")
    twin = copy.deepcopy(choice).cpu().eval().requires_grad_(False)
    names = ["numbers", "positions", "energies"]
    graph = _exported(_MeanOfMembers(twin), names, (LOGIT,), type(choice).__name__)
    onnx.helper.set_model_props(graph, {"qm9flow": __version__})
    _write(graph.SerializeToString(), path)


def _exported(
    model: nn.Module, inputs: list[str], outputs: tuple[str, ...], name: str
) -> onnx.ModelProto:
    """A model of numbers, positions and perhaps a number for each molecule, as a graph."""
    numbers = torch.tensor([[6, 1, 1], [8, 1, 0]])  # sizes of 1 would become constants
    positions = torch.linspace(-1, 1, 18).view(2, 3, 3)
    given = (numbers, positions, torch.tensor([0.0, 0.5]))[: len(inputs)]
    molecules, atoms = torch.export.Dim("molecules"), torch.export.Dim("atoms")
    shapes = ({0: molecules, 1: atoms}, {0: molecules, 1: atoms}, {0: molecules})
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                model,
                given,
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=list(outputs),
                dynamic_shapes=shapes[: len(inputs)],
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"{name} cannot be exported to ONNX: {error.__cause__ or error}") from (
            error
        )
    assert program is not None
    graph = program.model_proto
    _forget_files(graph)
    return graph


class _JudgedModel(nn.Module):
    """A model whose every answer is judged."""

    def __init__(self, model: PropertyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, numbers: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        """As `PropertyModel.judged`."""
        return self.model.judged(numbers, positions)


class _MeanOfMembers(nn.Module):
    """What the members of a choice say together."""

    def __init__(self, choice: Choice) -> None:
        super().__init__()
        self.choice = choice

    def forward(self, numbers: Tensor, positions: Tensor, energies: Tensor) -> Tensor:
        """(G,), logits."""
        logits: Tensor = self.choice(numbers, positions, energies).mean(dim=1)
        return logits


def _outputs(model: PropertyModel) -> tuple[str, ...]:
    if model.trust is None:
        return OUTPUTS[:1]
    return OUTPUTS if model.refiner is not None else OUTPUTS[:-1]


def _forget_files(graph: onnx.ModelProto) -> None:
    """The exporter notes which lines made a node, by the paths that they have on this machine."""
    for node in graph.graph.node:
        kept = [item for item in node.metadata_props if item.key != _STACK_TRACE]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of packages that are not needed and of names that are shared."""
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _metadata(model: PropertyModel) -> dict[str, str]:
    return {
        "targets": json.dumps(list(model.targets)),
        "units": json.dumps(model.units),
        "cutoff_angstrom": str(model.network.cutoff_angstrom),
        "elements": json.dumps(list(NUMBERS)),
        "qm9flow": __version__,
        **({} if model.trust is None else {"spreads": json.dumps(spread_names(model.targets))}),
    }


def _write(blob: bytes, path: Path) -> None:
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(blob)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error}") from error


@dataclass(frozen=True)
class Parity:
    """How far an exported graph is from its network.

    Attributes:
        difference: Largest absolute difference by target, in its unit.
        allowed: What is accepted, by target, in its unit.
        molecules: How many were compared.
        largest: Atoms of the largest.
    """

    difference: dict[str, float]
    allowed: dict[str, float]
    molecules: int
    largest: int

    @property
    def worst(self) -> str:
        """The target that comes nearest to what is accepted, or exceeds it most."""
        return max(self.difference, key=lambda name: self.difference[name] / self.allowed[name])

    @property
    def holds(self) -> bool:
        """Whether no target exceeds what is accepted."""
        return all(self.difference[name] <= self.allowed[name] for name in self.difference)


def check_parity(model: PropertyModel, path: Path, dataset: Dataset) -> Parity:
    """Compare a graph on the CPU with its network, in physical units.

    Molecules of all sizes of QM9, by size and mixed, alone and together, single atoms of every
    element, and molecules up to three times as large as QM9's.

    Args:
        model: On any device; it is not changed.
        path: The graph.
        dataset: Where molecules come from.

    Returns:
        The differences; for `learned` targets up to `PARITY_LIMIT` times chemical accuracy is
        accepted, for values learned as they are also `FLOAT32_LIMIT` relative.

    Raises:
        ParityError: A target differs more than is accepted, or is not a number.
        InferenceError: The graph cannot be opened or run.
    """
    reference = copy.deepcopy(model).cpu().eval()
    session = open_session(path, "cpu", threads=1)
    if session.targets != model.targets:
        raise ParityError(
            f"{path} predicts {', '.join(session.targets)}, the network {', '.join(model.targets)}"
        )
    batches = parity_batches(dataset)
    if reference.trust is not None:
        _check_trust(reference, session, batches, path)
    pairs = [_both(reference, session, *batch) for batch in batches]
    expected = np.concatenate([pair[0] for pair in pairs])
    difference = np.abs(expected - np.concatenate([pair[1] for pair in pairs])).max(axis=0)
    parity = Parity(
        dict(zip(model.targets, difference.tolist(), strict=True)),
        _allowed(model.targets, np.abs(expected).max(axis=0)),
        molecules=len(expected),
        largest=max(numbers.shape[1] for numbers, _ in batches),
    )
    if not parity.holds:
        worst = parity.worst
        unit = properties.get(worst).unit
        raise ParityError(
            f"{path} differs from its network: {worst} by {parity.difference[worst]:.2g} {unit}, "
            f"at most {parity.allowed[worst]:.2g} {unit} is accepted"
        )
    return parity


def check_choice(choice: Choice, path: Path, dataset: Dataset) -> None:
    """Compare a graph that weighs conformers with its network, on the molecules of `check_parity`.

    Args:
        choice: On any device; it is not changed.
        path: The graph.
        dataset: Where molecules come from.

    Raises:
        ParityError: It differs by more than `TRUST_LIMIT`.
        InferenceError: The graph cannot be opened or run.
    """
    reference = copy.deepcopy(choice).cpu().eval()
    session = open_choice(path, "cpu", 1)
    for numbers, positions in parity_batches(dataset):
        energies = np.linspace(0, 5, len(numbers), dtype=np.float32)
        given = [torch.from_numpy(item) for item in (numbers, positions, energies)]
        with torch.inference_mode():
            mine = reference(*given).mean(dim=1).numpy()
        size = np.maximum(np.abs(mine), 1.0)
        off = float((np.abs(session.run(numbers, positions, energies) - mine) / size).max())
        if not off <= TRUST_LIMIT:
            raise ParityError(
                f"{path} differs from its network by a share of {off:.2g}, at most "
                f"{TRUST_LIMIT:g} is accepted"
            )


Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


def parity_batches(dataset: Dataset) -> list[Batch]:
    """The molecules of the parity check.

    Args:
        dataset: Where they come from.

    Returns:
        Batches of numbers (B, N) and positions (B, N, 3), angstrom.
    """
    by_size = [
        [dataset.molecule(int(i)) for i in np.flatnonzero(dataset.sizes == size)[:_PER_SIZE]]
        for size in np.unique(dataset.sizes)
    ]
    groups = [
        [(molecule.numbers, molecule.positions.astype(np.float32)) for molecule in molecules]
        for molecules in by_size
    ]
    atoms = [(np.array([z]), np.zeros((1, 3), np.float32)) for z in NUMBERS]
    large = [_side_by_side(groups[-1][:1] * 2), _side_by_side(groups[-1][:1] * 3)]
    mixed = [molecule for group in groups for molecule in group] + atoms
    alone = [[atoms[0]], [groups[0][0]], [groups[-1][0]], large[:1], large[1:]]
    return [_padded(batch) for batch in (*groups, atoms, mixed, [*large, *atoms], *alone)]


def _side_by_side(molecules: list[Batch]) -> Batch:
    """One molecule of several, 3 angstrom apart."""
    parts, right = [], 0.0
    for _, positions in molecules:
        moved = positions - positions.min(axis=0) + np.array([right, 0, 0], np.float32)
        parts.append(moved)
        right = moved[:, 0].max() + 3.0
    return np.concatenate([numbers for numbers, _ in molecules]), np.concatenate(parts)


def _padded(molecules: list[Batch]) -> Batch:
    size = max(len(numbers) for numbers, _ in molecules)
    numbers = np.zeros((len(molecules), size), np.int64)
    positions = np.zeros((len(molecules), size, 3), np.float32)
    for row, (z, pos) in enumerate(molecules):
        numbers[row, : len(z)] = z
        positions[row, : len(z)] = pos
    return numbers, positions


Floats = npt.NDArray[np.float64]


def _both(
    reference: PropertyModel,
    session: Session,
    numbers: npt.NDArray[np.int64],
    positions: npt.NDArray[np.float32],
) -> tuple[Floats, Floats]:
    """(B, T) of the network and (B, T) of the graph."""
    with torch.inference_mode():
        expected = reference(torch.from_numpy(numbers), torch.from_numpy(positions)).numpy()
    return expected, session.run(numbers, positions)


def _check_trust(
    reference: PropertyModel, session: Session, batches: list[Batch], path: Path
) -> None:
    """What judges values needs no chemical accuracy: it is compared relatively."""
    for numbers, positions in batches:
        with torch.inference_mode():
            mine = reference.judged(torch.from_numpy(numbers), torch.from_numpy(positions))
        theirs = session.run_judged(numbers, positions)
        for name, expected, found in zip(OUTPUTS[1:], mine[1:], theirs[1:], strict=False):
            assert found is not None
            size = np.maximum(np.abs(expected.numpy()), 0.0 if name == "spread" else 1.0)
            off = float((np.abs(found - expected.numpy()) / size).max())
            if not off <= TRUST_LIMIT:
                raise ParityError(
                    f"{path} differs from its network: {name} by a share of {off:.2g}, at most "
                    f"{TRUST_LIMIT:g} is accepted"
                )


def _allowed(targets: tuple[str, ...], largest: Floats) -> dict[str, float]:
    allowed = {}
    for name, value in zip(targets, largest, strict=True):
        accuracy = properties.get(name).chemical_accuracy or 0.0
        as_they_are = 0.0 if targets == LEARNED else FLOAT32_LIMIT * float(value)
        allowed[name] = max(PARITY_LIMIT * accuracy, as_they_are)
    return allowed
