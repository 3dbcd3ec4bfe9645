"""Where trainings are done: on this machine, or on a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mien.errors import RecipeError

if TYPE_CHECKING:
    from mien.executors import Executor

Cluster = Annotated[
    str | None,
    typer.Option(help="A Ray cluster: auto, HOST:PORT, ray://HOST:PORT, or local."),
]
CpusEach = Annotated[
    float | None,
    typer.Option(help="Cores of a cluster's node that each training needs. Default: 1"),
]
GpusEach = Annotated[
    float | None, typer.Option(help="Accelerators of a node that each needs, such as 0.5.")
]
Store = Annotated[
    str | None,
    typer.Option(help="Where a cluster's runs arrive: a shared folder, or a URL such as s3://..."),
]


def executor(
    cluster: str | None, cpus: float | None, gpus: float | None, store: str | None, jobs: int
) -> Executor:
    """The `Executor` that was asked for."""
    from mien.executors import Local

    if cluster is None:
        if (cpus, gpus, store) != (None, None, None):
            raise RecipeError("--cpus, --gpus and --store are for --cluster; leave them out")
        return Local(jobs)
    if store is None:
        raise RecipeError(
            "--cluster needs --store, where the finished runs arrive: a folder that all nodes see, "
            "or a URL such as s3://BUCKET/runs"
        )
    from mien.executors.ray_cluster import RayCluster

    return RayCluster(cluster, 1 if cpus is None else cpus, gpus or 0)
