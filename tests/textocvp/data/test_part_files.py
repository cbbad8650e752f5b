import gc
import json
import os

import h5py
import numpy as np
import pytest

from textocvp.data import part_files
from textocvp.data.part_files import PartReader, create_rows, is_finished, plan_parts, read_manifests
from textocvp.files import DiskFullError, UserError

from .conftest import assert_refused

KEY = {"kind": "test", "made_from": "a" * 64}


def write(folder, part, value=1, key=KEY):
    def fill(file):
        create_rows(file, "x", (len(part.rows), 3, 2), "float32")[:] = value

    part_files.write_part(folder, part, key, list(part.rows), fill, {"lr": 1})


@pytest.fixture
def part(tmp_path):
    """The only part of a store in `tmp_path`."""
    (part,) = plan_parts(2)
    write(tmp_path, part)
    return part


def test_parts_hold_at_most_64_videos_in_order():
    parts = plan_parts(130)
    assert [len(part.rows) for part in parts] == [64, 64, 2]
    assert [row for part in parts for row in part.rows] == list(range(130))
    assert [part.name for part in parts] == ["part_0000", "part_0001", "part_0002"]
    assert all(part.num_parts == 3 for part in parts) and plan_parts(0) == []


def test_a_part_is_checksummed_and_tells_where_it_comes_from(tmp_path, part):
    with h5py.File(tmp_path / "part_0000.h5") as file:
        assert file["x"].fletcher32 and file["x"].chunks == (1, 3, 2) and file["x"].compression is None
        assert file.attrs["made_from"] == "a" * 64 and json.loads(file.attrs["config"]) == {"lr": 1}
        assert {"revision", "versions"} <= set(json.loads(file.attrs["provenance"]))
    (manifest,) = read_manifests(tmp_path, KEY, "cmd")
    assert manifest["bytes"] == (tmp_path / "part_0000.h5").stat().st_size and manifest["content"] == [0, 1]
    assert sorted(os.listdir(tmp_path)) == ["part_0000.h5", "part_0000.json"]


def test_the_content_hash_does_not_depend_on_who_wrote_it(tmp_path, monkeypatch):
    def content_hash(folder, value=1):
        write(tmp_path / folder, plan_parts(2)[0], value)
        (manifest,) = read_manifests(tmp_path / folder, KEY, "cmd")
        return manifest["content_sha256"], manifest["sha256"]

    first, same, other = content_hash("a"), content_hash("b"), content_hash("c", value=2)
    monkeypatch.setattr(part_files, "provenance", lambda: {"revision": "another"})
    later = content_hash("d")
    assert first == same and first[0] == later[0] and first[1] != later[1] and first[0] != other[0]


def test_long_rows_are_cut_into_chunks_of_a_mebibyte(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        rows = create_rows(file, "x", (2, 31, 3, 336, 336), "uint8")
        assert rows.chunks == (1, 3, 3, 336, 336) and np.prod(rows.chunks) <= part_files.MAX_CHUNK_BYTES


def test_a_killed_writer_leaves_nothing_and_a_part_without_manifest_is_not_finished(tmp_path):
    (part,) = plan_parts(2)

    def fill(file):
        create_rows(file, "x", (2, 3), "float32")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        part_files.write_part(tmp_path, part, KEY, None, fill, {})
    assert os.listdir(tmp_path) == [] and not is_finished(tmp_path, part, KEY)
    write(tmp_path, part)
    assert is_finished(tmp_path, part, KEY)
    (tmp_path / "part_0000.json").unlink()
    assert not is_finished(tmp_path, part, KEY)


def test_missing_parts_are_named(tmp_path):
    parts = plan_parts(130)
    write(tmp_path, parts[0])
    write(tmp_path, parts[2])
    assert_refused(r"2 of 3 parts \(see part_0001\); run cmd again", read_manifests, tmp_path, KEY, "cmd")
    assert_refused(r"empty: .*run cmd", read_manifests, tmp_path / "empty", KEY, "cmd")


def test_parts_of_another_key_and_truncated_ones_are_refused(tmp_path, part):
    other = {**KEY, "made_from": "b" * 64}
    message = r"0000.json: created from different .*\(made_from is aaaaaaaaaaaa..., not bbbbbbbbbbbb...\)"
    assert_refused(message, is_finished, tmp_path, part, other)
    assert_refused(message, read_manifests, tmp_path, other, "cmd")
    part_files.check_key(tmp_path, KEY, dict(KEY))

    path = tmp_path / "part_0000.h5"
    path.write_bytes(path.read_bytes()[:-10])
    assert not is_finished(tmp_path, part, KEY)
    with pytest.raises(UserError, match=r"0000.h5: has \d+ bytes, expected \d+ bytes; run cmd again"):
        read_manifests(tmp_path, KEY, "cmd")
    path.unlink()
    assert_refused(r"part_0000.h5: no such file, expected", read_manifests, tmp_path, KEY, "cmd")


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    parts = plan_parts(70)
    write(tmp_path, parts[0], key={**KEY, "num_frames": 7})
    write(tmp_path, parts[1], key={**KEY, "num_frames": 10})
    with pytest.raises(UserError, match=r"0001.json: created from different .*\(num_frames is 10, not 7\)"):
        read_manifests(tmp_path, KEY, "cmd")


def test_parts_are_in_the_order_of_their_numbers(tmp_path):
    manifest = {"schema": 1, "num_parts": 12, "key": KEY, "content": [], "file": "x.h5", "bytes": 0}
    (tmp_path / "x.h5").touch()
    for index in range(12):  # as with ten thousand parts, the names are not in this order
        (tmp_path / f"part_{index}.json").write_text(json.dumps({**manifest, "part": index}))
    assert [found["part"] for found in read_manifests(tmp_path, KEY, "cmd")] == list(range(12))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "damaged.*delete it"), ('{"schema": 1}', "damaged.*delete it"), ('{"schema": 99}', ".*schema 1")],
)
def test_a_damaged_or_foreign_manifest_is_named_and_what_helps(tmp_path, text, message):
    (part,) = plan_parts(2)
    (tmp_path / "part_0000.json").write_text(text)
    for look in (lambda: read_manifests(tmp_path, KEY, "cmd"), lambda: is_finished(tmp_path, part, KEY)):
        assert_refused(f"part_0000.json: {message}", look)


