# Copyright: (c) 2026, the gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The cards of a host, by nvidia-smi where it answers and by the PCI bus otherwise."""

from __future__ import annotations

from ansible_collections.gpuhosts.inference.plugins.module_utils import child, nvidia_pci, nvidia_smi


class Smi:
    """nvidia-smi, asked at most as long as it answers. Without the program every answer is None."""

    # state: what became of the questions so far, "answers", "fails" or "hangs"; "missing" without the program.
    def __init__(self, program, timeout, problems):
        self.state = "missing" if program is None else "answers"
        self._program = program
        self._timeout = timeout
        self._problems = problems

    def ask(self, question):
        """What it prints for one of C(nvidia_smi.ARGUMENTS); None, and a problem noted, where it fails or hangs."""
        if self._program is None:
            return None
        try:
            status, stdout, stderr = child.run([self._program] + nvidia_smi.ARGUMENTS[question], self._timeout)
        except child.TimedOut:
            self._note(
                "nvidia-smi gave no answer within {0} s: a card or its driver hangs; look for Xid lines in the kernel log and reboot the host",
                self._timeout,
            )
            self._program, self.state = None, "hangs"
            return None
        except OSError as error:
            self._note("nvidia-smi cannot be started: {0}", error)
            self._program, self.state = None, "fails"
            return None
        if status:
            self._note("nvidia-smi failed with status {0}: {1}", status, nvidia_smi.diagnose(stdout + "\n" + stderr))
            self.state = "fails"
        return stdout

    def _note(self, text, *values):
        sentence = text.format(*values)
        if sentence not in self._problems:
            self._problems.append(sentence)


def read_gpus(smi, root, problems):
    """Cards by nvidia-smi where it answers, by the PCI bus otherwise.

    Returns (source, cards, bus ids of cards that only the bus has, driver version as nvidia-smi says it).
    """
    on_bus = nvidia_pci.read_cards(root)
    cards, others = nvidia_smi.parse_query(smi.ask("query") or "")
    versions = [card.pop("driver_version") for card in cards]
    lost = []
    if not cards:
        source, cards = "sysfs", on_bus
    else:
        source = "nvidia-smi"
        problems.extend(f"nvidia-smi says: {nvidia_smi.diagnose(line)}" for line in others)
        reported = [card["pci_bus_id"] for card in cards]
        lost = [card["pci_bus_id"] for card in on_bus if card["pci_bus_id"] not in reported]
        problems.extend(f"the card at {bus_id} is on the PCI bus but nvidia-smi does not report it" for bus_id in lost)
    for card in cards:
        card["numa_node"] = nvidia_pci.numa_node(card["pci_bus_id"], root)
    return source, cards, lost, versions[0] if versions else None
