# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a host's state means: probable causes with their remedies, most likely first. Pure functions on plain data."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator

GIB = 1024**3
HOST = "host"

# States of an instance in which nobody has to do anything.
WELL = ("serves", "starts")

# A start that stands where NCCL connects the cards is no hang before this many seconds.
HANG_SECONDS = 120
# Seconds for which a start is not called slow where the definition has no limit.
READY_SECONDS = 1800
# A restart that has to be told.
MANY_RESTARTS = 3

# Free room below which nothing can be written, and below which somebody should know.
NO_ROOM, LITTLE_ROOM = GIB, 10 * GIB
# Share of the host's memory that should be available.
LITTLE_MEMORY = 0.04
HOT_CELSIUS = 90
FULL_CACHE = 0.95
SMALL_CACHE = 0.9

# What the driver's reports mean (NVIDIA, "XID Errors"), and whether the card is broken rather than a program.
XIDS = {
    13: ("a program did something invalid on the card", False),
    31: ("a program used memory that is not its own", False),
    32: ("the card received a broken command stream, often over a bad PCIe link", True),
    38: ("the driver's firmware failed", True),
    43: ("a program was stopped on the card", False),
    45: ("work was removed after another error", False),
    48: ("an uncorrectable memory error", True),
    61: ("the card's own controller stopped", True),
    62: ("the card's own controller stopped", True),
    63: ("a memory row was replaced", False),
    64: ("a memory row could not be replaced", True),
    69: ("a program did something invalid on the card", False),
    74: ("an NVLink error: look at the bridge", True),
    79: ("the card has fallen off the bus: look at its power, its riser and its temperature", True),
    94: ("a contained memory error", True),
    95: ("an uncontained memory error", True),
    119: ("the card's firmware (GSP) gave no answer", True),
    120: ("the card's firmware (GSP) failed", True),
}
REBOOT = "Reboot the host; if it comes back, take the card out of gpus and have a look at it."


@dataclasses.dataclass(frozen=True)
class Finding:
    """A probable cause, or something worth knowing. weight: how likely it explains what is wrong, 0 to 100; below WARNING it explains nothing."""

    subject: str
    code: str
    message: str
    remedy: str
    weight: int
    line: str = ""


WARNING = 40


@dataclasses.dataclass(frozen=True)
class Report:
    """findings: the most likely first. states: instance -> (word, sentence). wrong: names of the instances that need somebody."""

    findings: list[Finding]
    states: dict[str, tuple[str, str]]
    wrong: list[str]


def judge(gathered: dict, wanted: dict | None = None) -> Report:
    """Judge what the module vllm_diagnosis gathered.

    wanted, all keys optional: name (of the host), instances (names that should be there), cards (how many should be there).
    """
    wanted = wanted or {}
    instances = gathered.get("instances") or {}
    states = {name: state(found, name in (wanted.get("instances") or [])) for name, found in instances.items()}
    wrong = [name for name, (word, dummy) in states.items() if word not in WELL]
    findings = [*host(gathered, wanted, bool(instances))]
    for name, found in instances.items():
        findings += instance(name, found, states[name][0], gathered)
    findings.sort(key=lambda finding: -finding.weight)
    return Report(findings, states, wrong)


# -- The host ------------------------------------------------------------------------------------------------------------------------------


def host(gathered: dict, wanted: dict, serves: bool) -> Iterator[Finding]:
    """What is wrong with the host itself. serves: whether it has instances."""
    yield from driver(gathered)
    yield from cards(gathered, wanted, serves)
    yield from xids(gathered)
    yield from docker(gathered)
    yield from memory(gathered)
    yield from disks(gathered)
    if gathered.get("watchdog") not in (None, "active"):
        yield _finding(HOST, "watchdog_stopped", f"the watchdog is {gathered['watchdog']}: nobody notices a hang", "Start vllm-watchdog.service.", 25)
    for problem in gathered.get("problems") or []:
        if "nvidia-smi" not in problem and "Docker" not in problem:
            yield _finding(HOST, "unread", problem, "What it would have told is missing here.", 10)


