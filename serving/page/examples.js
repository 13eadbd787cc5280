// What to try. Geometry of water: B3LYP/6-31G(2df,p) to a thousandth of an angstrom.

const WATER = `3
water
O  0.0000  0.0000  0.1173
H  0.0000  0.7572 -0.4692
H  0.0000 -0.7572 -0.4692`;

const TWENTY = `C methane
CC ethane
C=C ethene
C#C ethyne
CO methanol
CCO ethanol
C=O formaldehyde
CC=O acetaldehyde
CC(C)=O acetone
CC(=O)O acetic acid
NC=O formamide
CC(N)=O acetamide
N ammonia
CN methylamine
CC#N acetonitrile
c1ccccc1 benzene
Cc1ccccc1 toluene
c1ccncc1 pyridine
c1cc[nH]c1 pyrrole
CC(F)(F)F 1,1,1-trifluoroethane`;

export const EXAMPLES = [
  ["Ethanol", "CCO ethanol"],
  ["Benzene", "c1ccccc1 benzene"],
  ["Water, as XYZ", WATER],
  ["Caffeine, too large for QM9", "Cn1cnc2c1c(=O)n(C)c(=O)n2C caffeine"],
  ["Twenty molecules", TWENTY],
];
