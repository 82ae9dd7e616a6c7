# Copyright: (c) 2026, The gpuhosts.inference authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands in the way of a host, judged before anything is changed. Pure functions on plain data."""

from __future__ import annotations

import collections
import dataclasses
import difflib
import fnmatch
import re
from collections.abc import Iterator

from ..module_utils import model_hub
from .planner import instance as contract
from .planner.problem import Problem
from .planner.render import host_plan

GIB = 1024**3

SUPPORTED = {"debian": ("12", "13"), "ubuntu": ("22.04", "24.04")}
ARCHITECTURE = "amd64"

# Variables of the whole collection, which belong to no role.
SHARED = ("gpuhosts_hardware", "gpuhosts_ledger", "gpuhosts_models")
# The lab is not configured by operators, and its inventory has variables that are no role's.
NO_PREFIX = ("lab",)

# A host has less RAM than its modules: firmware and kernel keep some.
RAM_SHARE = 0.93

# Packages that are a driver. NVIDIA's own repository has revisions such as -1 and -0ubuntu1; the archives of Debian and Ubuntu add a release.
DRIVER_PACKAGE = re.compile(r"(nvidia-(driver|headless|dkms|kernel-(open-)?dkms)(-.*)?|libcuda1|libnvidia-compute(-.*)?)")
ARCHIVE_REVISION = re.compile(r"~deb\d+u\d+|-\d+ubuntu\d+[.~]")

# Hosts whose images are asked for without a registry's name, and where Docker asks for them.
DOCKER_HUB = "https://registry-1.docker.io"

# The repositories of NVIDIA that the roles add, by a part of their address that mirrors keep too.
NVIDIA_REPOSITORY = re.compile(r"/cuda/repos/|/libnvidia-container/")


@dataclasses.dataclass(frozen=True)
class Report:
    """What was found about one host. problems stop the run, warnings do not; plan is what host_plan returns, or None where none could be made."""

    problems: list[Problem]
    warnings: list[Problem]
    plan: dict | None


def judge(facts: dict | None, wanted: dict) -> Report:
    """Judge a host.

    facts: what gpu_facts returns under gpuhosts; None when the host gave no answer. wanted, all keys optional:

        silence            why there are no facts
        name               the host's name in the inventory
        instances          vllm_instances, whatever their form
        hardware, ledger   gpuhosts_hardware and gpuhosts_ledger
        members            what ray_members returns for the hosts that instances share
        configs            gpuhosts_models: hub id -> config.json
        models             what model_facts returns under gpuhosts_models
        images             engine version -> image
        variables          names of the host's variables in the inventory
        roles              role -> names of its variables
        ignored            names that are not judged
        removed            name -> {release, instead}
        replaced_sources   globs of apt's files that the roles replace themselves
        secure_boot        whether secure boot may be on
        image_gib, model_gib, memory_gib   room that an image and a model need on disk, and RAM that the host needs
        answers            what reachability_info returns for the addresses of `sources`
    """
    instances = [] if wanted.get("instances") is None else wanted["instances"]
    hardware = wanted.get("hardware") or None
    known = _cards(facts) or _cards(hardware)
    problems = list(variables(wanted))
    wrong = contract.problems(instances, len(known) if known else None) + list(images(instances, wanted))
    problems += wrong + list(revisions(instances))
    warnings, plan = [], None
    if facts is not None:
        problems += [*system(facts, wanted), *cards(facts, hardware, bool(instances)), *driver(facts, wanted), *memory(facts, hardware, wanted)]
        problems += [*unreachable(facts, wanted), *models(wanted)]
        warnings += [*archive_driver(facts), *notes(facts)]
    if not wrong:
        plan = planned(facts, instances, wanted)
        refusals, more = read_plan(plan, instances, facts, wanted)
        problems += refusals
        warnings += more
    if facts is not None:
        problems += disk(facts, plan, instances, wanted)
    else:
        problems.insert(0, silent(wanted))
    return Report(problems, warnings, plan)


