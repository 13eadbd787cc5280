"""The plain loop that `study.py` compares with: Optuna, PyTorch Geometric, MLflow, nothing of ours.

Nothing runs from here. It is `study.optimize` over an objective that trains PyG's `NNConv` on
batches of PyG's `DataLoader` and logs with MLflow's fluent functions. Molecules lie in memory as
`Data` with their neighbours found once; validation batches are collated once; epochs are logged in
one call each; the best epoch's weights are kept. The network is the function of our `mpnn` with the
same initial weights (`PyGNNConv` holds them), so that one side's weights fit the other's network.
"""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import optuna
import torch
from peers import Floats, peer_data, predict_peer
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn.pool import global_add_pool, global_mean_pool

from qm9flow import properties
from qm9flow.config import MPNNConfig, PyGNNConvConfig, StudyConfig
from qm9flow.data.store import Dataset
from qm9flow.nn.pyg import PyGNNConv
from qm9flow.nn.radial import message_weight
from qm9flow.nn.readout import TYPICAL_ATOMS
from qm9flow.properties import LEARNED, TARGETS
from qm9flow.tracking.stores import Stores, connect
from qm9flow.training.losses import RMSE_FLOOR
from qm9flow.training.metrics import (
    all_targets,
    codec_for,
    objective_scale,
    training_sample,
    validation_metrics,
)
from qm9flow.training.session import epoch_seed
from qm9flow.tuning.spaces import Params, to_train_config

PREDICTED_AT_ONCE = 64
"""Molecules of a validation batch; one matrix an edge is made for these, too."""
CUTOFF_ANGSTROM = MPNNConfig().cutoff_angstrom
RADIAL, EDGE_WIDTH = MPNNConfig().radial, MPNNConfig().edge_width
FLOAT_BYTES = 4

Row = dict[str, Any]


class PlainNetwork(nn.Module):
    """Embedded elements, rounds of `NNConv`, dense layers, PyG's pooling."""

    is_extensive: Tensor

    def __init__(self, config: PyGNNConvConfig) -> None:
        super().__init__()
        self.layers = PyGNNConv(config, LEARNED)
        flags = [properties.get(name).is_extensive for name in LEARNED]
        self.register_buffer("is_extensive", torch.tensor(flags))

    def forward(self, batch: Batch) -> Tensor:
        """(B, T), encoded targets."""
        layers = self.layers
        weight = message_weight(batch.edge_length, layers.cutoff_angstrom)
        edge_attr = torch.cat([layers.basis(batch.edge_length), weight[:, None]], dim=1)
        hidden = layers.embedding(batch.z)
        for conv in layers.convs:
            hidden = hidden + F.relu(conv(hidden, batch.edge_index, edge_attr))
        values = layers.readout.dense(hidden)
        totals = global_add_pool(values, batch.batch) / TYPICAL_ATOMS
        return torch.where(self.is_extensive, totals, global_mean_pool(values, batch.batch))


class PlainTask:
    """Molecules, targets and errors: the same as our trials have."""

    def __init__(self, study: StudyConfig, dataset: Dataset) -> None:
        """Load the molecules, find their neighbours."""
        self.study = study
        some = to_train_config(first_point(), study, 0)
        sample = training_sample(some, dataset)
        train, validation = sample.train, sample.validation
        counts, truth, extents = dataset.counts(), dataset.truth(), np.asarray(dataset.extents)
        columns = [TARGETS.index(name) for name in LEARNED]
        self.codec = codec_for(some, counts[train], extents[train], truth[train])
        self.scale = objective_scale(counts[train], extents[train], truth[train])
        encoded = self.codec.encode(counts[train], extents[train], truth[train][:, columns])
        self.train = _data(dataset, train, encoded)
        self.validation = list(DataLoader(_data(dataset, validation, None), PREDICTED_AT_ONCE))
        self._counts, self._extents = counts[validation], extents[validation]
        self._truth = truth[validation]
        self._rotational = np.asarray(dataset.rotational_ghz[validation])

    def errors(self, network: nn.Module) -> dict[str, float]:
        """The `val/...` metrics of a network."""
        encoded = predict_peer(network, self.validation)
        with np.errstate(all="ignore"):
            values = self.codec.decode(self._counts, self._extents, encoded)
            every = all_targets(LEARNED, values, self._counts, self._rotational)
            return validation_metrics(every, self._truth, self.scale)


def _data(dataset: Dataset, indices: np.ndarray, encoded: Floats | None) -> list[Data]:
    molecules = peer_data(dataset, indices, encoded, CUTOFF_ANGSTROM)
    for molecule in molecules:
        del molecule.place  # no dipoles from charges here: nothing to collate in vain
    return molecules


def first_point() -> Params:
    """Any point of the space: what molecules there are does not depend on it."""
    return {"conv_layers": 1, "fc_layers": 1, "hidden": 2, "batch_size": 1, "learning_rate": 1e-3}


def memory_gb(point: Params, edges: np.ndarray) -> float:
    """What the plain loop needs for a trial, from its sizes.

    `NNConv` keeps an (h, h) matrix for each edge of each layer until the backward pass, which makes
    one layer's gradient, of that size too; and torch was seen to hold up to twice as much.

    Args:
        point: Of the space.
        edges: (n_train,), edges of each training molecule, both ways.

    Returns:
        GB, for the batch with the most edges that these molecules can make.
    """
    layers, h = int(point["conv_layers"]), int(point["hidden"])
    most = np.sort(edges)[::-1][: int(point["batch_size"])].sum()
    return float(2 * (layers + 1) * FLOAT_BYTES * h * h * most) / 1e9


