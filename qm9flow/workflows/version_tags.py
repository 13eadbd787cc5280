"""What a registered version says about itself, from its bundle's record."""

from qm9flow import properties
from qm9flow.release.export import Parity
from qm9flow.release.record import BundleRecord


def version_tags(record: BundleRecord, release_id: str) -> dict[str, str]:
    """Tags of a version.

    Args:
        record: Of its bundle.
        release_id: What the version is known by when it is registered again.

    Returns:
        All of `registry.versions.REQUIRED_TAGS`, and mean absolute errors.
    """
    maes = {"val": record.validation_mae, "test": record.test_mae}
    return {
        "release_id": release_id,
        "data_digest": record.data_digest,
        "split": record.split_name,
        "split_seed": str(record.split_seed),
        "split_digest": record.split_digest,
        "parity": repr(_in_accuracies(record.parity)),
        "git_commit": record.git_commit or "unknown",
        "architecture": record.train.model.architecture,
        **{f"{part}/{k}/mae": repr(v) for part, mae in maes.items() for k, v in mae.items()},
        **{
            f"{source}/test/{target}/mae": repr(value)
            for source, errors in (record.rough.test_mae if record.rough else {}).items()
            for target, value in errors.items()
        },
    }


def _in_accuracies(parity: Parity | None) -> float:
    """The largest difference of graph and network, in chemical accuracies; NaN if unknown."""
    if parity is None:
        return float("nan")
    return max(
        difference / accuracy
        for name, difference in parity.difference.items()
        if (accuracy := properties.get(name).chemical_accuracy)
    )