def driver(gathered: dict) -> Iterator[Finding]:
    """The driver is not loaded, of two versions, or waits for a reboot."""
    found, card = gathered.get("driver") or {}, gathered.get("cards") or {}
    said = " ".join(problem for problem in gathered.get("problems") or [] if "nvidia-smi" in problem)
    if "mismatch" in said.lower():
        yield _finding(
            HOST,
            "driver_mismatch",
            "the NVIDIA driver's libraries were replaced under the loaded module",
            "Reboot the host, or run playbooks/host.yml with nvidia_driver_reboot: true; it also puts the packages on hold.",
            96,
            said,
        )
    elif card.get("gpus") and not found.get("running"):
        why, remedy = _not_loaded(found)
        yield _finding(HOST, "driver_not_loaded", f"{len(card['gpus'])} cards are there, and no NVIDIA module is loaded: {why}", remedy, 96)
    for reason in found.get("reboot_reasons") or []:
        yield _finding(HOST, "reboot_wanted", f"the host waits for a reboot: {reason}", "Reboot it when it may stop serving.", 20)
    running, described = found.get("running"), found.get("cdi_version")
    if running and described and running != described:
        message = f"containers are given the files of driver {described}, and {running} runs"
        yield _finding(HOST, "stale_cdi", message, "Run playbooks/host.yml: it describes the cards to Docker anew. No container starts before that.", 88)


def _not_loaded(found: dict) -> tuple[str, str]:
    if found.get("nouveau_loaded"):
        return "nouveau has the cards", "Run playbooks/host.yml, which keeps nouveau off, and reboot."
    if found.get("module_installed") is False:
        return "none is installed for the running kernel", "Run playbooks/host.yml, or boot the kernel that the module was built for."
    if found.get("secure_boot"):
        return (
            "secure boot is on, and a module that is not signed is refused",
            "Enrol the signing key (nvidia_driver_secure_boot_key), or switch secure boot off.",
        )
    return "`modprobe nvidia` and the kernel log say why", "Run playbooks/host.yml; on a bare host that is what installs the driver."


def cards(gathered: dict, wanted: dict, serves: bool) -> Iterator[Finding]:
    """Cards that hang, are gone, or are hot."""
    found = gathered.get("cards") or {}
    number, gone = len(found.get("gpus") or []), found.get("lost") or []
    said = [problem for problem in gathered.get("problems") or [] if "nvidia-smi" in problem]
    if found.get("state") == "hangs":
        yield _finding(HOST, "nvidia_smi_hangs", "nvidia-smi gives no answer: a card or its driver hangs", REBOOT, 94, " ".join(said))
    elif found.get("state") == "fails" and "mismatch" not in " ".join(said).lower() and (gathered.get("driver") or {}).get("running"):
        yield _finding(HOST, "nvidia_smi_fails", said[0] if said else "nvidia-smi fails", "Do what it says; otherwise reboot the host.", 90)
    if gone:
        message = f"the card at {', '.join(gone)} is on the PCI bus, and the driver does not drive it"
        yield _finding(HOST, "lost_card", message, REBOOT, 93)
    elif wanted.get("cards") and number < wanted["cards"]:
        remedy = "A card that is not even on the bus has no power or is not seated: look at it, then reboot."
        yield _finding(HOST, "missing_card", f"{number} of {wanted['cards']} cards are there", remedy, 92)
    elif serves and not number:
        remedy = "Look at `lspci`, at the cards' seat and at their power."
        yield _finding(HOST, "no_card", "no NVIDIA card is on the PCI bus", remedy, 92)
    for card in found.get("gpus") or []:
        if (card.get("temperature_celsius") or 0) >= HOT_CELSIUS:
            message = f"card {card['index']} is at {card['temperature_celsius']} °C and slows itself down"
            yield _finding(HOST, "hot_card", message, "Look at its fan and at the air; gpu_tuning_power_limit_watts takes heat away.", 30)


