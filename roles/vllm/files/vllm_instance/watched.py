# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One instance as the watchdog sees it, look by look."""

from __future__ import annotations

import os

from . import decisions, docker, engine, evidence, exits, instance, ledger, seen, supervisors, turns, vllm_log
from . import definition as definitions
from .host import ERROR, WARNING, Failed
from .progress import NOT_ASKED, Progress
from .state import Store, record

HEALTH_SECONDS = 5
START_LOG_LINES = 20000
# A container that cannot be created is not tried again at once: systemd's units wait as long.
AGAIN_SECONDS = 10


class Watched:
    """Remembers what earlier looks saw. All that must outlive this process is on disk."""

    def __init__(self, host, name):
        self._host, self._name = host, name
        self._store = Store(host, name)
        self._identity = self._progress = None
        self._kept = False
        self._said, self._complained = None, False
        self._stopped_looks = 0
        self._not_before = 0.0

    def look(self):
        """Look once, and act if need be. Returns whether the instance answers. Never raises: the others are watched all the same."""
        up, self._complained = False, False
        try:
            up = self._look()
        except Failed as problem:
            self._once(str(problem), ERROR)
        except Exception as error:  # pylint: disable=broad-except
            self._once(f"cannot be watched ({type(error).__name__}: {error})", ERROR)
        if not self._complained:
            self._said = None
        return up

    def _look(self):
        definition = definitions.read(self._host, self._name)
        with instance.working(self._host, definition, patience=0) as held:
            return self._look_at(definition, held and not self._changing(definition))

    def _look_at(self, definition, free):
        """free: whether anything may be done."""
        supervisor = supervisors.of(self._host, definition)
        start = self._of_docker(definition, supervisor, free) if definition.supervised_by_docker else self._of_systemd(supervisor, free)
        if start is None:
            self._identity = self._progress = None
            return False
        now = self._host.monotonic()
        if start.identity != self._identity:
            self._identity = start.identity
            self._kept = ledger.last(self._host, self._name) == start.identity
            self._progress = Progress(definition.limits, now, served=self._kept)
        self._progress.limits = definition.limits
        key = engine.api_key(self._host.etc(self._name) / "environment")
        asked = engine.Engine(definition.url, key)
        healthy = asked.healthy(HEALTH_SECONDS)
        if healthy:
            self._serves(definition, start, now)
        elif not self._kept and turns.started(self._host, self._name) is None:
            turns.note_start(self._host, definition)
        began = turns.started(self._host, self._name)
        told = self._told(asked) if healthy and self._progress.due(now) else NOT_ASKED
        finding = self._progress.see(now, now if began is None else began, healthy, told)
        if finding == "ask":
            finding = self._ask(definition, asked)
        if finding:
            self._mend(definition, supervisor, start, finding, free)
        return healthy

    # -- What the engine shows -------------------------------------------------------------------------------------------------------------

    def _told(self, asked):
        try:
            return engine.counts(asked.metrics(HEALTH_SECONDS))
        except engine.Unanswered:
            return self._progress.told

    def _ask(self, definition, asked):
        """Ask for one token; returns what is wrong, or None."""
        wait = self._progress.answer_seconds
        try:
            status = asked.complete(definition.model, wait)
        except engine.Unanswered as silence:
            return self._progress.silent(self._host.monotonic(), f"no answer within {wait:g} s ({silence})", proof=True)
        if status == 200:
            self._progress.answered(self._host.monotonic())
            return None
        return self._progress.silent(self._host.monotonic(), f"it answered with status {status}", proof=status >= 500)

    def _serves(self, definition, start, now):
        """The instance answers: once for each start, keep what its log says of its memory."""
        if self._kept:
            return
        self._kept = True
        began = turns.started(self._host, self._name)
        turns.over(self._host, self._name)
        try:
            log = start.log(START_LOG_LINES)
            if definition.runtime == "container" and not vllm_log.memory_lines(log):
                # A unit whose client was replaced has its container's first words in another start's journal.
                log = docker.log(definition.container, START_LOG_LINES)
        except Failed as problem:
            self._host.say(self._name, f"its log cannot be kept beside the plan: {problem}", WARNING)
            log = ""
        with self._store.change() as state:
            took = "" if began is None else f" after {int(now - began)} s"
            message = f"serves{took} on {decisions.describe_rung(definition, definition.rung(state))}"
            record(state, self._host, "start", "ready", message)
            if state["status"] == "stopped":
                state["status"] = "running"
        try:
            ledger.append(self._host, definition, state, start.identity, log)
        except OSError as error:
            self._host.say(self._name, f"its start cannot be kept beside the plan: {error}", WARNING)
        self._host.say(self._name, message)

    # -- What is done ----------------------------------------------------------------------------------------------------------------------

    def _mend(self, definition, supervisor, start, reason, free):
        saw = self._progress.why
        if not free:
            self._once(f"{saw}; nothing is done, for a change of the instance is under way", WARNING)
            return
        self._host.say(self._name, f"{saw}; taking evidence", WARNING)
        folder = evidence.capture(self._host, definition, start, reason, saw)
        again = supervisor.running()
        if self._changing(definition) or again is None or again.identity != start.identity:
            self._host.say(self._name, "ended, or is being changed, meanwhile: nothing more is done")
            return
        with self._store.change() as state:
            remedy = decisions.hang_remedy(definition, state, self._host, saw) if reason in ("stall", "hang_at_load") else None
            decided = decisions.failed(definition, state, self._host, reason, saw, folder)
        for words in filter(None, (remedy, decided)):
            self._host.say(self._name, words, ERROR)
        self._identity = self._progress = None
        turns.over(self._host, self._name)
        if state["status"] == "quarantined":
            supervisor.stop()
        else:
            supervisor.restart()

    def _of_systemd(self, supervisor, free):
        start = supervisor.running()
        if start and free and self._store.read()["status"] == "quarantined":
            supervisor.stop()
            return None
        return start

    def _of_docker(self, definition, supervisor, free):
        """The start that is alive, None where none is. Docker tells nobody how a container ended: that is looked up, judged and acted on here."""
        found = docker.inspect(definition.container)
        alive = found is not None and found.running and not found.restarting
        if not free:
            return supervisor.start_of(found) if alive else None
        state = self._store.read()
        if state["status"] == "quarantined":
            if found and (found.running or found.restarting):
                supervisor.stop()
            return None
        if state["status"] == "stopped":
            return self._started_by_hand(supervisor, found) if alive else None
        before = seen.read(self._host, self._name)
        if found is None:
            return self._create(definition, supervisor, "has no container")
        seen.write(self._host, self._name, found)
        if before and found.restarts > (before["restarts"] if before["id"] == found.id else 0):
            return self._ended(definition, supervisor, found, before)
        if alive or found.restarting:
            self._stopped_looks = 0
            return supervisor.start_of(found) if alive else None
        if before is None or found.error or found.status == "created" or found.policy == "no":
            # The first look after a boot, or a start that Docker could not make: see moby 49989 for cards by CDI.
            return self._create(definition, supervisor, f"is not running ({found.error or found.status})")
        return self._stopped_by_hand()

    def _create(self, definition, supervisor, why):
        if self._host.monotonic() < self._not_before:
            return None
        state = self._store.read()
        try:
            if supervisor.create(state):
                self._host.say(self._name, f"{why}: created anew on {decisions.describe_rung(definition, definition.rung(state))}")
        except Failed as problem:
            self._not_before = self._host.monotonic() + AGAIN_SECONDS
            turns.over(self._host, self._name)
            with self._store.change() as state:
                decided = decisions.failed(definition, state, self._host, "crash", f"its container cannot be started: {problem}")
            self._host.say(self._name, decided, ERROR)
        return None

    def _ended(self, definition, supervisor, found, before):
        """Docker has started the container again: judge the end before that."""
        turns.over(self._host, self._name)
        since = before["started_at"] if before["id"] == found.id else None
        alive = found.running and not found.restarting
        try:
            # Docker knows the status of an end only until the next start.
            log = docker.log(definition.container, exits.LOG_LINES, since=since, until=found.started_at if alive else None)
        except Failed as problem:
            self._host.say(self._name, f"its log cannot be read: {problem}", ERROR)
            log = ""
        with self._store.change() as state:
            rung = state["rung"]
            decided = exits.judge(definition, state, self._host, log, None if alive else found.exit_code)
        self._host.say(self._name, decided, ERROR if state["status"] == "quarantined" else WARNING)
        if state["status"] == "quarantined":
            supervisor.stop()
        elif state["rung"] != rung:
            supervisor.restart()
        return None

    def _started_by_hand(self, supervisor, found):
        with self._store.change() as state:
            state["status"] = "running"
        seen.write(self._host, self._name, found)
        self._host.say(self._name, "was started by hand")
        return supervisor.start_of(found)

    def _stopped_by_hand(self):
        """Docker starts again what ends by itself: what stays down was stopped. Looked at twice, for Docker may be about to."""
        self._stopped_looks += 1
        if self._stopped_looks > 1:
            self._stopped_looks = 0
            with self._store.change() as state:
                state["status"] = "stopped"
            self._host.say(self._name, "was stopped by hand, and stays so until it is started by hand")

    # -- Around it -------------------------------------------------------------------------------------------------------------------------

    def _changing(self, definition):
        """Whether the playbook is changing the instance: /run/vllm/NAME.changing holds the process that does."""
        path = self._host.run(self._name + ".changing")
        try:
            pid = int(path.read_text(encoding="ascii"))
            age = self._host.now() - path.stat().st_mtime
        except (OSError, ValueError):
            return False
        return os.path.exists(f"/proc/{pid}") and age < definition.ready_seconds

    def _once(self, text, priority):
        """Say what stays the same from look to look once."""
        if text != self._said:
            self._host.say(self._name, text, priority)
        self._said, self._complained = text, True
