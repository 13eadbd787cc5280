"""Errors of published networks on QM9, as their papers' tables list them.

Each of them was trained on one target at a time, on about 110,000 molecules of a random split of
the sizes of our `standard`, with other molecules in its parts.

Sources: from DFT's geometries, the test errors as collected in one table, that of
"Geometry-Infused 3D Graph Transformer" (its README, which misprints Geoformer's r2 by a factor of
ten); the original papers below. ET is TorchMD-NET's equivariant transformer. From SMILES: tables 5
and 10 of arXiv:1704.01212 for the MPNN, and the tables of arXiv:2407.20267 and of the paper on
co-sparsified 2-FWL networks for the others, without energies whose unit they do not print.
"""

from dataclasses import dataclass

from qm9flow import properties
from qm9flow.config.choices import GeometrySource

REPORTED = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u", "h", "g", "cv")
"""The targets that the literature reports."""

NOTE = (
    "Networks of the literature were trained on one target at a time, on about 110,000 molecules "
    "of other random splits of the same sizes."
)

NOTES: dict[GeometrySource, str] = {
    "dft": NOTE,
    "approximate": "The network of the literature was shown MMFF94's geometries, too.",
    "smiles": (
        "Networks of the literature were trained on about as many molecules of other random "
        "splits; some of them use lengths of bonds."
    ),
}
"""What to know before comparing."""

_MILLI = 1e-3


@dataclass(frozen=True)
class Literature:
    """One published network.

    Attributes:
        name: What the literature calls it.
        year: Of the paper.
        paper: Where it stands: its number on arXiv, or the conference.
        listed: Mean absolute test errors in the order of `REPORTED` and in the papers' units: all
            energies in meV, mu D, alpha a0^3, r2 a0^2, cv cal/(mol K); None where none is listed.
    """

    name: str
    year: int
    paper: str
    listed: tuple[float | None, ...]

    def mae(self, target: str) -> float | None:
        """Its error on one target.

        Args:
            target: One of `REPORTED`.

        Returns:
            The mean absolute error in the unit of `properties`: energies in eV; None if it is not
            known.
        """
        value = self.listed[REPORTED.index(target)]
        if value is None:
            return None
        return value * _MILLI if properties.get(target).unit == "eV" else value


def _rows() -> tuple[Literature, ...]:
    # fmt: off
    return (
        Literature("enn-s2s", 2017, "arXiv:1704.01212",
            (0.030, 0.092, 43, 38, 69, 0.180, 1.50, 20, 20, 17, 19, 0.040)),
        Literature("SchNet", 2017, "arXiv:1706.08566",
            (0.033, 0.235, 41, 34, 63, 0.073, 1.70, 14, 19, 14, 14, 0.033)),
        Literature("DimeNet++", 2020, "arXiv:2011.14115",
            (0.030, 0.044, 24.6, 19.5, 32.6, 0.331, 1.21, 6.32, 6.28, 6.53, 7.56, 0.023)),
        Literature("EGNN", 2021, "arXiv:2102.09844",
            (0.029, 0.071, 29, 25, 48, 0.106, 1.55, 11, 12, 12, 12, 0.031)),
        Literature("PaiNN", 2021, "arXiv:2102.03150",
            (0.012, 0.045, 27.6, 20.4, 45.7, 0.066, 1.28, 5.85, 5.83, 5.98, 7.35, 0.024)),
        Literature("ET", 2022, "arXiv:2202.02541",
            (0.011, 0.059, 20.3, 17.5, 36.1, 0.033, 1.84, 6.15, 6.38, 6.16, 7.62, 0.026)),
        Literature("EquiformerV2", 2023, "arXiv:2306.12059",
            (0.010, 0.050, 14, 13, 29, 0.186, 1.47, 6.17, 6.49, 6.22, 7.57, 0.023)),
        Literature("Geoformer", 2023, "NeurIPS 2023",
            (0.010, 0.040, 18.4, 15.4, 33.8, 0.028, 1.28, 4.43, 4.41, 4.39, 6.13, 0.022)),
    )
    # fmt: on


def _rows_from_smiles() -> tuple[Literature, ...]:
    # fmt: off
    return (
        Literature("MPNN, 2D", 2017, "arXiv:1704.01212",
            (0.38, 0.20, 74, 61, 97, 16.4, 3.6, 31, None, 34, 32, 0.086)),
        Literature("AttentiveFP", 2020, "in arXiv:2407.20267",
            (0.451, 0.49, 98, 112, 142, 26.8, 56, None, None, None, None, 0.25)),
        Literature("MoLFormer-XL", 2022, "in arXiv:2407.20267",
            (0.361, 0.33, 79, 73, 103, 17.1, 8, None, None, None, None, 0.14)),
        Literature("SMI-TED289M", 2024, "arXiv:2407.20267",
            (0.384, 0.27, 73, 71, 98, 14.7, 5.4, None, None, None, None, 0.12)),
        Literature("CoSp-PPGN", 2024, "co-sparsified 2-FWL",
            (0.321, 0.183, 58, 57, 81, 14.3, 3.3, None, None, None, None, 0.076)),
    )
    # fmt: on


def _rows_from_force_fields() -> tuple[Literature, ...]:
    nothing = (None,) * 7
    return (
        Literature(
            "DTNN_7ib, MMFF94",
            2019,
            "J. Chem. Theory Comput. 15, 4113",
            (*nothing, 34, None, None, None, None),
        ),
    )


LITERATURE: tuple[Literature, ...] = _rows()
"""From DFT's geometries, oldest first."""

_BY_SOURCE: dict[GeometrySource, tuple[Literature, ...]] = {
    "dft": LITERATURE,
    "approximate": _rows_from_force_fields(),
    "smiles": _rows_from_smiles(),
}


def published(source: GeometrySource) -> tuple[Literature, ...]:
    """What networks reach that are shown the same.

    Args:
        source: Of the geometries; `smiles` where there are none.

    Returns:
        Networks, oldest first.
    """
    return _BY_SOURCE[source]
