"""The words that options with a fixed choice take."""

from typing import Literal

Learned = Literal["learned", "raw", "geometry", "conformer"]
Loss = Literal["rmse", "mae", "huber"]
Optimizer = Literal["adam", "adamw", "muon", "soap"]
Weighting = Literal["equal", "balanced"]
Schedule = Literal["constant", "cosine", "plateau"]
SplitName = Literal["standard", "seed"]
Halving = Literal["epochs", "train_size", "off"]
Sampler = Literal["tpe", "random", "grid"]
GradientStop = Literal["on", "observe"]
Device = Literal["auto", "cpu", "cuda"]

GeometrySource = Literal["dft", "approximate", "smiles"]
"""Where positions come from: `dft` as in QM9 (B3LYP/6-31G(2df,p) minima), `approximate` from
something cheaper, `smiles` made from a SMILES."""
