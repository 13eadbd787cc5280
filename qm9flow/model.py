"""A model for Python programs: `qm9flow.load(...)`, molecules in, predictions out. Needs no torch.

`docs/python.md` is the manual.
"""

import io
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np

from qm9flow import properties
from qm9flow.bulk.columns import Kind, ModelName, named, own_columns, own_values
from qm9flow.bulk.meter import Show
from qm9flow.bulk.readers.formats import Source
from qm9flow.bulk.run import Engine, Options, Summary, predict_file
from qm9flow.errors import ConfigError, InvalidRecordError, MoleculeError, UnreadableError
from qm9flow.inference.prediction import Prediction
from qm9flow.inference.predictor import Predictor
from qm9flow.inference.session import Provider
from qm9flow.molecules.given import shown, wanted_targets
from qm9flow.molecules.molecule import Conformers, Molecule
from qm9flow.molecules.pool import MoleculePool, shared_pool
from qm9flow.molecules.records import from_records
from qm9flow.registry.checksum import folder_sha256
from qm9flow.registry.find import FoundModel, find_model

logger = logging.getLogger(__name__)

_TAKEN = (
    "a SMILES, an XYZ text, a mol block, a pair (numbers, positions), ase.Atoms, RDKit's Mol, or a "
    'record such as {"smiles": "CCO"}'
)

Errors = Literal["keep", "raise"]
Result = Prediction | MoleculeError


class Results(list[Result]):
    """Predictions in the order of the molecules; a refused one is a `MoleculeError` in its place.

    An ordinary list that knows how to become a table.
    """

    def __init__(
        self,
        results: Iterable[Result],
        targets: tuple[str, ...],
        level: float | None,
        model: ModelName,
    ) -> None:
        """Hold results.

        Args:
            results: In order.
            targets: Names of targets, in order.
            level: Of the intervals; None for a model without any.
            model: What predicted them.
        """
        super().__init__(results)
        self._targets, self._level, self._model = targets, level, model

    def to_dicts(self) -> list[dict[str, Any]]:
        """One flat dictionary a molecule, with the columns of `qm9flow predict --output`.

        Returns:
            In order.
        """
        names = [column.name for column in named((), own_columns(self._targets, self._level))]
        return [
            dict(
                zip(
                    names,
                    own_values(result, self._targets, self._level, self._model),
                    strict=True,
                )
            )
            for result in self
        ]

    def to_pandas(self) -> Any:
        """The same as a table of pandas.

        Returns:
            A `pandas.DataFrame`, a row a molecule. Numbers are floats, and NaN where there is none;
            `in_domain` is `boolean` and texts are `string`, both of which know missing values.
        """
        import pandas

        columns = own_columns(self._targets, self._level)
        frame = pandas.DataFrame(self.to_dicts(), columns=[column.name for column in columns])
        return frame.astype({column.name: _DTYPES[column.kind] for column in columns})


_DTYPES: dict[Kind, str] = {
    "text": "string",
    "number": "float64",
    "count": "float64",
    "truth": "boolean",
}
"""Of a table's columns, whatever is in them: pandas would take `object` for one without values."""