# -- The inventory -------------------------------------------------------------------------------------------------------------------------


def variables(wanted: dict) -> Iterator[Problem]:
    """Names that begin like a role's variables and are none, and names that a release has removed."""
    roles = {role: names for role, names in (wanted.get("roles") or {}).items() if role not in NO_PREFIX}
    removed = wanted.get("removed") or {}
    known = sorted({*SHARED, *(name for names in roles.values() for name in names)})
    for name in sorted(wanted.get("variables") or []):
        if name in removed:
            instead = removed[name].get("instead")
            remedy = f"Use {instead} instead." if instead else "Remove it."
            yield Problem("removed_variable", f"{name} was removed in release {removed[name]['release']}.", remedy)
        elif name not in known and name not in (wanted.get("ignored") or []):
            owners = [role for role in roles if name.startswith(f"{role}_")]
            if owners or name.startswith("gpuhosts_"):
                owner = f"the role {max(owners, key=len)}" if owners else "the collection"
                near = difflib.get_close_matches(name, known, n=1)
                meant = f"Write {near[0]} if that is meant, otherwise remove it" if near else "Remove it"
                remedy = f"{meant}, or name it in preflight_ignored_variables."
                yield Problem("unknown_variable", f"{name} is not a variable of {owner}.", remedy)


def images(instances, wanted: dict) -> Iterator[Problem]:
    """Engine versions without an image."""
    images_by_version = wanted.get("images") or {}
    for version in sorted({version for dummy, version in _versions(instances)}):
        if images_by_version and version not in images_by_version:
            names = ", ".join(sorted(map(str, images_by_version)))
            yield Problem("no_image", f"vllm_images has no image for the engine version {version}.", f"Add one, or use one of {names}.")


def revisions(instances) -> Iterator[Problem]:
    """Models that are asked for at two revisions: a host keeps one of each."""
    asked = collections.defaultdict(set)
    for given in instances if isinstance(instances, list) else []:
        if isinstance(given, dict) and isinstance(given.get("model"), str):
            asked[given["model"]].add(str(given.get("revision") or "main"))
    for model, found in sorted(asked.items()):
        if len(found) > 1:
            message = f"{model} is asked for at the revisions {' and '.join(sorted(found))}."
            yield Problem("two_revisions", message, "A host keeps one revision of a model: use one for all its instances.")


def silent(wanted: dict) -> Problem:
    """The host that gave no answer."""
    name = wanted.get("name", "")
    message = f"it is in the inventory and does not answer ({wanted.get('silence') or 'no reason given'})."
    return Problem("host_silent", message, f"Start it, or leave it out with --limit 'all:!{name}'.")


# -- The host ------------------------------------------------------------------------------------------------------------------------------


def system(facts: dict, wanted: dict) -> Iterator[Problem]:
    """Operating system, secure boot, and Docker's configuration file."""
    release = facts.get("os") or {}
    if release and (release.get("version_id") not in SUPPORTED.get(release.get("id"), ()) or release.get("architecture") != ARCHITECTURE):
        message = "The operating system is {id} {version_id} ({architecture}), which is not supported.".format(**release)
        yield Problem("os_unsupported", message, f"Install Debian 12 or 13, or Ubuntu 22.04 or 24.04, for {ARCHITECTURE}.")
    if facts.get("secure_boot") and not facts.get("driver_version") and not wanted.get("secure_boot"):
        message = "Secure boot is on, and the kernel will not load a driver module whose key it does not know."
        remedy = (
            "Switch secure boot off in the firmware; or enroll the key that DKMS signs with (mokutil --import /var/lib/dkms/mok.pub, confirmed at the "
            "console of the next boot) and set preflight_secure_boot to true."
        )
        yield Problem("secure_boot", message, remedy)
    error = (facts.get("docker") or {}).get("daemon_config_error")
    if error:
        yield Problem("daemon_config", f"{error}.", "Correct or remove the file: Docker Engine does not start with it, and its keys cannot be kept.")


