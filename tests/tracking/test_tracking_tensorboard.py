from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator as PluginEventAccumulator,
)
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import backend_context, get_experiment, list_session_groups
from tensorboard.plugins.hparams.api_pb2 import GetExperimentRequest, ListSessionGroupsRequest
from tensorboard.util import tensor_util

from qm9flow.tracking.stores import Stores
from qm9flow.tracking.study import StudyTracker
from qm9flow.training.events import HISTOGRAM_EDGES, EpochEnded

MakeEpoch = Callable[..., EpochEnded]


def read(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0, "scalars": 0})
    accumulator.Reload()
    return accumulator


def folder_of(stores: Stores, study: StudyTracker, number: int) -> Path:
    return study.place.tensorboard / f"{number:05d}"


def test_scalars_and_histograms_come_back(
    study: StudyTracker, stores: Stores, make_epoch: MakeEpoch
) -> None:
    trial = study.open_trial(12, {"hidden": 8})
    events = [make_epoch(1), make_epoch(2)]
    for event in events:
        trial.log(event)
    trial.finish("complete")
    found = read(folder_of(stores, study, 12))
    scores = found.Scalars("val/score")
    assert [item.step for item in scores] == [1, 2]
    np.testing.assert_allclose([item.value for item in scores], [1.0, 0.5], rtol=1e-6)
    assert found.Scalars("best/val/score")[0].value == pytest.approx(0.5)
    histograms = found.Tensors("gradients/conv.1")
    assert [item.step for item in histograms] == [1, 2]
    for item, event in zip(histograms, events, strict=True):
        rows = tensor_util.make_ndarray(item.tensor_proto)
        gradients = event.gradients
        assert gradients is not None
        left = np.searchsorted(HISTOGRAM_EDGES, rows[:, 0])
        counts = np.zeros(32)
        counts[left] = rows[:, 2]
        np.testing.assert_array_equal(counts, gradients.histogram[2])
        np.testing.assert_allclose(rows[:, 1], HISTOGRAM_EDGES[left + 1])
    metadata = found.SummaryMetadata("gradients/conv.1")
    assert metadata.plugin_data.plugin_name == "histograms"
    assert "log10" in metadata.summary_description


def test_resumed_trial_shows_each_epoch_once(
    study: StudyTracker, stores: Stores, make_epoch: MakeEpoch
) -> None:
    first = study.open_trial(0, {"hidden": 8})
    for epoch in (1, 2, 3):
        first.log(make_epoch(epoch))
    first._flush()
    run_id = first.run_id
    del first
    second = study.open_trial(0, {"hidden": 8}, run_id=run_id)
    for epoch in (2, 3, 4):
        second.log(make_epoch(epoch))
    second.finish("complete")
    folder = folder_of(stores, study, 0)
    assert len(list(folder.iterdir())) == 2
    shown = PluginEventAccumulator(str(folder))  # what TensorBoard itself reads with
    shown.Reload()
    assert [item.step for item in shown.Tensors("val/score")] == [1, 2, 3, 4]
    assert [item.step for item in shown.Tensors("gradients/embedding")] == [1, 2, 3, 4]
    assert [item.step for item in read(folder).Scalars("val/score")] == [1, 2, 3, 4]


def test_hparams_tab_lists_all_trials(
    study: StudyTracker, stores: Stores, make_epoch: MakeEpoch
) -> None:
    for number in range(3):
        parameters = {"hidden": 2**number, "loss": "rmse", "ema": True, "limit": None}
        trial = study.open_trial(number, parameters)
        trial.log(make_epoch(number + 1))
        trial.finish("complete" if number else "failed")

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(study.place.tensorboard))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, "logs")
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    request = RequestContext()
    experiment = get_experiment.Handler(
        request, context, "", GetExperimentRequest(include_metrics=True)
    ).run()
    assert {info.name for info in experiment.hparam_infos} == {"hidden", "loss", "ema"}
    groups = list_session_groups.Handler(
        request,
        context,
        "",
        ListSessionGroupsRequest(
            start_index=0, slice_size=10, allowed_statuses=[0, 1, 2, 3], include_metrics=True
        ),
    ).run()
    found = {group.name: group for group in groups.session_groups}
    assert sorted(found) == ["trial-00000", "trial-00001", "trial-00002"]
    assert found["trial-00002"].hparams["hidden"].number_value == 4
    metrics = {value.name.tag: value.value for value in found["trial-00001"].metric_values}
    assert metrics["best/val/score"] == pytest.approx(0.5)


def test_numbers_that_json_has_not_are_written(
    study: StudyTracker, stores: Stores, make_epoch: MakeEpoch
) -> None:
    trial = study.open_trial(0, {"limit": float("inf")})
    trial.log(EpochEnded(1, {"val/score": float("nan")}, None, False))
    trial.finish("pruned")
    (score,) = read(folder_of(stores, study, 0)).Scalars("val/score")
    assert np.isnan(score.value)