def edge_counts(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """(n,), edges of each molecule, both ways."""
    return np.array([len(item.edge_length) for item in _data(dataset, indices, None)])


def suggest(trial: optuna.Trial) -> Params:
    """The preset `seed`, as one writes it down."""
    return {
        "conv_layers": trial.suggest_int("conv_layers", 1, 4),
        "fc_layers": trial.suggest_int("fc_layers", 1, 4),
        "hidden": trial.suggest_int("hidden", 2, 128, log=True),
        "batch_size": trial.suggest_int("batch_size", 1, 1024, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
    }


def make_network(point: Params, seed: int) -> PlainNetwork:
    """The network of a point, with the initial weights that our trial has."""
    torch.manual_seed(epoch_seed(seed, 0))
    return PlainNetwork(
        PyGNNConvConfig(
            conv_layers=int(point["conv_layers"]),
            fc_layers=int(point["fc_layers"]),
            hidden=int(point["hidden"]),
            edge_width=EDGE_WIDTH,
            radial=RADIAL,
            cutoff_angstrom=CUTOFF_ANGSTROM,
        )
    )


def train_epoch(network: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader) -> float:
    """One pass over the training molecules; gives the loss."""
    network.train()
    summed = 0.0
    for batch in loader:
        optimizer.zero_grad()
        loss = torch.sqrt(F.mse_loss(network(batch), batch.y) + RMSE_FLOOR)
        loss.backward()
        optimizer.step()
        summed += float(loss.detach()) * batch.num_graphs
    return summed / len(loader.dataset)


class Objective:
    """What `study.optimize` calls."""

    def __init__(
        self, task: PlainTask, numbers: Sequence[int], folder: Path, tick: Callable[[], None]
    ) -> None:
        """Remember the task.

        Args:
            task: Molecules and errors.
            numbers: Of the points among all, by the number of the trial.
            folder: Where weights go before MLflow takes them.
            tick: Called after each epoch.
        """
        self.task, self.numbers, self.folder, self.tick = task, numbers, folder, tick

    def __call__(self, trial: optuna.Trial) -> float:
        """Train a trial, on record in MLflow; gives the lowest score."""
        point, number = suggest(trial), self.numbers[trial.number]
        with mlflow.start_run(run_name=f"trial-{number:05d}", nested=True):
            mlflow.log_params(point)
            score, weights = self._train(trial, point, number)
            path = self.folder / f"{number:05d}.pt"
            torch.save(weights, path)
            mlflow.log_artifact(str(path), "model")
            mlflow.log_metric("best/val/score", score)
        return score

    def _train(
        self, trial: optuna.Trial, point: Params, number: int
    ) -> tuple[float, dict[str, Tensor]]:
        task = self.task
        network = make_network(point, to_train_config(point, task.study, number).seed)
        optimizer = torch.optim.Adam(network.parameters(), lr=float(point["learning_rate"]))
        loader = DataLoader(task.train, batch_size=int(point["batch_size"]), shuffle=True)
        best, weights = math.inf, network.layers.state_dict()
        for epoch in range(1, task.study.max_epochs + 1):
            loss = train_epoch(network, optimizer, loader)
            metrics = task.errors(network)
            mlflow.log_metrics({"train/loss": loss, **metrics}, step=epoch)
            trial.set_user_attr("epochs", epoch)
            self.tick()
            if not math.isfinite(metrics["val/score"]):
                raise optuna.TrialPruned
            if metrics["val/score"] < best:
                best = metrics["val/score"]
                weights = {key: v.clone() for key, v in network.layers.state_dict().items()}
        return best, weights


def run_plain(
    task: PlainTask,
    points: dict[int, Params],
    stores: Stores,
    keep: Callable[[Row], None],
    tick: Callable[[], None],
) -> None:
    """Search: the points in their order, one trial after another.

    Args:
        task: Molecules and errors.
        points: By number, those that are to be tried.
        stores: Where Optuna and MLflow keep them.
        keep: Takes a row for each trial that has ended.
        tick: Called after each epoch.
    """
    connect(stores)  # makes the database, with its artifacts beside it
    mlflow.set_tracking_uri(stores.tracking_uri)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = f"plain-{min(points):05d}"
    study = optuna.create_study(
        storage=stores.optuna_url,
        study_name=f"{name}-{time.time_ns()}",
        sampler=optuna.samplers.RandomSampler(seed=task.study.seed),
        direction="minimize",
    )
    for point in points.values():
        study.enqueue_trial(point)
    numbers, folder = list(points), stores.base / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    clock = [time.perf_counter()]

    def ended(_: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        now = time.perf_counter()
        keep(
            {
                "number": numbers[trial.number],
                "params": trial.params,
                "state": trial.state.name.lower(),
                "score": trial.value,
                "epochs": trial.user_attrs.get("epochs", 0),
                "seconds": now - clock[0],
            }
        )
        clock[0] = time.perf_counter()

    with mlflow.start_run(run_name=name):
        objective = Objective(task, numbers, folder, tick)
        study.optimize(objective, n_trials=len(points), callbacks=[ended])
