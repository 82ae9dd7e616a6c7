"""What a fleet costs its controller: site.yml on 1, 8, 16 and 32 hosts, bare and again. What `make bench-fleet` measures.

    python3 tests/bench/fleet.py [--hosts 1,8,16,32] [--playbook site.yml] [--down 0] [--output DIRECTORY]

The hosts are the lab's, with one card and the simulated engine each, all on this machine: 240 MB of memory and 650 MB of disk each. Hosts and controller
share its cores, so that the seconds are an upper bound, above all of the first run, in which every host installs its packages; the controller's CPU time
is the controller's own. Memory is the peak of the proportional set sizes of ansible-playbook and all its workers together, looked at twice a second.
Results are added to DIRECTORY/fleet-site.json, by the playbook's name; the table (fleet-site.md) is made of all that lies there, and the plot (fleet.svg) of
all playbooks. Growth is the exponent k of cost = c * hosts ** k, by least squares over the logarithms: 1 is linear.

--down takes so many of the hosts from the converged fleet and rolls it out: which hosts the report says were unreachable, and the exit status.
"""

import argparse
import collections
import contextlib
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

CHECKOUT = pathlib.Path(__file__).parents[2]
RUNS = {"first": "bare hosts", "second": "converged hosts"}
COLUMNS = {"seconds": "s per host", "cpu": "CPU s per host", "mebibytes": "peak MiB"}
LAB = {"LAB_ENGINE": "simulated", "LAB_NAME": os.environ.get("LAB_NAME", "gpuhosts-bench-fleet"), "PWD": str(CHECKOUT), "ANSIBLE_ROLES_PATH": ".cache/roles"}
WORDS = {"ansible_connection": "community.docker.docker_api", "lab_port": 0, "lab_card_count": 1}


def play(playbook, inventory, hosts, *options, fails=False, **environment):
    """Run a playbook on the first so many hosts; returns {seconds, cpu, mebibytes} of ansible-playbook with all its workers.

    environment: variables beside LAB. Another end than it should have ends the program, with the output's end.
    """
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        names = ",".join(["localhost", *_names(hosts)])
        words = ["ansible-playbook", playbook, "--inventory=inventories/lab", f"--inventory={inventory}", f"--limit={names}", *options]
        with subprocess.Popen(words, cwd=CHECKOUT, env=os.environ | LAB | environment, stdout=output, stderr=output) as process:
            over, peak = threading.Event(), [0]
            watcher = threading.Thread(target=_watch, args=(process.pid, over, peak))
            watcher.start()
            try:
                # wait4 has the CPU time of the process and of all whose end it waited for: its workers, and what they started.
                dummy, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.terminate()
                raise
            finally:
                over.set()
                watcher.join()
            seconds = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
        if bool(process.returncode) != fails:
            output.seek(0)
            sys.exit(f"{playbook} ended with status {process.returncode}:\n{output.read()[-4000:]}")
    return {"seconds": round(seconds, 2), "cpu": round(usage.ru_utime + usage.ru_stime, 2), "mebibytes": round(peak[0] / 1024)}


def _names(hosts):
    return [f"gpu{number:02}" for number in range(1, hosts + 1)]


def _watch(pid, over, peak):
    while not over.wait(0.5):
        peak[0] = max(peak[0], sum(_kibibytes(one) for one in _family(pid)))


