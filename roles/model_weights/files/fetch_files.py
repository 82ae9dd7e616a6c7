"""Download files of a model by their URLs with curl, which goes on where a file was cut off.

Reads {"directory", "manifest": {name: {"size", "sha256"}}, "urls": {name: URL}, "files": [name], "token"} as JSON from standard input, so that the token
is in no argument list and no file. `files` are those that the host lacks or found wrong. The host verifies what came, not this program. A second one
waits for the first to end.
"""

import fcntl
import hashlib
import json
import pathlib
import shutil
import subprocess
import sys

# curl tries again what may pass (429 among it, after as long as the server says) for this long.
RETRY_SECONDS = 600
# A connection that brings less than this in a minute is taken for dead.
LEAST_BYTES = 1000


def lacking(directory, manifest, files):
    """Names of the files that are still to be fetched. What can only be wrong is removed, and what is shorter than it should be is gone on with."""
    for name in files:
        entry = manifest[name]
        path = directory / name
        size = path.stat().st_size if path.is_file() else -1
        if size == entry["size"] and sha256(path) == entry["sha256"]:
            continue
        if size >= entry["size"]:
            path.unlink()
        yield name


def sha256(path):
    found = hashlib.sha256()
    with path.open("rb") as source:
        for chunk in iter(lambda: source.read(1 << 22), b""):
            found.update(chunk)
    return found.hexdigest()


def configuration(directory, files, urls, token):
    """What curl reads from standard input, an option on each line: https://curl.se/docs/manpage.html#-K."""
    for name in files:
        yield f"url = {quoted(urls[name])}"
        yield f"output = {quoted(str(directory / name))}"
        yield "continue-at = -"
    if token:
        yield f"header = {quoted('Authorization: Bearer ' + token)}"


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def main():
    request = json.load(sys.stdin)
    directory = pathlib.Path(request["directory"])
    directory.mkdir(parents=True, exist_ok=True)
    if not shutil.which("curl"):
        sys.exit("curl is not installed.")
    with (directory.parent / ".fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        files = list(lacking(directory, request["manifest"], request["files"]))
        if not files:
            return
        command = ["curl", "--disable", "--silent", "--show-error", "--fail", "--fail-early", "--location", "--create-dirs", "--retry", "5"]
        command += ["--retry-max-time", str(RETRY_SECONDS), "--speed-limit", str(LEAST_BYTES), "--speed-time", "60", "--config", "-"]
        text = "\n".join(configuration(directory, files, request["urls"], request["token"])) + "\n"
        done = subprocess.run(command, input=text, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stderr.strip() or 'curl ended with status %d' % done.returncode}: run again, it resumes where it stopped.")


if __name__ == "__main__":
    main()
