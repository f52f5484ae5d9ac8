"""The cache: where code is kept, that it is never stale and never damaged, who is trusted, and the commands round it.

Most tests compile `sigmoid_derivative`, of all functions the quickest.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT

from fastsig import cli, compiler, store, warmup
from fastsig.kernels import KERNELS

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions and signals")
root = pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become somebody else")
NAME = "sigmoid_derivative"
QUARTER = f"import numpy as np, fastsig; print(fastsig.{NAME}(np.full(3, 0.5, np.float32))[1])"
WARNED = f"""if True:
    import warnings
    import numpy as np, fastsig
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        right = fastsig.{NAME}(0.5) == 0.25 and fastsig.{NAME}(np.float32(0.5)) == 0.25
    print(right, len(caught), *{{(w.category.__name__, "FASTSIG_CACHE_DIR" in str(w.message)) for w in caught}})
"""
ONCE = "True 1 ('RuntimeWarning', True)"
NOBODY = f"""if True:
    import os
    from fastsig import compiler, ufuncs
    compiler.fingerprint()
    compiler.hold_forks()
    compiler.compile_loop("{NAME}", "float32")  # these import all that is needed: nobody may not be allowed to read it
    os.getuid() or (os.setgid(54321), os.setuid(54321))
"""


def only_file(folder):
    (path,) = folder.iterdir()  # nothing is left beside it
    return path


@contextmanager
def for_everybody():
    """A directory that other users can reach, which pytest's aren't."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


# --- the place -----------------------------------------------------------------------------------------------------------


