"""How long it takes to bring a set of files to 1, 4, 8 and 16 hosts, by four ways: what `make bench-fanout` measures.

    python3 tests/bench/fanout.py [--hosts 1,4,8,16] [--ways naive,proxy,tiers,bittorrent] [--mebibytes 256] [--mbit 200] [--output DIRECTORY]

Every host is a network namespace on one switch, and its link carries --mbit in each direction (tc tbf at both ends). One more machine has the
files: the controller for the naive copy, the seed for the others, and for the proxy the hub behind it. Files lie in memory: disks are not what
is compared. After each run the sha256 of every file on every host is compared, outside of the time. Needs root, iproute2, and from the
distribution's packages aria2, mktorrent, opentracker, rsync, nginx and curl. Results are added to DIRECTORY/fanout.json, one way at a time if
need be; table (fanout.md) and plot (fanout.svg) are made of all that lies there.
"""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

WAYS = {
    "naive": "copy from the controller (rsync)",
    "proxy": "caching HTTP proxy (nginx)",
    "tiers": "rsync in tiers",
    "bittorrent": "BitTorrent (aria2)",
}
SHARDS = 4  # as large models are cut, with a small file beside them
TOOLS = ("ip", "tc", "aria2c", "mktorrent", "opentracker", "rsync", "nginx", "curl")
LIMIT_SECONDS = 900


