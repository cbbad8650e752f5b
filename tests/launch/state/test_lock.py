import errno
import fcntl
import os

import pytest

from launch.state.lock import locked
from textocvp.config.errors import UserError


def test_one_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(UserError, match="another run"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_told_as_such(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match="jobs/lock: .*locks"), locked(tmp_path):
        pass


def test_another_users_experiment_is_one_line(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match="jobs/lock: permission denied"), locked(tmp_path):
        pass