class Model:
    """An open model. Threads may share it."""

    def __init__(self, found: FoundModel, device: Provider = "auto") -> None:
        """Open a model; `qm9flow.load` is the usual way.

        Args:
            found: Where it lies, and what it is.
            device: `auto`, `cpu` or `cuda`.

        Raises:
            ProviderError: CUDA was required and is not active.
            InferenceError: The model is damaged, or not qm9flow's.
        """
        self._found = found
        self.predictor = Predictor(found.bundle, provider=device)

    @property
    def name(self) -> str:
        """Of the registered model."""
        return self._found.name

    @property
    def version(self) -> int | None:
        """Its number in the registry; None for one that is not from there."""
        return self._found.version

    @property
    def alias(self) -> str | None:
        """The alias it was asked for by, or has; `pretrained` for the one inside qm9flow."""
        return self._found.alias

    @property
    def device(self) -> str:
        """What runs it: `cpu` or `cuda`."""
        return self.predictor.provider

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of all targets."""
        return properties.TARGETS

    @property
    def units(self) -> dict[str, str]:
        """Unit of each target."""
        return self.predictor.units

    @property
    def level(self) -> float | None:
        """Share of true values that lie inside their intervals; None without intervals."""
        return self.predictor.level

    def predict(
        self,
        molecules: Sequence[Any],
        targets: Sequence[str] | None = None,
        *,
        geometry: str | None = None,
        errors: Errors = "keep",
    ) -> Results:
        """Predict molecules.

        Args:
            molecules: Any number of: SMILES; XYZ texts or mol blocks (texts of several lines);
                pairs (numbers, positions), positions in angstrom; `ase.Atoms`; RDKit's `Mol`, with
                its conformer if that is in three dimensions, else by its SMILES; records as in an
                HTTP request; `Molecule` and `Conformers`.
            targets: Names of targets; None for all 19.
            geometry: `dft` or `approximate`: where given coordinates come from. None means `dft`
                for XYZ, pairs and `Atoms`, `approximate` for mol blocks and `Mol`. Records and
                `Molecule` say it themselves.
            errors: `keep` leaves the error of a refused molecule in its place, `raise` raises the
                first.

        Returns:
            One result a molecule, in order.

        Raises:
            ConfigError: There is no such target, or an argument is wrong.
            InferenceError: The runtime failed.
            MoleculeError: The first molecule that is refused, if `errors` is `raise`.
        """
        if errors not in ("keep", "raise"):
            raise ConfigError(f"errors must be keep or raise, got {errors!r}")
        if geometry not in (None, "dft", "approximate"):
            raise ConfigError(f"geometry must be dft or approximate, got {shown(geometry)}")
        wanted = wanted_targets(targets)
        items = [_record(molecule, geometry) for molecule in _several(molecules)]
        ready = (Molecule, Conformers)
        records = [item for item in items if not isinstance(item, ready)]
        built = iter(from_records(records, shared_pool()))
        structures = [item if isinstance(item, ready) else next(built) for item in items]
        results = self.predictor.predict_each(structures, wanted)
        if errors == "raise":
            for result in results:
                if isinstance(result, MoleculeError):
                    raise result
        return Results(results, wanted, self.level, self._model_name(""))

    def predict_file(
        self,
        source: str | os.PathLike[str],
        output: str | os.PathLike[str] | IO[bytes],
        targets: Sequence[str] | None = None,
        *,
        input_format: str | None = None,
        output_format: str | None = None,
        smiles_column: str | None = None,
        geometry: str | None = None,
        chunk: int | None = None,
        workers: int | None = None,
        restart: bool = False,
        progress: Show | None = None,
    ) -> Summary:
        """Predict each row of a file of any size into another; a killed call goes on.

        Args:
            source: CSV, TSV, SMILES, SDF, XYZ or extended XYZ, gzipped or not; `-` is standard
                input.
            output: CSV, TSV or JSON lines, with `.gz` gzipped, or Parquet; or a binary stream, for
                which nothing goes on after a kill.
            targets: Names of targets; None for all 19.
            input_format: `csv`, `tsv`, `smi`, `sdf` or `xyz`; None goes by the suffix.
            output_format: `csv`, `tsv`, `jsonl` or `parquet`; None goes by the suffix.
            smiles_column: Header of a table's column of SMILES; None looks for it.
            geometry: `dft` or `approximate`, for SDF and XYZ; None means the format's default.
            chunk: Rows at a time; None fits the device.
            workers: Processes that make geometries; None means one for each usable core.
            restart: Begin anew: drop what an interrupted run left, replace an output that exists.
            progress: Called about twice a second with how far it is.

        Returns:
            What was done.

        Raises:
            ConfigError: An option is wrong.
            InputFileError: The input cannot be read (on).
            OutputFileError: The output exists or cannot be written.
            ResumeError: What an interrupted run left belongs to something else.
            InferenceError: The runtime failed.
        """
        _refuse_no_file(source, output)
        _refuse_no_count(chunk, "chunk")
        _refuse_no_count(workers, "workers")
        options = Options(wanted_targets(targets), chunk, output_format, restart)
        name = self._model_name(folder_sha256(self._found.bundle))
        with (
            Source(
                Path(source), input_format, smiles_column=smiles_column, geometry=geometry
            ) as rows,
            MoleculePool(workers) as pool,
        ):
            engine = Engine(self.predictor, name, pool)
            to = Path(output) if isinstance(output, str | os.PathLike) else output
            return predict_file(rows, to, engine, options, progress)

    def __repr__(self) -> str:
        """Name, version and device."""
        return f"<qm9flow {self._found.label} on {self.device}>"

    def _model_name(self, digest: str) -> ModelName:
        return model_name(self._found, digest)


def load(
    reference: str = "champion",
    tracking_uri: str | None = None,
    device: Provider = "auto",
) -> Model:
    """Open a model.

    Args:
        reference: An alias, a version's number, `models:/qm9flow@champion`, `models:/qm9flow/3`,
            a bundle's folder, or `pretrained`.
        tracking_uri: MLflow's store; None takes the environment's, or the database in the current
            folder.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        The model.

    Raises:
        RegistryError: There is no such model, or it is damaged.
        ProviderError: CUDA was required and is not active.
        InferenceError: The model is not qm9flow's.
    """
    found = find_model(str(reference), tracking_uri)
    if found.remark is not None:
        logger.warning("%s", found.remark)
    return Model(found, device)


def model_name(found: FoundModel, digest: str) -> ModelName:
    """What to say of a model in a file.

    Args:
        found: The model.
        digest: Of its bundle.

    Returns:
        Its name and version.
    """
    version = found.alias if found.version is None else str(found.version)
    return ModelName(found.name, version or "", digest)


def _several(molecules: Any) -> Iterable[Any]:
    """What `predict` was called with, where that is not one molecule or none at all."""
    if _is_one(molecules):
        raise ConfigError("predict takes a list of molecules: put the one into brackets")
    try:
        iter(molecules)
    except TypeError as error:
        raise ConfigError(
            f"predict takes a list of molecules, each {_TAKEN}; got {shown(molecules)}"
        ) from error
    return cast(Iterable[Any], molecules)


def _is_one(molecules: Any) -> bool:
    """A tuple of two is a pair (numbers, positions) if its first is a list or an array."""
    if isinstance(molecules, tuple):
        return len(molecules) == 2 and isinstance(molecules[0], list | np.ndarray)
    ready = (Molecule, Conformers, Mapping, bytes)
    return isinstance(molecules, ready) or any(fits(molecules) for fits, _ in _FORMS)


def _refuse_no_file(source: Any, output: Any) -> None:
    if not isinstance(source, str | os.PathLike):
        raise ConfigError(
            f"predict_file takes the path of a file of molecules, or -; got {shown(source)}"
        )
    if not isinstance(output, str | os.PathLike) and not hasattr(output, "write"):
        raise ConfigError(f"predict_file writes to a path or a binary stream; got {shown(output)}")
    if isinstance(output, io.TextIOBase):
        raise ConfigError("predict_file writes bytes, and got a stream of text: open it with 'wb'")


def _refuse_no_count(value: Any, name: str) -> None:
    if value is not None and (type(value) is not int or value < 1):
        raise ConfigError(f"{name} must be a whole number from 1 on, got {shown(value)}")


def _record(molecule: Any, geometry: str | None) -> Any:
    """A record as in an HTTP request, or what needs none."""
    if isinstance(molecule, Molecule | Conformers | Mapping):
        return molecule
    said = {"geometry": geometry} if geometry else {}
    try:
        return next(read(molecule, said) for fits, read in _FORMS if fits(molecule))
    except StopIteration:
        return InvalidRecordError(f"a molecule is {_TAKEN}; got {shown(molecule)}")
    except (TypeError, ValueError, AttributeError) as error:
        return UnreadableError(f"{shown(molecule)} cannot be read as a molecule: {error}")


def _text(text: str, said: dict[str, str]) -> dict[str, Any]:
    if len(text.strip().splitlines()) < 2:
        return {"smiles": text}
    return {"sdf" if "M  END" in text else "xyz": text, **said}


def _rdkit(mol: Any, said: dict[str, str]) -> dict[str, Any]:
    from rdkit import Chem

    if mol.GetNumConformers() and mol.GetConformer().Is3D():
        return {"sdf": Chem.MolToMolBlock(mol), **said}
    return {"smiles": Chem.MolToSmiles(mol)}


_FORMS: tuple[tuple[Callable[[Any], bool], Callable[[Any, dict[str, str]], Any]], ...] = (
    (lambda item: isinstance(item, str), _text),
    (
        lambda item: isinstance(item, tuple) and len(item) == 2,
        lambda item, said: {"numbers": item[0], "positions": item[1], **said},
    ),
    (
        lambda item: hasattr(item, "get_atomic_numbers") and hasattr(item, "get_positions"),
        lambda item, said: {
            "numbers": item.get_atomic_numbers(),
            "positions": item.get_positions(),
            **said,
        },
    ),
    (lambda item: hasattr(item, "GetNumConformers"), _rdkit),
)
"""What a molecule may be besides our own classes, and how it becomes a record."""
