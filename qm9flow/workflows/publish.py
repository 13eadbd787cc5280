"""From a finished training to a registered version: bundle, registry, gate, evaluation."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qm9flow.config import GeometrySource
from qm9flow.data.store import Dataset
from qm9flow.evaluation.assessment import Assessment, assess
from qm9flow.evaluation.assessment_files import FOLDER, place_in_run, write_assessment
from qm9flow.evaluation.tables import ErrorTable
from qm9flow.registry.aliases import CHAMPION, Promotion, judged_before, promote
from qm9flow.registry.find import FoundModel
from qm9flow.registry.versions import Version, register, resolve
from qm9flow.release.bundle import Companions
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.metrics import learned_scale, training_sample
from qm9flow.training.start import weights_digest
from qm9flow.workflows.bundling import make_bundle
from qm9flow.workflows.console import Console, Stopped
from qm9flow.workflows.evaluate import subject_of
from qm9flow.workflows.inheritance import inherit, inherited_errors
from qm9flow.workflows.judging import SourceErrors
from qm9flow.workflows.pretrained import seed_registry
from qm9flow.workflows.rough import Rough, properties_of
from qm9flow.workflows.trained import Trained
from qm9flow.workflows.version_tags import version_tags

BUNDLE = "bundle"


@dataclass(frozen=True)
class Published:
    """A registered version and what it is worth.

    Attributes:
        version: The version.
        promotion: What the gate said.
        validation: Errors on `standard`'s validation molecules.
        test: Errors on `standard`'s test molecules.
        bundle: The bundle's folder.
        pretrained: The version of the model that comes with qm9flow, None if it was left out.
        evaluation: The test errors by size, element and molecule, beside the literature and in
            pictures: a folder as `qm9flow evaluate` writes it; None if it could not be written.
        elsewhere: Errors of its own networks for other geometries than DFT's.
    """

    version: Version
    promotion: Promotion
    validation: ErrorTable
    test: ErrorTable
    bundle: Path
    pretrained: Version | None = None
    evaluation: Path | None = None
    elsewhere: dict[GeometrySource, SourceErrors] = field(default_factory=dict)

    @property
    def alias(self) -> str:
        """`champion` or `challenger`."""
        return self.promotion.alias

    @property
    def metrics(self) -> dict[str, float]:
        """Errors as metrics of the run that made the version."""
        tables = {"val": self.validation, "test": self.test}
        for source, errors in self.elsewhere.items():
            tables |= {f"{source}/val": errors.validation, f"{source}/test": errors.test}
        return {
            f"final/{part}/{row.target}/mae": row.mae
            for part, table in tables.items()
            for row in table.rows
        }

    def table(self) -> str:
        """Both parts' errors beside the pretrained model, a linear one, chemical accuracy.

        The other columns are errors on the test molecules.
        """
        rival = self._rival_errors()
        heads = ["validation", "test", *(f"from {source}" for source in self.elsewhere)]
        heads += [*(["pretrained"] if rival else []), "linear", "chemical"]
        lines = [
            f"mean absolute errors on {self.validation.molecules:,} validation and "
            f"{self.test.molecules:,} test molecules",
            f"{'target':8}{'unit':12}" + "".join(f"{head[:16]:>{_width(head)}}" for head in heads),
        ]
        for row in self.test.rows:
            cells: list[float | None] = [self.validation.row(row.target).mae, row.mae]
            cells += [errors.test.row(row.target).mae for errors in self.elsewhere.values()]
            cells += [rival.get(row.target)] if rival else []
            cells += [row.baseline_mae, row.chemical_accuracy]
            columns = zip(heads, cells, strict=True)
            line = "".join(f"{_cell(cell):>{_width(head)}}" for head, cell in columns)
            lines.append(f"{row.target:8}{row.unit:12}{line}")
        lines.append(
            f"RMSE pooled over the 19 raw test targets: {self.test.rmse_pooled:.2f}, "
            f"without A {self.test.rmse_pooled_without_a:.2f}"
        )
        return "\n".join(lines)

    def verdict(self) -> str:
        """Whether the version is champion, and by which figure."""
        number = self.version.number
        verdict = f"qm9flow version {number} is {self.alias}: {self.promotion.decision.figure}"
        rival = self.pretrained
        if rival is None or CHAMPION not in rival.aliases:
            return verdict
        return (
            f"{verdict}\n"
            f"The pretrained model, version {rival.number}, stays champion: "
            f"`qm9flow promote {number} --force` makes yours champion all the same, and "
            "`--seed-pretrained false` (`mlflow run`: `-P seed_pretrained=false`) leaves the "
            "pretrained one out of an empty registry."
        )

    def _rival_errors(self) -> dict[str, float]:
        """The pretrained model's errors on the same test molecules, as far as they are known."""
        rival, tags = self.pretrained, self.version.tags
        same = ("data_digest", "split_seed")
        if rival is None or any(rival.tags.get(name) != tags.get(name) for name in same):
            return {}
        return rival.mae("test")


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _width(head: str) -> int:
    return max(12, len(head) + 2)


