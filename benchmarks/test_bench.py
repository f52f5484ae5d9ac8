"""The cases of `python -m fastsig bench` that fit into a cache, and one that doesn't, on pytest-benchmark, a group each."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from fastsig import bench

pytest.importorskip("sklearn", reason="the input is made with scikit-learn: pip install 'fastsig[bench]'")

THREADS = bench.processors()
CASES = [
    *(bench.Case("sigmoid", d, n, THREADS) for d in bench.WIDE for n in (1, bench.CACHED, 4 * bench.MEBI)),
    *(bench.Case("sigmoid", d, bench.CACHED, 1, variant) for d in bench.WIDE for variant in bench.VARIANTS[1:]),
    *(bench.Case(f, d, bench.CACHED, 1) for f in bench.FAMILY for d in bench.DTYPES),
    *(bench.Case(f, "float32", bench.CACHED, 1) for f in bench.FUNCTIONS if f not in bench.FAMILY),
]


def marked(case: bench.Case) -> pytest.MarkDecorator:
    return pytest.mark.benchmark(group=case.label, max_time=0.3, min_rounds=5)


PAIRS = [
    pytest.param(case, peer, id=f"{peer.name}: {case.label}", marks=marked(case))
    for case in CASES
    for peer in bench.ALL_PEERS
    if bench.takes_part(peer, case)
]


@pytest.mark.parametrize(("case", "peer"), PAIRS)
def test_speed(case: bench.Case, peer: bench.Peer, benchmark: Any) -> None:
    if reason := bench.unavailable(peer) or bench.unsupported(case.dtype):
        pytest.skip(reason)
    arrays = bench.make_arrays(case)
    with peer.threads(case.threads) if peer.threads else nullcontext(), np.errstate(all="ignore"):
        call = peer.prepare(case.function, arrays)
        if peer.name == "math" and (case.dtype, case.variant) == ("float64", "tail-heavy"):
            with pytest.raises(OverflowError):
                call()
            pytest.skip("math.exp overflows")
        if peer.name != "copy":
            assert bench.check(case, call, arrays) == ""
        benchmark(call)
