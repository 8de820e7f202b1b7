"""Inputs of the stages between the cache and the tables, made from random data."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from benchmarks.options import scaled
from steering_core.config.methods import settings_of
from steering_core.config.schema import Settings
from steering_core.methods.base import read_direction
from steering_core.methods.directions import FitData, fit_directions, fixed_methods
from steering_core.methods.fixed_solutions import solve_directions
from steering_core.methods.programs import solve_program_grid
from steering_core.methods.solution_vectors import SolutionVectors, read_solution_vectors
from steering_core.methods.solutions import ModelUnits, write_solutions
from steering_core.metrics.probe_effects import probe_effects
from steering_core.optimize.path import SteeringPath
from steering_core.probes.fit import fit_probe

#: Rows of each split. The numbers of pairs and queries are those of the concept files.
TRAIN, TEST, PROMPTS, PAIRS, QUERIES = 512, 200, 50, 30, 20
#: Active features of a residual.
ACTIVE = 70
SETTINGS = Settings(
    methods=["no_steering", "caa_mean_diff", "topk_features", "qp_optimal", "convex_optimal"],
    qp_tau=[0.5, 4.0], qp_lambda=[1.0], socp_tau=[0.5], socp_epsilon=[1.0, 5.0, 20.0],
    variant_rows=10, units="absolute",
)  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """Residuals in float32, as in the cache, with the ids and labels of their examples."""

    residuals: np.ndarray
    labels: np.ndarray
    prefix: str

    @property
    def ids(self) -> list[str]:
        """Return the ids of the examples."""
        return [f"{self.prefix}{i}" for i in range(len(self.labels))]


class Experiment:
    """Decoder, probes, path, directions and solutions of random residuals of two classes."""

    def __init__(self, folder: Path, d_sae: int, d_model: int, size: str):
        rng = np.random.default_rng(0)
        concept = 3.0 * rng.standard_normal(d_model)

        def rows(n: int, prefix: str) -> Rows:
            labels = np.arange(scaled(n, size)) % 2
            h = rng.standard_normal((len(labels), d_model)) + np.outer(labels, concept)
            return Rows((h / np.sqrt(d_model)).astype(np.float32), labels, prefix)

        self.train, self.test = rows(TRAIN, "a"), rows(TEST, "t")
        self.prompts, others = rows(PROMPTS, "p"), rows(TRAIN // 2, "e")
        self.pairs, self.queries = rows(2 * PAIRS, "c"), rows(2 * QUERIES, "q")
        self.decoder = rng.standard_normal((d_sae, d_model), dtype=np.float32)
        self.decoder /= np.linalg.norm(self.decoder, axis=1, keepdims=True)
        self.correlation = rng.uniform(-1.0, 1.0, d_sae)
        encoded = len(self.train.labels) + len(self.test.labels)
        active = rng.integers(0, d_sae, (encoded, ACTIVE))
        self.activations = sparse.csr_matrix(
            (rng.random(active.size), active.ravel(), np.arange(encoded + 1) * ACTIVE),
            shape=(encoded, d_sae),
        )
        self.activations.sum_duplicates()
        self.probe, self.evaluation_probe = (
            fit_probe(part.residuals, part.labels, seed=0) for part in (self.train, others)
        )
        self.path_file, self.directions = (
            folder / "path.safetensors",
            folder / "directions.safetensors",
        )
        self.solutions = folder / "solutions.parquet"
        self.path = SteeringPath.fit(self.decoder, self.probe.weight_vector)
        self.fit_directions()
        write_solutions(self._solved(), self.solutions)
        self.path.save(self.path_file)

    def fit_directions(self) -> None:
        """Return the directions of all methods, fitted on the cached rows."""
        train, pairs, queries = (
            part.residuals.astype(float) for part in (self.train, self.pairs, self.queries)
        )
        data = FitData(
            residuals=train,
            labels=self.train.labels,
            contrast_positive=pairs[1::2],
            contrast_negative=pairs[::2],
            persona_positive=queries[1::2],
            persona_negative=queries[::2],
            feature_correlation=self.correlation,
        )
        fit_directions(fixed_methods(Settings()), data, self.decoder, self.directions)

    def interventions(self, method: str) -> SolutionVectors:
        """Return the interventions of a method, from the files of the solve stage."""
        return read_solution_vectors(method, self.solutions, self.directions, self.path_file)

    def effects(self) -> pd.DataFrame:
        """Return the effect of every method on both probes, on the test rows."""
        probes = self.probe, self.evaluation_probe
        made = [
            probe_effects(
                self.interventions(method), self.test.ids, self.test.residuals, *probes
            ).assign(method=method)
            for method in SETTINGS.methods
        ]
        return pd.concat(made, ignore_index=True)

    def _solved(self) -> pd.DataFrame:
        """Return a row per grid point and input, for test rows and prompts."""
        parts = (("test", self.test), ("prompt", self.prompts))
        examples = pd.concat(
            pd.DataFrame({"example_id": part.ids, "split": split, "label": part.labels})
            for split, part in parts
        ).reset_index(drop=True)
        residuals = np.concatenate([part.residuals for _, part in parts])
        fixed, qp, socp = (
            SETTINGS.model_copy(update={"methods": settings_of(family, SETTINGS)["methods"]})
            for family in ("directions", "qp", "socp")
        )
        frames = [
            solve_directions(
                fixed, examples, lambda method: read_direction(self.directions, method)
            )
        ]
        for program in (qp, socp):
            frames.append(
                solve_program_grid(
                    program,
                    examples,
                    residuals,
                    self.probe,
                    self.path,
                    1,
                    units=ModelUnits(1.0, 1.0),
                )
            )
        return pd.concat(frames, ignore_index=True)
