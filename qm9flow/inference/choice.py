"""Asking a graph which of a molecule's conformers is meant."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from qm9flow.errors import InferenceError
from qm9flow.inference.session import ORT_ERRORS, Provider, open_runtime

Floats = npt.NDArray[np.float64]

INPUTS = {
    "numbers": "tensor(int64)",
    "positions": "tensor(float)",
    "energies": "tensor(float)",
}
OUTPUT = "logit"


@dataclass(frozen=True)
class ChoiceSession:
    """An open graph that weighs conformers.

    Attributes:
        runtime: ONNX Runtime's session.
    """

    runtime: onnxruntime.InferenceSession

    def run(
        self,
        numbers: npt.NDArray[np.int64],
        positions: npt.NDArray[np.float32],
        energies: npt.NDArray[np.float32],
    ) -> Floats:
        """Run the graph once.

        Args:
            numbers: (G, N), atomic numbers, 0 for padding.
            positions: (G, N, 3), angstrom.
            energies: (G,), kcal/mol above each molecule's lowest.

        Returns:
            (G,), logarithms of weights, up to a constant of each molecule's.

        Raises:
            InferenceError: The runtime failed, most likely for lack of memory.
        """
        feed = {"numbers": numbers, "positions": positions, "energies": energies}
        try:
            (logits,) = self.runtime.run([OUTPUT], feed)
        except ORT_ERRORS as error:
            raise InferenceError(
                f"the choice among {len(numbers)} conformers of up to {numbers.shape[1]} atoms "
                f"failed: {error}"
            ) from error
        return np.asarray(logits, dtype=np.float64)


def open_choice(path: Path, provider: Provider, threads: int | None) -> ChoiceSession:
    """Open a graph that weighs conformers.

    Args:
        path: The `.onnx` file.
        provider: Where it is to run.
        threads: Threads inside one operation; None means one for each usable core.

    Returns:
        The session.

    Raises:
        ProviderError: CUDA was required and is not active.
        InferenceError: The file is missing, damaged, or weighs no conformers.
    """
    runtime, _ = open_runtime(path, provider, threads)
    inputs = {item.name: item.type for item in runtime.get_inputs()}
    outputs = [item.name for item in runtime.get_outputs()]
    if inputs != INPUTS or outputs != [OUTPUT]:
        raise InferenceError(
            f"{path} weighs no conformers: it takes {inputs} and gives {outputs}; write the bundle "
            "again"
        )
    return ChoiceSession(runtime)
