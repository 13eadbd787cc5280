"""How well a model does from what users have: DFT's geometry, a SMILES, an approximate geometry.

    python benchmarks/geometry_sources.py --model champion
    python benchmarks/geometry_sources.py --molecules 2000 --xtb-python work/xtb/bin/python

Mean absolute errors on the first test molecules of `standard`, and the share of true values that
lie in their intervals, the same molecules in all columns:

| column | what the model is given |
| --- | --- |
| DFT | QM9's own geometry |
| SMILES | a SMILES with the handedness of the geometry |
| as listed | the SMILES of QM9's tables, which state no handedness |
| MMFF94 | QM9's geometry relaxed in MMFF94, as an approximate geometry |
| GFN2-xTB | the same in GFN2-xTB, where `--xtb-python` names a Python that has tblite and ase |

Molecules that one of the sources has no geometry for are left out of all, and counted. The last
line is JSON.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qm9flow.data.relaxed import jobs_of
from qm9flow.data.splits import make_split
from qm9flow.data.stereo import isomeric_smiles
from qm9flow.data.store import Dataset, open_dataset
from qm9flow.errors import MoleculeError
from qm9flow.inference.predictor import Predictor
from qm9flow.molecules.molecule import Conformers, Molecule, Structure
from qm9flow.molecules.pool import Job, MoleculePool
from qm9flow.properties import PROPERTIES, TARGETS
from qm9flow.registry.find import find_model

Made = list[Structure | MoleculeError]


def relaxed_in_mmff94(dataset: Dataset, places: list[int], pool: MoleculePool) -> Made:
    """QM9's geometries, relaxed in the force field."""
    jobs = [job for i in places for job in jobs_of(dataset, range(i, i + 1))[1]]
    found = pool.build(jobs)
    return [
        Molecule(item.numbers, item.positions[0], "approximate")
        if isinstance(item, Conformers)
        else item
        for item in found
    ]


def relaxed_in_xtb(dataset: Dataset, places: list[int], python: str) -> Made:
    """QM9's geometries, relaxed in GFN2-xTB by another Python."""
    molecules = [dataset.molecule(i) for i in places]
    ptr = np.cumsum([0, *(len(item) for item in molecules)])
    with tempfile.TemporaryDirectory() as scratch:
        given, made = Path(scratch) / "in.npz", Path(scratch) / "out.npz"
        np.savez(
            given,
            numbers=np.concatenate([item.numbers for item in molecules]),
            positions=np.concatenate([item.positions for item in molecules]),
            ptr=ptr,
        )
        script = Path(__file__).with_name("xtb_peer.py")
        subprocess.run([python, str(script), str(given), str(made)], check=True)
        found = np.load(made, allow_pickle=False)
    return [
        Molecule(item.numbers, found["positions"][ptr[k] : ptr[k + 1]], "approximate")
        if found["done"][k]
        else MoleculeError("the relaxation did not end")
        for k, item in enumerate(molecules)
    ]


def sources(dataset: Dataset, places: list[int], xtb_python: str | None) -> dict[str, Made]:
    """The same molecules from each source."""
    with MoleculePool() as pool:
        named = pool.build([Job("smiles", isomeric_smiles(dataset, i)) for i in places])
        listed = pool.build([Job("smiles", dataset.smiles(i)) for i in places])
        made: dict[str, Made] = {
            "DFT": [dataset.molecule(i) for i in places],
            "SMILES": named,
            "as listed": listed,
            "MMFF94": relaxed_in_mmff94(dataset, places, pool),
        }
    if xtb_python:
        made["GFN2-xTB"] = relaxed_in_xtb(dataset, places, xtb_python)
    return made


def judge(
    predictor: Predictor, structures: list[Structure], truth: npt.NDArray[np.float64]
) -> dict[str, dict[str, float | None]]:
    """Mean absolute error and coverage by target."""
    predictions = predictor.predict(structures)
    found = {}
    for column, name in enumerate(TARGETS):
        values = [item.values[name] or 0.0 for item in predictions]
        ends = [item.intervals[name] for item in predictions]
        inside = [
            pair[0] <= value <= pair[1]
            for pair, value in zip(ends, truth[:, column], strict=True)
            if pair is not None
        ]
        found[name] = {
            "mae": float(np.abs(np.array(values) - truth[:, column]).mean()),
            "coverage": float(np.mean(inside)) if inside else None,
        }
    return found


def main() -> None:
    """Make the geometries, predict, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="pretrained", help="alias, version, bundle, pretrained")
    parser.add_argument("--molecules", type=int, default=1000, help="test molecules")
    parser.add_argument("--xtb-python", help="a Python that has tblite and ase")
    options = parser.parse_args()
    dataset = open_dataset()
    test = make_split("standard", len(dataset)).test[: options.molecules].tolist()
    made = sources(dataset, test, options.xtb_python)
    whole = [
        k
        for k in range(len(test))
        if not any(isinstance(x[k], MoleculeError) for x in made.values())
    ]
    truth = dataset.truth()[[test[k] for k in whole]]
    predictor = Predictor(find_model(options.model).bundle)
    results = {
        name: judge(predictor, [x[k] for k in whole], truth)  # type: ignore[misc]
        for name, x in made.items()
    }
    print(f"{len(whole)} of {len(test)} test molecules; mean absolute error, and share inside")
    print(f"{'target':8}{'unit':13}" + "".join(f"{name:>18}" for name in results))
    for item in PROPERTIES:
        row = f"{item.name:8}{item.unit:13}"
        for found in results.values():
            share = found[item.name]["coverage"]
            inside = "" if share is None else f" ({share:.1%})"
            row += f"{found[item.name]['mae']:>10.4g}{inside:>8}"
        print(row)
    print(json.dumps({"molecules": len(whole), "results": results}))


if __name__ == "__main__":
    main()