def xids(gathered: dict) -> Iterator[Finding]:
    """The driver's reports since boot, one finding for each kind and card."""
    seen = collections.Counter((report["code"], report["pci_bus_id"]) for report in gathered.get("xids") or [])
    indices = {card.get("pci_bus_id"): card.get("index") for card in (gathered.get("cards") or {}).get("gpus") or []}
    for (code, bus_id), count in sorted(seen.items()):
        meaning, hardware = XIDS.get(code, ("see NVIDIA's list of Xid errors", False))
        number = indices.get(bus_id)
        where = bus_id if number is None else f"{bus_id} (card {number})"
        remedy = REBOOT if hardware else "Look whether it comes with certain requests: then another engine_version or model is the way."
        times = f", {count} times" if count > 1 else ""
        yield _finding(HOST, f"xid_{code}", f"Xid {code} at {where} since boot{times}: {meaning}", remedy, 91 if hardware else 50)


def docker(gathered: dict) -> Iterator[Finding]:
    """Docker does not answer although containers are to run."""
    found = gathered.get("docker") or {}
    needed = [name for name, one in (gathered.get("instances") or {}).items() if (one.get("definition") or {}).get("runtime") != "native"]
    if found.get("version") or not needed:
        return
    why = found.get("problem") or "there is no Docker Engine on this host"
    remedy = "`systemctl status docker` and `journalctl --unit docker` say why; playbooks/host.yml installs and starts it."
    yield _finding(HOST, "docker_down", why, remedy, 97)


def memory(gathered: dict) -> Iterator[Finding]:
    """The host's own memory."""
    killed = gathered.get("killed") or []
    if killed:
        latest = killed[-1]
        engine = any(word in latest["program"].lower() for word in ("python", "vllm", "pt_main", "ray"))
        message = f"the kernel killed {latest['program']} (process {latest['pid']}) because the host's memory was full"
        remedy = "Lower options.swap_space or cpu_offload_gb (swap_space counts for each card), or stop what else fills the memory."
        yield _finding(HOST, "host_memory", message, remedy, 86 if engine else 45)
    found = gathered.get("memory") or {}
    total, available = found.get("total_bytes"), found.get("available_bytes")
    if total and available is not None and available < LITTLE_MEMORY * total:
        message = f"{available / GIB:.1f} of {total / GIB:.1f} GiB of memory are available"
        yield _finding(HOST, "little_memory", message, "Stop what fills it, or lower options.swap_space and cpu_offload_gb.", 35)


def disks(gathered: dict) -> Iterator[Finding]:
    """File systems without room, each once."""
    seen = set()
    for path, found in (gathered.get("file_systems") or {}).items():
        if not found or found["mount_point"] in seen:
            continue
        seen.add(found["mount_point"])
        free, total = found["free_bytes"], found["total_bytes"]
        shared = path == "/dev/shm"
        remedy = (
            "Remove what lies there: engines that were killed leave segments behind." if shared else "Remove images that nothing uses (`docker image prune`)."
        )
        if free < min(NO_ROOM, total / 2) or found["free_inodes"] == 0:
            what = "has no free inodes" if found["free_inodes"] == 0 else f"has {free / GIB:.1f} GiB left"
            yield _finding(HOST, "no_disk", f"{found['mount_point']} ({path}) {what}", remedy, 87)
        elif not shared and free < min(LITTLE_ROOM, total / 10):
            yield _finding(HOST, "little_disk", f"{found['mount_point']} ({path}) has {free / GIB:.1f} GiB left", remedy, 30)


# -- Instances -----------------------------------------------------------------------------------------------------------------------------


def state(found: dict, wanted: bool = True) -> tuple[str, str]:
    """(word, sentence) for how an instance is."""
    process, health = found.get("process") or {}, found.get("health") or {}
    quarantine = (found.get("state") or {}).get("quarantine")
    name = f"the {process['kind']} {process['name']}" if process else "its process"
    if quarantine:
        return "quarantined", f"the watchdog has given it up: {quarantine.get('message') or quarantine.get('reason')}"
    there = found.get("definition") or found.get("definition_error") or _known(process)
    if not there:
        return "absent", "it is not on this host" if wanted else "nothing of it is left but a name"
    if process.get("trouble"):
        word = "failed" if "failed" in process["trouble"] or "ended" in process["trouble"] else "stopped"
        return word, f"{name} {process['trouble']}"
    if health.get("status") == 200:
        seconds = found.get("stalled_seconds") or 0
        if seconds:
            running = int(found["metrics"].get("running") or 0)
            return "stalls", f"/health answers, and no token came in {seconds} s while {running} request{'s' if running != 1 else ''} ran"
        return "serves", _load(found)
    if (process.get("state") or {}).get("SubState") == "auto-restart" or (process.get("state") or {}).get("Status") == "restarting":
        return "restarts", f"{name} has ended and is about to be started again"
    return _not_healthy(found, process, health)


