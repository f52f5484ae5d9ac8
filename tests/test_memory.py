"""What a call takes beside its output: next to nothing."""

from __future__ import annotations

import sys

import pytest

PROGRAM = """
import resource
import numpy as np
import fastsig

x, y, g = (np.ones(1 << 24, dtype=np.float32) for _ in range(3))
small = slice(0, 1 << 18)
fastsig.sigmoid(x[small], out=y[small])
fastsig.sigmoid_value_and_grad(x[small], out=(y[small], g[small]))
fastsig.sigmoid(x[:1000:3], out=y[:1000:3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fastsig.sigmoid(x, out=y)
fastsig.sigmoid(x, out=x)
fastsig.sigmoid_value_and_grad(x, out=(y, g))
fastsig.sigmoid(x[::3], out=y[::3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss has other units elsewhere")
def test_extra_memory_is_at_most_a_mebibyte(python):
    assert int(python(PROGRAM)) <= 1024
