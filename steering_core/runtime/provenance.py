"""The origin of an experiment's results: code, configuration, revisions, libraries."""

import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steering_core.storage.integrity import content_digest, json_digest

_ROOT = Path(__file__).resolve().parents[2]
_DISTRIBUTION = "steering-core"
_SOURCES = ("model", "saes", "sae_revision", "dataset", "classifier", "versions")
#: Number of hexadecimal digits of a digest in the rows of a table.
_SHORT = 12


def provenance(
    name: str,
    config: Mapping[str, Any],
    resources: Mapping[str, Any],
    code: Mapping[str, str],
    files: Sequence[str | Path] = (),
    products: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Return what determines the products of experiment ``name``, for ``provenance.json``.

    A row of a result names its experiment, and the experiment's provenance holds the rest. It
    contains no time and no path of the machine, so the same inputs give the same bytes.
    ``config_sha256`` and ``code_sha256`` depend only on ``config`` and ``code``.

    Args:
        name: the experiment.
        config: its resolved configuration: model, task and every setting.
        resources: the result of the fetch stage, with pinned revisions.
        code: digest of the code behind each workflow script, by the script's name.
        files: the user's own files that it reads, such as the concept's texts.
        products: the result files of the experiment.

    """
    return {
        "experiment": name,
        **_determined_by(config, resources),
        "files": _digests(files),
        **_made_with(code),
        "products": _digests(products),
    }


def short_digests(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return ``config_sha256`` and ``code_sha256`` in the short form of table rows.

    The prefix keeps CSV readers from parsing the digits as a number.
    """
    return {key: f"sha256:{provenance[key][:_SHORT]}" for key in ("config_sha256", "code_sha256")}


def product_digests(
    provenance: Mapping[str, Any], code: Mapping[str, str], products: Sequence[str | Path]
) -> dict[str, Any]:
    """Return the digests of all results of an experiment, for ``products.json``.

    Args:
        provenance: result of :func:`provenance` for the experiment.
        code: digests for the scripts that make pictures, pages and further tables.
        products: the result files.

    """
    return {
        "experiment": provenance["experiment"],
        **short_digests(provenance),
        "code": dict(code),
        "products": _digests(products),
    }


def provenance_of_tables(
    configs: Mapping[str, Mapping[str, Any]],
    resources: Mapping[str, Mapping[str, Any]],
    code: Mapping[str, str],
    products: Sequence[str | Path],
) -> dict[str, Any]:
    """Return what determines tables with rows of many experiments.

    A row of such a table names its experiment; the result holds configuration and sources by name.

    Args:
        configs: resolved configuration of each experiment.
        resources: result of each experiment's fetch stage.
        code: as in :func:`provenance`.
        products: the tables.

    """
    return {
        "experiments": {
            name: _determined_by(configs[name], resources[name]) for name in sorted(configs)
        },
        **_made_with(code),
        "products": _digests(products),
    }


def _determined_by(config: Mapping[str, Any], resources: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "config": dict(config),
        "config_sha256": json_digest(config),
        "sources": {key: resources.get(key) for key in _SOURCES},
    }


def _made_with(code: Mapping[str, str]) -> dict[str, Any]:
    return {
        "code": dict(code),
        "code_sha256": json_digest(code),
        "git": git_commit(_ROOT),
        "libraries": library_versions(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
    }


def _digests(paths: Sequence[str | Path]) -> dict[str, str]:
    return {Path(path).name: content_digest(path) for path in paths}


def library_versions() -> dict[str, str]:
    """Return the installed versions of the package's dependencies."""
    required = importlib.metadata.requires(_DISTRIBUTION) or []
    names = [
        re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0]
        for line in required
        if "extra ==" not in line
    ]
    return {name: importlib.metadata.version(name) for name in sorted(names)}


def git_commit(directory: Path) -> dict[str, Any] | None:
    """Return the commit of a checkout and whether tracked files differ; None without a checkout."""
    try:
        commit = _git(directory, "rev-parse", "HEAD")
        changed = _git(directory, "status", "--porcelain", "--untracked-files=no")
        _git(directory, "ls-files", "--error-unmatch", "steering_core/__init__.py")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "modified": bool(changed)}


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
