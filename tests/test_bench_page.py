"""The benchmark's pictures, and its report in a real browser."""

from __future__ import annotations

import os
import re
import shutil

import pytest

from fastsig.bench import page, pictures
from fastsig.bench.cases import CACHED
from fastsig.bench.peers import ALL_PEERS
from fastsig.bench.results import Results, Row
from fastsig.bench.suite import all_cases

pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib")
pytest.importorskip("jinja2", reason="the report is filled in by Jinja")

PHONE, DESK = (390, 844), (1280, 900)
BROWSER, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
needs_browser = pytest.mark.skipif(not (BROWSER and DRIVER), reason="Chromium and its driver aren't installed")


def made_up():
    """A run of made-up times: each peer has a rate of its own, and a call costs something."""
    found = Results(peers={peer.name: "" for peer in ALL_PEERS} | {"scipy": "not installed"}, seconds=61.0)
    versions = {"fastsig": "0.1.0", "numpy": "2.4"}
    found.machine = {"cpu": "a processor <of sorts>", "system": "a system", "python": "3", "versions": versions, "threads": 2}
    found.machine |= {"load": 0.5, "openmp": "libgomp.so.1", "caches": {"L1d": 32 << 10, "L2": 512 << 10, "L3": 32 << 20}}
    for case in all_cases(2):
        for k, peer in enumerate(ALL_PEERS):
            if not peer.declines(case) and not found.peers[peer.name]:
                taken = (k + 1) * (2e-7 + case.size * 4e-10 / case.threads)
                found.add(Row(case, peer.name, taken, taken / 50, 9, 1, case.traffic()))
    for reads, writes in ((1, 1), (2, 1), (1, 2), (2, 2)):
        for size in (1000, CACHED, 64 << 20):
            for threads in (1, 2):
                moved = (reads + writes) * size * 4
                way = {"reads": reads, "writes": writes, "stores": "plain", "threads": threads, "size": size}
                times = {"seconds": moved / 4e10, "spread": 0.0, "rounds": 7, "bytes": moved, "rate": 40.0}
                found.limits.append({**way, "dtype": "float32", **times})
    found.startup = [
        {"what": "import", "package": "numpy", "seconds": 0.1, "spread": 0.01, "rounds": 5, "error": ""},
        {"what": "import", "package": "torch", "seconds": None, "spread": None, "rounds": 0, "error": "not installed"},
    ]
    found.skip("sigmoid float32, 100,000,000, 2 threads", "needs 9 GiB of memory, 1 MiB are free")
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    page.write(made_up(), path)
    return path


def test_pictures(tmp_path):
    pictures.save(made_up(), tmp_path)
    names = {path.stem for path in tmp_path.iterdir()}
    assert names >= {"throughput-sigmoid-float32", "latency-float64", "peers-float32", "limit", "threads", "startup"}
    for path in tmp_path.iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_pictures_of_little():
    """Of a run that was interrupted early there are those for which there is enough."""
    found = made_up()
    whole = len(list(pictures.pictures(found)))
    found.rows = dict(list(found.rows.items())[:3])
    found.startup = []
    assert len(list(pictures.pictures(found))) == 0 < whole
    assert "<h1>" in page.html(found)


def test_what_the_report_says(report):
    text = report.read_text(encoding="utf-8")
    assert "a processor &lt;of sorts&gt;" in text
    assert "SciPy: not installed" in text
    assert "needs 9 GiB of memory" in text
    assert "torch, import: not installed" in text
    assert not re.search(r"(src|href)=\"(?!#)", text.replace('xlink:href="#', "")), "something lies outside the file"
    assert "url(http" not in text


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("selenium", reason="the browser is driven by Selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    quiet = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync", "disable-quic")
    for switch in ("headless=new", "disable-gpu", "disable-dev-shm-usage", *quiet):
        options.add_argument(f"--{switch}")
    if hasattr(os, "getuid") and os.getuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@needs_browser
@pytest.mark.parametrize("size", [PHONE, DESK])
def test_the_report_in_a_browser(report, browser, size):
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(report.as_uri())
    assert browser.title == "fastsig 0.1.0: benchmark"
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('figure svg')]"
        ".map(it => [it.getBoundingClientRect().width, it.textContent.length])"
    )
    assert len(drawn) >= 6
    assert min(each for each, _ in drawn) > 300
    assert min(length for _, length in drawn) > 50  # their text is text
    smallest = browser.execute_script(
        "return Math.min(...[...document.querySelectorAll('p, li, td, figcaption')]"
        ".map(it => parseFloat(getComputedStyle(it).fontSize)))"
    )
    assert smallest >= 12
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    rows = browser.execute_script("return document.querySelectorAll('tbody tr').length")
    assert rows > 100
