"""What every network takes and gives, and the model that is released."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from qm9flow import properties
from qm9flow.nn.moments import nuclear_extent
from qm9flow.nn.refiner import Refiner
from qm9flow.nn.trust import Trust, molecular_features
from qm9flow.targets import TargetCodec
from qm9flow.units import BOHR_ANGSTROM


class Network(nn.Module, ABC):
    """An architecture: molecules in, encoded targets out.

    Pairs, cutoffs and masks are the network's own business. It never sees bonds or charges, so
    that every input form can be served.

    Attributes:
        targets: Names of the targets, in the order of the outputs.
        cutoff_angstrom: Atoms further apart do not see each other directly.
    """

    targets: tuple[str, ...]
    cutoff_angstrom: float

    @abstractmethod
    def represent(self, numbers: Tensor, positions: Tensor) -> tuple[Tensor, Tensor | None]:
        """What is known about each atom.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3) in the weights' dtype, angstrom.

        Returns:
            (B, N, h), scalars, and (B, N, 3, v), vectors that turn with the molecule, None where
            the network has none; whatever where there is no atom.
        """

    @abstractmethod
    def read_out(
        self, numbers: Tensor, positions: Tensor, hidden: Tensor, vectors: Tensor | None
    ) -> Tensor:
        """From atoms to molecules.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3) in the weights' dtype, angstrom.
            hidden: (B, N, h), from `represent`.
            vectors: (B, N, 3, v), from `represent`.

        Returns:
            (B, T) in the weights' dtype, encoded targets.
        """

    def forward(self, numbers: Tensor, positions: Tensor) -> Tensor:
        """Predict encoded targets.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3) in the weights' dtype, angstrom.

        Returns:
            (B, T) in the weights' dtype, encoded targets.
        """
        return self.read_out(numbers, positions, *self.represent(numbers, positions))

    def hidden_matrices(self) -> list[nn.Parameter]:
        """Weights that turn hidden values into hidden values: what Muon is made for.

        Returns:
            The weights of all dense layers outside the readout, those with one row or column, to
            which Muon does nothing but a change of length, left out.
        """
        inside = {
            f"{name}.weight"
            for name, module in self.named_modules()
            if isinstance(module, nn.Linear) and not name.startswith("readout")
        }
        return [
            parameter
            for name, parameter in self.named_parameters()
            if name in inside and min(parameter.shape) > 1
        ]

    def exportable(self) -> "Network":
        """The same function without tensors whose sizes depend on data.

        Returns:
            Itself, unless the architecture says otherwise.
        """
        return self


class PropertyModel(nn.Module):
    """A network and its codec: molecules in, physical values out.

    values = encoded * scale + offset + sum over atoms of references[number] + spread * nuclear
    extent, in float64: total energies lie near -11,000 eV, where float32 steps are 1 meV. The
    buffers travel with the exported graph. Converting the whole model to another dtype would lose
    that; convert `network` alone.
    """

    references: Tensor
    spread: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        network: Network,
        codec: TargetCodec,
        trust: Trust | None = None,
        refiner: Refiner | None = None,
    ) -> None:
        """Join a network and a codec.

        Args:
            network: Predicts the codec's targets, in its order.
            codec: Between encoded and physical values.
            trust: Fitted to the network; None where nobody asks how far it may be off.
            refiner: Makes the geometries that the network was trained on of those that are given;
                None where they are the same.

        Raises:
            ValueError: The network predicts other targets than the codec's.
        """
        super().__init__()
        if network.targets != codec.names:
            raise ValueError(
                f"the network predicts {', '.join(network.targets)}, "
                f"the codec is for {', '.join(codec.names)}"
            )
        self.network = network
        self.codec = codec
        self.trust = trust
        self.refiner = refiner
        references = torch.tensor(codec.references, dtype=torch.float64)
        references[0] = 0.0  # padding
        self.register_buffer("references", references)  # (MAX_NUMBER + 1, T)
        spread = torch.tensor(codec.spread / BOHR_ANGSTROM**2, dtype=torch.float64)
        self.register_buffer("spread", spread)  # for angstrom^2
        self.register_buffer("offset", torch.tensor(codec.offset, dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(codec.scale, dtype=torch.float64))

    def forward(self, numbers: Tensor, positions: Tensor) -> Tensor:
        """Predict physical values.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3) float32, angstrom.

        Returns:
            (B, T) float64, in the units of `qm9flow.properties`.
        """
        positions = self.refined(numbers, positions)
        return self.decoded(numbers, positions, *self.network.represent(numbers, positions))

    def refined(self, numbers: Tensor, positions: Tensor) -> Tensor:
        """The geometry that properties are predicted from.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3) float32, angstrom.

        Returns:
            (B, N, 3) float32, angstrom; what was given where there is no refiner.
        """
        if self.refiner is None:
            return positions
        return self.refiner.refined(numbers, positions)

    def decoded(
        self, numbers: Tensor, positions: Tensor, hidden: Tensor, vectors: Tensor | None
    ) -> Tensor:
        """As `forward`, from what the network knows of the atoms.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3) float32, angstrom, refined where there is a refiner.
            hidden: (B, N, h), from `Network.represent`.
            vectors: (B, N, 3, v), from `Network.represent`.

        Returns:
            (B, T) float64, in the units of `qm9flow.properties`.
        """
        encoded = self.network.read_out(numbers, positions, hidden, vectors).double()  # (B, T)
        composition = self.references[numbers].sum(dim=1)  # (B, T)
        extent = nuclear_extent(numbers, positions.double())  # (B, 1)
        return encoded * self.scale + self.offset + composition + extent * self.spread

    def judged(self, numbers: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        """Predict physical values, and say how far to trust them.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.
            positions: (B, N, 3) float32, angstrom.

        Returns:
            (B, T) float64, values; (B, S) float32, spreads of `properties.spread_names`, in the
            targets' units; (B,) float32, distances from the training molecules; and, where there
            is a `refiner`, (B, N, 3) float32, the refined geometry, angstrom.
        """
        assert self.trust is not None
        positions = self.refined(numbers, positions)
        hidden, vectors = self.network.represent(numbers, positions)
        features = molecular_features(hidden, numbers)
        found = (self.decoded(numbers, positions, hidden, vectors), *self.trust(features))
        return found if self.refiner is None else (*found, positions)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets, in the order of the outputs."""
        return self.network.targets

    @property
    def units(self) -> dict[str, str]:
        """Unit of each target."""
        return {name: properties.get(name).unit for name in self.targets}
