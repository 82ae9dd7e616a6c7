# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Starting and stopping an instance by whatever supervises it: systemd, Docker Compose or Docker's own restart policy."""

from __future__ import annotations

PROGRAM = "/usr/local/sbin/vllm-instance"


class SupervisorError(Exception):
    """An instance cannot be started or stopped; the text says why."""


class Supervisor:
    """What runs the instance of one definition. `run` is AnsibleModule.run_command, or the like: argv -> (status, output, error)."""

    def __init__(self, definition, run):
        self.definition = definition
        self.name = definition["name"]
        self.unit = f"vllm-{self.name}.service" if definition["supervisor"] == "systemd" else None
        self.container = f"vllm-{self.name}"
        self._run = run

    def running(self):
        """Whether it runs, or is about to be started again."""
        if self.unit:
            return self._run(["systemctl", "show", "--property=ActiveState", "--value", self.unit])[1].strip() in ("active", "activating", "reloading")
        status, output, dummy = self._run(["docker", "inspect", "--format={{.State.Running}} {{.State.Restarting}}", self.container])
        return status == 0 and "true" in output

    def enabled(self):
        """Whether it comes back after a boot. Docker's containers do: their restart policy and the watchdog see to it."""
        return self._run(["systemctl", "is-enabled", "--quiet", self.unit])[0] == 0 if self.unit else True

    def start(self):
        """Start it, now and at boot; returns at once, whatever becomes of it. Raises SupervisorError when it cannot even be tried."""
        if self.unit:
            self._do(["systemctl", "daemon-reload"])
            self._do(["systemctl", "enable", "--quiet", self.unit])
            # One that systemd has given up, or that its watchdog had stopped, starts anew.
            self._run(["systemctl", "reset-failed", self.unit])
            self._do(["systemctl", "restart", "--no-block", self.unit])
        else:
            self._do([PROGRAM, "run", self.name])

    def stop(self):
        """Stop it and wait: its requests have limits.drain_seconds to end. A container that is left over goes too."""
        if not self.unit:
            self._do([PROGRAM, "stop", self.name])
        elif self._run(["systemctl", "cat", self.unit])[0] == 0:
            self._do(["systemctl", "stop", self.unit])
        if self.definition["runtime"] == "container":
            # With --rm it is gone by itself.
            self._run(["docker", "rm", "--force", self.container])

    def disable(self):
        """Keep it from coming back at boot."""
        if self.unit and self._run(["systemctl", "cat", self.unit])[0] == 0:
            self._do(["systemctl", "disable", "--quiet", self.unit])

    def forget(self):
        """After its files are gone: systemd forgets the unit, Docker the volume of its caches."""
        if self.unit:
            self._do(["systemctl", "daemon-reload"])
            self._run(["systemctl", "reset-failed", self.unit])
        if self.definition["runtime"] == "container":
            self._run(["docker", "volume", "rm", "--force", f"vllm-{self.name}-cache"])

    def _do(self, argv):
        status, output, error = self._run(argv)
        if status:
            raise SupervisorError("{} failed ({}): {}".format(" ".join(argv), status, " ".join((error or output).split()) or "no output"))