def cards(facts: dict, hardware, needed: bool) -> Iterator[Problem]:
    """Cards against the inventory's, and cards that the driver has lost."""
    found, expected = _cards(facts), _cards(hardware)
    where = "nvidia-smi reports" if facts.get("gpu_source") == "nvidia-smi" else "the PCI bus has"
    if expected and len(expected) != len(found):
        remedy = "Look at the seating, power and risers of the others, and at the kernel log; or correct gpuhosts_hardware."
        ids = ", ".join(str(card.get("pci_bus_id")) for card in found)
        yield Problem("card_count", f"gpuhosts_hardware has {len(expected)} cards, and {where} {len(found)}{f' ({ids})' if ids else ''}.", remedy)
    elif not found and needed:
        yield Problem("no_cards", "There is no NVIDIA card on the PCI bus.", "Look at its seating and power, or take the host out of the inventory.")
    if expected and len(expected) == len(found):
        kinds = [_capabilities(expected), _capabilities(found)]
        if None not in kinds[0] + kinds[1] and kinds[0] != kinds[1]:
            message = f"gpuhosts_hardware has cards of compute capability {', '.join(kinds[0])}, and {where} {', '.join(kinds[1])}."
            yield Problem("card_kind", message, "Correct gpuhosts_hardware: plans depend on it.")
    for bus_id in facts.get("lost_gpus") or []:
        message = f"The card at {bus_id} is on the PCI bus, and nvidia-smi does not report it."
        yield Problem("card_lost", message, "Look for its Xid lines in the kernel log, check its power and riser, and reboot the host.")
    if facts.get("nvidia_smi") == "hangs":
        remedy = "Look for Xid lines in the kernel log, and reboot the host."
        yield Problem("nvidia_smi_hangs", "nvidia-smi gives no answer: a card or its driver hangs.", remedy)


def driver(facts: dict, wanted: dict) -> Iterator[Problem]:
    """Drivers that packages cannot replace, and repositories that make apt fail."""
    foreign = facts.get("driver_foreign_files") or []
    uninstallers = [path for path in foreign if "libcuda" not in path]
    if uninstallers:
        message = f"An NVIDIA driver was installed past apt, by a .run file ({uninstallers[0]} is there)."
        yield Problem("foreign_driver", message, "Remove it with nvidia-uninstall --silent and reboot: packages do not replace its files.")
    elif foreign:
        message = f"{', '.join(foreign)} belongs to no package: a driver was installed past apt."
        yield Problem("foreign_driver", message, "Remove that driver: packages do not replace its files.")
    by_repository = collections.defaultdict(dict)
    for source in facts.get("apt_sources") or []:
        replaced = any(fnmatch.fnmatch(source["file"], pattern) for pattern in wanted.get("replaced_sources") or [])
        if NVIDIA_REPOSITORY.search(source["uri"]) and not replaced:
            by_repository[source["uri"].rstrip("/"), source["suite"]].setdefault(source["signed_by"] or "no key of its own", source["file"])
    for (uri, suite), keys in sorted(by_repository.items()):
        if len(keys) > 1:
            message = f"apt has {uri} twice with different keys: {' and '.join(f'{file} (Signed-By {key})' for key, file in sorted(keys.items()))}."
            yield Problem("signed_by_conflict", message, "Remove one of these files: apt reads no index at all as long as both are there.")


def memory(facts: dict, hardware, wanted: dict) -> Iterator[Problem]:
    """RAM against what is needed, and against the inventory."""
    found, needed = facts.get("memory_bytes"), wanted.get("memory_gib") or 0
    described = hardware.get("memory_bytes") if isinstance(hardware, dict) else None
    if found is not None and found < needed * GIB:
        yield Problem("memory", f"The host has {found / GIB:.1f} GiB of RAM, less than {needed:g} (preflight_memory_gib).", "Add memory.")
    elif found is not None and isinstance(described, int) and found < RAM_SHARE * described:
        message = f"gpuhosts_hardware has {described / GIB:.0f} GiB of RAM, and the host {found / GIB:.0f}."
        yield Problem("memory_described", message, "Look for a failed memory module, or correct gpuhosts_hardware: plans depend on it.")


