"""Networks: one architecture a file, one contract for all (`qm9flow.nn.contract`).

Legend of tensor names and shapes:

| letter | meaning |
| --- | --- |
| B | molecules in a batch |
| N | atoms of the largest molecule in it; smaller ones are padded |
| T | targets |
| h | hidden nodes |
| R | radial functions |
| K | width of an edge network's hidden layer |

| tensor | shape, unit | meaning |
| --- | --- | --- |
| numbers | (B, N) int64 | atomic numbers, 0 where there is no atom |
| positions | (B, N, 3) float32, angstrom | anything finite where there is no atom |
| atoms | (B, N) bool | where there is an atom |
| pairs | (B, N, N) bool | where there are two different atoms |
| distances | (B, N, N), angstrom | 1 where there is no pair |
| weight | (B, N, N) | of a message: falls smoothly to 0 at the cutoff |
| edges | (B, N, N, R + 1) | radial functions, then 1, both times the weight |
| hidden | (B, N, h) | what is known about each atom |
| encoded | (B, T) | targets as the network learns them: dimensionless, of order one |
| values | (B, T) float64 | targets in the units of `qm9flow.properties` |
"""
