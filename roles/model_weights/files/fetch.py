"""Download files of a model at a commit into /store/COMMIT with the Hugging Face client.

Runs in a container of the engine's image. Reads {"repo_id", "commit", "files", "token"} as JSON from standard input, so that the token is in no
argument list and no file. `files` are those that the host lacks or found wrong: a file of that name that lies there is removed first. What the client
has of a file that was cut off lies in its own directory below, and is gone on from there. The host verifies what came, not this program.
"""

import json
import os
import pathlib
import sys
import time

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

STORE = pathlib.Path("/store")
# Seconds before a hub that throttles is asked again, where it does not say how long.
PAUSES = (10, 30, 60, 120, 300)


def fetch(repo_id: str, commit: str, files: list[str], token: str | None) -> None:
    for name in files:
        (STORE / commit / name).unlink(missing_ok=True)
    for pause in (*PAUSES, None):
        try:
            snapshot_download(repo_id, revision=commit, local_dir=STORE / commit, allow_patterns=[_literally(name) for name in files], token=token)
            return
        except HfHubHTTPError as error:
            response = getattr(error, "response", None)
            if getattr(response, "status_code", None) != 429 or pause is None:
                raise
            told = response.headers.get("Retry-After", "")
            pause = int(told) if told.isdigit() else pause
            print(f"{os.environ['HF_ENDPOINT']} throttles this network address (HTTP 429): asked again after {pause} s.", file=sys.stderr, flush=True)
            time.sleep(pause)


def _literally(name: str) -> str:
    """The name as a pattern of the client's that matches nothing else."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def main() -> None:
    request = json.load(sys.stdin)
    hub = os.environ["HF_ENDPOINT"]
    repo_id, commit, token = request["repo_id"], request["commit"], request["token"] or None
    try:
        fetch(repo_id, commit, request["files"], token)
    except RevisionNotFoundError:
        sys.exit(f"{hub} has no revision {commit} of {repo_id}: correct `revision`.")
    except GatedRepoError:
        sys.exit(f"{repo_id} is gated on {hub}: accept its terms there, and set model_weights_token.")
    except RepositoryNotFoundError:
        sys.exit(f"{hub} has no model {repo_id}, or shows it only with a token: correct `model`, or set model_weights_token.")
    except (HfHubHTTPError, OSError) as error:
        sys.exit(f"Fetching {repo_id} from {hub} failed ({type(error).__name__}: {error}): run again, it resumes where it stopped.")


if __name__ == "__main__":
    main()