def disk(facts: dict, plan: dict | None, instances, wanted: dict) -> list[Problem]:
    """Room for what has yet to come, on each file system as a whole. A model is as large as its plan says, where there is one."""
    systems, needs = facts.get("file_systems") or {}, collections.defaultdict(list)
    for image in _missing_images(facts, instances, wanted):
        _need(needs, systems, (facts.get("docker") or {}).get("data_root"), wanted.get("image_gib") or 0, f"the image {image.partition('@')[0]}")
    weights = _weights(plan, instances)
    for model, found in (wanted.get("models") or {}).items():
        if not found["complete"]:
            _need(needs, systems, found["path"], weights.get(model, wanted.get("model_gib") or 0), f"the model {model}")
    problems = []
    for mount, (space, entries) in ((mount, (found[0][0], found)) for mount, found in needs.items()):
        total = sum(gib for dummy, gib, what in entries)
        if space["free_bytes"] < total * GIB:
            parts = ", ".join(f"{what} {gib:.1f}" for dummy, gib, what in entries)
            message = f"{mount} has {space['free_bytes'] / GIB:.1f} GiB free, and {total:.1f} are needed: {parts}."
            remedy = "Make room, or put the data elsewhere (model_weights_root, data-root in docker_engine_daemon_config)."
            problems.append(Problem("disk", message, remedy))
    return problems


def archive_driver(facts: dict) -> Iterator[Problem]:
    """A driver out of the distribution's own archive, which the role will replace."""
    names = [
        f"{name} {version}"
        for name, version in sorted((facts.get("packages") or {}).items())
        if DRIVER_PACKAGE.fullmatch(name) and ARCHIVE_REVISION.search(version)
    ]
    if names:
        message = f"A driver of the distribution's own archive is installed: {', '.join(names[:3])}{' and more' if len(names) > 3 else ''}."
        yield Problem("archive_driver", message, "It will be replaced by NVIDIA's packages at nvidia_driver_version.")


def notes(facts: dict) -> Iterator[Problem]:
    """Card errors in the kernel log, a reboot that is due, a run of the host's own that failed, and what else gpu_facts noticed that nothing above is about."""
    covered = (
        "nvidia-smi gave no answer",
        *(f"the card at {bus_id} " for bus_id in facts.get("lost_gpus") or []),
        (facts.get("docker") or {}).get("daemon_config_error") or "\n",
    )
    reports = collections.defaultdict(list)
    for xid in facts.get("xids") or []:
        reports[xid["pci_bus_id"], xid["code"]].append(xid["message"])
    for (bus_id, code), messages in sorted(reports.items()):
        times = "once" if len(messages) == 1 else f"{len(messages)} times"
        message = f"The kernel log has Xid {code} of the card at {bus_id} {times}, last: {messages[-1].rstrip('.')}."
        yield Problem("xid", message, "NVIDIA's list of Xid errors says what each number means.")
    if facts.get("reboot_reasons"):
        yield Problem("reboot_pending", f"The host waits for a reboot: {'; '.join(facts['reboot_reasons'])}.", "")
    last = (facts.get("pull") or {}).get("last") or {}
    if last.get("result") in ("failed", "cut off"):
        where = f" at: {last['task']}" if last.get("task") else ""
        message = f"The host's own run of {last['started']} {'failed' if last['result'] == 'failed' else 'was cut off'}{where}."
        yield Problem("pull_failed", message, "journalctl -u gpuhosts-pull on the host has the whole of it.")
    for text in facts.get("problems") or []:
        if not text.startswith(covered):
            yield Problem("noticed", f"{text.rstrip('.')}.", "")


