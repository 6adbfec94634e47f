"""How a program ends: one line for any error, a file for what nobody foresaw, and death by the signal that was sent."""

from __future__ import annotations

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from golfcore import crash, machine, run_folder
from golfcore.endings import run_to_end
from golfcore.errors import InputError, UsageError

START = "import os, signal, sys, threading, time\nfrom golfcore.endings import run_to_end\n"
END = "\nsys.exit(run_to_end('golfcore', work, unfinished='nothing was left half-written'))\n"


def program(work: str, *, before: str = "") -> list[str]:
    """The command of a program whose ``work`` is the given body of a function."""
    body = "".join(f"    {line}\n" for line in work.splitlines())
    return [sys.executable, "-c", f"{START}{before}\ndef work():\n{body}    return 0\n{END}"]


def ended(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=60,
        preexec_fn=heed_signals,
    )  # fmt: skip


def heed_signals() -> None:
    """A suite in the background ignores interrupts, and one under nohup hang-ups."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(run_folder, "_latest", None)
    return tmp_path


def raising(error: BaseException) -> int:
    raise error


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ZeroDivisionError("division by zero"), 70, r"a fault in golfcore \(ZeroDivisionError: division by zero\)"),
        (KeyError("model"), 70, r"a fault in golfcore \(KeyError: 'model'\)"),
        (RecursionError("maximum recursion depth exceeded"), 70, r"a fault in golfcore \(RecursionError: max"),
        (RuntimeError("first\nsecond\n" * 100), 70, r"a fault in golfcore \(RuntimeError: first\)"),
        (MemoryError(), 75, r"not enough memory \(MemoryError\): .* lower train\.micro_batch_tokens"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to"),
         75, r"not enough memory .* model\.model_dim"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20 GiB"), 75, r"not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 75, r"not enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object", name="torch"), 75, "not enough mem"),
        (RuntimeError("can't start new thread"), 75, r"no thread or process can be started .*ulimit -u"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), 75, r"no thread or process .*ulimit -u"),
        (OSError(errno.EMFILE, "Too many open files"), 75, r"too many open files .*ulimit -n 4096"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), 75, ".*set TMPDIR to one"),
        (ImportError("cannot import name 'zeros' from 'numpy'", name="numpy.core"), 1,
         r"numpy cannot be imported .*pip install --force-reinstall numpy"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 75, r".*Permission denied: '/root/x'"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)  # fmt: skip
def test_any_error_is_one_line_and_a_file(
    error: BaseException, code: int, line: str, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_to_end("golfcore", lambda: raising(error)) == code
    said = capsys.readouterr().err
    (file,) = temporary.glob("golfcore-crash-*.txt")
    assert re.fullmatch(rf"golfcore: {line}.*; details are in {re.escape(str(file))}\n", said)
    details = file.read_text()
    assert "Traceback" in details and "in raising" in details and type(error).__name__ in details
    assert f"python: {sys.version.split()[0]}" in details and "torch" in details


@pytest.mark.parametrize(("error", "code"), [(InputError("a b"), 1), (UsageError("a b"), 2)])
def test_our_own_errors_leave_no_file(
    error: Exception, code: int, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_to_end("golfcore", lambda: raising(error)) == code
    assert capsys.readouterr().err == "golfcore: a b\n"
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("error", [InputError("a b"), ZeroDivisionError("a b")])
def test_debug_shows_where(error: Exception, temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_to_end("golfcore", lambda: raising(error), debug=True)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Traceback")
    assert last.startswith("golfcore: ")


def test_a_run_keeps_the_details_in_its_folder(temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = temporary / "run"
    run.mkdir()
    (run / "config.toml").write_text("")

    def work() -> int:
        with run_folder.owned(run):
            raise ZeroDivisionError

    assert run_to_end("golfcore", work) == 70
    assert f"details are in {run / 'crash.txt'}" in capsys.readouterr().err
    assert "ZeroDivisionError" in (run / "crash.txt").read_text()


def test_a_run_that_wrote_nothing_leaves_nothing(temporary: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = temporary / "run"
    run.mkdir()

    def work() -> int:
        with run_folder.owned(run):
            raise ZeroDivisionError

    assert run_to_end("golfcore", work) == 70
    assert not run.exists()
    assert f"details are in {temporary}/golfcore-crash" in capsys.readouterr().err


def test_details_that_no_file_takes_follow_the_line(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "temporary_folder", lambda: None)
    assert run_to_end("golfcore", lambda: raising(ZeroDivisionError())) == 70
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.endswith("no file can be written, so the details follow")
    assert any("ZeroDivisionError" in line for line in rest)


def test_no_memory_for_the_details_is_no_further_error(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crash, "_details", lambda *_: raising(MemoryError()))
    assert run_to_end("golfcore", lambda: raising(MemoryError())) == 75
    assert capsys.readouterr().err.startswith("golfcore: not enough memory")


@pytest.mark.parametrize("read", ["json.loads('[' * 100_000)", "tomllib.loads('v = ' + '[' * 100_000)"])
def test_nesting_without_end_is_the_fault_of_the_file(read: str, tmp_path: Path) -> None:
    done = ended(program(f"import json, tomllib\n{read}"), TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert "nested too deeply to be read" in done.stderr and "Traceback" not in done.stderr


def test_errors_of_imports_are_one_line_too(tmp_path: Path) -> None:
    code = "from golfcore.endings import report_uncaught\nreport_uncaught('train_gpt.py')\nimport not_installed_here"
    done = ended([sys.executable, "-c", code], TMPDIR=str(tmp_path))
    assert done.returncode == 1
    assert re.fullmatch(
        r"train_gpt.py: not_installed_here cannot be imported .*pip install --force-reinstall not_installed_here; "
        r"details are in .*\n", done.stderr
    )  # fmt: skip


@pytest.mark.parametrize("package", ["cyclopts", "rich", "numpy", "torch"])
def test_a_package_that_is_broken_is_named(package: str, tmp_path: Path) -> None:
    """The program's own packages too, which its command line imports before a command runs."""
    code = f"import sys; sys.modules[{package!r}] = None; from golfcore.__main__ import main; sys.exit(main())"
    done = ended([sys.executable, "-c", code, "tok", "info", "absent.model"], TMPDIR=str(tmp_path))
    if package in ("cyclopts", "rich"):
        assert done.returncode == 1
        assert f"golfcore: {package} cannot be imported" in done.stderr
    assert "Traceback" not in done.stderr


