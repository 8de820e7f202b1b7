"""A path on disk, and several files that hold it to different lengths."""

import numpy as np
import pytest
from optimize_instances import unit_dictionary
from safetensors import safe_open

from steering_core.errors import StorageError
from steering_core.optimize.path import PathRangeError, SteeringPath


class TestFile:
    @pytest.fixture
    def problem(self):
        return unit_dictionary(3000, 40)

    @pytest.fixture
    def file(self, problem, tmp_path):
        path = SteeringPath.fit(*problem, s=20.0)
        path.save(tmp_path / "path.safetensors")
        return tmp_path / "path.safetensors"

    def test_answers_without_the_decoder_inside_its_range(self, problem, file):
        loaded, fresh = SteeringPath.load(file), SteeringPath.fit(*problem)
        r = np.linspace(-1, 10, 30)
        np.testing.assert_array_equal(loaded.qp(r, 2.0).vector, fresh.qp(r, 2.0).vector)
        np.testing.assert_array_equal(
            loaded.qp(r, 2.0).delta.toarray(), fresh.qp(r, 2.0).delta.toarray()
        )

    def test_refuses_beyond_its_range(self, file):
        loaded = SteeringPath.load(file)
        with pytest.raises(PathRangeError, match="decoder"):
            loaded.qp([1.0], loaded.knots.reach * 1.01)
        with pytest.raises(PathRangeError, match="decoder"):
            # Half way to 1/‖w‖, below which the answer needs no path.
            loaded.socp([1.0], (loaded.knots.norm[-1] + 1 / np.linalg.norm(loaded.weight)) / 2)

    def test_goes_on_with_the_decoder(self, problem, file):
        loaded, fresh = SteeringPath.load(file, problem[0]), SteeringPath.fit(*problem)
        r = np.linspace(0.1, 10, 30)
        far, near = loaded.qp(r, 100.0), fresh.qp(r, 100.0)
        np.testing.assert_allclose(far.vector, near.vector, atol=1e-10)
        assert (far.status == "optimal").all()

    def test_notices_another_decoder(self, problem, file):
        other = problem[0].copy()
        other[7, 3] += 1e-3
        with pytest.raises(StorageError, match="another decoder"):
            SteeringPath.load(file, other)

    def test_refuses_other_files(self, tmp_path):
        from steering_core.storage.arrays import save_arrays

        save_arrays(tmp_path / "x", {"a": np.ones(2)})
        with pytest.raises(StorageError, match="not a steering path"):
            SteeringPath.load(tmp_path / "x")

    @pytest.mark.parametrize("name", ["values", "v", "mu", "s", "violation", "weight", "indices"])
    def test_notices_a_flipped_bit(self, file, name):
        with safe_open(file, framework="numpy") as tensors:
            array = tensors.get_tensor(name)
        content = bytearray(file.read_bytes())
        where = content.index(array.tobytes()) + array.nbytes // 2
        content[where] ^= 1
        file.write_bytes(content)
        with pytest.raises(StorageError, match="damaged"):
            SteeringPath.load(file)

    def test_notices_other_metadata(self, file):
        content = file.read_bytes()
        file.write_bytes(content.replace(b'\\"d_sae\\": 3000', b'\\"d_sae\\": 3001'))
        assert file.read_bytes() != content
        with pytest.raises(StorageError, match="damaged"):
            SteeringPath.load(file)

    def test_same_bytes_again(self, problem, file, tmp_path):
        SteeringPath.fit(*problem, s=20.0).save(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == file.read_bytes()


@pytest.fixture
def files(tmp_path):
    problem = unit_dictionary(2000, 200)
    for name, depth in (("short", 0.1), ("long", 100.0)):
        SteeringPath.fit(*problem, s=depth).save(tmp_path / name)
    return problem, tmp_path / "short", tmp_path / "long"


def test_the_deepest_is_read_in_any_order(files):
    _, short, long = files
    expected = SteeringPath.load(long).knots.s
    assert len(expected) > len(SteeringPath.load(short).knots.s)
    for order in ((short, long), (long, short), long):
        np.testing.assert_array_equal(SteeringPath.load_deepest(order).knots.s, expected)


def test_a_shorter_path_is_a_beginning_of_it(files):
    knots = [SteeringPath.load(file).knots.s for file in files[1:]]
    np.testing.assert_array_equal(knots[1][: len(knots[0])], knots[0])


def test_no_path_and_paths_of_different_probes_are_refused(files, tmp_path):
    (decoder, weight), short, _ = files
    SteeringPath.fit(decoder, -weight).save(tmp_path / "other")
    with pytest.raises(ValueError, match="no path"):
        SteeringPath.load_deepest([])
    with pytest.raises(ValueError, match="different"):
        SteeringPath.load_deepest([short, tmp_path / "other"])
