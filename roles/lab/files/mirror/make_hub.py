"""Turn a directory of model files into a Hugging Face hub made of static files and nginx configuration.

    python3 make_hub.py REPOSITORY FILES DIRECTORY

DIRECTORY gets files/REPOSITORY/..., api/*.json and hub.conf (nginx, port 8080). What a client asks for, and what it reads of the answer:
https://huggingface.co/docs/hub/api and huggingface_hub's file_download.py (ETag, X-Repo-Commit, X-Linked-*, X-Error-Code).
The commit follows from the contents. Large files (*.safetensors) look like LFS objects: their ETag is the sha256.
"""

import hashlib
import json
import pathlib
import re
import shutil
import sys

LARGE = (".safetensors", ".bin", ".gguf")
WHEN = "2025-07-16T00:00:00.000Z"

SERVER = """\
log_format hub '$time_iso8601 $remote_addr $request_method $uri $status $body_bytes_sent "$http_range" "$http_user_agent"';
map $uri $hub_etag {
%(etags)s
}
map $uri $hub_size {
%(sizes)s
}
server {
    listen 8080;
    listen [::]:8080;
    access_log /var/log/nginx/hub.log hub;
    etag off;

    location ~ ^/api/models/%(name)s(/revision/(main|%(commit)s))?$ { default_type application/json; alias %(root)s/api/model.json; }
    location ~ ^/api/models/%(name)s/tree/(main|%(commit)s)/?$ { default_type application/json; alias %(root)s/api/tree.json; }
    location ~ ^/api/models/%(name)s/refs$ { default_type application/json; alias %(root)s/api/refs.json; }
    location ~ ^/%(name)s/resolve/(main|%(commit)s)/(?<hub_path>.+)$ {
        alias %(root)s/files/%(repository)s/$hub_path;
        default_type application/octet-stream;
        add_header ETag $hub_etag;
        add_header X-Repo-Commit %(commit)s;
        add_header X-Linked-Size $hub_size;
        add_header X-Linked-Etag $hub_etag;
        error_page 404 = @no_entry;
    }
    location ~ ^/(api/models/)?%(name)s/(revision|tree|resolve)/ { error_page 404 = @no_revision; return 404; }
    location / { error_page 404 = @no_repository; return 404; }
%(errors)s
}
"""
ERROR = """\
    location @%s {
        internal;
        default_type application/json;
        add_header X-Error-Code %s always;
        add_header X-Error-Message "%s" always;
        add_header X-Repo-Commit "%s" always;
        return 404 '{"error": "%s"}';
    }
"""
ERRORS = {
    "no_entry": ("EntryNotFound", "Entry not found"),
    "no_revision": ("RevisionNotFound", "Invalid rev id"),
    "no_repository": ("RepoNotFound", "Repository not found"),
}


def describe(path, directory):
    """One file as the hub's API has it, and its ETag. `oid` is what git calls the blob."""
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    entry = {"type": "file", "path": str(path.relative_to(directory)), "size": len(content)}
    if path.name.endswith(LARGE):
        pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (sha256, len(content))
        lfs = {"oid": sha256, "sha256": sha256, "size": len(content), "pointerSize": len(pointer)}
        return entry | {"oid": blob(pointer.encode()), "lfs": lfs}
    return entry | {"oid": blob(content)}


def blob(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def etag(entry):
    return entry["lfs"]["sha256"] if "lfs" in entry else entry["oid"]


def commit_of(entries):
    """40 hexadecimal digits that follow from the names and contents alone."""
    return hashlib.sha1("".join("%s %s\n" % (entry["path"], etag(entry)) for entry in entries).encode()).hexdigest()


def model(repository, entries, commit):
    """The answer of /api/models/REPOSITORY, with the sizes and hashes that `?blobs=true` asks for."""
    names = {"path": "rfilename", "size": "size", "oid": "blobId", "lfs": "lfs"}
    siblings = [{name: entry[key] for key, name in names.items() if key in entry} for entry in entries]
    return {
        "_id": commit[:24], "id": repository, "modelId": repository, "author": repository.partition("/")[0], "sha": commit,
        "lastModified": WHEN, "createdAt": WHEN, "private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0,
        "library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["transformers", "safetensors", "qwen3"],
        "siblings": siblings, "usedStorage": sum(entry["size"] for entry in entries),
    }  # fmt: skip


def configuration(repository, entries, commit, root):
    """hub.conf. Only `main` and the commit resolve; everything else is one of the client's three kinds of not found."""

    def lines(value):
        prefix = "~^/%s/resolve/[^/]+/" % re.escape(repository)
        return "\n".join('    "%s%s$" \'%s\';' % (prefix, re.escape(entry["path"]), value(entry)) for entry in entries)

    errors = (ERROR % (name, code, message, commit if name == "no_entry" else "", message) for name, (code, message) in ERRORS.items())
    return SERVER % {
        "etags": lines(lambda entry: '"%s"' % etag(entry)), "sizes": lines(lambda entry: entry["size"]), "name": re.escape(repository),
        "repository": repository, "commit": commit, "root": root, "errors": "".join(errors).rstrip("\n"),
    }  # fmt: skip


def main(repository, source, directory):
    entries = [describe(path, source) for path in sorted(source.rglob("*")) if path.is_file()]
    commit = commit_of(entries)
    shutil.copytree(source, directory / "files" / repository)
    (directory / "api").mkdir()
    refs = {"branches": [{"name": "main", "ref": "refs/heads/main", "targetCommit": commit}], "converts": [], "tags": []}
    for name, content in {"model": model(repository, entries, commit), "tree": entries, "refs": refs}.items():
        (directory / "api" / (name + ".json")).write_text(json.dumps(content), encoding="utf-8")
    (directory / "commit").write_text(commit + "\n", encoding="ascii")
    (directory / "hub.conf").write_text(configuration(repository, entries, commit, directory), encoding="utf-8")
    return commit


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    print(main(sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])))