def _known(process: dict) -> bool:
    properties = process.get("state") or {}
    return properties.get("LoadState") == "loaded" or properties.get("Found") is True


def _not_healthy(found: dict, process: dict, health: dict) -> tuple[str, str]:
    seconds, progress = process.get("running_seconds"), found.get("progress") or {}
    answer = f"/health answers {health['status']}" if health.get("status") else f"nothing answers ({health.get('error') or 'no address is known'})"
    if not process:
        return "unknown", f"{answer}, and its process cannot be seen"
    if progress.get("phase") == "serving":
        return "unanswered", f"its log says that it serves, and {answer}"
    limit = ((found.get("definition") or {}).get("limits") or {}).get("ready_seconds") or READY_SECONDS
    hangs = seconds is not None and seconds >= HANG_SECONDS and any(cause["code"] == "nccl_hang" for cause in found.get("causes") or [])
    so_far = ", ".join(filter(None, (progress.get("phase"), progress.get("detail")))) or "starting"
    since = "" if seconds is None else f" for {seconds} s"
    if hangs or (seconds is not None and seconds > limit):
        return "hangs", f"it has been at {so_far}{since}"
    if process.get("restarts", 0) > MANY_RESTARTS and found.get("causes"):
        return "restarts", f"it starts again and again ({process['restarts']} restarts)"
    return "starts", f"{so_far}{since}, of at most {limit} s"


def instance(name: str, found: dict, word: str, gathered: dict) -> Iterator[Finding]:
    """Why an instance does not serve, and what is worth knowing of one that does."""
    process = found.get("process") or {}
    if word == "absent":
        yield _finding(name, "not_deployed", "it is in the inventory and not on this host", "Run site.yml for this host.", 60)
        return
    if found.get("definition_error"):
        yield _finding(name, "broken_definition", found["definition_error"], "Run site.yml for this host: it writes the definition anew.", 90)
    if word not in WELL:
        yield from _why(name, found, word, gathered)
    yield from _noted(name, found, process, word)


def _why(name: str, found: dict, word: str, gathered: dict) -> Iterator[Finding]:
    process, explained = found.get("process") or {}, False
    quarantine = (found.get("state") or {}).get("quarantine")
    if quarantine:
        evidence = quarantine.get("evidence")
        see = f"Look at {evidence}; " if evidence else ""
        message = f"it is quarantined since {quarantine.get('time')} ({quarantine.get('reason')}): {quarantine.get('message')}"
        yield _finding(name, "quarantined", message, f"{see}`vllm-instance release {name}` on the host lets it start again.", 79)
        explained = True
    missing = [index for index in (found.get("definition") or {}).get("gpus") or [] if index >= len((gathered.get("cards") or {}).get("gpus") or [])]
    if missing and (gathered.get("cards") or {}).get("source") == "nvidia-smi":
        there = len(gathered["cards"]["gpus"])
        message = f"it is to use card {', '.join(map(str, missing))}, and the driver has {there} card{'s' if there != 1 else ''}"
        yield _finding(name, "too_few_cards", message, "See what is said of the host's cards; otherwise correct the instance's gpus.", 90)
        explained = True
    listener = found.get("listener") or {}
    if listener and process.get("trouble") and not _own(listener, process):
        who = listener.get("program") or "a program that cannot be seen"
        of = f", process {listener['pid']}" if listener.get("pid") else ""
        unit = f", {listener['unit']}" if listener.get("unit") else ""
        message = f"port {str(found.get('url')).rpartition(':')[2]} is taken by {who}{of}{unit}"
        yield _finding(name, "port_taken", message, "Give the instance another port, or stop that program.", 89)
        explained = True
    for place, cause in enumerate(found.get("causes") or []):
        if cause["code"] == "port_taken" and explained and listener:
            continue
        message, weight = cause["message"], (45 if cause["code"] == "unknown" else 84) - place
        if cause["code"] == "card_in_use":
            message += _holders(gathered)
        yield _finding(name, cause["code"], message, cause["remedy"], weight, cause["line"])
        explained = True
    if word == "stalls" and not any(cause["code"] == "nccl_hang" for cause in found.get("causes") or []):
        seconds = found["stalled_seconds"]
        message = f"the engine hangs: no token in {seconds} s while requests run, although /health answers. A very long prompt looks the same for a while"
        remedy = "Restart the instance, which the watchdog also does; if it comes back, set options.disable_custom_all_reduce."
        yield _finding(name, "hang", message, remedy, 80)
        explained = True
    if word == "unanswered" and not explained:
        remedy = f"Look whether `ss --listening --tcp` has the port, and at vllm_listen_address; otherwise restart {process.get('name')}."
        yield _finding(name, "unanswered", f"the engine runs and does not answer at {found.get('url')}", remedy, 70)
        explained = True
    if word == "hangs" and not explained:
        remedy = "See the last lines of its log. A large model on a slow disk may need more time; a card that hangs is told by the host's findings."
        yield _finding(name, "slow_start", "its start takes longer than it may", remedy, 60)
        explained = True
    if not explained:
        remedy = f"Start {process.get('name') or name}; if it ends again, its log says why." if word == "stopped" else "Read the last lines of its log, below."
        yield _finding(name, "not_serving", "its log names no cause", remedy, 50)


