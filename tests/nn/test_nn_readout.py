"""From atoms to molecules, without rounding that would reach the answer."""

import copy

import torch

from qm9flow.nn.readout import Readout
from qm9flow.properties import LEARNED


def test_evaluation_rounds_once() -> None:
    torch.manual_seed(0)
    readout = Readout(64, 4, LEARNED)
    hidden = 20 * torch.randn(32, 3, 64).relu()
    atoms = torch.ones(32, 3, dtype=torch.bool)
    with torch.inference_mode():
        trained = readout(hidden, atoms)
        evaluated = readout.eval()(hidden, atoms)
        exact = copy.deepcopy(readout).double()(hidden.double(), atoms)
    assert evaluated.dtype == torch.float32
    assert torch.equal(evaluated, exact.float())
    assert not torch.equal(trained, evaluated)
    torch.testing.assert_close(trained, evaluated, rtol=1e-4, atol=1e-3)
