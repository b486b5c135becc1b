"""`hf://ORG/NAME`: a model folder from the Hugging Face Hub, downloaded because the user named it.

Only weights as safetensors, and JSON and text files, are fetched: nothing that would be unpickled or run.
Files lie in the library's own cache, so a second use needs no network.
"""

from __future__ import annotations

import re
from pathlib import Path

from glasshouse.core.errors import MissingExtraError, UsageError

PREFIX = "hf://"
_WANTED = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model", "vocab.bpe")


def download(name: str) -> Path:
    """The folder of `hf://ORG/NAME`, or `hf://ORG/NAME@REVISION`, on this disk; shows progress.

    Raises UsageError for a name that cannot be, a model that does not exist or is not open, and where there
    is no network; MissingExtraError without the library.
    """
    found = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name)
    if found is None:
        raise _no_name(name)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )
    except ImportError:
        raise MissingExtraError(
            "models from the Hub need the library huggingface_hub",
            where=name,
            fix="pip install 'glasshouse-lm[hub]'",
        ) from None
    try:
        return Path(snapshot_download(found[1], revision=found[2], allow_patterns=list(_WANTED)))
    except HFValidationError:
        raise _no_name(name) from None
    except GatedRepoError:
        raise UsageError(
            "this model asks for its terms to be accepted",
            where=name,
            fix="accept them on huggingface.co, then log in with: hf auth login",
        ) from None
    except LocalEntryNotFoundError:
        raise UsageError(
            "there is no network, and the model is not in the cache",
            where=name,
            fix="connect once, or copy the folder here and name it",
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise UsageError(
            f"the Hub does not give this model ({status})", where=name, fix="check the name and the revision"
        ) from None


def _no_name(name: str) -> UsageError:
    return UsageError("not the name of a model on the Hub", where=name, fix="write hf://ORG/NAME")
