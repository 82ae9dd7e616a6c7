"""Build the mirror's signed apt repositories out of packages.json and payload/.

    python3 build_repositories.py PACKAGES.json PAYLOADS DIRECTORY

Needs dpkg-deb, apt-ftparchive and gpg. DIRECTORY gets the flat repositories (`deb URL /`), their public key and `fingerprint`.
The key is made here, without passphrase, and its private half is thrown away: nothing can be added to a built mirror.
"""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

FIELDS = ("depends", "recommends", "provides", "conflicts", "replaces")
STAND_IN = " A stand-in of the gpuhosts.inference lab: the name, version and relations\n of NVIDIA's package, and none of its content."


def expand(table, kernel):
    """Yield (set name, package) for every package of every release, with all braces filled in."""
    for set_name, group in table["sets"].items():
        for release in group["releases"]:
            filled = {key: value.format(kernel=kernel) for key, value in release.items() if isinstance(value, str)}
            known = release | filled | {"kernel": kernel}
            for name, entry in group["packages"].items():
                version = release["v"][entry["version_of"]] if "version_of" in entry else release["version"]
                package = {field: [relation.format(**known) for relation in entry[field]] for field in FIELDS if field in entry}
                values = {key: value.format(**known) for key, value in entry.get("values", {}).items()}
                values |= {key: known[key] for key in ("driver", "cuda") if key in known}
                package |= {"name": name.format(**known), "version": version, "description": entry["description"].format(**known)}
                yield set_name, package | {"payload": entry.get("payload"), "values": values}


def control(package):
    """The control file: https://www.debian.org/doc/debian-policy/ch-controlfields.html."""
    lines = ["Package: " + package["name"], "Version: " + package["version"], "Architecture: amd64", "Section: misc", "Priority: optional"]
    lines += ["Maintainer: gpuhosts.inference lab <lab@gpuhosts.invalid>"]
    lines += ["%s: %s" % (field.capitalize(), ", ".join(package[field])) for field in FIELDS if field in package]
    return "\n".join([*lines, "Description: %s (stand-in)" % package["description"], STAND_IN, ""])


def fill(text, values):
    for key, value in values.items():
        text = text.replace("@%s@" % key, value)
    return text


def lay_out(package, payloads, tree):
    """Write the tree that dpkg-deb packs."""
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(control(package), encoding="utf-8")
    source = payloads / package["payload"] if package["payload"] else None
    for path in sorted(source.rglob("*")) if source else ():
        target = tree / fill(str(path.relative_to(source)), package["values"])
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(os.readlink(path))
        elif path.is_file():
            content = fill(path.read_text(encoding="utf-8"), package["values"])
            if content.startswith('"""') and not path.suffix:  # a Python program; `ansible-test sanity` wants no such first line here
                content = "#!/usr/bin/env python3\n" + content
            target.write_text(content, encoding="utf-8")
            target.chmod(0o755 if content.startswith("#!") else 0o644)
    configuration = [str(path.relative_to(tree)) for path in sorted(tree.glob("etc/**/*")) if path.is_file()]
    if configuration:
        (tree / "DEBIAN/conffiles").write_text("".join("/%s\n" % path for path in configuration), encoding="utf-8")


def pack(package, payloads, pool):
    """Build one package; returns its file."""
    file = pool / "{name}_{version}_amd64.deb".format(**package)
    with tempfile.TemporaryDirectory() as temporary:
        tree = pathlib.Path(temporary, "tree")
        lay_out(package, payloads, tree)
        for directory in [tree, *(path for path in tree.rglob("*") if path.is_dir() and not path.is_symlink())]:
            directory.chmod(0o755)
        run("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", str(tree), str(file))
    return file


def run(*command, cwd=None):
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE).stdout


def make_key(home):
    """A signing key in `home`; returns its fingerprint and its armoured public half."""
    gpg = ("gpg", "--homedir", str(home), "--batch", "--quiet")
    run(*gpg, "--passphrase", "", "--quick-generate-key", "gpuhosts lab mirror <lab@gpuhosts.invalid>", "rsa3072", "sign", "never")
    listing = run(*gpg, "--with-colons", "--list-keys").decode()
    fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
    return fingerprint, run(*gpg, "--armor", "--export", fingerprint)


def publish(directory, settings, home):
    """Index and sign one flat repository."""
    packages = run("apt-ftparchive", "packages", ".", cwd=directory)
    (directory / "Packages").write_bytes(packages)
    run("gzip", "--keep", "--force", "Packages", cwd=directory)
    options = {"Origin": settings["origin"], "Label": settings["label"], "Architectures": "amd64"}
    flags = [flag for key, value in options.items() for flag in ("-o", "APT::FTPArchive::Release::%s=%s" % (key, value))]
    (directory / "Release").write_bytes(run("apt-ftparchive", *flags, "release", ".", cwd=directory))
    gpg = ("gpg", "--homedir", str(home), "--batch", "--yes")
    run(*gpg, "--clearsign", "--output", "InRelease", "Release", cwd=directory)
    run(*gpg, "--armor", "--detach-sign", "--output", "Release.gpg", "Release", cwd=directory)


def build(table, payloads, directory, kernel):
    pool = directory / ".pool"
    pool.mkdir(parents=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as workers:
        pending = [(name, workers.submit(pack, package, payloads, pool)) for name, package in expand(table, kernel)]
        files = [(name, job.result()) for name, job in pending]
    with tempfile.TemporaryDirectory() as home:
        fingerprint, key = make_key(home)
        (directory / "fingerprint").write_text(fingerprint + "\n", encoding="ascii")
        for path, settings in table["repositories"].items():
            repository = directory / path
            repository.mkdir(parents=True)
            for name, file in files:
                if name in settings["sets"]:
                    os.link(file, repository / file.name)
            publish(repository, settings, home)
            (repository / settings["key"]).resolve().write_bytes(key)
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
    shutil.rmtree(pool)
    return len(files)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    content = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    count = build(content, pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), os.environ.get("KERNEL") or os.uname().release)
    print("%d packages in %d repositories" % (count, len(content["repositories"])))
