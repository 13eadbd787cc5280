"""Between physical values and what a network learns, on all of QM9's kinds of target."""

import json

import numpy as np
import pytest

from qm9flow.data.splits import make_split
from qm9flow.data.store import Dataset
from qm9flow.elements import MAX_NUMBER
from qm9flow.properties import LEARNED, TARGETS, get
from qm9flow.targets import Array, TargetCodec

COLUMNS = [TARGETS.index(name) for name in LEARNED]
EXTENSIVE = np.array([get(name).is_extensive for name in LEARNED])
MU, R2 = LEARNED.index("mu"), LEARNED.index("r2")

Molecules = tuple[Array, Array, Array]


@pytest.fixture(scope="module")
def train(dataset: Dataset) -> Molecules:
    """Composition, extent and learned targets of 4,000 training molecules."""
    return _molecules(dataset, make_split("standard", len(dataset)).train[:4000])


@pytest.fixture(scope="module")
def unseen(dataset: Dataset) -> Molecules:
    """The same of validation molecules."""
    return _molecules(dataset, make_split("standard", len(dataset)).validation)


@pytest.fixture(scope="module")
def codec(train: Molecules) -> TargetCodec:
    return TargetCodec.fit(LEARNED, *train)


def _molecules(dataset: Dataset, places: np.ndarray) -> Molecules:
    values = dataset.truth()[places][:, COLUMNS]
    return dataset.counts()[places], np.asarray(dataset.extents[places]), values


def test_the_nuclei_know_nearly_all_of_r2(codec: TargetCodec, unseen: Molecules) -> None:
    counts, extents, values = unseen
    known = codec.known(counts, extents)[:, R2]
    assert np.corrcoef(known, values[:, R2])[0, 1] > 0.999
    assert codec.scale[R2] == pytest.approx(4.6, rel=0.05)
    assert codec.scale[R2] == pytest.approx(0.016 * values[:, R2].std(), rel=0.05)
    assert (values[:, R2] - known).std() == pytest.approx(codec.scale[R2], rel=0.05)
    electrons = codec.references[[1, 6, 7, 8, 9], R2]
    assert ((electrons > 1) & (electrons < 13)).all(), "each atom adds what its electrons need"


def test_who_has_which_known_part(codec: TargetCodec) -> None:
    assert codec.spread.tolist() == [float(name == "r2") for name in LEARNED]
    is_composed = EXTENSIVE | (np.array(LEARNED) == "r2")
    assert codec.references.any(axis=0).tolist() == is_composed.tolist()
    assert (codec.offset != 0).tolist() == [name in ("homo", "lumo") for name in LEARNED]
    assert codec.offset[MU] == 0


def test_offset_and_scale_have_their_closed_forms(codec: TargetCodec, train: Molecules) -> None:
    counts, extents, values = train
    for name in ("homo", "lumo"):
        column = LEARNED.index(name)
        assert codec.offset[column] == pytest.approx(values[:, column].mean())
        assert codec.scale[column] == pytest.approx(values[:, column].std())
    assert codec.scale[MU] == pytest.approx(values[:, MU].std())
    left = values[:, R2] - extents - counts @ codec.references[:, R2]
    assert counts.T @ left == pytest.approx(np.zeros(MAX_NUMBER + 1), abs=1e-4), "least squares"
    assert codec.encode(counts, extents, values).std(axis=0) == pytest.approx(np.ones(10))


def test_extensive_targets_stay_extensive(codec: TargetCodec, unseen: Molecules) -> None:
    """Two molecules that do not see each other: what is known of both, and the rest, add up."""
    counts, extents, values = (part[:2] for part in unseen)
    encoded = codec.encode(counts, extents, values)
    both = codec.decode(counts.sum(axis=0)[None], np.zeros(1), encoded.sum(axis=0)[None])
    assert both[0, EXTENSIVE] == pytest.approx(values.sum(axis=0)[EXTENSIVE], rel=1e-12)


def test_what_is_encoded_comes_back(codec: TargetCodec, unseen: Molecules) -> None:
    counts, extents, values = unseen
    encoded = codec.encode(counts, extents, values)
    assert encoded.dtype == np.float64
    np.testing.assert_allclose(codec.decode(counts, extents, encoded), values, rtol=0, atol=1e-9)
    elsewhere = codec.decode(counts, extents + 7.0, encoded)
    moved = np.where(np.arange(10) == R2, 7.0, 0.0)
    np.testing.assert_allclose(elsewhere, values + moved, rtol=0, atol=1e-9)


def test_a_codec_survives_json(codec: TargetCodec) -> None:
    again = TargetCodec.from_dict(json.loads(json.dumps(codec.to_dict())))
    assert again.names == codec.names == LEARNED
    for name in ("references", "spread", "offset", "scale"):
        assert np.array_equal(getattr(again, name), getattr(codec, name))
    plain = codec.to_dict()
    del plain["spread"]
    with pytest.raises(KeyError, match="spread"):
        TargetCodec.from_dict(plain)


def test_the_identity_changes_nothing(unseen: Molecules) -> None:
    counts, extents, values = unseen
    codec = TargetCodec.identity(LEARNED)
    assert np.array_equal(codec.encode(counts, extents, values), values)
    assert not codec.known(counts, extents).any()


def test_a_target_that_never_varies_has_a_scale(train: Molecules) -> None:
    counts, extents, _ = train
    codec = TargetCodec.fit(("homo",), counts, extents, np.full((len(counts), 1), -6.5))
    assert codec.offset.tolist() == [-6.5]
    assert codec.scale.tolist() == [1.0]