def _noted(name: str, found: dict, process: dict, word: str) -> Iterator[Finding]:
    kept, definition = found.get("state") or {}, found.get("definition") or {}
    rungs, metrics = definition.get("rungs") or [], found.get("metrics") or {}
    rung = kept.get("rung") or 0
    if rung:
        reason = rungs[rung].get("reason") if rung < len(rungs) else None
        message = f"it runs on step {rung} of its ladder, not as planned" + (f": {reason}" if reason else "")
        yield _finding(name, "stepped_down", message, f"`vllm-instance reset {name}` goes back to the plan; plan for less if it steps down again.", 28)
    if kept.get("hang_remedy"):
        yield _finding(name, "hang_remedy", "it runs with the remedy against NCCL hangs", "Put options.disable_custom_all_reduce into the inventory.", 24)
    latest = ((found.get("generations") or {}).get("latest") or [{}])[-1]
    if latest.get("status") == "failed":
        message = f"generation {latest.get('number')} failed and was taken back: {latest.get('why') or 'no reason was kept'}"
        yield _finding(name, "failed_generation", message, "Correct that in the inventory before the next run.", 26)
    if word in WELL and (process.get("restarts") or 0) >= MANY_RESTARTS:
        message = f"it has been restarted {process['restarts']} times"
        cause = (found.get("causes") or [{}])[0]
        yield _finding(name, "restarts", message + (f", last because {cause['message']}" if cause else ""), cause.get("remedy") or "Read its log.", 29)
    if word == "serves" and (metrics.get("kv_usage") or 0) >= FULL_CACHE and metrics.get("waiting"):
        message = f"the KV cache is full, and {metrics['waiting']:.0f} requests wait"
        yield _finding(name, "kv_full", message, "More cards, a second instance, or a shorter options.max_model_len give more room.", 27)
    expected, tokens = (definition.get("expected") or {}).get("kv_tokens"), found.get("kv_tokens")
    if expected and tokens and not rung and tokens < SMALL_CACHE * expected:
        message = f"its KV cache holds {tokens} tokens, {1 - tokens / expected:.0%} less than planned"
        yield _finding(name, "kv_short", message, "Look for another process on its cards, and let playbooks/ledger.yml correct the next plan.", 23)


def _own(listener: dict, process: dict) -> bool:
    return bool(listener.get("unit")) and listener["unit"] == process.get("name")


def _holders(gathered: dict) -> str:
    held = [one for one in (gathered.get("cards") or {}).get("processes") or [] if one.get("memory_bytes")]
    return "".join(f"; process {one['pid']} ({one['program']}) holds {one['memory_bytes'] / GIB:.1f} GiB at {one['pci_bus_id']}" for one in held)