def test_secrets_stay_out_of_the_file(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "GOLFCORE_TOKEN", "MY_PASSWORD"):
        monkeypatch.setenv(name, "hidden-value")
    monkeypatch.setenv("GOLF_ISA", "scalar")
    run_to_end("golfcore", lambda: raising(ZeroDivisionError()))
    (file,) = temporary.iterdir()
    assert "hidden-value" not in file.read_text()
    assert "GOLF_ISA: scalar" in file.read_text()


@pytest.mark.parametrize(
    ("limit", "work", "line"),
    [
        ("RLIMIT_NOFILE, (40, 40)", "kept = [open(os.devnull) for _ in range(50)]", "too many open files"),
        ("RLIMIT_AS, (4 << 30, 4 << 30)", "bytearray(8 << 30)", "not enough memory .*ulimit -v allows 4.0 GiB"),
    ],
)
def test_limits_of_the_shell_are_named(limit: str, work: str, line: str, tmp_path: Path) -> None:
    done = ended(program(work, before=f"import resource; resource.setrlimit(resource.{limit})"), TMPDIR=str(tmp_path))
    assert done.returncode == 75
    assert re.fullmatch(rf"golfcore: {line}.*\n", done.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            program("print('result')"), stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        )  # fmt: skip
    assert done.returncode == 75
    assert re.fullmatch(r"golfcore: .*No space left on device; details are in .*\n", done.stderr)


