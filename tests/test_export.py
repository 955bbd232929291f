import ezc3d
import numpy as np
import opensim
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from stages.export import read_trc, write_c3d, write_trc

NAMES = ["r.ASIS_study", "L_knee_study", "midHip", "C7_study", "RBigToe"]


def markers(missing=True):
    generator = np.random.default_rng(0)
    position = generator.uniform(-2, 2, (7, 5, 3))
    if missing:
        position[2, 1] = np.nan
        position[6, 4] = np.nan
    return 0.25 + np.arange(7) / 60, position


def test_opensim_reads_the_trc(tmp_path):
    time, position = markers()
    write_trc(tmp_path / "markers.trc", time, NAMES, position)
    table = opensim.TimeSeriesTableVec3(str(tmp_path / "markers.trc"))
    assert list(table.getColumnLabels()) == NAMES
    assert table.getTableMetaDataString("Units") == "mm"
    assert float(table.getTableMetaDataString("DataRate")) == pytest.approx(60)
    np.testing.assert_allclose(table.getIndependentColumn(), time, atol=1e-8)
    read = np.array(
        [
            [table.getRowAtIndex(row)[column].to_numpy() for column in range(5)]
            for row in range(table.getNumRows())
        ]
    )
    np.testing.assert_allclose(read / 1000, position, atol=1e-8)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_what_was_written_is_read_back(tmp_path_factory, seed, share):
    generator = np.random.default_rng(seed)
    position = generator.uniform(-3, 3, (4, 5, 3))
    position[generator.random((4, 5)) < share] = np.nan
    path = tmp_path_factory.mktemp("trc") / "markers.trc"
    write_trc(path, np.arange(4) / 100, NAMES, position)
    time, names, read = read_trc(path)
    assert names == NAMES
    np.testing.assert_allclose(time, np.arange(4) / 100)
    np.testing.assert_allclose(read, position, atol=1e-8)


def test_ezc3d_reads_the_c3d(tmp_path):
    time, position = markers()
    write_c3d(tmp_path / "markers.c3d", time, NAMES, position)
    file = ezc3d.c3d(str(tmp_path / "markers.c3d"))
    assert file["parameters"]["POINT"]["LABELS"]["value"] == NAMES
    assert file["parameters"]["POINT"]["UNITS"]["value"] == ["mm"]
    assert file["parameters"]["POINT"]["RATE"]["value"][0] == pytest.approx(60)
    points = file["data"]["points"]
    missing = np.isnan(position).any(-1).T
    np.testing.assert_allclose(
        points[:3, ~missing].T / 1000, position.transpose(1, 0, 2)[~missing], atol=1e-6
    )
    assert np.isnan(points[:3, missing]).all()
    assert (file["data"]["meta_points"]["residuals"][0][missing] == -1).all()


@pytest.mark.parametrize(
    "text", ["", "no markers here\n" * 8, "a\nUnits\ncm\n\t\tA\n\n\n1\t0\t1\t2\t3"]
)
def test_what_is_no_trc_is_refused(tmp_path, text):
    path = tmp_path / "broken.trc"
    path.write_text(text)
    with pytest.raises(PipelineError, match="not a TRC"):
        read_trc(path)


def test_uneven_samples_are_refused(tmp_path):
    _, position = markers()
    with pytest.raises(PipelineError, match="equal intervals"):
        write_trc(tmp_path / "markers.trc", np.array([0, 1, 2, 4, 5, 6, 7.0]), NAMES, position)
    assert not list(tmp_path.iterdir())
