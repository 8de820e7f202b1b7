"""One path of several files that hold it to different depths."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steering_core.optimize.path import SteeringPath


def deepest_path(files: str | Path | Sequence[str | Path], decoder: Any = None) -> SteeringPath:
    """Read the path that was followed furthest; the others are its beginnings.

    Args:
        files: of paths of one probe on one dictionary, at least one; or a single file.
        decoder: as :meth:`SteeringPath.load` takes it, to follow the path further.

    Raises:
        StorageError: as :meth:`SteeringPath.load`.
        ValueError: if there is no file, or the paths are of another decoder or probe.
    """
    names = [files] if isinstance(files, str | Path) else [*files]
    if not names:
        raise ValueError("files: there is no path to read")
    if len(names) == 1:
        return SteeringPath.load(names[0], decoder)
    paths = [SteeringPath.load(name) for name in names]
    if any(path.digests != paths[0].digests for path in paths):
        raise ValueError("files: the paths are of different decoders or probes")
    depths = [len(path.knots.s) for path in paths]
    deepest = names[depths.index(max(depths))]
    return SteeringPath.load(deepest, decoder)
