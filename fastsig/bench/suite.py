"""Which cases are measured, and the ratios that the package is judged by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from fastsig.bench.cases import (
    BASE,
    CACHED,
    CONTIGUOUS,
    DATA,
    DTYPES,
    FAMILY,
    FUNCTIONS,
    HALF,
    IN_PLACE,
    LAYOUTS,
    MEBI,
    NEW,
    NORMAL,
    SCORES,
    STRIDED,
    TAILS,
    WIDE,
    Case,
)
from fastsig.bench.peers import named, title

LARGEST = {"float32": 64 * MEBI, "float64": 32 * MEBI}
DECADES = tuple(10**k for k in range(9))


@dataclass(frozen=True)
class Bar:
    """One ratio of the summary, and its limit: fastsig's time in `case` over the time of `peer` in `against`."""

    label: str
    case: Case
    peer: str
    against: Case
    target: float | None = None


def bars(threads: int) -> list[Bar]:
    """The ratios the package is judged by, `threads` being all of them."""
    single, double = (Case("sigmoid", dtype, CACHED, 1) for dtype in WIDE)
    large, large_double = (Case("sigmoid", dtype, LARGEST[dtype], threads) for dtype in WIDE)
    compared: list[tuple[Case, str, float | None]] = [
        (single, "torch", None),
        (double, "torch", None),
        (replace(large, size=MEBI), "torch", None),
        (replace(large, size=1), "scipy", None),
        (replace(large_double, size=1), "scipy", None),
        (large, "torch", None),
        (large_double, "torch", None),
        (large_double, "copy", None),
        (replace(large, function="sigmoid_value_and_grad"), "torch", None),
        (replace(single, function="log_sigmoid"), "torch", 0.4),
        (replace(single, function="softplus"), "torch", 0.4),
        (replace(single, function="silu"), "torch", 0.8),
        (replace(single, function="tanh"), "torch", 0.5),
        (replace(single, function="tanh"), "numpy", 1.35),
        (replace(single, function="bce_with_logits_value_and_grad"), "torch", 0.4),
    ]
    for function in FAMILY[1:]:
        case = replace(double, function=function)
        compared += [(case, name, 1.0) for name in ("scipy", "numpy", "torch") if not named(name).declines(case)]
    halves = [replace(single, function=f, dtype=d) for f in ("sigmoid", "softplus", "silu", "tanh") for d in HALF]
    compared += [(case, "torch", 1.0) for case in halves]
    compared += [(replace(large, function=function), "copy", 1.15) for function in FAMILY]
    rows = [Bar(f"{case.label} / {title(peer)}", case, peer, case, target) for case, peer, target in compared]
    for plain in (single, double):
        unusual = [replace(plain, layout=layout) for layout in (IN_PLACE, STRIDED)]
        unusual += [replace(plain, data=data) for data in (TAILS, NORMAL)]
        rows += [Bar(f"{case.label} / ordinary", case, "fastsig", plain) for case in unusual]
    return rows


def needed(threads: int) -> list[Case]:
    """What the bars compare."""
    return [case for bar in bars(threads) for case in (bar.case, bar.against)]


def all_cases(threads: int) -> list[Case]:
    """Everything: the bars' first, then the sigmoid at all sizes and numbers of threads, its family at some, in new arrays, and
    the derived forms at one size."""
    cases = needed(threads)
    cases += [Case("sigmoid", "float32", size, n) for size in (MEBI, LARGEST["float32"]) for n in doublings(threads)]
    for dtype in WIDE:
        sizes = {size for size in (*DECADES, CACHED, MEBI, LARGEST[dtype]) if size <= LARGEST[dtype] or dtype == "float32"}
        cases += [Case("sigmoid", dtype, size, threads) for size in sorted(sizes)]
        cases += [Case(f, dtype, size, threads) for f in (*FAMILY[1:], *BASE[1:]) for size in (1, 1000, MEBI)]
        cases += [Case("sigmoid", dtype, size, threads, NEW) for size in (1, 1000, LARGEST[dtype])]
        cases += [Case(f, dtype, MEBI, threads, NEW) for f in (*FAMILY, "sigmoid_value_and_grad")]
        cases += [Case(f, dtype, CACHED, 1) for f in FUNCTIONS]
    return list(dict.fromkeys(cases))


def doublings(threads: int) -> Iterator[int]:
    """1, 2, 4 and so on, and the number itself."""
    n = 1
    while n < threads:
        yield n
        n *= 2
    yield threads


def quick_cases(threads: int) -> list[Case]:
    """The bars' up to a mebi, the sigmoid at a few sizes and in new arrays, and, last, at a size past most caches."""
    cases = [Case("sigmoid", "float32", size, threads) for size in (1, 1000, CACHED, MEBI)]
    cases += [Case("sigmoid", "float32", MEBI, threads, NEW), *(case for case in needed(threads) if case.size <= MEBI)]
    return [*dict.fromkeys(cases), Case("sigmoid", "float32", 16 * MEBI, threads)]


def chosen_cases(
    threads: int,
    quick: bool = False,
    functions: Sequence[str] = FUNCTIONS,
    dtypes: Sequence[str] = DTYPES,
    sizes: Sequence[int] = (),
    layouts: Sequence[str] = LAYOUTS,
    data: Sequence[str] = DATA,
) -> list[Case]:
    """Those that are asked for. What is asked for by name has at least the ordinary size."""
    given = [
        case
        for case in (quick_cases(threads) if quick else all_cases(threads))
        if (not sizes or case.size in sizes) and case.layout in layouts and case.data in data
    ]
    if sizes or (functions, dtypes, layouts, data) != (FUNCTIONS, DTYPES, LAYOUTS, DATA):
        where = [(size, threads) for size in sizes] or [(CACHED, 1)]
        those = (
            functions,
            WIDE if dtypes == DTYPES else dtypes,
            where,
            [CONTIGUOUS] if layouts == LAYOUTS else layouts,
            [SCORES] if data == DATA else data,
        )
        given += [Case(f, d, *place, layout, values) for f, d, place, layout, values in product(*those)]
    return [case for case in dict.fromkeys(given) if case.function in functions and case.dtype in dtypes]
