"""Packages, processors, GPUs: what this machine has, and whether it is used."""

import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator

from packaging.requirements import Requirement

from qm9flow.inference.session import cuda_device_count, open_session
from qm9flow.registry import pretrained
from qm9flow.tracking import provenance
from qm9flow.workflows.doctor.findings import Finding, answering

EXTRAS = {
    "train": "studies and trainings",
    "serve": "the HTTP service",
    "cluster": "several trials at a time",
    "postgres": "stores on PostgreSQL",
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
    versions = provenance.versions()
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    try:
        required = [Requirement(text) for text in importlib.metadata.requires("qm9flow") or ()]
    except importlib.metadata.PackageNotFoundError:
        text = f"qm9flow runs from its folder, not installed: pip install -e '.[train]' ({shown})"
        yield Finding("versions", "note", text)
        return
    always = [item for item in required if item.marker is None or item.marker.evaluate()]
    wrong = _complaints(always)
    for extra, purpose in EXTRAS.items():
        own = [item for item in required if _belongs(item, extra)]
        complaints = _complaints(own)
        if own and not any(_is_installed(item) for item in own if not _belongs_to_all(item)):
            lacking = f"the extra {extra}, for {purpose}, is not installed"
            yield Finding("versions", "note", f"{lacking}: pip install 'qm9flow[{extra}]'")
        else:
            wrong += complaints
    if wrong:
        text = f"{'; '.join(dict.fromkeys(wrong))}: install qm9flow again with its extras"
        yield Finding("versions", "bad", text)
    else:
        yield Finding("versions", "good", shown)


def _belongs(item: Requirement, extra: str) -> bool:
    marker = item.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate()


def _belongs_to_all(item: Requirement) -> bool:
    """Whether it is there without any extra: ONNX Runtime, of which `gpu` asks for more."""
    return item.name.startswith("onnxruntime")


def _is_installed(item: Requirement) -> bool:
    return _version(item.name) is not None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _complaints(items: list[Requirement]) -> list[str]:
    return [complaint for item in items if (complaint := _complaint(item))]


def _complaint(item: Requirement) -> str | None:
    version = _version(item.name)
    if version is None:
        return f"{item.name} is missing"
    if item.specifier.contains(version, prereleases=True):
        return None
    return f"{item.name} {version} is not {item.specifier}"


def _machine() -> Finding:
    facts = provenance.hardware()
    text = f"{facts['processor']}, {facts['cores']} core{'s' * (facts['cores'] != '1')} to use"
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
    gpus = provenance.hardware().get("gpus")
    if gpus is None and cuda_device_count() == 0:
        return Finding("training", "good", "torch trains on the CPU; there is no GPU")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden in ("", "-1"):
        text = f"torch trains on the CPU: CUDA_VISIBLE_DEVICES={hidden!r} hides {gpus or 'the GPU'}"
        return Finding("training", "note", text)
    if torch.version.cuda is None:
        why = f"torch {torch.__version__} is built for CPUs alone: install a CUDA build of it"
    else:
        why = f"its CUDA {torch.version.cuda} may be newer than the driver: update the driver"
    return Finding("training", "bad", f"there is a GPU that torch does not see; {why}")


def _inference() -> Finding:
    if not pretrained.is_there():
        return Finding("inference", "note", "this build comes without a pretrained model")
    notes: list[str] = []

    def ask() -> str:
        session = open_session(pretrained.bundle() / "model.onnx", "auto")
        notes.append(session.note)
        return f"ONNX Runtime runs on {session.active}"

    finding = answering("inference", ask)
    if any(notes):
        return Finding("inference", "bad", f"{finding.text} although there is a GPU: {notes[0]}")
    return finding
