"""Opening an ONNX graph: which provider was wanted, which one runs it.

ONNX Runtime falls back to the CPU without a word when a CUDA library is missing, and lists CUDA
among its available providers all the same: only an open session's own list tells the truth.
"""

import contextlib
import ctypes
import io
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from qm9flow.cores import usable_cores
from qm9flow.errors import ConfigError, InferenceError, ProviderError

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

Provider = Literal["auto", "cpu", "cuda"]
PROVIDERS: tuple[Provider, ...] = ("auto", "cpu", "cuda")

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_CUDA_OPTIONS = {
    # TF32 keeps 10 bits of a factor: enough for pictures, not for chemical accuracy.
    "use_tf32": "0",
    # Molecules come in many shapes; doubling the arena at each would fill the device.
    "arena_extend_strategy": "kSameAsRequested",
}
_SEVERITY_WARNING, _SEVERITY_ERROR, _SEVERITY_FATAL = 2, 3, 4
_INPUTS = {"numbers": "tensor(int64)", "positions": "tensor(float)"}
OUTPUTS = ("values", "spread", "distance", "refined")
"""Of a graph that judges itself; `refined` only where it refines geometries first."""
_OUTPUT = OUTPUTS[0]

# ONNX Runtime's exceptions have no common parent but Exception.
ORT_ERRORS: tuple[type[Exception], ...] = (
    ort_state.EPFail,
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NoSuchFile,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Session:
    """An open graph.

    Attributes:
        runtime: ONNX Runtime's session.
        requested: The provider that was asked for.
        active: The provider that runs the graph.
        note: Why `active` is not the first choice; empty where it is.
        targets: Names of the outputs' columns.
        spreads: Names of the targets that it gives spreads of; none where it gives none.
        refines: Whether it refines geometries, and tells them.
        metadata: What the graph says about itself, by key.
    """

    runtime: onnxruntime.InferenceSession
    requested: Provider
    active: Literal["cpu", "cuda"]
    note: str
    targets: tuple[str, ...]
    spreads: tuple[str, ...]
    refines: bool
    metadata: dict[str, str]

    def run(
        self, numbers: npt.NDArray[np.int64], positions: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float64]:
        """Run the graph once.

        Args:
            numbers: (B, N), atomic numbers, 0 for padding.
            positions: (B, N, 3), angstrom.

        Returns:
            (B, n_targets), in the targets' units.

        Raises:
            InferenceError: The runtime failed, most likely for lack of memory.
        """
        return self._run((_OUTPUT,), numbers, positions)[0]

    def run_judged(
        self, numbers: npt.NDArray[np.int64], positions: npt.NDArray[np.float32]
    ) -> tuple[Floats, Floats, Floats, Floats | None]:
        """Run the graph once, with what it says about its own errors.

        Args:
            numbers: (B, N), atomic numbers, 0 for padding.
            positions: (B, N, 3), angstrom.

        Returns:
            (B, n_targets), values; (B, n_spreads), spreads, both in the targets' units; (B,),
            distances from the training molecules; (B, N, 3), refined positions, angstrom, None
            where the graph does not refine.

        Raises:
            InferenceError: The runtime failed, or the graph has no such outputs.
        """
        if self.refines:
            values, spreads, distances, refined = self._run(OUTPUTS, numbers, positions)
            return values, spreads, distances, refined
        values, spreads, distances = self._run(OUTPUTS[:-1], numbers, positions)
        return values, spreads, distances, None

    def _run(
        self,
        outputs: tuple[str, ...],
        numbers: npt.NDArray[np.int64],
        positions: npt.NDArray[np.float32],
    ) -> list[Floats]:
        feed = {"numbers": numbers, "positions": positions}
        try:
            found = self.runtime.run(list(outputs), feed)
        except ORT_ERRORS as error:
            raise InferenceError(
                f"the network failed on {numbers.shape[0]} molecules of up to "
                f"{numbers.shape[1]} atoms on {self.active}: {error}"
            ) from error
        return [np.asarray(item, dtype=np.float64) for item in found]


def cuda_device_count() -> int:
    """CUDA devices of this machine, as its driver counts them.

    Returns:
        0 where there is no driver.
    """
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(name)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def open_session(path: Path, provider: Provider = "auto", threads: int | None = None) -> Session:
    """Open a graph.

    Args:
        path: The `.onnx` file.
        provider: `cuda` requires a GPU; `auto` takes one where there is one and says so when it
            cannot be used.
        threads: Threads inside one operation; None means one for each usable core.

    Returns:
        The session.

    Raises:
        ConfigError: There is no such provider, or `threads` is below 1.
        ProviderError: CUDA was required and is not active.
        InferenceError: The file is missing, damaged, or no graph of qm9flow's.
    """
    if provider not in PROVIDERS:
        raise ConfigError(f"the provider must be one of {', '.join(PROVIDERS)}, got {provider!r}")
    runtime, note = open_runtime(path, provider, threads)
    active: Literal["cpu", "cuda"] = "cuda" if _CUDA in runtime.get_providers() else "cpu"
    logger.info("opened %s on %s", path, active)
    targets = _checked_targets(runtime, path)
    metadata: dict[str, str] = runtime.get_modelmeta().custom_metadata_map
    spreads, refines = _checked_judging(runtime, metadata, path)
    return Session(runtime, provider, active, note, targets, spreads, refines, metadata)


def open_runtime(
    path: Path, provider: Provider, threads: int | None
) -> tuple[onnxruntime.InferenceSession, str]:
    """Open a graph, whatever it is of.

    Args:
        path: The `.onnx` file.
        provider: Where it is to run.
        threads: Threads inside one operation; None means one for each usable core.

    Returns:
        ONNX Runtime's session, and why it is not on the GPU that was asked for; empty where it is.

    Raises:
        ConfigError: `threads` is below 1.
        ProviderError: CUDA was required and is not active.
        InferenceError: The file is missing or damaged.
    """
    options = _options(threads)
    if not path.is_file():
        raise InferenceError(f"there is no model file {path}")
    note = ""
    if provider == "cpu" or (provider == "auto" and cuda_device_count() == 0):
        runtime = _open(path, options, [_CPU])
    else:
        runtime, note = _open_on_gpu(path, options)
    if provider == "cuda" and note:
        raise ProviderError(f"CUDA was required, but the CPU would run the model: {note}")
    if note:
        logger.warning("using the CPU although there is a GPU: %s", note)
    return runtime, note


def _options(threads: int | None) -> onnxruntime.SessionOptions:
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, got {threads}")
    options = onnxruntime.SessionOptions()
    # Not the runtime's own choice: it counts the machine's cores, not those of this container.
    options.intra_op_num_threads = threads or usable_cores()
    # Threads that spin while they wait take twice the CPU time, and slow a busy machine down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _SEVERITY_ERROR
    return options


def _open(
    path: Path,
    options: onnxruntime.SessionOptions,
    providers: list[str | tuple[str, dict[str, str]]],
) -> onnxruntime.InferenceSession:
    try:
        return onnxruntime.InferenceSession(str(path), sess_options=options, providers=providers)
    except ORT_ERRORS as error:
        raise InferenceError(f"{path} cannot be opened as an ONNX model: {error}") from error


def _open_on_gpu(
    path: Path, options: onnxruntime.SessionOptions
) -> tuple[onnxruntime.InferenceSession, str]:
    """A session, and why CUDA does not run it; empty if it does."""
    said = io.StringIO()
    onnxruntime.set_default_logger_severity(_SEVERITY_FATAL)
    try:
        with contextlib.redirect_stdout(said):  # the runtime prints which libraries it missed
            onnxruntime.preload_dlls()
            runtime = _open(path, options, [(_CUDA, _CUDA_OPTIONS), _CPU])
    finally:
        onnxruntime.set_default_logger_severity(_SEVERITY_WARNING)
    if _CUDA in runtime.get_providers():
        return runtime, ""
    return runtime, _why_no_gpu(said.getvalue())


def _why_no_gpu(said: str) -> str:
    if _CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime is built without CUDA; install qm9flow[gpu]"
    if cuda_device_count() == 0:
        return "the driver sees no CUDA device; look at nvidia-smi and CUDA_VISIBLE_DEVICES"
    missing = [line for line in said.splitlines() if line.startswith("Failed to load")]
    detail = f" ({missing[0]})" if missing else ""
    return f"its CUDA libraries cannot be loaded{detail}; install qm9flow[gpu]"


def _checked_targets(runtime: onnxruntime.InferenceSession, path: Path) -> tuple[str, ...]:
    inputs = {item.name: item.type for item in runtime.get_inputs()}
    outputs = [item.name for item in runtime.get_outputs()]
    if inputs != _INPUTS or _OUTPUT not in outputs:
        raise InferenceError(
            f"{path} is no model of qm9flow's: it takes {inputs} and gives {outputs}, "
            f"expected {_INPUTS} and {_OUTPUT!r}; export it again with `qm9flow export`"
        )
    try:
        names = json.loads(runtime.get_modelmeta().custom_metadata_map["targets"])
    except (KeyError, ValueError) as error:
        raise InferenceError(
            f"{path} does not name its targets; export it again with `qm9flow export`"
        ) from error
    columns = runtime.get_outputs()[outputs.index(_OUTPUT)].shape[-1]
    if not isinstance(names, list) or (isinstance(columns, int) and columns != len(names)):
        raise InferenceError(f"{path} names {names!r} as targets of {columns} output columns")
    return tuple(names)


def _checked_judging(
    runtime: onnxruntime.InferenceSession, metadata: dict[str, str], path: Path
) -> tuple[tuple[str, ...], bool]:
    """Names of spreads, and whether geometries are refined."""
    if "spreads" not in metadata:
        return (), False
    outputs = {item.name for item in runtime.get_outputs()}
    try:
        names = tuple(map(str, json.loads(metadata["spreads"])))
    except (ValueError, TypeError) as error:
        raise InferenceError(f"{path} does not name its spreads: export it again") from error
    if not outputs.issuperset(OUTPUTS[:-1]):
        raise InferenceError(f"{path} gives only {', '.join(sorted(outputs))}: export it again")
    return names, OUTPUTS[-1] in outputs
