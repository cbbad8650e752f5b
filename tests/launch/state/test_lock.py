import errno
import fcntl
import os

import pytest

from launch.state.lock import locked
from textocvp.files import UserError


def test_one_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(UserError, match="another run"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("module", "name", "number", "message"),
    [(fcntl, "flock", errno.ENOSYS, "jobs/lock: .*locks"), (os, "open", errno.EACCES, "permission denied")],
)
def test_a_file_system_without_locks_and_another_users_experiment(
    tmp_path, monkeypatch, module, name, number, message
):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, name, refuse)
    with pytest.raises(UserError, match=message), locked(tmp_path):
        pass
