"""Download a model into /model with the Hugging Face client, and say in a manifest that it is complete.

Runs in a container of the engine's image. Reads {"repo_id", "revision", "token"} as JSON from standard input, so that the
token is in no argument list and no file. The manifest /model/.gpuhosts.json is written last: a directory without it is a
download that did not finish, and the next run resumes it.
"""

import json
import os
import pathlib
import sys

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

MODEL = pathlib.Path("/model")
MANIFEST = MODEL / ".gpuhosts.json"


def fetch(repo_id: str, revision: str, token: str | None) -> None:
    info = HfApi().model_info(repo_id, revision=revision, files_metadata=True, token=token)
    files = {file.rfilename: {"size": file.size, "sha256": file.lfs.sha256 if file.lfs else None} for file in info.siblings}
    MANIFEST.unlink(missing_ok=True)
    snapshot_download(repo_id, revision=info.sha, local_dir=MODEL, token=token)
    wrong = [name for name, entry in files.items() if (MODEL / name).stat().st_size != entry["size"]]
    if wrong:
        sys.exit(f"These files of {repo_id} are not as large as the hub says: {', '.join(wrong)}. Run again to fetch them anew.")
    manifest = {"repo_id": repo_id, "revision": revision, "commit": info.sha, "files": files}
    partial = MANIFEST.with_suffix(".partial")
    partial.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(MANIFEST)
    print(f"{repo_id} at {info.sha}: {len(files)} files, {sum(entry['size'] for entry in files.values())} bytes")


def main() -> None:
    request = json.load(sys.stdin)
    hub = os.environ["HF_ENDPOINT"]
    repo_id, revision, token = request["repo_id"], request["revision"], request["token"] or None
    try:
        fetch(repo_id, revision, token)
    except RevisionNotFoundError:
        sys.exit(f"{hub} has no revision {revision} of {repo_id}: correct `revision`.")
    except GatedRepoError:
        sys.exit(f"{repo_id} is gated on {hub}: accept its terms there, and set model_weights_token.")
    except RepositoryNotFoundError:
        sys.exit(f"{hub} has no model {repo_id}, or shows it only with a token: correct `model`, or set model_weights_token.")
    except (HfHubHTTPError, OSError) as error:
        sys.exit(f"Fetching {repo_id} from {hub} failed ({type(error).__name__}: {error}): run again, it resumes where it stopped.")


if __name__ == "__main__":
    main()
