"""The model card: what a person must know before using a model."""

from qm9flow import config
from qm9flow.data.source import CITATION, LICENCE
from qm9flow.inference.calibration import Calibration
from qm9flow.properties import PROPERTIES
from qm9flow.release.record import BundleRecord
from qm9flow.units import HARTREE_EV

_LIMITS = """\
## Limits

- Elements: H, C, N, O and F. Anything else is refused.
- Sizes: trained on molecules of 3 to 29 atoms with up to 9 heavy ones. Larger ones are computed,
  but far outside of what was seen; energies then drift first.
- Neutral, closed-shell molecules near a minimum of their energy. Ions, radicals, transition states
  and several molecules at once are not in the training data.
- Geometry: {geometry}
- Truth is that level of theory, not experiment.
- {intervals}"""
_ONE_NETWORK = (
    "trained on geometries of density-functional theory, B3LYP/6-31G(2df,p), and best on\n"
    "  those. With geometries of a force field, as made from SMILES, errors are larger than those "
    "above."
)
_MORE_NETWORKS = (
    "errors depend on where it comes from, see above. What is not DFT's is refined first;\n"
    "  rotational constants are those of the refined geometry."
)
_NO_INTERVALS = "The network gives no uncertainty."
_INTERVALS = (
    "Intervals hold for molecules like those of QM9. Elsewhere they are wider, and may be too\n"
    "  narrow all the same: of a network like the pretrained one that had not seen a part of QM9,\n"
    "  intervals of 90% held 65% to 91% of that part's values (docs/trust.md)."
)
_SOURCES = {"dft": "DFT's geometry", "smiles": "SMILES", "approximate": "approximate geometry"}


def model_card(record: BundleRecord, calibration: Calibration | None = None) -> str:
    """Describe a model.

    Args:
        record: Of a complete bundle.
        calibration: Of its intervals, None if it has none.

    Returns:
        Markdown.
    """
    parts = [
        f"# qm9flow model: {record.train.model.architecture}",
        _intro(record),
        "## Errors",
        _errors(record),
        *([] if calibration is None else ["## Intervals", _intervals(calibration)]),
        _LIMITS.format(
            geometry=_MORE_NETWORKS if record.rough else _ONE_NETWORK,
            intervals=_INTERVALS if calibration else _NO_INTERVALS,
        ),
        "## How it was made",
        _made(record),
        "## ONNX",
        _parity(record),
        "## Configuration",
        _configuration(record),
        "## Source of the data",
        f"{CITATION}\n\n{LICENCE}",
    ]
    return "\n\n".join(parts) + "\n"


def _intro(record: BundleRecord) -> str:
    learned = ", ".join(record.codec.names)
    others = (
        "; `rough.onnx` and `choice.onnx` (what to run for geometries that are not DFT's, and what "
        "weighs a molecule's conformers)"
    )
    return (
        f"Predicts {learned} of a molecule from its elements and their positions. Files: "
        "`model.onnx` (what to run), `weights.safetensors` and `config.json` (the same for torch)"
        f"{others if record.rough else ''}."
    )


def _errors(record: BundleRecord) -> str:
    if not record.validation_mae and not record.test_mae:
        return "Not measured."
    elsewhere = record.rough.test_mae if record.rough else {}
    others = [f"test, from {_SOURCES[source]}" for source in elsewhere]
    heads = ["target", "", "unit", "validation", "test", *others, "chemical accuracy"]
    lines = [
        "Mean absolute errors. Test molecules took part in no choice.",
        *_inherited(record),
        "",
        "| " + " | ".join(heads) + " |",
        "| " + " | ".join(["---"] * len(heads)) + " |",
    ]
    for item in PROPERTIES:
        if item.name in record.validation_mae or item.name in record.test_mae:
            cells = [
                item.name,
                item.description,
                item.unit,
                _number(record.validation_mae.get(item.name)),
                _number(record.test_mae.get(item.name)),
                *(_number(errors.get(item.name)) for errors in elsewhere.values()),
                _number(item.chemical_accuracy),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _inherited(record: BundleRecord) -> list[str]:
    """Where the networks for other geometries come from, if not from here."""
    origin = record.rough.inherited if record.rough else None
    if origin is None:
        return []
    return [
        "The networks for SMILES and approximate geometries, with errors and intervals, are those "
        f"of {origin.model}, unchanged (SHA-256 of its `weights.safetensors`: {origin.weights})."
    ]


def _intervals(calibration: Calibration) -> str:
    """Coverage and width by target, source by source."""
    sources = calibration.sources
    heads = ["target", "unit"]
    heads += [f"{what}, {_SOURCES[name]}" for name in sources for what in ("coverage", "width")]
    counted = ", ".join(
        f"{_SOURCES[name]}: {item.molecules:,} and {item.test_molecules:,}"
        for name, item in sources.items()
    )
    lines = [
        f"Intervals at the level {calibration.level:g}: share of test molecules whose value lies "
        f"inside, and mean width. Calibration and test molecules: {counted}.",
        "",
        "| " + " | ".join(heads) + " |",
        "| " + " | ".join(["---"] * len(heads)) + " |",
    ]
    for item in PROPERTIES:
        cells = [item.name, item.unit]
        for source in sources.values():
            cells += [
                _number(source.coverage.get(item.name)),
                _number(source.width.get(item.name)),
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _made(record: BundleRecord) -> str:
    rows = {
        "data": f"QM9, digest {record.data_digest}",
        "split": f"{record.split_name}, seed {record.split_seed}, digest {record.split_digest}",
        "gradients": record.verdict,
        "code": record.git_commit or "unknown commit",
        "created": record.created,
        **{f"hardware, {key}": value for key, value in record.hardware.items()},
        "versions": ", ".join(f"{key} {value}" for key, value in record.versions.items()),
        "units": f"1 hartree = {HARTREE_EV} eV (CODATA 2018)",
    }
    return "\n".join(f"- {key}: {value}" for key, value in rows.items() if value)


def _parity(record: BundleRecord) -> str:
    if record.parity is None:
        return "Not compared."
    worst = record.parity.worst
    share = record.parity.difference[worst] / record.parity.allowed[worst]
    return (
        f"On {record.parity.molecules} molecules of 1 to {record.parity.largest} atoms, "
        f"`model.onnx` gives the network's values; the largest difference is {share:.0%} of what "
        f"is accepted (one thousandth of chemical accuracy), for {worst}."
    )


def _configuration(record: BundleRecord) -> str:
    values = config.to_dict(record.train)
    network = values.pop("model")
    rows = [f"- {key}: {value}" for key, value in network.items()]
    rows += [f"- {key}: {value}" for key, value in values.items()]
    return "\n".join(rows)