def _family(pid):
    """The process and its descendants."""
    children = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name of a program, in parentheses, may hold anything.
            children.setdefault(int(path.read_text(errors="replace").rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def _kibibytes(pid):
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().partition("Pss:")[2].split()[0])
    return 0


def lose(hosts, down, inventory, directory):
    """Stop the last hosts and roll out: {down, unreachable, others}, of the report the names and the states of the rest."""
    lost, report = _names(hosts)[-down:], pathlib.Path(directory, "report.json")
    subprocess.run(["docker", "stop", "--time=0", *(f"{LAB['LAB_NAME']}-{name}" for name in lost)], check=True, stdout=subprocess.DEVNULL)
    found = play("playbooks/rollout.yml", inventory, hosts, f"--extra-vars=rollout_report={report}", fails=True)
    states = {host["name"]: host["status"] for host in json.loads(report.read_text(encoding="utf-8"))["hosts"]}
    unreachable = sorted(name for name, status in states.items() if status == "unreachable")
    return found | {"stopped": lost, "unreachable": unreachable, "others": collections.Counter(states[name] for name in states if name not in unreachable)}


def write_inventory(path, hosts, words):
    """The path, with an inventory of so many hosts. The lab's own has two, also where only one of them is used."""
    path.write_text(json.dumps({"gpu_hosts": {"hosts": dict.fromkeys(_names(max(hosts, 2)), words)}}))
    return path


@contextlib.contextmanager
def lab(hosts):
    """(directory, inventory) while so many bare hosts are there. Those of an earlier run that was cut off would not be bare."""
    with tempfile.TemporaryDirectory() as directory:
        inventory = write_inventory(pathlib.Path(directory, "hosts.yml"), hosts, WORDS)
        play("playbooks/lab_down.yml", inventory, hosts)
        try:
            play("playbooks/lab_up.yml", inventory, hosts)
            yield directory, inventory
        finally:
            play("playbooks/lab_down.yml", inventory, hosts)


def measure(hosts, playbook, down):
    """{first, second} of a fleet of so many hosts; with hosts to lose, {down} too."""
    with lab(hosts) as (directory, inventory):
        found = {run: play(playbook, inventory, hosts) for run in RUNS}
        return found | ({"down": lose(hosts, down, inventory, directory)} if down else {})


def exponent(points):
    """The k of cost = c * hosts ** k that fits points, {hosts: cost}, best; None with fewer than two."""
    logs = [(math.log(hosts), math.log(cost)) for hosts, cost in points.items() if cost > 0]
    if len(logs) < 2:
        return None
    middle = [sum(values) / len(logs) for values in zip(*logs, strict=True)]
    return sum((x - middle[0]) * (y - middle[1]) for x, y in logs) / sum((x - middle[0]) ** 2 for x, dummy in logs)


def points(results, run, column):
    return {int(hosts): found[run][column] for hosts, found in sorted(results.items(), key=lambda item: int(item[0]))}


def known(directory):
    """What lies there of every playbook: {"site.yml": results}."""
    return {f"{path.stem.removeprefix('fleet-')}.yml": json.loads(path.read_text(encoding="utf-8")) for path in directory.glob("fleet-*.json")}


def table(results):
    """The results as a Markdown table, a row for each number of hosts, and below it the exponents."""
    counts = sorted(map(int, results))
    heads = [f"{RUNS[run]}: {label}" for run in RUNS for label in COLUMNS.values()]
    lines = ["| hosts | " + " | ".join(heads) + " |", "|---:|" + "---:|" * len(heads)]
    for count in counts:
        cells = [results[str(count)][run][column] / (1 if column == "mebibytes" else count) for run in RUNS for column in COLUMNS]
        lines.append(f"| {count} | " + " | ".join(f"{cell:.0f}" if cell >= 100 else f"{cell:.1f}" for cell in cells) + " |")
    fits = [exponent(points(results, run, column)) for run in RUNS for column in COLUMNS]
    return "\n".join([*lines, "| exponent | " + " | ".join("" if fit is None else f"{fit:.2f}" for fit in fits) + " |"]) + "\n"


def plot(playbooks, path):
    """Seconds and CPU seconds of each host against hosts, {playbook: results}: a level line is linear growth."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fleet"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for axes, (column, label) in zip(panels, (("seconds", "seconds per host"), ("cpu", "CPU seconds of the controller per host")), strict=True):
        for (playbook, results), style in zip(sorted(playbooks.items(), reverse=True), ("-", "--", ":"), strict=False):
            for run, color in zip(RUNS, ("C0", "C1"), strict=True):
                found = points(results, run, column)
                axes.plot(list(found), [cost / hosts for hosts, cost in found.items()], style, color=color, marker="o", label=f"{playbook}, {RUNS[run]}")
        counts = sorted({int(hosts) for results in playbooks.values() for hosts in results})
        axes.set(xlabel="hosts", ylabel=label, xscale="log", ylim=(0, None))
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="1,8,16,32", type=lambda text: [int(word) for word in text.split(",")])
    parser.add_argument("--playbook", default="site.yml", type=pathlib.Path)
    parser.add_argument("--down", default=0, type=int)
    parser.add_argument("--output", default=".cache/bench", type=pathlib.Path)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    kept = given.output / f"fleet-{given.playbook.stem}.json"
    results = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for hosts in given.hosts:
        results[str(hosts)] = measure(hosts, given.playbook, given.down)
        print(f"{hosts} hosts: {results[str(hosts)]}", flush=True)
        kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    kept.with_suffix(".md").write_text(table(results), encoding="utf-8")
    plot(known(given.output), given.output / "fleet.svg")
    print(table(results))


if __name__ == "__main__":
    main()
