import os
import signal
import threading
import time

import pytest

from textocvp import stopping


def send(*numbers):
    for number in numbers:
        os.kill(os.getpid(), number)


def test_signals_only_set_the_flag_until_restored_and_the_strongest_wins():
    before = signal.getsignal(signal.SIGINT)
    stopping.install()
    stopping.install()
    assert stopping.requested() == 0
    seen = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
        send(number)
        seen.append(stopping.requested().name)
    assert seen == ["SIGINT", "SIGTERM", "SIGTERM", "SIGUSR2", "SIGUSR2"]
    stopping.restore()
    assert signal.getsignal(signal.SIGINT) is before and not stopping.requested()


def test_another_thread_installs_nothing():
    thread = threading.Thread(target=stopping.install)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR2, 140)])
def test_exit_codes(number, code):
    stopping.install()
    send(number)
    assert stopping.finish(stopping.requested()) == code


def test_only_the_time_limit_asks_for_the_requeue(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTOCVP_JOB_DIR", str(tmp_path / "job"))
    request = tmp_path / "job" / "requeue_request"
    stopping.install()
    send(signal.SIGTERM)
    stopping.finish(stopping.requested())
    assert not request.exists()
    send(signal.SIGUSR2)
    stopping.finish(stopping.requested(), is_main=False)
    assert not request.exists()
    stopping.finish(stopping.requested())
    assert request.exists()


def test_after_sigterm_it_waits_for_the_scheduler(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTOCVP_JOB_DIR", str(tmp_path))
    monkeypatch.setenv("TEXTOCVP_TERM_WAIT", "0.5")
    stopping.install()
    send(signal.SIGTERM)
    started = time.monotonic()
    assert stopping.finish(stopping.requested()) == 143
    assert time.monotonic() - started >= 0.5
    monkeypatch.setenv("TEXTOCVP_TERM_WAIT", "60")
    threading.Timer(0.3, send, [signal.SIGUSR2]).start()
    assert stopping.finish(stopping.requested()) == 140, "USR2 while it waits: queued again after all"
    assert (tmp_path / "requeue_request").exists()


def test_a_command_that_continues_after_its_parts_ends_at_the_time_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTOCVP_JOB_DIR", str(tmp_path))
    before = signal.getsignal(signal.SIGUSR2)
    with pytest.raises(SystemExit) as ended, stopping.ends_at_time_limit():
        send(signal.SIGUSR2)
        time.sleep(1)
    assert ended.value.code == 140 and (tmp_path / stopping.REQUEUE_FILE).exists()
    assert signal.getsignal(signal.SIGUSR2) is before
    (tmp_path / stopping.REQUEUE_FILE).unlink()
    with stopping.ends_at_time_limit():
        worker = os.fork()
        if worker == 0:
            send(signal.SIGUSR2)
            time.sleep(0.1)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 7, "a worker goes on"
    assert not (tmp_path / stopping.REQUEUE_FILE).exists()