# -- What has to be fetched ----------------------------------------------------------------------------------------------------------------


def sources(facts: dict, wanted: dict) -> list[str]:
    """The addresses that this host still has to fetch something from; none on a host that has everything.

    Beside the keys of `judge`, wanted has driver_version, cuda_toolkit_version and container_toolkit_version, cuda_repository and
    container_toolkit_repository (each uri and key_url), registry_mirrors and hub.
    """
    packages, found = facts.get("packages") or {}, []
    toolkit = "cuda-toolkit-" + "-".join(str(wanted.get("cuda_toolkit_version")).split(".")[:2])
    if facts.get("driver_version") != wanted.get("driver_version") or toolkit not in packages:
        found += _repository(wanted.get("cuda_repository"))
    container_toolkit = re.sub(r"^\d+:|-[^-]*$", "", packages.get("nvidia-container-toolkit", ""))
    if container_toolkit != wanted.get("container_toolkit_version"):
        found += _repository(wanted.get("container_toolkit_repository"))
    if (facts.get("docker") or {}).get("version") is None:
        found += [
            f"{source['uri'].rstrip('/')}/dists/{source['suite']}/InRelease"
            for source in facts.get("apt_sources") or []
            if source["uri"].startswith("http") and not source["suite"].endswith("/") and not NVIDIA_REPOSITORY.search(source["uri"])
        ]
    for image in _missing_images(facts, wanted.get("instances"), wanted):
        found += _registries(image, wanted)
    if any(not model["complete"] and model["config_source"] == "disk" for model in (wanted.get("models") or {}).values()):
        found.append(model_hub.plain_address(wanted.get("hub") or ""))
    return list(dict.fromkeys(address for address in found if address and not address.startswith("file:")))


def unreachable(facts: dict, wanted: dict) -> Iterator[Problem]:
    """Addresses that gave no answer, or not that of a server with what is needed."""
    answers = wanted.get("answers") or {}
    groups = [_registries(image, wanted) for image in _missing_images(facts, wanted.get("instances"), wanted)]
    # Of a registry and its mirrors one is enough.
    spare = {address for group in groups if any(_answered(address, answers, wanted) for address in group) for address in group}
    for address, answer in answers.items():
        if address in spare or _answered(address, answers, wanted):
            continue
        why = answer["error"] or f"HTTP {answer['status']}"
        message = f"{re.sub('//[^/@]*@', '//', address)} cannot be had from this host ({why}), and something is to be fetched there."
        yield Problem("unreachable", message, "Check the address in the inventory, and the host's name service, proxy and firewall; or name a mirror.")


def models(wanted: dict) -> Iterator[Problem]:
    """Models that nobody could describe: they cannot be fetched either."""
    for model, found in (wanted.get("models") or {}).items():
        if found["error"] and model not in (wanted.get("configs") or {}):
            yield Problem("no_model_config", f"{model}: {found['error']}", f"Or give its config.json in gpuhosts_models, and its files in {found['path']}.")


# -- The plan ------------------------------------------------------------------------------------------------------------------------------


def planned(facts: dict | None, instances, wanted: dict) -> dict | None:
    """The host's plan by its own cards, or by the inventory's as long as no driver tells their memory. None without either."""
    cards_now = _cards(facts)
    host = facts if cards_now and all(card.get("memory_total_bytes") for card in cards_now) else wanted.get("hardware")
    if not host or not instances:
        return None
    configs = {model: found["config"] for model, found in (wanted.get("models") or {}).items() if found["config"] is not None}
    return host_plan(instances, host, {**configs, **(wanted.get("configs") or {})}, wanted.get("ledger") or [], wanted.get("name", ""), wanted.get("members"))


