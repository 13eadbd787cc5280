"""The flagship: a trunk of neighbours' densities, and readouts."""

from collections.abc import Sequence

from torch import Tensor

from qm9flow.config import DensityConfig
from qm9flow.nn.contract import Network
from qm9flow.nn.molecular import MolecularReadout
from qm9flow.nn.trunk import DensityTrunk


class DensityNet(DensityTrunk, Network):
    """A trunk, and one readout for each kind of target."""

    def __init__(self, config: DensityConfig, targets: Sequence[str]) -> None:
        """Make the network, with initial weights from torch's global generator.

        Args:
            config: Widths and depths.
            targets: Names of the targets.
        """
        super().__init__(config)
        self.targets = tuple(targets)
        self.cutoff_angstrom = config.cutoff_angstrom
        self.readout = MolecularReadout(
            config.hidden, config.vectors, 3 * config.hidden, targets, heads=config.heads
        )
        self.readout.start_charges(self.embedding)

    def read_out(
        self, numbers: Tensor, positions: Tensor, hidden: Tensor, vectors: Tensor | None
    ) -> Tensor:
        """From atoms to molecules.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3), angstrom.
            hidden: (B, N, h).
            vectors: (B, N, 3, v).

        Returns:
            (B, T), encoded targets.
        """
        encoded: Tensor = self.readout(numbers, positions, hidden, vectors)
        return encoded
