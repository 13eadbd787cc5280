"""The error tree. Whatever qm9flow raises on purpose is a `Qm9FlowError`.

A message says what was wrong, where, and what to do. Interfaces (shell, HTTP) print the message
and never a traceback.
"""


class Qm9FlowError(Exception):
    """Root of all errors raised on purpose."""


class ConfigError(Qm9FlowError):
    """An option, a configuration file or an environment variable is wrong."""


class UnknownTargetError(ConfigError):
    """There is no target of that name."""


class DependencyError(Qm9FlowError):
    """An optional package is missing; the message names the extra that brings it."""


class DataError(Qm9FlowError):
    """QM9's tables or the cache made from them cannot be used."""


class SourceMissingError(DataError):
    """The package that holds QM9's tables is not installed, or lacks a table."""


class SourceCorruptError(DataError):
    """A table differs from the recorded one."""


class CacheError(DataError):
    """The cache cannot be written, or what it holds is damaged."""


class TrainingError(Qm9FlowError):
    """A training cannot start or go on."""


class CheckpointError(TrainingError):
    """A checkpoint does not fit the training that is to resume from it."""


class StudyError(Qm9FlowError):
    """A study cannot be created, resumed or shown."""


class StudyBusyError(StudyError):
    """Another coordinator holds the study's lease."""


class StudyMismatchError(StudyError):
    """A study is resumed with another space, other data or another seed."""


class TrackingError(Qm9FlowError):
    """A tracking store cannot be reached or does not hold what was asked for."""


class BundleError(Qm9FlowError):
    """A bundle is incomplete, damaged or of an unknown format."""


class ExportError(Qm9FlowError):
    """A model cannot be exported."""


class ParityError(ExportError):
    """The exported graph does not give the network's numbers."""


class RegistryError(Qm9FlowError):
    """The model registry does not hold what was asked for, or refuses a change."""


class NothingRegisteredError(RegistryError):
    """The model registry holds no version yet."""


class InferenceError(Qm9FlowError):
    """A model cannot be loaded or run."""


class ProviderError(InferenceError):
    """The execution provider that was required is not active."""


class BulkError(Qm9FlowError):
    """A file of molecules cannot be predicted."""


class InputFileError(BulkError):
    """A file of molecules cannot be read, or is not what it is said to be."""


class OutputFileError(BulkError):
    """Predictions cannot be written."""


class ResumeError(BulkError):
    """What an interrupted run left does not belong to this input, model or these options."""


class MoleculeError(Qm9FlowError):
    """A molecule is refused.

    Attributes:
        code: Machine-readable reason, one of the codes of the HTTP interface.
    """

    code = "internal"


class InvalidSmilesError(MoleculeError):
    """The text is not a SMILES."""

    code = "invalid_smiles"


class UnsupportedElementError(MoleculeError):
    """An element that QM9 does not hold."""

    code = "unsupported_element"


class ChargedError(MoleculeError):
    """A net charge."""

    code = "charged"


class CoincidentAtomsError(MoleculeError):
    """Two atoms in one place."""

    code = "coincident_atoms"


class NonFiniteError(MoleculeError):
    """A coordinate that is no finite number."""

    code = "non_finite"


class EmptyMoleculeError(MoleculeError):
    """No atoms, or an empty text."""

    code = "empty"


class UnreadableError(MoleculeError):
    """An XYZ text, a mol block or arrays that cannot be read as one molecule."""

    code = "unreadable"


class InvalidRecordError(MoleculeError):
    """No record of a molecule: not an object, or with other keys, or another geometry."""

    code = "invalid_record"


class FlatMoleculeError(MoleculeError):
    """A mol block that is a drawing in two dimensions."""

    code = "two_dimensional"


class MissingHydrogensError(MoleculeError):
    """A mol block without some of its hydrogens."""

    code = "missing_hydrogens"


class TooLargeError(MoleculeError):
    """More atoms than the stated limit."""

    code = "too_large"


class ConformerError(MoleculeError):
    """No geometry could be made from a SMILES."""

    code = "conformer_failed"


class DrawingError(MoleculeError):
    """No drawing could be made: the bonds do not follow from the geometry."""

    code = "drawing_failed"


class MoleculeTimeoutError(MoleculeError):
    """A molecule took longer than its limit."""

    code = "timeout"


class RowError(UnreadableError):
    """A row of a file that cannot be read, whatever molecule it was to hold."""

    code = "bad_row"