def read_plan(plan: dict | None, instances, facts: dict | None, wanted: dict) -> tuple[list[Problem], list[Problem]]:
    """(refusals, warnings) of a plan, each with the instance it is about."""
    if plan is None:
        if not instances or not _cards(facts):
            return [], []
        message = "No plan was made: without a running driver nobody knows how much memory the cards have."
        return [], [Problem("not_planned", message, "Describe them in gpuhosts_hardware to have the instances judged before anything is changed.")]
    described = {model for model, found in (wanted.get("models") or {}).items() if found["error"]}
    refusals = [Problem(**problem) for problem in plan["problems"]]
    warnings = []
    for name, found in plan["plans"].items():
        for target, entries in ((refusals, found["refusals"]), (warnings, found["warnings"])):
            for entry in entries:
                # A model without a config.json is named once, with the reason.
                if entry["code"] != "no_model_config" or not described:
                    target.append(Problem(entry["code"], f"Instance {name!r}: {entry['message']}", entry["remedy"]))
    return refusals, warnings


# -- Helpers -------------------------------------------------------------------------------------------------------------------------------


def _cards(host) -> list[dict]:
    found = host.get("gpus") if isinstance(host, dict) else None
    return [card for card in found if isinstance(card, dict)] if isinstance(found, list) else []


def _capabilities(found: list[dict]) -> list[str | None]:
    known = [card.get("compute_capability") for card in found]
    return [None] if None in known else sorted(map(str, known))


def _versions(instances) -> Iterator[tuple[dict, str]]:
    """(instance, engine version) of what has the form of an instance."""
    for given in instances if isinstance(instances, list) else []:
        if isinstance(given, dict):
            version = given.get("engine_version") or contract.KEYS["engine_version"].default
            if isinstance(version, str):
                yield given, version


def _missing_images(facts: dict, instances, wanted: dict) -> list[str]:
    """Images of the instances that the host's engine does not have."""
    present = (facts.get("docker") or {}).get("images") or {}
    needed = [(wanted.get("images") or {}).get(version) for dummy, version in _versions(instances)]
    return list(dict.fromkeys(image for image in needed if image and not present.get(image)))


def _registries(image: str, wanted: dict) -> list[str]:
    """The addresses of the registries that may have an image: Docker asks the mirrors for images of the Docker Hub, and then the hub itself."""
    first, slash, dummy = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return [f"https://{first}/v2/"]
    return [f"{mirror.rstrip('/')}/v2/" for mirror in [*(wanted.get("registry_mirrors") or []), DOCKER_HUB]]


def _repository(repository) -> list[str]:
    """What a flat repository must answer: its index and its key."""
    return [f"{repository['uri'].rstrip('/')}/InRelease", repository["key_url"]] if repository else []


def _answered(address: str, answers: dict, wanted: dict) -> bool:
    """Whether a server answered as one that has what is needed. A registry asks for a token first (401), and a hub's front page may be anything."""
    status = (answers.get(address) or {}).get("status")
    if status is None:
        return False
    if address == model_hub.plain_address(wanted.get("hub") or ""):
        return status < 500
    return status < 400 or status == 401 and address.endswith("/v2/")


def _weights(plan: dict | None, instances) -> dict[str, float]:
    """GiB of each model's weights over all ranks of its instance, by the plan."""
    found = {}
    for given in instances if isinstance(instances, list) else []:
        ranks = ((plan or {}).get("plans", {}).get(str(given.get("name")), {}).get("memory") or {}).get("per_rank") if isinstance(given, dict) else None
        if ranks:
            found[given.get("model")] = sum(rank["weights"] for rank in ranks) / GIB
    return found


def _need(needs, systems: dict, path, gib: float, what: str) -> None:
    """Note what a path's file system has to hold. model_facts' paths lie below one of the paths that gpu_facts was given."""
    at = max((known for known in systems if path and (path == known or path.startswith(known.rstrip("/") + "/"))), key=len, default=None)
    if at is not None and gib:
        needs[systems[at]["mount_point"]].append((systems[at], gib, what))