def publish(
    made: Trained | Rough,
    dataset: Dataset,
    folder: Path,
    *,
    run_id: str,
    release_id: str,
    tracking_uri: str,
    seed_pretrained: bool,
    console: Console,
    base: Path | None = None,
) -> Published:
    """Measure, bundle, register and promote a network. Called again, it changes nothing more.

    A network for DFT's geometries takes over the champion's networks for others.

    Args:
        made: The training, or those of a model for other geometries than DFT's.
        dataset: QM9.
        folder: Where the bundle is made.
        run_id: The run that made the network.
        release_id: What the version, with its weights, is known by when this is called again.
        tracking_uri: The registry's store.
        seed_pretrained: Register the model that comes with qm9flow first if no version is
            registered, so that this one has to beat it.
        console: Lines and progress.
        base: Where networks for other geometries than DFT's were made, the bundle that they are to
            stand in.

    Returns:
        The version and its errors.

    Raises:
        ExportError: The network cannot be exported.
        ParityError: The graph does not give the network's numbers.
        RegistryError: The registry refuses.
        Stopped: `console.stop` said so before the version was registered.
    """
    trained = properties_of(made)
    if console.stop():
        raise Stopped
    pretrained = seed_registry(tracking_uri, run_id, console) if seed_pretrained else None
    companions = _companions(made, dataset, folder, tracking_uri, console)
    console.say("measuring validation and test errors, exporting to ONNX")
    record, measured = make_bundle(
        made, base, dataset, folder / BUNDLE, console, companions=companions
    )
    if console.stop():
        raise Stopped
    own = {source: item.validation_errors for source, item in measured.elsewhere.items()}
    version = register(
        folder / BUNDLE,
        run_id,
        validation_errors=measured.own.validation_errors,
        scale=learned_scale(dataset, training_sample(trained.train, dataset).train),
        # The weights tell two networks of one name apart, after a deleted study for instance.
        tags=version_tags(record, f"{release_id}/{weights_digest(trained.weights)[:12]}"),
        elsewhere=own | inherited_errors(folder, record),
        tracking_uri=tracking_uri,
    )
    # Once: started again, a study must not undo what people have decided since.
    promotion = judged_before(version) or promote(version, tracking_uri=tracking_uri)
    if pretrained is not None:
        pretrained = resolve(pretrained.number, tracking_uri)  # its alias may have changed
    alias = next(iter(promotion.version.aliases), None)
    found = FoundModel(folder / BUNDLE, promotion.version.number, alias)
    subject = subject_of(found, record, dataset)
    assessment = assess(
        subject, dataset, "test", measured.test_predictions, intervals=measured.test_intervals
    )
    return Published(
        promotion.version,
        promotion,
        measured.own.validation,
        measured.own.test,
        folder / BUNDLE,
        pretrained,
        _written(assessment, dataset, folder, console),
        measured.elsewhere,
    )


def _companions(
    made: Trained | Rough, dataset: Dataset, folder: Path, tracking_uri: str, console: Console
) -> Companions | None:
    """What a network for DFT's geometries alone takes over; a bundle that is there has it."""
    if isinstance(made, Rough) or (folder / BUNDLE).exists():
        return None
    return inherit(made.train, dataset, folder, tracking_uri, console)


def put_on_record(published: Published, tracker: StudyTracker) -> None:
    """Log what came out to the run that made the version.

    Args:
        published: The version and its errors.
        tracker: Of the run.
    """
    tracker.log_metrics(published.metrics)
    tracker.set_tags({"model_version": published.version.number, "alias": published.alias})
    tracker.log_table(published.test.rows_as_dicts(), "test_errors")
    if published.evaluation is not None:
        tracker.log_artifact(published.evaluation, f"{FOLDER}/{published.evaluation.parent.name}")


def _written(
    assessment: Assessment, dataset: Dataset, folder: Path, console: Console
) -> Path | None:
    """The version is registered already: what cannot be drawn of it must not fail the work."""
    if not np.isfinite(assessment.predicted).all():
        console.say("no evaluation: the network gives no finite values for some test molecules")
        return None
    place = place_in_run(assessment)
    console.say(f"drawing test errors by size, element and molecule, for {place} in the run")
    try:
        write_assessment(assessment, dataset, folder / place)
    except OSError as error:
        console.say(f"no evaluation: cannot write to {folder / place}: {error.strerror}")
        return None
    return folder / place