class Net:
    """Namespaces named after this process, removed with all that runs in them."""

    def __init__(self, mbit, room, rate_limit):
        self.mbit, self.room, self.rate_limit, self.prefix, self.names, self.processes = mbit, room, rate_limit, f"fan{os.getpid()}", [], []
        self.switch = f"{self.prefix}-switch"
        _run("ip", "netns", "add", self.switch)
        self._in_switch("ip", "link", "add", "br0", "type", "bridge")
        self._in_switch("ip", "link", "set", "br0", "up")

    def _in_switch(self, *words):
        _run("ip", "netns", "exec", self.switch, *words)

    def add(self):
        """A machine; returns its number. Machine n has the address 10.80.0.n."""
        number = len(self.names) + 1
        name, port = f"{self.prefix}-{number}", f"port{number}"
        _run("ip", "netns", "add", name)
        self.names.append(name)
        _run("ip", "-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
        self._in_switch("ip", "link", "set", port, "master", "br0", "up")
        for words in (("addr", "add", f"10.80.0.{number}/24", "dev", "eth0"), ("link", "set", "eth0", "up"), ("link", "set", "lo", "up")):
            _run("ip", "-n", name, *words)
        shape = ("root", "tbf", "rate", f"{self.mbit}mbit", "burst", "128kb", "latency", "50ms")
        _run("tc", "-n", name, "qdisc", "add", "dev", "eth0", *shape)
        _run("tc", "-n", self.switch, "qdisc", "add", "dev", port, *shape)
        (self.room / str(number)).mkdir()
        return number

    def start(self, number, *words):
        """Run a program on a machine, in its directory, in the background."""
        with open(self.room / f"{number}.log", "ab") as log:
            words = ["ip", "netns", "exec", self.names[number - 1], *map(str, words)]
            environment = {"PATH": os.environ["PATH"]}  # no proxies
            self.processes.append(subprocess.Popen(words, env=environment, cwd=self.room / str(number), stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        return self.processes[-1]

    def close(self):
        """End what was started and remove the namespaces."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
        for name in [*self.names, self.switch]:
            subprocess.run(["ip", "netns", "del", name], check=False)


def _run(*words, **more):
    subprocess.run(list(map(str, words)), check=True, **more)


def _until(condition, seconds=LIMIT_SECONDS):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            sys.exit(f"Nothing came of it within {seconds} s.")
        time.sleep(0.02)


def _listens(net, number, port):
    words = ["ip", "netns", "exec", net.names[number - 1], "ss", "-Htln", f"sport = :{port}"]
    _until(lambda: subprocess.run(words, capture_output=True, check=True).stdout, 20)


def _succeed(processes):
    for process in processes:
        if process.wait(LIMIT_SECONDS):
            sys.exit(f"{' '.join(process.args)} ended with status {process.returncode}.")


# -- The ways: each has the files on machine 1, brings them to `receivers`, and returns the seconds that took ---------------------------------


def _rsync_daemon(net, number):
    """The machine's directory as the rsync module `m`. Numeric ids and no chroot, so that it needs no user."""
    configuration = net.room / f"{number}.rsyncd"
    configuration.write_text(f"use chroot = no\nuid = 0\ngid = 0\n[m]\npath = {net.room / str(number)}\nread only = no\n")
    net.start(number, "rsync", "--daemon", "--no-detach", f"--config={configuration}", "--port=8730")
    _listens(net, number, 8730)


def naive(net, files, receivers):
    """The controller pushes to all hosts at once."""
    for number in receivers:
        _rsync_daemon(net, number)
    began = time.monotonic()
    _succeed([net.start(1, "rsync", "-r", "--whole-file", "files", f"rsync://10.80.0.{number}:8730/m/") for number in receivers])
    return time.monotonic() - began


def tiers(net, files, receivers):
    """Whoever has the files gives them to one that has not: twice as many in every round."""
    for number in [1, *receivers]:
        _rsync_daemon(net, number)
    began = time.monotonic()
    have, want = [1], list(receivers)
    while want:
        pairs = list(zip(have, want, strict=False))
        _succeed([net.start(to, "rsync", "-r", "--whole-file", f"rsync://10.80.0.{source}:8730/m/files", ".") for source, to in pairs])
        have += [to for dummy, to in pairs]
        want = want[len(pairs) :]
    return time.monotonic() - began


def proxy(net, files, receivers):
    """A cold cache on the seed asks the hub once for each file, and gives it to all hosts while it comes in."""
    hub = net.add()
    shutil.move(net.room / "1" / "files", net.room / str(hub) / "files")
    _nginx(net, hub, f"root {net.room / str(hub)};")
    cache = net.room / "1" / "cache"
    # Slices, so that a client need not wait for the whole of a file that is on its way.
    _nginx(net, 1, f"slice 4m; proxy_cache c; proxy_cache_lock on; proxy_cache_lock_age 60s; proxy_cache_key $uri$slice_range; proxy_set_header Range "
           f"$slice_range; proxy_http_version 1.1; proxy_cache_valid 200 206 1h; proxy_pass http://10.80.0.{hub}:8080;", cache)  # fmt: skip
    (net.room / "list").write_text("".join(f"url = http://10.80.0.1:8080/files/{name}\noutput = files/{name}\n" for name in files))
    began = time.monotonic()
    _succeed([net.start(number, "curl", "--silent", "--fail", "--create-dirs", "--config", net.room / "list") for number in receivers])
    return time.monotonic() - began


def _nginx(net, number, location, cache=None):
    path = f"proxy_cache_path {cache} keys_zone=c:10m max_size=10g use_temp_path=off;" if cache else ""
    configuration = net.room / f"{number}.nginx"
    configuration.write_text(
        f"daemon off; user root; worker_processes 1; pid {number}.pid; error_log stderr; events {{ worker_connections 1024; }}\n"
        f"http {{ access_log off; sendfile on; {path} server {{ listen 8080; location / {{ {location} }} }} }}\n"
    )
    net.start(number, "nginx", "-p", net.room, "-c", configuration)
    _listens(net, number, 8080)


def bittorrent(net, files, receivers):
    """Every host gives on the pieces that it has. The seed and a tracker run before the time starts, as they do in the role."""
    torrent = net.room / "files.torrent"
    _run("mktorrent", "-l", "20", "-a", "http://10.80.0.1:6969/announce", "-o", torrent, net.room / "1" / "files", stdout=subprocess.DEVNULL)
    # Debian's tracker serves only torrents that it is told of.
    shown = subprocess.run(["aria2c", "--show-files", torrent], capture_output=True, text=True, check=True).stdout
    (net.room / "1" / "allowed").write_text(shown.partition("Info Hash: ")[2].split()[0] + "\n")
    net.start(1, "opentracker", "-i", "10.80.0.1", "-p", "6969", "-P", "6969", "-d", net.room / "1", "-w", "allowed")
    _listens(net, 1, 6969)
    hook = net.room / "complete"
    hook.write_text("#!/bin/sh\nexec touch complete\n")
    hook.chmod(0o755)
    words = ["aria2c", "--no-conf", "--dir=.", "--seed-ratio=0", "--listen-port=6881", "--enable-dht=false", "--file-allocation=none",
             "--console-log-level=warn", "--summary-interval=0", "--bt-max-peers=0", "--bt-request-peer-speed-limit=100M",
             f"--max-overall-upload-limit={net.rate_limit}", f"--max-overall-download-limit={net.rate_limit}",
             f"--on-bt-download-complete={hook}", torrent]  # fmt: skip
    net.start(1, *words, "--bt-seed-unverified=true")
    _listens(net, 1, 6881)
    began = time.monotonic()
    for number in receivers:
        net.start(number, *words)
    # aria2 goes on to give what it has.
    _until(lambda: all((net.room / str(number) / "complete").exists() for number in receivers))
    return time.monotonic() - began


# -- What is measured, and what is made of it ------------------------------------------------------------------------------------------------


def measure(way, hosts, mebibytes, mbit, rate_limit):
    """Seconds until `hosts` machines have all files, which are then compared."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        room = pathlib.Path(directory)
        net = Net(mbit, room, rate_limit)
        try:
            source = net.add()
            sums = _make_files(room / str(source) / "files", mebibytes)
            receivers = [net.add() for dummy in range(hosts)]
            seconds = globals()[way](net, list(sums), receivers)
            for number in receivers:
                if _sums(room / str(number) / "files") != sums:
                    sys.exit(f"{way}: what came to host {number} of {hosts} is not what was sent.")
        finally:
            net.close()
    return seconds


def _make_files(directory, mebibytes):
    directory.mkdir()
    for number in range(SHARDS):
        (directory / f"model-{number}.safetensors").write_bytes(os.urandom(mebibytes * 1024 * 1024 // SHARDS))
    (directory / "tokenizer.json").write_bytes(os.urandom(100000))
    return _sums(directory)


def _sums(directory):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def table(results):
    """The results as a Markdown table: seconds, and how many times the time of one host by the same way that is."""
    counts = sorted({int(count) for ways in results.values() for count in ways})
    lines = ["| way | " + " | ".join(f"{count} host{'s' * (count > 1)}" for count in counts) + " |", "|---|" + "---:|" * len(counts)]
    for way, seconds in results.items():
        cells = [f"{seconds[str(n)]:.1f} s ({seconds[str(n)] / seconds['1']:.1f}x)" if {str(n), "1"} <= set(seconds) else "" for n in counts]
        lines.append(f"| {WAYS[way]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(results, path):
    """The results as a line for each way."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fanout"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for way, seconds in results.items():
        counts = sorted(map(int, seconds))
        axes.plot(counts, [seconds[str(count)] for count in counts], marker="o", label=WAYS[way])
    axes.set(xlabel="hosts", ylabel="seconds until every host has the files", xticks=counts, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="1,4,8,16", type=lambda text: [int(word) for word in text.split(",")])
    parser.add_argument("--ways", default=",".join(WAYS), type=lambda text: text.split(","))
    parser.add_argument("--mebibytes", default=256, type=int)
    parser.add_argument("--mbit", default=200, type=int)
    parser.add_argument("--rate-limit", default="0", help="what a host may send by BitTorrent, and receive: model_weights_rate_limit")
    parser.add_argument("--output", default=".cache/bench", type=pathlib.Path)
    given = parser.parse_args()
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if os.getuid() or missing:
        sys.exit(f"Namespaces and tc need root, and these programs are missing: {', '.join(missing) or 'none'}.")
    given.output.mkdir(parents=True, exist_ok=True)
    kept = given.output / "fanout.json"
    results = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    for way in given.ways:
        for hosts in given.hosts:
            seconds = measure(way, hosts, given.mebibytes, given.mbit, given.rate_limit)
            print(f"{WAYS[way]}, {hosts} hosts: {seconds:.1f} s", flush=True)
            results.setdefault(way, {})[str(hosts)] = round(seconds, 2)
            kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results = {way: results[way] for way in WAYS if way in results}
    (given.output / "fanout.md").write_text(table(results), encoding="utf-8")
    plot(results, given.output / "fanout.svg")
    print(table(results))


if __name__ == "__main__":
    main()
