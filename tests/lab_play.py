"""Run the checkout's real playbooks, and commands inside simulated hosts: what tests/lab and molecule/*/tests share."""

import os
import pathlib
import re
import shlex
import subprocess

CHECKOUT = pathlib.Path(__file__).parents[1]


def command(playbook, *arguments, host=None, inventories=("inventories/lab",), prefix=(), **environment):
    """What subprocess needs to run a playbook of the checkout: (arguments, keyword arguments).

    host: the only host it runs on. prefix: a command that runs it, as in unshare(1). environment: variables that differ from this process'.
    """
    words = [*prefix, "ansible-playbook", str(playbook), *(f"--inventory={path}" for path in inventories)]
    words += [f"--limit={host}"] if host else []
    settings = {"PWD": str(CHECKOUT), "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0", "COLUMNS": "1000"}
    return [*words, *arguments], {"cwd": CHECKOUT, "env": os.environ | settings | environment, "text": True}


def play(playbook, *arguments, timeout=600, **more):
    """Run a playbook of the checkout; returns its exit status and all it printed, every run of white space as one space.

    more: see `command`. The result is printed as YAML, which breaks long lines: compare words.
    """
    words, settings = command(playbook, *arguments, **more)
    result = subprocess.run(words, capture_output=True, timeout=timeout, check=False, **settings)
    return result.returncode, " ".join((result.stdout + result.stderr).split())


def recap(output):
    """The last recap in what `play` returned: {host: {"ok": 7, "changed": 0, "failed": 0, ...}}."""
    lines = re.findall(r"(\S+) : ((?:\w+=\d+ ?)+)", output.rpartition("PLAY RECAP")[2])
    return {host: {key: int(count) for key, count in re.findall(r"(\w+)=(\d+)", counts)} for host, counts in lines}


class Machine:
    """A simulated host, or the mirror."""

    def __init__(self, container):
        self.container = container

    def run(self, command, check=True, text=None):
        """Run a line of shell as root, with `text` on its standard input; returns the CompletedProcess. A failure raises unless check is off."""
        result = subprocess.run(
            ["docker", "exec", "--interactive", self.container, "bash", "-c", command], input=text or "", capture_output=True, text=True, check=False
        )
        assert not check or result.returncode == 0, f"{self.container}: {command}: {result.stdout}{result.stderr}"
        return result

    def out(self, command):
        """What the command prints, without the last newline."""
        return self.run(command).stdout.rstrip("\n")

    def write(self, path, text):
        """Write a file; its directory is made."""
        self.run(f"mkdir -p $(dirname {shlex.quote(path)}) && cat > {shlex.quote(path)}", text=text)

    def remove(self, *paths):
        """Remove files that may not be there."""
        self.run("rm -rf " + " ".join(shlex.quote(path) for path in paths))

    def has(self, path):
        """Whether the path is there."""
        return self.run(f"test -e {shlex.quote(path)}", check=False).returncode == 0

    def reboot(self):
        """Switch the machine off and on, and wait for its units."""
        subprocess.run(["docker", "restart", self.container], check=True, capture_output=True)
        self.wait_for_units()

    def wait_for_units(self):
        """Wait until the machine has booted."""
        # Until systemd answers on its socket it says "offline" without waiting.
        self.run("until [[ $(systemctl is-system-running --wait 2>&1) =~ ^(running|degraded)$ ]]; do sleep 0.2; done")

    def fault(self, *words):
        """What the stand-ins of driver and cards are to do wrong (roles/lab/files/mirror/README.md); without words, nothing."""
        self.write("/etc/gpuhosts-lab/fault", "".join(f"{word}\n" for word in words))
