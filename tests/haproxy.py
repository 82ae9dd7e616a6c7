"""HAProxy as the distribution has it: `make .cache/haproxy` unpacks it without installing anything."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import time

UNPACKED = pathlib.Path(__file__).parents[1] / ".cache/haproxy"
SHORTER = (("user haproxy\n", "\n"), ("group haproxy\n", "\n"), ("chroot /var/lib/haproxy\n", "\n"))


def command():
    """(path, environment): the program, and what it needs to find its libraries."""
    unpacked = UNPACKED / "usr/sbin/haproxy"
    if unpacked.exists():
        libraries = sorted(str(path.parent) for path in UNPACKED.rglob("*.so.*"))
        return str(unpacked), os.environ | {"LD_LIBRARY_PATH": ":".join(dict.fromkeys(libraries))}
    path = shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin")
    assert path, f"haproxy is neither in {UNPACKED} nor on the path: run make .cache/haproxy (Debian, Ubuntu), or install it"
    return path, dict(os.environ)


def here(text, directory):
    """A configuration of the role, for an ordinary process whose files are all in one directory."""
    for before, after in (*SHORTER, ("/etc/gpuhosts-gateway", str(directory)), ("/run/haproxy", str(directory))):
        text = text.replace(before, after)
    return text


def check(path):
    """What `haproxy -c` says of a configuration: (status, text)."""
    program, environment = command()
    result = subprocess.run([program, "-c", "-f", str(path)], env=environment, capture_output=True, text=True, check=False)
    return result.returncode, result.stdout + result.stderr


class Running:
    """with Running(path) as process: HAProxy with this configuration, and the environment of the drop-in beside it, until the end."""

    def __init__(self, path, socket):
        self.path, self.socket, self.log = path, socket, path.with_suffix(".log")

    def __enter__(self):
        program, environment = command()
        unit = (self.path.parent / "gpuhosts.conf").read_text(encoding="utf-8")
        environment |= dict(word.split("=", 1) for line in re.findall("^Environment=(.*)$", unit, re.MULTILINE) for word in shlex.split(line))
        with self.log.open("wb") as output:
            self.process = subprocess.Popen([program, "-db", "-f", str(self.path)], env=environment, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 15
        while not self.socket.exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return self

    def __exit__(self, *exception):
        self.process.kill()
        self.process.wait()
