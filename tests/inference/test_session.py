import logging
import subprocess
import sys
from pathlib import Path

import hand_made
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto

from qm9flow.errors import ConfigError, InferenceError, ProviderError
from qm9flow.inference import session as session_module
from qm9flow.inference.session import cuda_device_count, open_session
from qm9flow.properties import LEARNED

no_gpu = pytest.mark.skipif(cuda_device_count() > 0, reason="this machine has a GPU")


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    hand_made.write_graph(path, LEARNED)
    return path


def test_targets_travel_with_the_graph(graph: Path) -> None:
    opened = open_session(graph, "cpu")
    assert opened.targets == LEARNED
    assert opened.active == "cpu"


def test_graph_runs(graph: Path) -> None:
    numbers = np.array([[6, 1, 1], [8, 0, 0]])
    values = open_session(graph, "cpu").run(numbers, np.zeros((2, 3, 3), np.float32))
    assert values.dtype == np.float64
    np.testing.assert_allclose(values[:, 0], [8 / 3, 8])


@no_gpu
def test_auto_takes_the_cpu_where_there_is_no_gpu(graph: Path) -> None:
    opened = open_session(graph, "auto")
    assert (opened.requested, opened.active, opened.note) == ("auto", "cpu", "")


@no_gpu
def test_required_gpu_that_is_not_there_is_an_error(graph: Path) -> None:
    """The runtime itself would fall back without a word, and lists CUDA as available."""
    with pytest.raises(ProviderError, match="no CUDA device"):
        open_session(graph, "cuda")


@no_gpu
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="this onnxruntime has no CUDA",
)
def test_auto_says_why_a_gpu_is_not_used(
    graph: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A driver without the CUDA libraries: as on a host without qm9flow[gpu]."""
    monkeypatch.setattr(session_module, "cuda_device_count", lambda: 1)
    with caplog.at_level(logging.WARNING):
        opened = open_session(graph, "auto")
    assert opened.active == "cpu"
    assert "qm9flow[gpu]" in opened.note
    assert opened.note in caplog.text
    with pytest.raises(ProviderError, match=r"qm9flow\[gpu\]"):
        open_session(graph, "cuda")


@no_gpu
def test_falling_back_prints_nothing_of_the_runtimes(graph: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from qm9flow.inference import session\n"
        "session.cuda_device_count = lambda: 1\n"
        f"assert session.open_session(Path({str(graph)!r}), 'auto').active == 'cpu'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1  # our own warning
    assert "using the CPU although there is a GPU" in done.stderr


def test_thread_count_reaches_the_runtime(graph: Path) -> None:
    options = open_session(graph, "cpu", threads=3).runtime.get_session_options()
    assert options.intra_op_num_threads == 3


@pytest.mark.parametrize(("provider", "threads"), [("tpu", None), ("cpu", 0)])
def test_bad_options_are_refused(graph: Path, provider: str, threads: int | None) -> None:
    with pytest.raises(ConfigError, match="must be"):
        open_session(graph, provider, threads)  # type: ignore[arg-type]


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match=r"gone\.onnx"):
        open_session(tmp_path / "gone.onnx")


@pytest.mark.parametrize("content", [b"", b"not a graph", None])
def test_damaged_file_is_refused(graph: Path, content: bytes | None) -> None:
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(InferenceError, match=r"model\.onnx"):
        open_session(graph, "cpu")


def test_graph_with_other_inputs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    hand_made.write_graph(path, LEARNED, positions_type=TensorProto.DOUBLE)
    with pytest.raises(InferenceError, match="no model of qm9flow's"):
        open_session(path, "cpu")
