"""Elements as a network meets them."""

import torch
from torch import Tensor, nn

from qm9flow.elements import MAX_NUMBER, NUMBERS


class ElementEmbedding(nn.Embedding):
    """Learned numbers for each element, zeros where there is no atom."""

    elements: Tensor

    def __init__(self, width: int) -> None:
        """Make the weights: (MAX_NUMBER + 1, width), a row for each atomic number.

        Args:
            width: Numbers of each element.
        """
        super().__init__(MAX_NUMBER + 1, width, padding_idx=0)
        self.register_buffer("elements", torch.tensor(NUMBERS), persistent=False)

    def rows(self) -> Tensor:
        """The numbers of QM9's five elements.

        Returns:
            (5, width).
        """
        embedded: Tensor = self(self.elements)
        return embedded

    def one_hot(self, numbers: Tensor) -> Tensor:
        """Which of QM9's five elements each atom is: times `rows` its learned numbers.

        Args:
            numbers: (B, N) int64, atomic numbers, 0 where there is no atom.

        Returns:
            (B, N, 5) in the weights' dtype; zero where there is no atom.
        """
        return (numbers[..., None] == self.elements).to(self.weight.dtype)
