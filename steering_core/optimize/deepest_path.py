"""One path of several files that hold it to different depths."""

from collections.abc import Sequence
from pathlib import Path

from steering_core.optimize.path import SteeringPath


def deepest_path(files: str | Path | Sequence[str | Path]) -> SteeringPath:
    """Read the path that was followed furthest; the others are its beginnings.

    Args:
        files: of paths of one probe on one dictionary, at least one; or a single file.

    Raises:
        StorageError: as :meth:`SteeringPath.load`.
        ValueError: if there is no file, or the paths are of another decoder or probe.
    """
    names = [files] if isinstance(files, str | Path) else [*files]
    if not names:
        raise ValueError("files: there is no path to read")
    if len(names) == 1:
        return SteeringPath.load(names[0])
    paths = [SteeringPath.load(name) for name in names]
    if any(path.digests != paths[0].digests for path in paths):
        raise ValueError("files: the paths are of different decoders or probes")
    return max(paths, key=lambda path: len(path.knots.s))