def _load(found: dict) -> str:
    metrics = found.get("metrics") or {}
    parts = [f"{metrics[key]:.0f} {key}" for key in ("running", "waiting") if key in metrics]
    if "kv_usage" in metrics:
        parts.append(f"{metrics['kv_usage']:.0%} of the KV cache in use")
    if found.get("kv_tokens"):
        parts.append(f"{found['kv_tokens']} tokens fit into it" if "kv_usage" in metrics else f"{found['kv_tokens']} tokens fit into its KV cache")
    return ", ".join(parts) or "/health answers"


def _finding(subject: str, code: str, message: str, remedy: str, weight: int, line: str = "") -> Finding:
    return Finding(subject, code, message.rstrip("."), remedy, weight, line)


# -- For the screen ------------------------------------------------------------------------------------------------------------------------


def text(report: Report, gathered: dict, name: str = "") -> str:
    """The report for a terminal."""
    likely = [finding for finding in report.findings if finding.weight >= WARNING]
    known = [finding for finding in report.findings if finding.weight < WARNING]
    number, wrong = len(report.states), len(report.wrong)
    of = f"{number} instance{'s' if number != 1 else ''}"
    if not number:
        head = "no instance is on this host"
    elif wrong:
        head = f"{wrong} of {of} {'does' if wrong == 1 else 'do'} not serve"
    else:
        head = f"{of}, nothing wrong" if not likely else f"{of}, and trouble with the host"
    lines = [f"{name}: {head}." if name else f"{head}."]
    lines += ["", *(f"{instance} {word}: {sentence}" for instance, (word, sentence) in report.states.items())] if number else []
    if likely:
        lines += ["", "Probable causes, the most likely first:" if wrong else "What may stop them, the most likely first:"]
        for place, finding in enumerate(likely, 1):
            lines += [f"{place}. {finding.subject}: {finding.message}.", f"   {finding.remedy}"]
            lines += [f"   Seen: {finding.line}"] if finding.line else []
    if known:
        lines += ["", "Worth knowing:", *(f"- {finding.subject}: {finding.message}. {finding.remedy}" for finding in known)]
    lines += ["", *_summary(gathered)]
    for instance in report.wrong:
        found = gathered["instances"][instance]
        lines += ["", f"{instance}, last lines of its log:", *(f"   {line}" for line in found["log"][-10:])] if found.get("log") else []
        lines += [f"{instance}, evidence: {path}" for path in (found.get("evidence") or [])[-1:]]
    return "\n".join(lines)


def _summary(gathered: dict) -> Iterator[str]:
    cards_, driver_ = gathered.get("cards") or {}, gathered.get("driver") or {}
    kinds = collections.Counter(card.get("name") or card.get("pci_device_id") or "card" for card in cards_.get("gpus") or [])
    named = ", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or "none"
    yield f"Cards: {named}; driver {driver_.get('running') or 'not loaded'}; nvidia-smi {cards_.get('state')}"
    for card in cards_.get("gpus") or []:
        parts = [
            f"{card[key]} {unit}"
            for key, unit in (("temperature_celsius", "°C"), ("power_watts", "W"), ("utilization_percent", "%"))
            if card.get(key) is not None
        ]
        if card.get("memory_used_bytes") is not None and card.get("memory_total_bytes"):
            parts.insert(0, f"{card['memory_used_bytes'] / GIB:.1f} of {card['memory_total_bytes'] / GIB:.1f} GiB")
        if parts:
            yield f"   {card.get('index')}  {', '.join(parts)}"
    found = gathered.get("memory") or {}
    if found.get("total_bytes"):
        yield f"Memory: {(found.get('available_bytes') or 0) / GIB:.1f} of {found['total_bytes'] / GIB:.1f} GiB available"
    places = {one["mount_point"]: one for one in (gathered.get("file_systems") or {}).values() if one}
    if places:
        yield "Disks: " + ", ".join(f"{point} {one['free_bytes'] / GIB:.1f} of {one['total_bytes'] / GIB:.1f} GiB free" for point, one in places.items())
    version = (gathered.get("docker") or {}).get("version")
    watchdog = gathered.get("watchdog") or "not installed"
    yield f"Docker: {version or 'no answer'}; watchdog {watchdog}"
