"""The cases of `python -m fastsig bench` that fit into a cache, and one that doesn't, on pytest-benchmark, a group each."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from fastsig.bench import cases, machine, peers
from fastsig.bench.cases import CACHED, DTYPES, FAMILY, FUNCTIONS, LAYOUTS, MEBI, NEW, TAILS, WIDE, Case
from fastsig.bench.peers import ALL_PEERS, Peer

pytest.importorskip("sklearn", reason="the input is made with scikit-learn: pip install 'fastsig[bench]'")

THREADS = machine.processors()
MISSING = {
    peer.name: peers.unavailable(peer) for peer in ALL_PEERS
}  # all imported now: one OpenMP runtime serves who can share
CASES = [
    *(Case("sigmoid", d, n, THREADS) for d in WIDE for n in (1, CACHED, 4 * MEBI)),
    *(Case("sigmoid", d, n, THREADS, NEW) for d in WIDE for n in (1, MEBI)),
    *(Case("sigmoid", d, CACHED, 1, layout) for d in WIDE for layout in LAYOUTS[1:]),
    *(Case("sigmoid", d, CACHED, 1, data=TAILS) for d in WIDE),
    *(Case(f, d, CACHED, 1) for f in FAMILY for d in DTYPES),
    *(Case(f, "float32", CACHED, 1) for f in FUNCTIONS if f not in FAMILY),
]


def marked(case: Case) -> pytest.MarkDecorator:
    return pytest.mark.benchmark(group=case.label, max_time=0.3, min_rounds=5)


PAIRS = [
    pytest.param(case, peer, id=f"{peer.name}: {case.label}", marks=marked(case))
    for case in CASES
    for peer in ALL_PEERS
    if not peer.declines(case)
]


@pytest.mark.parametrize(("case", "peer"), PAIRS)
def test_speed(case: Case, peer: Peer, benchmark: Any) -> None:
    if reason := MISSING[peer.name] or cases.unsupported(case.dtype):
        pytest.skip(reason)
    benchmark.extra_info.update(peer=peer.name, threads=case.threads)
    arrays = cases.make_arrays(case)
    with peer.threads(case.threads) if peer.threads else nullcontext(), np.errstate(all="ignore"):
        call = peer.prepare(case.function, arrays)
        if peer.name == "math" and (case.dtype, case.data) == ("float64", TAILS):
            with pytest.raises(OverflowError):
                call()
            pytest.skip("math.exp overflows")
        if peer.name != "copy":
            assert cases.check(call, arrays, peer.as_array) == ""
        benchmark(call)
