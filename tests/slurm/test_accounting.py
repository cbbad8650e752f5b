from slurm.accounting import asked_memory, memory_bytes, parse_usages, usages

LINES = """\
2|COMPLETED|5|10|600M||00:04.830|2|2|
2.batch|COMPLETED|5|||4717K|00:00.012|1|1|1
2.0|COMPLETED|4|||154247K|00:04.818|4|2|4
3|REQUEUED|5|10|600M||00:02.060|2|1|
3.batch|CANCELLED|5|||4372K|00:00.013|2|1|1
3.0|COMPLETED|5|||154116K|00:02.046|2|1|1
1_0|COMPLETED|5|10|400M||00:01.730|1|1|
1_0.batch|COMPLETED|5|||4393K|00:00.010|1|1|1
1_0.extern|COMPLETED|5||||00:00.001|1|1|1
1_0.0|COMPLETED|5|||154381K|00:01.719|1|1|1
1_2|CANCELLED by 1000|7|Partition_Limit|||00:00:00|0|1|
3|RUNNING|4|10|600M||1-00:00:02.500|2|1|
a line that is none
""".splitlines()
MB = 2**20


def test_the_lines_of_sacct():
    found = parse_usages(LINES)
    assert set(found) == {"2", "3", "1_0", "1_2"}
    two = found["2"]
    assert (two.state, two.attempts, two.seconds) == ("COMPLETED", 1, 5)
    assert (two.cpu_seconds, two.core_seconds) == (4.83, 10)
    assert (two.limit_seconds, two.asked_memory, two.processes) == (600, 300 * MB, 4)
    assert two.memory == 2 * 154247 * 1024  # four processes on two nodes
    three = found["3"]
    assert (three.state, three.attempts, three.seconds, three.core_seconds) == ("RUNNING", 2, 9, 18)
    assert three.cpu_seconds == 86404.56 and three.memory == 154116 * 1024
    one = found["1_2"]
    assert (one.state, one.limit_seconds, one.asked_memory) == ("CANCELLED", None, None)


def test_memory():
    texts = ("154247K", "1.50G", "0", "", "300Mn", "?")
    assert [memory_bytes(text) for text in texts] == [154247 * 1024, 3 * 2**29, 0, None, 300 * MB, None]
    assert asked_memory("600M", 8, 2) == asked_memory("300Mn", 8, 2) == asked_memory("75Mc", 8, 2) == 300 * MB
    assert asked_memory("0n", 8, 2) is None


def test_without_accounting_nothing_is_known(program, tmp_path):
    assert usages(["1"], {"PATH": str(tmp_path)}) == {}
    assert usages([], {}) == {}
    program("sacct", "echo Slurm accounting storage is disabled >&2\nexit 1")
    assert usages(["1"], {"PATH": f"{tmp_path}:/usr/bin:/bin"}) == {}
