"""Minima of GFN2-xTB, in a Python that has tblite and ASE; started by `geometry_sources.py`.

    python benchmarks/xtb_peer.py in.npz out.npz

`in.npz` holds `numbers` (A,), `positions` (A, 3) in angstrom and `ptr` (n + 1,); `out.npz` gets
the positions after relaxation from there, and `done` (n,). GFN2-xTB: C. Bannwarth, S. Ehlert,
S. Grimme, J. Chem. Theory Comput. 15, 1652 (2019).
"""

import sys
import warnings

import numpy as np

FORCE_EV_A = 0.02
STEPS = 200


def main() -> None:
    """Relax all molecules."""
    from ase import Atoms
    from ase.optimize import LBFGS
    from tblite.ase import TBLite

    warnings.filterwarnings("ignore")
    given = np.load(sys.argv[1], allow_pickle=False)
    positions, ptr = given["positions"].copy(), given["ptr"]
    done = np.zeros(len(ptr) - 1, dtype=bool)
    for i in range(len(done)):
        own = slice(ptr[i], ptr[i + 1])
        atoms = Atoms(numbers=given["numbers"][own], positions=positions[own])
        atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
        try:
            done[i] = LBFGS(atoms, logfile=None).run(fmax=FORCE_EV_A, steps=STEPS)
        except RuntimeError:  # the charges do not converge
            continue
        positions[own] = atoms.get_positions()
    np.savez(sys.argv[2], positions=positions, done=done)


if __name__ == "__main__":
    main()
