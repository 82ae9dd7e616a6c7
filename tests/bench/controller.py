"""What forks and SSH's settings cost a controller: second runs of site.yml, on converged hosts. What `make bench-controller` measures.

    python3 tests/bench/controller.py [--hosts 8] [--forks 1,2,4,8]

The hosts are those of fleet.py. Forks are compared over all of them by the Docker API, SSH's settings on the first of them, each run after the same one
that is not counted, as connections of a run before may still be there.
"""

import argparse
import pathlib
import subprocess

import fleet

SSH = {
    "pipelining and ControlPersist (as it comes)": {},
    "ControlPersist alone": {"ANSIBLE_PIPELINING": "false"},
    "pipelining alone": {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no"},
    "neither": {"ANSIBLE_PIPELINING": "false", "ANSIBLE_SSH_ARGS": "-o ControlMaster=no"},
}


def row(label, found):
    print(f"| {label} | {found['seconds']:.1f} | {found['cpu']:.1f} |", flush=True)


def forks(inventory, hosts, counts):
    print("| forks | seconds | CPU seconds of the controller |\n|---:|---:|---:|")
    for count in counts:
        row(count, fleet.play("site.yml", inventory, hosts, f"--forks={count}"))


def reached_by_ssh(directory):
    """The inventory of the first host with an SSH server of its own, and a key that it takes."""
    container, key = f"{fleet.LAB['LAB_NAME']}-gpu01", pathlib.Path(directory, "key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    inside = ["docker", "exec", "--interactive", container, "bash", "-ec"]
    install = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy openssh-server >/dev/null"
    start = "systemctl start ssh && mkdir -p -m 700 /root/.ssh && cat > /root/.ssh/authorized_keys"
    subprocess.run([*inside, f"{install} && {start}"], input=key.with_suffix(".pub").read_bytes(), check=True)
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = subprocess.run(["docker", "inspect", "--format", template, container], check=True, capture_output=True, text=True).stdout.strip()
    words = {
        "ansible_connection": "ansible.builtin.ssh",
        "ansible_host": address,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": f"-o StrictHostKeyChecking=no -o UserKnownHostsFile={directory}/known_hosts",
    }
    return fleet.write_inventory(pathlib.Path(directory, "ssh.yml"), 1, words)


def ssh(directory):
    inventory = reached_by_ssh(directory)
    print("| `ansible.cfg` | seconds | CPU seconds of the controller |\n|---|---:|---:|")
    for label, environment in SSH.items():
        fleet.play("site.yml", inventory, 1, **environment)
        row(label, fleet.play("site.yml", inventory, 1, **environment))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default=8, type=int)
    parser.add_argument("--forks", default="1,2,4,8", type=lambda text: [int(word) for word in text.split(",")])
    given = parser.parse_args()
    with fleet.lab(given.hosts) as (directory, inventory):
        fleet.play("site.yml", inventory, given.hosts)
        forks(inventory, given.hosts, given.forks)
        ssh(directory)


if __name__ == "__main__":
    main()