def test_flipped_bits_are_noticed_on_reading(tmp_path):
    (part,) = plan_parts(2)
    write(tmp_path, part, value=7)
    path = tmp_path / "part_0000.h5"
    data = bytearray(path.read_bytes())
    at = data.find(np.full(6, 7, np.float32).tobytes())
    data[at] ^= 255
    path.write_bytes(data)
    reader = PartReader(tmp_path, "cmd")
    with pytest.raises(UserError, match=r"0000.h5: damaged \(.*\); delete it and run cmd again") as caught:
        [reader.read("part_0000.h5", "x", row) for row in range(2)]
    assert "\n" not in str(caught.value)


def test_each_process_opens_its_own_files_without_locks(tmp_path):
    (part,) = plan_parts(2)
    write(tmp_path, part, value=3)
    reader = PartReader(tmp_path, "cmd")
    assert not reader._files  # nothing is opened before it is needed
    reader.read("part_0000.h5", "x", 0)
    parents = reader._files["part_0000.h5"]
    pid = os.fork()
    if pid == 0:
        fresh = reader.read("part_0000.h5", "x", 1).tolist() == [[3, 3]] * 3
        os._exit(0 if fresh and reader._files["part_0000.h5"] is not parents else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert reader.read("part_0000.h5", "x", 1).tolist() == [[3, 3]] * 3
    assert os.environ["HDF5_USE_FILE_LOCKING"] == "FALSE"


def test_few_files_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr("textocvp.data.part_files.MAX_OPEN_FILES", 2)
    parts = plan_parts(200)
    for part in parts:
        write(tmp_path, part, value=part.index)
    reader = PartReader(tmp_path, "cmd")
    for _ in range(2):
        assert [reader.read(f"{part.name}.h5", "x", (0, 0, 0)) for part in parts] == [0, 1, 2, 3]
        assert len(reader._files) == 2 == len(reader._datasets)


@pytest.mark.parametrize("size", ["16k", "40k", "100k", "500k", "900k"])
def test_a_part_that_finds_no_space_is_not_there_and_says_so_once(mount_small, capfd, size):
    folder = mount_small(size)

    def fill(file):
        create_rows(file, "frames", (8, 10, 3, 64, 64), "uint8")
        for row in range(8):
            noise = np.random.default_rng(row).integers(0, 255, (10, 3, 64, 64), dtype=np.uint8)
            file["frames"][row] = noise

    with pytest.raises(DiskFullError, match="part_0000.h5: no space left on device"):
        part_files.write_part(folder, plan_parts(8)[0], {"kind": "x"}, [1], fill, {})
    gc.collect()
    assert list(folder.iterdir()) == []
    assert capfd.readouterr().err == ""
