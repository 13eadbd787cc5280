"""Trains chemprop for `accuracy_per_minute.py`, in a Python of its own; imports no qm9flow.

    python benchmarks/chemprop_peer.py FOLDER --seconds 1200 --threads 2

Reads `FOLDER/molecules.npz` (SMILES and targets to train on, to judge epochs by, to predict) and
writes `FOLDER/predicted.npz`. All of chemprop's defaults (bond messages, 300 wide, depth 3, summed
over atoms and divided by 100, one dense layer of 300, batch 64, MSE, Adam) but one: its learning
rate rises, then falls, over 50 epochs; here it has the same shape over the time given, so that it
ends annealed. Graphs are made before the clock starts; a Lightning timer stops the training.
"""

import argparse
import importlib.metadata
import json
import logging
import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chemprop.data import MoleculeDatapoint, MoleculeDataset, build_dataloader
from chemprop.models import MPNN
from chemprop.nn import BondMessagePassing, NormAggregation, RegressionFFN, UnscaleTransform
from chemprop.nn.metrics import MAE, MSE
from lightning import pytorch as pl
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

WARMUP_SHARE = 2 / 50
"""Of the steps: chemprop's default of two epochs in fifty."""
NO_LIMIT = 100_000


class TimedMPNN(MPNN):
    """chemprop's network, with its schedule over time instead of epochs."""

    seconds = 0.0

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam; the rate rises linearly, then falls exponentially, as chemprop's."""
        optimizer = torch.optim.Adam(self.parameters(), self.init_lr)
        started = time.perf_counter()

        def factor(_step: int) -> float:
            share = min((time.perf_counter() - started) / self.seconds, 1.0)
            if share < WARMUP_SHARE:
                rate = self.init_lr + (self.max_lr - self.init_lr) * share / WARMUP_SHARE
            else:
                left = (share - WARMUP_SHARE) / (1 - WARMUP_SHARE)
                rate = self.max_lr * (self.final_lr / self.max_lr) ** left
            return float(rate / self.init_lr)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class Watch(Callback):
    """Counts molecules, times the training, tells about epochs."""

    def __init__(self) -> None:
        """Start at zero."""
        self.molecules = 0
        self.seconds = self.cpu_seconds = 0.0

    def on_fit_start(self, *_: Any) -> None:
        """Start the clocks."""
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def on_train_batch_end(
        self, _trainer: Any, _module: Any, _outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Count."""
        self.molecules += len(batch[0])

    def on_validation_end(self, trainer: Any, _module: Any) -> None:
        """Tell."""
        if trainer.state.fn == "fit":
            loss = float(trainer.callback_metrics["val_loss"])
            taken = time.perf_counter() - self._wall
            line = f"chemprop: epoch {trainer.current_epoch + 1}, {taken:.0f} s, loss {loss:.5f}"
            print(line, file=sys.stderr, flush=True)

    def on_fit_end(self, *_: Any) -> None:
        """Stop the clocks."""
        self.seconds = time.perf_counter() - self._wall
        self.cpu_seconds = time.process_time() - self._cpu


def points(
    smiles: np.ndarray, targets: np.ndarray | None
) -> tuple[list[MoleculeDatapoint], list[int]]:
    """Molecules that RDKit can read, and their places."""
    made, places = [], []
    for place, text in enumerate(smiles):
        wanted = None if targets is None else targets[place]
        try:
            made.append(MoleculeDatapoint.from_smi(str(text), wanted))
        except RuntimeError:
            continue
        places.append(place)
    return made, places


def train(options: argparse.Namespace, data: Any) -> tuple[pl.Trainer, TimedMPNN, Watch, float]:
    """Train until time is up: the trainer, its best network, what was counted, setup seconds."""
    started = time.perf_counter()
    training = MoleculeDataset(points(data["train_smiles"], data["train_targets"])[0])
    judged = MoleculeDataset(points(data["judge_smiles"], data["judge_targets"])[0])
    scaler = training.normalize_targets()
    judged.normalize_targets(scaler)
    training.cache = True
    judged.cache = True
    train_loader = build_dataloader(training, options.batch_size, seed=options.seed)
    judge_loader = build_dataloader(judged, options.batch_size, shuffle=False)
    predictor = RegressionFFN(
        n_tasks=data["train_targets"].shape[1],
        criterion=MSE() if options.loss == "mse" else MAE(),
        output_transform=UnscaleTransform.from_standard_scaler(scaler),
    )
    network = TimedMPNN(BondMessagePassing(), NormAggregation(), predictor)
    network.seconds = options.seconds
    setup = time.perf_counter() - started
    watch = Watch()
    keep = ModelCheckpoint(options.folder / "chemprop", monitor="val_loss", mode="min")
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        max_epochs=NO_LIMIT,
        max_time=timedelta(seconds=options.seconds),
        callbacks=[watch, keep],
    )
    trainer.fit(network, train_loader, judge_loader)
    (last,) = trainer.validate(network, judge_loader, verbose=False)
    best = keep.best_model_score
    if best is not None and float(best) < last["val_loss"]:
        state = torch.load(keep.best_model_path, weights_only=False)["state_dict"]
        network.load_state_dict(state)
    return trainer, network, watch, setup


def main() -> None:
    """Train, predict, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--loss", choices=("mse", "mae"), default="mse")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    data = np.load(options.folder / "molecules.npz")
    trainer, network, watch, setup = train(options, data)
    readable, places = points(data["smiles"], None)
    loader = build_dataloader(MoleculeDataset(readable), 512, shuffle=False)
    found = torch.cat(trainer.predict(network, loader)).numpy()
    # what cannot be read is predicted by the mean of the training molecules
    predicted = np.tile(data["train_targets"].mean(axis=0), (len(data["smiles"]), 1))
    predicted[places] = found
    np.savez(options.folder / "predicted.npz", predicted=predicted)
    facts = {
        "molecules": watch.molecules,
        "epochs": watch.molecules / len(data["train_smiles"]),
        "train_seconds": watch.seconds,
        "cpu_seconds": watch.cpu_seconds,
        "setup_seconds": setup,
        "parameters": sum(p.numel() for p in network.parameters()),
        "unreadable": len(data["smiles"]) - len(places),
        "versions": {
            name: importlib.metadata.version(name) for name in ("chemprop", "torch", "lightning")
        },
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
