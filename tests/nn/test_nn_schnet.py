"""SchNet's activation, in both its forms."""

import numpy as np
import pytest
import torch

from qm9flow.nn.schnet import ShiftedSoftplus


@pytest.mark.parametrize("is_exporting", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shifted_softplus_in_torch_and_in_graphs(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, is_exporting: bool
) -> None:
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: is_exporting)
    values = torch.cat([torch.arange(-30, 31) / 2.0, torch.tensor([-1e30, -200, 200, 1e30])])
    result = ShiftedSoftplus()(values.to(dtype)).numpy()
    exact = np.logaddexp(values.double().numpy(), 0.0) - np.log(2.0)
    np.testing.assert_allclose(result, exact, rtol=4 * torch.finfo(dtype).eps, atol=1e-15)


def test_nothing_stays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert ShiftedSoftplus()(torch.zeros(1)).item() == 0
