"""What is kept of a hang."""

import json

import pytest

from vllm_instance import evidence, supervisors
from vllm_instance.host import Failed


@pytest.fixture
def capture(machine, engine):
    """Returns capture(log="...", **definition) -> the folder as a dict of texts, with its summary read."""

    def capture(log="the last words\n", processes=list, **given):
        definition = machine.define(**dict({"url": engine.url}, **given))
        start = supervisors.Start("start1", log if callable(log) else lambda lines: log, processes)
        folder = evidence.capture(machine.host, definition, start, "stall", "no token came for 150 s")
        found = {path.name: path.read_text() for path in machine.host.lib("coder").glob(f"evidence/{folder.rsplit('/', 1)[1]}/*")}
        return dict(found, **{"summary.json": json.loads(found["summary.json"])})

    return capture


def test_all_pieces(machine, engine, capture):
    engine.metrics = "vllm:num_requests_running 1\n"
    machine.answer("docker top", "PID\n4711 python3\n")
    machine.answer("nvidia-smi", "the table\n")
    machine.answer("nvidia-smi -q", "all of it\n")
    machine.answer("docker exec", "== python3\nThread 0x1 (idle)\n")
    found = capture()
    assert found["summary.json"] == {
        "time": "2027-01-15T08:00:00Z",
        "instance": "coder",
        "reason": "stall",
        "saw": "no token came for 150 s",
        "pieces": dict.fromkeys(("metrics.txt", "log.txt", "processes.txt", "nvidia-smi.txt", "nvidia-smi-q.txt", "py-spy.txt"), "taken"),
    }
    del found["summary.json"]
    assert found == {
        "metrics.txt": "vllm:num_requests_running 1\n",
        "log.txt": "the last words\n",
        "processes.txt": "PID\n4711 python3\n",
        "nvidia-smi.txt": "the table\n",
        "nvidia-smi-q.txt": "all of it\n",
        "py-spy.txt": "== python3\nThread 0x1 (idle)\n",
    }


def test_the_watchdogs_own_questions_do_not_fill_the_log(machine, capture):
    asked = 'INFO:     172.17.0.1:46906 - "GET /metrics HTTP/1.1" 200 OK\nINFO:     172.17.0.1:46906 - "GET /health HTTP/1.1" 200 OK\n'
    assert capture(log="the first words\n" + asked * 500 + "the last\n")["log.txt"] == "the first words\nthe last\n"
    assert capture(log="words\n" * 500)["log.txt"] == "words\n" * 400


def test_what_cannot_be_had_is_said_and_the_rest_is_taken(machine, engine, capture):
    engine.close()
    (machine.bin / "nvidia-smi").unlink()
    machine.answer("docker top", status=1, errors="Error response from daemon: container is not running\n")
    machine.answer("docker exec", status=127, errors="py-spy is not in the image\n")

    def log(lines):
        raise Failed("journalctl gave no answer within 20 s")

    pieces = capture(log=log)["summary.json"]["pieces"]
    assert pieces["metrics.txt"].startswith("missing: ")
    assert pieces["log.txt"] == "missing: journalctl gave no answer within 20 s"
    assert pieces["processes.txt"] == "missing: docker top: Error response from daemon: container is not running"
    assert pieces["nvidia-smi.txt"] == "missing: nvidia-smi cannot be started: No such file or directory"
    assert pieces["py-spy.txt"] == "missing: py-spy is not in the image"


def test_an_answer_that_breaks_this_program_breaks_one_piece(machine, capture):
    pieces = capture(log=lambda lines: 1 / 0)["summary.json"]["pieces"]
    assert pieces["log.txt"] == "missing: ZeroDivisionError: division by zero"
    assert pieces["metrics.txt"] == "taken"


def test_a_driver_that_complains_is_evidence(machine, capture):
    machine.answer("nvidia-smi", status=15, output="Unable to determine the device handle for GPU1\n")
    assert capture()["nvidia-smi.txt"] == "Unable to determine the device handle for GPU1\nexit status 15\n"


def test_time_is_bounded(machine, capture):
    def log(lines):
        machine.clock.pass_(121)
        return "late"

    pieces = capture(log=log)["summary.json"]["pieces"]
    assert pieces["log.txt"] == "taken"
    assert pieces["processes.txt"] == "missing: not taken, for the others took 120 s"


def test_py_spy_without_the_rights_it_asks_for(machine, capture):
    machine.answer("docker exec --user 0 --privileged", status=1, errors="operation not permitted\n")
    machine.answer("docker exec --user 0 vllm-coder", "== python3\n")
    assert capture()["py-spy.txt"] == "== python3\n"


def test_a_native_engine_is_looked_at_by_its_processes(machine, capture, tmp_path):
    place = tmp_path / "venv/bin"
    place.mkdir(parents=True)
    for name, words in (("py-spy", 'echo "$@"'), ("ps", 'echo "$@"')):
        program = (place if name == "py-spy" else machine.bin) / name
        program.write_text(f"#!/bin/sh\n{words}\n")
        program.chmod(0o755)
    found = capture(runtime="native", command=[str(place / "python3")], processes=lambda: [12, 34])
    assert found["py-spy.txt"] == "== 12\ndump --pid 12\n== 34\ndump --pid 34\n"
    assert found["processes.txt"] == "-o pid,ppid,stat,wchan:32,pcpu,etime,args -p 12,34\n"


def test_no_secret_is_kept(machine, capture):
    path = machine.host.etc("coder") / "environment"
    path.parent.mkdir(parents=True)
    path.write_text('VLLM_API_KEY=planted-key-1\nHF_TOKEN="planted-token-2"\nNCCL_DEBUG=INFO\n')
    machine.answer("docker top", "python3 --odd planted-key-1\n")
    found = capture(log="Authorization: Bearer planted-elsewhere-3\nNCCL_DEBUG=INFO planted-key-1 planted-token-2 api_key='planted-4-unknown'\n")
    text = json.dumps(found)
    assert "planted" not in text
    assert "NCCL_DEBUG=INFO" in found["log.txt"]


def test_only_root_reads_it_and_only_the_last_are_kept(machine, capture):
    for dummy in range(7):
        capture()
        machine.clock.pass_(60)
    folders = sorted((machine.host.lib("coder") / "evidence").iterdir())
    assert [folder.name for folder in folders] == [f"20270115T080{minute}00Z-stall" for minute in range(2, 7)]
    assert folders[0].stat().st_mode & 0o777 == 0o700
    assert (folders[0] / "log.txt").stat().st_mode & 0o777 == 0o600


def test_two_in_one_second(machine, capture):
    capture()
    capture()
    assert len(list((machine.host.lib("coder") / "evidence").iterdir())) == 2


def test_without_room_nothing_is_kept_and_nothing_fails(machine, engine, capsys):
    (machine.root / "var").write_text("a file where a directory should be")
    start = supervisors.Start("start1", lambda lines: "", list)
    assert evidence.capture(machine.host, machine.define(url=engine.url), start, "stall", "") is None
    assert "no evidence could be kept" in capsys.readouterr().err