def test_import_compiles_nothing(python, tmp_path):
    code = "import fastsig; [getattr(fastsig, name) for name in fastsig.__all__]"
    python(code, FASTSIG_CACHE_DIR=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_cache_directory_is_honoured(python, tmp_path):
    folder = tmp_path / "a" / "b"
    assert python(QUARTER, FASTSIG_CACHE_DIR=folder) == "0.25"
    assert only_file(folder).name.startswith(f"{NAME}-float32-")
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(sys.platform != "linux", reason="freedesktop.org's directories")
def test_default_cache_directory(python, tmp_path):
    code = "from fastsig import store; print(store.cache_folder())"
    places = {"FASTSIG_CACHE_DIR": "", "XDG_CACHE_HOME": tmp_path / "xdg", "HOME": tmp_path / "home"}
    assert python(code, **places) == str(tmp_path / "xdg" / "fastsig")
    assert python(code, **places | {"XDG_CACHE_HOME": ""}) == str(tmp_path / "home" / ".cache" / "fastsig")
    assert python(code, **places | {"FASTSIG_CACHE_DIR": "~/here"}) == str(tmp_path / "home" / "here")


SAID = """if True:
    import warnings
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept = [store.cache_folder(), store.cache_folder()]
    print(kept, len(caught), "FASTSIG_CACHE_DIR" in str(caught[0].message))
"""


@root
def test_nobody_without_a_home(python):
    """HOME is unset, and the system knows of none either: there is no place, and that is said once."""
    code = "import os; from fastsig import store; os.setgid(54321); os.setuid(54321)\n"
    code += 'for name in ("HOME", "FASTSIG_CACHE_DIR"): os.environ.pop(name, None)\n'
    assert python(code + SAID) == "[None, None] 1 True"


@posix
@pytest.mark.parametrize("mode", [0o720, 0o702, 0o1777], ids=oct)
def test_directory_that_others_can_write(mode, tmp_path, monkeypatch):
    """Its code might be theirs: it is neither run nor added to."""
    folder = tmp_path / "shared"
    folder.mkdir()
    monkeypatch.setenv("FASTSIG_CACHE_DIR", str(folder))
    assert store.found.__wrapped__() == (folder, "")
    folder.chmod(mode)
    found, reason = store.found.__wrapped__()
    assert found is None
    assert f"others can write to {folder}" in reason


@posix
def test_file_that_others_can_write(tmp_path):
    path = tmp_path / "loop.o"
    store.write(path, ("symbol", b"code"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for mode in (0o620, 0o602):
        path.chmod(mode)
        assert store.read(path) is None
    path.chmod(0o644)
    assert store.read(path) == ("symbol", b"code")


@root
def test_file_and_directory_of_another_user(tmp_path, monkeypatch):
    path = tmp_path / "theirs" / "loop.o"
    path.parent.mkdir(mode=0o755)
    store.write(path, ("symbol", b"code"))
    os.chown(path, 54321, 54321)
    assert store.read(path) is None
    os.chown(path.parent, 54321, 54321)
    monkeypatch.setenv("FASTSIG_CACHE_DIR", str(path.parent))
    assert store.found.__wrapped__() == (
        None,
        f"the cache directory {path.parent} is not used: {path.parent} belongs to another user",
    )


def test_directory_that_cannot_be(python, tmp_path):
    (tmp_path / "file").write_text("")
    assert python(WARNED, FASTSIG_CACHE_DIR=tmp_path / "file" / "below") == ONCE
    code = "from fastsig import store; print(store.obstacle())"
    assert (
        python(code, FASTSIG_CACHE_DIR=tmp_path / "file") == f"there is no cache directory ({tmp_path}/file is not a directory)"
    )


@posix
def test_directory_that_we_cannot_write(python):
    """Root may write anywhere, so the process becomes nobody first."""
    code = """if True:
        import os, sys, warnings
        from pathlib import Path
        from fastsig import store
        os.getuid() or (os.setgid(54321), os.setuid(54321))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            reasons = {store.write(store.cache_folder() / name, ("symbol", b"code")) for name in ("one.o", "two.o")}
        print(len(caught), "can't be written (Permission denied)" in str(caught[0].message), reasons == {store.obstacle()})
    """
    with for_everybody() as place:
        (place / "cache").mkdir()
        (place / "cache").chmod(0o555)
        assert python(code, FASTSIG_CACHE_DIR=place / "cache") == "1 True True"
        assert not list((place / "cache").iterdir())


@posix
def test_package_that_we_cannot_write(python):
    """From a site-packages that is the administrator's, nothing is missing."""
    with for_everybody() as place:
        shutil.copytree(ROOT / "fastsig", place / "site" / "fastsig", ignore=shutil.ignore_patterns("__pycache__"))
        before = sorted(place.rglob("*"))
        for path in before:
            path.chmod(path.stat().st_mode & 0o555)
        place.chmod(0o1777)
        environment = {"path": place / "site", "FASTSIG_CACHE_DIR": place / "cache", "PYTHONDONTWRITEBYTECODE": 1}
        assert python(NOBODY + QUARTER, **environment) == "0.25"
        assert only_file(place / "cache").name.startswith(NAME)
        assert sorted((place / "site").rglob("*")) == [path for path in before if path != place / "site"]


@posix
def test_a_home_made_under_umask_002_has_a_cache(python):
    """Directories that we make are the user's alone; those that the user's own group may write are the user's all the same."""
    with for_everybody() as place:
        (place / "home").mkdir()
        (place / "home").chmod(0o775)
        code = "import os; os.umask(0o002); from fastsig import store; print(store.obstacle())"
        assert python(code, FASTSIG_CACHE_DIR=place / "home" / ".cache" / "fastsig") == ""


def test_warnings_as_errors_leave_the_result(python):
    """Where there is no cache directory, each process compiles in memory."""
    assert python(QUARTER, FASTSIG_CACHE_DIR="/dev/null/x", warnings="error") == "0.25"


# --- never damaged ---------------------------------------------------------------------------------------------------------


def test_damage_is_seen(tmp_path):
    """Exhaustively: any prefix, any changed byte, anything added, another's name."""
    path = tmp_path / "loop.o"
    store.write(path, ("symbol", bytes(range(256))))
    whole = path.read_bytes()
    assert store.read(path) == ("symbol", bytes(range(256)))
    damaged = [whole[:n] for n in range(len(whole))]
    damaged += [whole[:k] + bytes([whole[k] ^ 1 << k % 8]) + whole[k + 1 :] for k in range(len(whole))]
    damaged += [whole + b"\0", bytes(len(whole)), whole + whole, b"\x7fELF" + bytes(range(200))]
    for data in damaged:
        path.write_bytes(data)
        assert store.read(path) is None
    path.write_bytes(whole)
    path.rename(tmp_path / "other.o")
    assert store.read(tmp_path / "other.o") is None
    assert store.read(path) is None
    path.mkdir()
    assert store.read(path) is None


def foreign(path):
    """What another processor's compiler has made of it, under our name."""
    other = path.with_name(f"{path.name[:-34]}{'0' * 32}.o")
    store.write(other, ("symbol", b"code of another processor or version"))
    other.rename(path)


def test_damaged_files_are_compiled_anew(python, tmp_path):
    """Without a word: warnings are errors here."""
    code = f"""if True:
        import numpy as np, fastsig
        print(*(fastsig.{NAME}(np.full(3, 0.5, dtype))[1] for dtype in "fd"))
    """
    programs = [compiler.inner_loop(NAME, storage) for storage in ("float32", "float64")]
    paths = [tmp_path / program.path.name for program in programs]
    for program, path in zip(programs, paths, strict=True):
        program.address()
        shutil.copy(program.path, path)
    paths[0].write_bytes(os.urandom(paths[0].stat().st_size))
    foreign(paths[1])
    assert python(code, FASTSIG_CACHE_DIR=tmp_path) == "0.25 0.25"
    assert all(store.read(path) for path in paths)
    assert set(tmp_path.iterdir()) == set(paths)


@pytest.mark.parametrize("processes", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_processes_fill_one_cache_at_once(python, tmp_path, processes):
    """Whoever comes last replaces the file by the same, at once."""
    code = f"""if True:
        import subprocess, sys
        one = "import fastsig; print(fastsig.{NAME}(0.5))"
        many = [subprocess.Popen([sys.executable, "-c", one], stdout=subprocess.PIPE, text=True) for _ in range({processes})]
        print({{process.communicate()[0] for process in many}})
    """
    assert python(code, FASTSIG_CACHE_DIR=tmp_path) == "{'0.25\\n'}"
    assert store.read(only_file(tmp_path)) is not None


# --- never stale -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path):
    """A copy of the package, to be changed."""
    shutil.copytree(ROOT / "fastsig", tmp_path / "copy" / "fastsig", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "copy"


def replaced(path, old, new):
    """Change a file so that neither its size nor its times tell."""
    data, times = path.read_bytes(), path.stat()
    assert old in data
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_fingerprints_of_changed_sources(python, copied):
    """A source of every loop changes all fingerprints, another only that of its own."""
    code = """if True:
        import os, sys
        from pathlib import Path
        from fastsig import compiler
        def prints():
            compiler.IMPORTED.update(compiler.digests())
            compiler.fingerprint.cache_clear()
            return {more: compiler.fingerprint(more) for more in ("", *compiler.MORE_SOURCES)}
        before = prints()
        print(*before.values())
        for source in (*compiler.SOURCES, *compiler.MORE_SOURCES):
            path = Path(compiler.__file__).parent / f"{source}.py"
            data, times = path.read_bytes(), path.stat()
            path.write_bytes(data.replace(b"from __future__", b"from__ future__", 1))
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            now = prints()
            path.write_bytes(data)
            print(source, *(more or "all" for more in now if now[more] != before[more]))
    """
    first, *lines = python(code, path=copied, PYTHONDONTWRITEBYTECODE=1).splitlines()
    assert first.split() == [compiler.fingerprint(more) for more in ("", *compiler.MORE_SOURCES)]  # wherever the package lies
    everything = " ".join(("all", *compiler.MORE_SOURCES))
    assert lines == [*(f"{s} {everything}" for s in compiler.SOURCES), *(f"{s} {s}" for s in compiler.MORE_SOURCES)]


# What a change in the source does to the derivative of 0.5 and 0.25, which is 0.25 and 0.1875.
CHANGES = {
    "kernels": (b"return fma(y, h, select(magnitude(lost)", b"return fma(h, h, select(magnitude(lost)"),
    "lanes": (b'NUMBERS = {"zero": 0.0, "half": 0.5, "one": 1.0', b'NUMBERS = {"zero": 0.0, "half": 0.5, "one": 2.0'),
    "loops": (b"stretches(a, s, 0, n, past_caches(n, d), d, False)", b"stretches(a, s, 1, n, past_caches(n, d), d, False)"),
}


@pytest.mark.parametrize("source", CHANGES)
def test_changed_source_is_compiled_anew(python, copied, tmp_path, source):
    code = f"""if True:
        import numpy as np, fastsig
        print(fastsig.{NAME}(np.array([0.5, 0.25], np.float32), out=np.zeros(2, np.float32)))
    """
    environment = {"path": copied, "FASTSIG_CACHE_DIR": tmp_path / "cache", "PYTHONDONTWRITEBYTECODE": 1}
    (tmp_path / "cache").mkdir(mode=0o700)
    kept = compiler.inner_loop(NAME, "float32")
    kept.address()
    shutil.copy2(kept.path, tmp_path / "cache")
    assert python(code, **environment) == "[0.25   0.1875]"
    assert len(list((tmp_path / "cache").iterdir())) == 1
    replaced(copied / "fastsig" / f"{source}.py", *CHANGES[source])
    assert python(code, **environment) not in ("[0.25   0.1875]", "[0. 0.]")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_sources_that_python_itself_is_late_to_notice(python, copied):
    """A change that neither size nor time tells of leaves Python's own .pyc in force: what that compiles is nobody else's."""
    code = "import fastsig.kernels, fastsig.constants; from fastsig import compiler; print(compiler.unchanged())"
    written = {"path": copied, "PYTHONPYCACHEPREFIX": copied / "pyc"}
    assert python(code, **written) == "True"
    assert python(code, **written) == "True"
    replaced(copied / "fastsig" / "constants.py", b"1 << 14", b"2 << 14")
    assert python(code, **written) == "False"


def test_all_sources_count(python):
    """What a loop is made from is in the cache's key: every module of ours that the compiling modules import."""
    code = """if True:
        import sys
        import fastsig.compiler, fastsig.loops, fastsig.narrow
        print(*(name.removeprefix("fastsig.") for name in sys.modules if name.startswith("fastsig.")))
    """
    without = {"store", "cgroups", "interrupts"}  # how code is kept, and what it is told when it runs, doesn't change it
    assert set(python(code).split()) - without <= set(compiler.SOURCES)


def test_upgrade_under_a_running_process(python, copied, tmp_path):
    """It goes on with the old code, and leaves it to nobody."""
    code = f"""if True:
        import os, sys
        from pathlib import Path
        import fastsig
        old = fastsig.{NAME}
        path = Path(fastsig.__file__).with_name("kernels.py")
        path.write_text(path.read_text() + "# upgraded")
        print(old(0.5), len(list(Path(sys.argv[1]).iterdir())))
    """
    environment = {"path": copied, "FASTSIG_CACHE_DIR": tmp_path / "cache", "PYTHONDONTWRITEBYTECODE": 1}
    assert python(code, tmp_path / "cache", **environment) == "0.25 0"


# --- what becomes of it --------------------------------------------------------------------------------------------------


def aged(path, days):
    path.touch()
    os.utime(path, times=(time.time() - days * store.DAY,) * 2)


def test_what_nobody_uses_goes(tmp_path):
    """That of old versions in the end, and what a killed process was writing; nothing else, whatever its name."""
    old, recent = tmp_path / f"sigmoid-float32-{'0' * 32}.o", tmp_path / f"sigmoid-float32-{'1' * 32}.o"
    written, being_written = tmp_path / f"{store.ASIDE}killed", tmp_path / f"{store.ASIDE}writes"
    others = [tmp_path / name for name in ("sigmoid-float32.o", ".hidden", f"thesis-{'0' * 32}.odt", "README")]
    for path in (old, *others):
        aged(path, store.UNUSED + 1)
    aged(recent, store.UNUSED - 1)
    aged(written, store.ABANDONED + 1)
    aged(being_written, 0)
    store.sweep.__wrapped__(tmp_path)
    assert set(tmp_path.iterdir()) == {recent, being_written, *others}


def test_use_keeps_it_young(tmp_path):
    path = tmp_path / f"sigmoid-float32-{'0' * 32}.o"
    store.write(path, ("symbol", b"code"))
    aged(path, 2)
    store.read(path)
    (entry,) = store.entries(tmp_path)
    assert entry.age < 1


@posix
def test_killed_while_it_writes(python, tmp_path):
    """Nothing of that kind is ever taken for a whole file."""
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from fastsig import store
        os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
        child = os.fork()
        if child == 0:
            store.write(Path(sys.argv[1], "loop.o"), ("symbol", b"code"))
        print(os.waitpid(child, 0)[1])
    """
    assert python(code, tmp_path) == str(int(signal.SIGKILL))
    assert only_file(tmp_path).name.startswith(store.ASIDE)


# --- the commands -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of its own for the commands in this process."""
    monkeypatch.setenv("FASTSIG_CACHE_DIR", str(tmp_path / "cache"))
    store.found.cache_clear()
    store.cache_folder.cache_clear()
    yield tmp_path / "cache"
    store.found.cache_clear()
    store.cache_folder.cache_clear()


def run(capsys, *arguments):
    """The command's exit status and what it says."""
    status = cli.main([*arguments])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_cache_shows_and_clears(folder, capsys):
    store.cache_folder()
    own = folder / f"sigmoid-float32-{compiler.fingerprint()}.o"
    others = [folder / f"sigmoid-float32-{digit * 32}.o" for digit in "01"]
    for path in (own, *others, folder / "README"):
        store.write(path, ("symbol", bytes(10**5)))
    aged(others[0], 12)
    status, out, _ = run(capsys, "cache", "--json")
    facts = json.loads(out)
    assert (status, facts["folder"], facts["writable"]) == (0, str(folder), True)
    assert (facts["loops"], facts["others"], facts["others_bytes"]) == (1, 2, sum(path.stat().st_size for path in others))
    status, out, _ = run(capsys, "cache")
    assert status == 0
    assert "1 loop, 0.1 MB" in out
    assert "2 loops, 0.2 MB" in out
    assert run(capsys, "cache", "--clear-old") == (0, "removed 2 loops, 0.2 MB\n", "")
    assert set(folder.iterdir()) == {own, folder / "README"}
    assert run(capsys, "cache", "--clear") == (0, "removed 1 loop, 0.1 MB\n", "")
    assert set(folder.iterdir()) == {folder / "README"}


def test_commands_without_a_cache(tmp_path, monkeypatch, capsys):
    """They say why there is none, and fail."""
    (tmp_path / "file").touch()
    monkeypatch.setattr(store, "found", lambda: (None, "there is no cache directory (it is a file)"))
    for arguments in (["cache"], ["cache", "--clear"], ["warmup"]):
        status, out, err = run(capsys, *arguments)
        assert (status, out) == (1, "")
        assert "there is no cache directory (it is a file)" in err


def test_warmup_compiles_what_is_asked_for(folder, capfd):
    arguments = ("warmup", "--functions", f"{NAME},tanh_derivative", "--dtypes", "float32", "--jobs", "2")
    status, out, _ = run(capfd, *arguments)
    assert (status, out) == (0, f"2 compiled, 0 there already, in {folder}\n")
    assert {path.name.split("-")[0] for path in folder.iterdir()} == {NAME, "tanh_derivative"}
    assert all(store.read(path) for path in folder.iterdir())
    assert run(capfd, *arguments)[:2] == (0, f"0 compiled, 2 there already, in {folder}\n")


def test_warmup_knows_everything():
    """All that a user's process could otherwise have to compile."""
    every = set(warmup.programs(warmup.FUNCTIONS, warmup.DTYPES))
    assert {f"{kernel}-{storage}" for kernel in KERNELS for storage in warmup.DTYPES} <= every
    assert {"bce_terms-3-sum-float32", "focal_terms-1-each-bfloat16", "network-rounds-float64"} <= every
    assert len(every) == 4 * (len(KERNELS) + 2 * (3 + 3 + 2)) + 2 * 3


def test_warmup_says_what_it_cannot_compile(python, tmp_path):
    """An exception in a worker, and a worker that dies, leave the rest undisturbed."""
    code = f"""if True:
        import sys
        from fastsig import cli
        from fastsig import warmup
        line = {{"raises": "1 / 0", "dies": "os._exit(3)"}}[sys.argv[1]]
        worker = f"import os; from fastsig import compiler, warmup; compiler.compile_program = lambda make: {{line}}"
        popen, command = warmup.subprocess.Popen, [sys.executable, "-c", f"{{worker}}; warmup.work()"]
        warmup.subprocess.Popen = lambda arguments, **options: popen(command, **options)
        sys.stderr = sys.stdout
        print(cli.main(["warmup", "--functions", "{NAME}", "--dtypes", "float32,float64", "--jobs", "1"]))
    """
    told = python(code, "raises", FASTSIG_CACHE_DIR=tmp_path)
    assert told.count("ZeroDivisionError: division by zero") == 2
    assert told.endswith("\n1")
    told = python(code, "dies", FASTSIG_CACHE_DIR=tmp_path)
    assert told.count("its process ended before it was done") == 2
    assert told.endswith("\n1")


def test_info_shows_where_the_time_goes(python):
    """The stages are those of a real first result: what compiles is there only where nothing is cached."""
    code = """if True:
        from fastsig.bench import startup
        warm, cold = startup.stages(False), startup.stages(True)
        print(len(set(cold) - set(warm)), all(seconds >= 0 for seconds in (*warm.values(), *cold.values())))
    """
    compiler.inner_loop("sigmoid", "float32").address()
    assert python(code) == "5 True"


WARMING = """if True:
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from fastsig import cli
    sys.exit(cli.main(["warmup", "--functions", "sigmoid_derivative,tanh_derivative", "--jobs", "1"]))
"""


@posix
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_warmup_is_interrupted(tmp_path, number, status):
    """In the middle: what is compiled is kept, nobody is left behind, nothing is said of semaphores or exceptions."""
    environment = {**os.environ, "FASTSIG_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-W", "error", "-c", WARMING]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not list(tmp_path.glob("*.o")):
            assert process.poll() is None
            time.sleep(0.05)
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)  # the terminal tells all of them
        out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert out == ""
    assert "Traceback" not in err
    assert "semaphore" not in err
    assert ("Interrupted: " in err) == (number == signal.SIGINT)
    assert all(store.read(path) for path in tmp_path.glob("*.o"))
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # nobody is left in its group
