"""Read cached residuals, whole or batch by batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from steering_core.activations.manifest import check_origin, damage_of, origin
from steering_core.data.examples import PROMPT_SPLITS, read_examples
from steering_core.errors import StorageError
from steering_core.storage.files import read_json
from steering_core.storage.integrity import content_digest

# Snakemake looks for a part only if the manifest is missing too.
_ADVICE = "delete it and manifest.json beside it, and run again; the other parts are kept."


class ActivationCache:
    """The cache that a manifest describes.

    Args:
        manifest: path of ``manifest.json``; the parts lie beside it.
        resources: content of resources.json. The cache must be of the same model and SAEs.
        examples: the file of texts. The cache must be of the same texts.

    Raises:
        StorageError: if the manifest is missing, damaged or of another model, SAE, dtype or texts.

    """

    def __init__(
        self,
        manifest: str | Path,
        resources: dict[str, Any] | None = None,
        examples: str | Path | None = None,
    ):
        self.folder = Path(manifest).parent
        self.manifest: dict[str, Any] = read_json(manifest)
        if resources is not None:
            check_origin(self.manifest, origin(resources, examples), manifest)
        self._verified: set[Path] = set()

    @property
    def sites(self) -> list[str]:
        """Hook names of the cached sites."""
        return [site["hook_name"] for site in self.manifest["sites"]]

    def batches(
        self, hook_name: str, position: int = -1
    ) -> Iterator[tuple[list[str], Float[np.ndarray, "n d_model"]]]:
        """Yield ``(example_ids, residuals)`` of one token of each text, row group by row group.

        Args:
            hook_name: of the site.
            position: of the token, from 0 (BOS where the site has one), or from the end if it is
                negative: the last by default. A cache of last tokens has no others.

        Raises:
            StorageError: if the site is not cached, or a part is damaged or changed.

        """
        self._require(hook_name)
        for part in self.manifest["parts"]:
            path = self.folder / Path(part["file"]).name  # beside the manifest, nowhere else
            with damage_of(path, _ADVICE):
                self._verify(path, part["sha256"])
                with pq.ParquetFile(path, page_checksum_verification=True) as file:
                    start, wanted = 0, _at(file.read(columns=["example_id", "position"]), position)
                    for group in range(file.num_row_groups):
                        table = file.read_row_group(group, columns=["example_id", hook_name])
                        rows = np.flatnonzero(wanted[start : start + len(table)])
                        start += len(table)
                        if len(rows):
                            names = table["example_id"].take(rows).to_pylist()
                            yield names, _matrix(table[hook_name])[rows]

    def tokens(
        self, hook_name: str
    ) -> Iterator[tuple[pa.Array, Int[np.ndarray, " n"], Float[np.ndarray, "n d_model"]]]:
        """Yield ``(example_ids, positions, residuals)`` of every cached token, block by block.

        Args:
            hook_name: of the site.

        Raises:
            StorageError: as :meth:`batches`.
        """
        self._require(hook_name)
        for part in self.manifest["parts"]:
            path = self.folder / Path(part["file"]).name
            with damage_of(path, _ADVICE):
                self._verify(path, part["sha256"])
                with pq.ParquetFile(path, page_checksum_verification=True) as file:
                    columns = ["example_id", "position", hook_name]
                    for group in range(file.num_row_groups):
                        table = file.read_row_group(group, columns=columns)
                        names, residuals = _whole(table["example_id"]), _matrix(table[hook_name])
                        yield names, table["position"].to_numpy(), residuals

    def _require(self, hook_name: str) -> None:
        if hook_name not in self.sites:
            raise StorageError(f"{hook_name} is not cached; cached are {self.sites}. Set `layers`.")

    def _verify(self, path: Path, sha256: str) -> None:
        """Check the digest of a part once, since page checksums do not cover the headers."""
        if path not in self._verified:
            if content_digest(path) != sha256:
                raise StorageError(f"{path} is not what its manifest lists: {_ADVICE}")
            self._verified.add(path)

    def matrix(
        self, hook_name: str, example_ids: Sequence[str], position: int = -1
    ) -> Float[np.ndarray, "n d_model"]:
        """Return the residuals of ``example_ids`` in that order, at a position as in `batches`.

        Args:
            hook_name: cached site.
            example_ids: ids of n examples.
            position: of the token; −1 is the last one.

        Raises:
            StorageError: if one of them is not cached there, or is in two places of the cache.

        """
        index = {name: i for i, name in enumerate(example_ids)}
        out: np.ndarray | None = None
        found = np.zeros(len(index), dtype=bool)
        for names, residuals in self.batches(hook_name, position):
            rows = [(i, index[name]) for i, name in enumerate(names) if name in index]
            if out is None:
                out = np.empty((len(index), residuals.shape[1]), dtype=residuals.dtype)
            if rows:
                source, target = map(list, zip(*rows, strict=True))
                if found[target].any() or len(set(target)) < len(target):
                    raise StorageError(
                        f"{self.folder}: the tokens of an example are in two places of the cache: "
                        "delete it, run again."
                    )
                out[target] = residuals[source]
                found[target] = True
        if out is None or not found.all():
            missing = next((n for n, i in index.items() if not found[i]), "all of them")
            raise StorageError(self._not_there(missing, position))
        return out

    def _not_there(self, example_id: str, position: int) -> str:
        if position == -1:
            return f"{example_id} is not in the cache: the examples changed; run again."
        return (
            f"{example_id} is not in the cache at position {position}: the text is shorter, or the "
            "cache holds last tokens alone (set `cached_positions: all`)."
        )


@dataclass(frozen=True, eq=False)
class SolvedInputs:
    """The inputs that a program is solved for, in one job.

    Attributes:
        examples: ``example_id``, ``split`` and ``label`` of the n inputs. The validation rows are
            always among them, because a shared vector is fitted to them.
        residuals: of the inputs, as the site sees them.
        splits: of the inputs whose solutions are written.
    """

    examples: pd.DataFrame
    residuals: Float[np.ndarray, "n d_model"]
    splits: tuple[str, ...]

    def written(self, rows: pd.DataFrame) -> Bool[np.ndarray, " rows"]:
        """Return the mask of the solution rows that are written."""
        return rows["split"].isin(self.splits).to_numpy()


def read_inputs(
    files: Mapping[str, str], resources: dict[str, Any], hook_name: str
) -> SolvedInputs:
    """Read the validation and test rows with their residuals, or the prompts if they are given.

    Args:
        files: ``examples`` and ``manifest``; for the prompts also ``prompts`` and
            ``prompt_manifest``. Other names are ignored.
        resources: as :class:`ActivationCache`.
        hook_name: of the site.

    Raises:
        StorageError: as :class:`ActivationCache`.
    """
    splits = ("validation",) if "prompts" in files else ("validation", "test")
    rows = read_examples(files["examples"], splits)
    cache = ActivationCache(files["manifest"], resources, files["examples"])
    residuals = cache.matrix(hook_name, rows["example_id"])
    if "prompts" not in files:
        return SolvedInputs(rows, residuals, splits)
    prompts = read_examples(files["prompts"])
    cache = ActivationCache(files["prompt_manifest"], resources, files["prompts"])
    return SolvedInputs(
        pd.concat([rows, prompts], ignore_index=True),
        np.concatenate([residuals, cache.matrix(hook_name, prompts["example_id"])]),
        PROMPT_SPLITS,
    )


def _at(rows: pa.Table, position: int) -> Bool[np.ndarray, " rows"]:
    """Return the rows of the token at ``position``. The rows of an example are consecutive."""
    if position >= 0:
        return rows["position"].to_numpy() == position
    ids = _whole(rows["example_id"])
    begins = np.ones(len(ids), dtype=bool)
    begins[1:] = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    firsts = np.flatnonzero(begins)
    wanted = np.append(firsts[1:], len(ids)) + position  # counted from the end of each example
    there = np.zeros(len(ids), dtype=bool)
    there[wanted[wanted >= firsts]] = True
    return there


def _matrix(column: pa.ChunkedArray) -> Float[np.ndarray, "n d_model"]:
    array = _whole(column)
    return array.flatten().to_numpy().reshape(len(array), array.type.list_size)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return array.chunk(0) if isinstance(array, pa.ChunkedArray) else array
