"""Tell calls that reach outside of an entry: downloads, weights of libraries, installations."""

from __future__ import annotations

import re

from golfcore.contest.flow.state import known
from golfcore.contest.flow.values import Value

_NETWORK = (
    "requests.",
    "urllib.request.",
    "http.client",
    "httpx.",
    "aiohttp.",
    "socket.create",
    "socket.socket",
    "ftplib",
    "boto3",
    "gdown",
    "wget.",
    "huggingface_hub.",
    "datasets.load_dataset",
    "urllib3.",
    "paramiko",
    "gcsfs",
    "s3fs",
)
_WEIGHTS = ("torch.hub.load", "gensim.downloader", "timm.create_model", "torchvision.models", "open_clip.create_model")
_DOWNLOADS = {
    "urlopen",
    "urlretrieve",
    "hf_hub_download",
    "snapshot_download",
    "load_dataset",
    "download_url_to_file",
    "load_state_dict_from_url",
}
_SHELLS = {"run", "Popen", "call", "check_call", "check_output", "system", "popen", "getoutput"}
_FETCHES = re.compile(r"\b(?:curl|wget|aria2c|huggingface-cli|gsutil|scp|rsync|git clone|aws s3|hf download)\b")


def reached(path: str, name: str, values: list[Value]) -> str:
    """Return what a call fetches: weights, tokenizer, download or install; '' if it stays inside."""
    kind = ""
    if name == "from_pretrained" or path.startswith(_WEIGHTS):
        kind = "weights" if "okenizer" not in path else "tokenizer"
    elif path.startswith(_NETWORK) or name in _DOWNLOADS:
        kind = "download"
    elif name in _SHELLS and path.startswith(("subprocess", "os")):
        given = [v for a in values for v in (a, *(a.items or ()))]
        words = " ".join(str(value.const) for value in given if known(value))
        installs = "pip" in words and "install" in words
        kind = "install" if installs else "download" if _FETCHES.search(words) else ""
    return kind
