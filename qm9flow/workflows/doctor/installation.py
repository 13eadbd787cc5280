"""Packages, processors, GPUs: what this machine has, and whether it is used."""

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Iterator

from packaging.requirements import Requirement

from qm9flow.inference.session import cuda_device_count, open_session
from qm9flow.registry import pretrained
from qm9flow.tracking import provenance
from qm9flow.workflows.doctor.findings import Finding

EXTRAS = {
    "train": "studies and trainings",
    "serve": "the HTTP service",
    "cluster": "several trials at a time",
    "gpu": "predictions on a GPU",
}
"""What each extra is for."""


def examine() -> Iterator[Finding]:
    """Look at the installation.

    Yields:
        One finding a question.
    """
    yield from _packages()
    yield _machine()
    yield _training_gpu()
    yield _inference()


def _packages() -> Iterator[Finding]:
    """Requirements that are not met; an extra of which nothing is installed is not wanted."""
    required = [Requirement(text) for text in importlib.metadata.requires("qm9flow") or ()]
    versions = provenance.versions()
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    always = [item for item in required if item.marker is None or item.marker.evaluate()]
    wrong = [text for item in always if (text := _complaint(item))]
    for extra, purpose in EXTRAS.items():
        own = [item for item in required if _belongs(item, extra)]
        complaints = [text for item in own if (text := _complaint(item))]
        if len(complaints) == len(own):
            yield Finding(
                "versions",
                "note",
                f"the extra {extra}, for {purpose}, is not installed: "
                f"pip install 'qm9flow[{extra}]'",
            )
        else:
            wrong += complaints
    if wrong:
        text = f"{'; '.join(wrong)}: install qm9flow again with its extras"
        yield Finding("versions", "bad", text)
    yield Finding("versions", "good", shown)


def _belongs(item: Requirement, extra: str) -> bool:
    marker = item.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate()


def _complaint(item: Requirement) -> str | None:
    try:
        version = importlib.metadata.version(item.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{item.name} is missing"
    if item.specifier.contains(version, prereleases=True):
        return None
    return f"{item.name} {version} is not {item.specifier}"


def _machine() -> Finding:
    facts = provenance.hardware()
    text = f"{facts['processor']}, {facts['cores']} cores to use"
    if "memory_gb" in facts:
        text += f", {facts['memory_gb']} GB of memory"
    if "gpus" in facts:
        text += f"; {facts['gpus']}"
    return Finding("machine", "good", text)


def _training_gpu() -> Finding:
    if importlib.util.find_spec("torch") is None:
        return Finding("training", "note", "torch is not installed: nothing can be trained here")
    import torch

    if torch.cuda.is_available():
        return Finding("training", "good", f"torch trains on {torch.cuda.get_device_name()}")
    if shutil.which("nvidia-smi") is None and cuda_device_count() == 0:
        return Finding("training", "good", "torch trains on the CPU; there is no GPU")
    if torch.version.cuda is None:
        why = f"torch {torch.__version__} is built for CPUs alone: install a CUDA build of it"
    else:
        why = f"its CUDA {torch.version.cuda} may be newer than the driver: update the driver"
    return Finding("training", "bad", f"there is a GPU that torch does not see; {why}")


def _inference() -> Finding:
    if not pretrained.is_there():
        return Finding("inference", "note", "this build comes without a pretrained model")
    session = open_session(pretrained.bundle() / "model.onnx", "auto")
    text = f"ONNX Runtime runs on {session.active}"
    if session.note:
        return Finding("inference", "bad", f"{text}: {session.note}")
    return Finding("inference", "good", text)
