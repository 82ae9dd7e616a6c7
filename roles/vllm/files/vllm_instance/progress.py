# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether an engine gets on. Times are seconds of a clock that only goes forward; nothing here asks or acts.

/health alone does not tell: it can answer 200 while no token comes any more. What counts are requests in the engine and tokens counted. The engine's
own numbers stand still while it hangs, at zero requests if it hung on its first one, and are not there at all with --disable-log-stats. So whatever
stood still for long is asked for one token, and only who does not give it is taken for hanging.
"""

from __future__ import annotations

# Without a sign of life for so many times stall_seconds an engine is asked, requests or not.
SILENCE = 2
# So many times within stall_seconds the engine's numbers are asked for: each question is a line in its log.
SAMPLES = 6
# How long one token may take where the engine tells that nothing is queued before it, or that nothing moves.
ANSWER_SECONDS = 30
# An engine that tells nothing may have a queue: one answer that does not come is not enough.
TRIES = 2
NOT_ASKED = object()


class Progress:
    """What one start of an engine has shown so far.

    limits: of the definition, and may change; one that is 0 is not watched. served: whether this start is known to have served already.
    why: what the last finding saw, a sentence.
    """

    def __init__(self, limits, now, served=False):
        self.limits = limits
        self._served = served
        self._answered = self._moved = now
        self.told = None
        self._tries = 0
        self._sampled = None
        self.why = ""

    def due(self, now):
        """Whether it is time to ask the engine for its numbers again."""
        return self._sampled is None or now - self._sampled >= self.limits["stall_seconds"] / SAMPLES

    def see(self, now, started, healthy, told):
        """One look. Returns None, `ask` (for a token, see answered and silent), or what is wrong: `unanswered`, `hang_at_load`.

        started: when this start began. told: (requests in the engine, tokens so far), None where the engine does not tell, NOT_ASKED.
        """
        if not healthy:
            return self._unhealthy(now, started)
        if not self._served:
            self._served, self._moved = True, now
        self._answered = now
        if told is NOT_ASKED:
            return None
        self._sampled = now
        if told is not None and (self.told is None or told[1] != self.told[1]):
            self._moved, self._tries = now, 0
        elif told is not None and told[0] and self.told and not self.told[0]:
            # Its first request after a rest: the time without a token begins here.
            self._moved = now
        self.told = told
        still = now - self._moved
        if not self.limits["stall_seconds"]:
            return None
        if self._stalled() and still >= self.limits["stall_seconds"]:
            return "ask"
        return "ask" if still >= SILENCE * self.limits["stall_seconds"] else None

    @property
    def answer_seconds(self):
        """How long the engine may take for the token it is asked for."""
        stall = self.limits["stall_seconds"]
        return stall if self.told is None else min(ANSWER_SECONDS, stall)

    def answered(self, now):
        """The token came."""
        self._moved, self._tries = now, 0

    def silent(self, now, reason, proof):
        """The token did not come. Returns `stall` or None. proof: whether that says anything; a refusal for want of a key does not."""
        self._tries += 1
        still = int(now - self._moved)
        if self._stalled():
            self.why = f"requests are in the engine and no token came for {still} s; one more was asked for: {reason}"
            return "stall"
        if proof and self._tries >= TRIES:
            self.why = f"no token came for {still} s, and {self._tries} that were asked for did not either: {reason}"
            return "stall"
        if not proof:
            self._moved = now
        return None

    def _stalled(self):
        return self.told is not None and self.told[0] > 0

    def _unhealthy(self, now, started):
        if self._served:
            if self.limits["unanswered_seconds"] and now - self._answered >= self.limits["unanswered_seconds"]:
                self.why = f"/health gave no answer for {int(now - self._answered)} s while the engine's process lived"
                return "unanswered"
        elif self.limits["ready_seconds"] and now - started >= self.limits["ready_seconds"]:
            self.why = f"the engine did not become ready within {int(now - started)} s while its process lived"
            return "hang_at_load"
        return None
