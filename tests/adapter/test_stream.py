"""The keyed stream, against frozen bits and against the standard library's quantiles."""

import hashlib
from statistics import NormalDist

import numpy as np
import pytest

from tinylora.adapter.stream import inverse_normal, keyed_normals, keyed_signs, keyed_words


def test_words_are_sha256_in_counter_mode():
    root = hashlib.sha256(b"key").digest()
    block = hashlib.sha256(root + (1).to_bytes(8, "big")).digest()
    expected = [int.from_bytes(block[i : i + 4], "big") for i in range(0, 32, 4)]
    assert keyed_words("key", 16)[8:].tolist() == expected


def test_a_shorter_stream_is_the_beginning_of_a_longer_one():
    assert keyed_words("key", 5).tolist() == keyed_words("key", 99)[:5].tolist()


def test_the_inverse_normal_is_the_standard_librarys_to_the_last_digits():
    p = np.concatenate([np.linspace(1e-6, 1 - 1e-6, 2001), [1.2e-10, 0.075, 0.925, 1 - 1.2e-10]])
    expected = [NormalDist().inv_cdf(float(x)) for x in p]
    assert inverse_normal(p) == pytest.approx(expected, rel=1e-14, abs=1e-15)


def test_normals_are_odd_grid_points_with_the_moments_of_a_normal():
    z = keyed_normals("moments", 100_000)
    assert np.all(z % 2 == 1)
    x = z / 2.0**21
    assert np.abs([x.mean(), x.var() - 1, (x**3).mean(), (x**4).mean() - 3]).max() < 0.05


def test_normals_are_the_same_numbers_for_ever():
    assert keyed_normals("tinylora", 6).tolist() == FROZEN_NORMALS


def test_signs_are_the_same_for_ever_and_a_column_does_not_depend_on_the_others():
    assert keyed_signs("tinylora", 6, 2).T.tolist() == FROZEN_SIGNS
    assert np.array_equal(keyed_signs("tinylora", 50, 1), keyed_signs("tinylora", 50, 3)[:, :1])


FROZEN_NORMALS = [5526731, 1826309, 2300353, 3822399, 1275113, -984257]
FROZEN_SIGNS = [[-1.0, 1.0, -1.0, 1.0, -1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]