# --- threads ----------------------------------------------------------------------------------------------------------


def test_a_thread_of_ours_that_dies_ends_the_run(tmp_path: Path) -> None:
    """The main thread waits for it for ever."""
    work = (
        "import queue, golfcore.stats\n"
        "threading.Thread(target=golfcore.stats.mean_interval, args=(None,), name='loader', daemon=True).start()\n"
        "queue.Queue().get()\n"
    )
    done = ended(program(work), TMPDIR=str(tmp_path))
    assert done.returncode == 70
    assert re.fullmatch(r"golfcore: a fault in golfcore \(.*\): .* in thread loader; details are in .*\n", done.stderr)
    (file,) = tmp_path.iterdir()
    assert "thread: loader" in file.read_text()


def test_a_thread_of_another_package_ends_alone(tmp_path: Path) -> None:
    work = "t = threading.Thread(target=lambda: 1 / 0, name='bar'); t.start(); t.join(); time.sleep(0.1); print('done')"
    done = ended(program(work), TMPDIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert re.fullmatch(r"golfcore: .*ZeroDivisionError.* in thread bar; details are in .*\n", done.stderr)


# --- signals ----------------------------------------------------------------------------------------------------------

WAITING = "try:\n    print('ready', flush=True)\n    time.sleep(60)\nfinally:\n    {}"


def started(work: str, before: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        program(work, before=before), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=heed_signals,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_died_of_after_the_clean_up(number: signal.Signals) -> None:
    process = started(WAITING.format("print('cleaned', flush=True)"))
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == -number
    assert out == "cleaned\n"
    assert err == "golfcore: interrupted; nothing was left half-written\n"


def test_a_second_signal_during_the_clean_up_ends_at_once() -> None:
    process = started(WAITING.format("print('cleaning', flush=True); time.sleep(60)"))
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "cleaning\n"
    until = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < until:  # one that follows closely counts as the same
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (-signal.SIGINT, "")


def test_two_signals_at_once_are_one() -> None:
    """As ``timeout`` sends them, to the process and to its group."""
    process = started(WAITING.format("print('cleaning', flush=True); time.sleep(0.2); print('cleaned', flush=True)"))
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert out == "cleaned\n"
    assert "interrupted" in err
    assert process.returncode == -signal.SIGTERM


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    process = started(
        "print('ready', flush=True)\ntime.sleep(0.5)\nprint('done')",
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)",  # nohup
    )
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "done\n", "")


@pytest.mark.parametrize("work", ["for i in range(100_000): print(i)", "print('little')\nsys.stdin.read()"])
def test_a_reader_that_goes_away_is_died_of(work: str) -> None:
    """The second program writes its line when it ends, and then nobody reads."""
    reading, writing = os.pipe()
    process = subprocess.Popen(program(work), stdin=subprocess.PIPE, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    os.close(reading)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (-signal.SIGPIPE, "")


def test_ctrl_c_ends_a_loop_of_the_shell(tmp_path: Path) -> None:
    """The terminal sends the signal to the shell and to golfcore; the shell goes by how golfcore ends."""
    script = tmp_path / "program.py"
    script.write_text(program(f"open({str(tmp_path / 'began')!r}, 'a').write('x')\ntime.sleep(60)")[-1])
    loop = f"for i in 1 2 3; do {sys.executable} {script}; done; echo went on"
    process = subprocess.Popen(
        ["bash", "-c", loop], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=heed_signals,
    )  # fmt: skip
    until = time.monotonic() + 30
    began = tmp_path / "began"
    while not (began.exists() and began.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert "went on" not in out
    assert err.count("golfcore: interrupted") == 1
    assert began.read_text() == "x"


def test_the_limits_are_those_of_the_process() -> None:
    assert machine.soft_limit(resource.RLIMIT_NOFILE) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
