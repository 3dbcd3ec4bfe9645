"""One training that several processes do together, each on its share of every batch."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import distributed
from torch.nn.modules.batchnorm import _BatchNorm

from mien.balance.counts import to_generate
from mien.data.faceset import FaceSet
from mien.errors import MienError, RecipeError, RunError, unknown
from mien.executors.local import START
from mien.executors.ray_cluster import import_ray
from mien.runs.atomic import remove_leftovers
from mien.runs.environment import choose_device, within_memory
from mien.runs.lock import locked
from mien.runs.recipe import Recipe
from mien.runs.run import Run, find_finished, run_name
from mien.training.conflicts import settled
from mien.training.earlier import check_beginning
from mien.training.generated import generated_faces
from mien.training.loop import Training
from mien.training.parts import check_parts
from mien.training.predict import build_model
from mien.training.share import Share
from mien.training.teacher import check_teachers


def fit_distributed(
    recipe: Recipe,
    train: FaceSet,
    validation: FaceSet | None = None,
    *,
    processes: int,
    launcher: str = "torch",
    backend: str | None = None,
    runs: Path | str = "runs",
    records: Path | str | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: str = "live",
) -> Run:
    """Train a model in several processes at once, and return its finished run.

    As `fit`, but each process works on its share of every batch (torch's DistributedDataParallel),
    an accelerator each where there are any. Order, augmentation and mixing are drawn for the whole
    batch, so they do not depend on the number of processes, and the gradients are those of the
    whole batch's loss. Where the layers take no statistics of a batch and draw no numbers, the
    result is that of one process up to rounding.

    Dropout draws other numbers. Batch norm takes its statistics over all processes on accelerators;
    on CPUs there is no such thing, and each process takes those of its own share. So the number of
    processes, which stands in the run's info, is part of its name where it is not 1: the same
    number goes on with a training that was stopped, another one begins a run of its own.

    Parameters
    ----------
    recipe, train, validation, records, progress : as in `fit`
    processes : how many; must divide the batch
    launcher : ``"torch"`` starts them on this machine; ``"ray"`` through Ray Train, in the cluster
        that this process is connected to or ``RAY_ADDRESS`` names, or else one of its own here
    backend : ``"gloo"``, ``"nccl"``, ...; None is gloo on CPUs and nccl on NVIDIA's accelerators
    runs : folder in which the run's folder is made; with Ray, one that every machine sees
    device : ``"cpu"`` or ``"cuda"``; None takes accelerators where this machine has one
    threads : of torch in each process; None shares out those of this process

    Raises
    ------
    DataError, RecipeError, RunError
        as `fit` does, if the number of processes does not divide the batch, if there are fewer
        accelerators than processes, or if one of them dies.
    """
    if launcher not in LAUNCHERS:
        raise RecipeError(unknown("launcher", launcher, LAUNCHERS))
    check_parts(recipe, train, validation)
    check_beginning(recipe, train, validation)
    check_teachers(recipe, train, validation)
    kept = settled(train, recipe.conflicts)
    images = len(kept)
    if recipe.generate:
        images += int(to_generate(kept.counts(), kept.classes, recipe.generate).sum())
    batch = min(recipe.batch_size, images)
    if processes < 1 or batch % processes:
        raise RecipeError(
            f"a batch of {batch} images cannot be shared out evenly to {processes} processes; "
            "give a batch_size that is a multiple of their number"
        )
    name = run_name(recipe, train, validation) + (f"-x{processes}" if processes > 1 else "")
    found = find_finished(name, recipe, *(Path(f) for f in (runs, records) if f is not None))
    if found is not None:
        return found
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    generated = generated_faces(recipe, train, runs=runs, device=kind, progress=progress)
    task = Task(
        recipe=recipe,
        train=train,
        generated=generated,
        validation=validation,
        path=Path(runs).absolute() / name,
        processes=processes,
        kind=kind,
        backend=backend or ("nccl" if kind == "cuda" else "gloo"),
        threads=threads or max(1, torch.get_num_threads() // processes),
        progress=progress,
    )
    with locked(task.path):
        found = find_finished(name, recipe, Path(runs))  # by another process, meanwhile
        if found is not None:
            return found
        remove_leftovers(task.path)
        if processes > 1 and progress != "none":
            _warn_of_statistics(task)
        try:
            LAUNCHERS[launcher](task)
            run = Run.open(task.path)
            if not run.finished:  # Ctrl-C reached the processes and not this one
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped; finished epochs are kept in {task.path}: the same command goes on from "
                "there"
            ) from None
    return run


@dataclass(frozen=True, eq=False)
class Task:
    """What every process of a training is told."""

    recipe: Recipe
    train: FaceSet
    generated: FaceSet | None
    validation: FaceSet | None
    path: Path
    processes: int
    kind: str
    backend: str
    threads: int
    progress: str


def train_share(task: Task, rank: int, device: str) -> None:
    """Do one process's share; its process group must have been made."""
    share = Share(rank, task.processes)
    torch.set_num_threads(task.threads)
    where = choose_device(device)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    validation = task.validation if share.leads else None
    with within_memory(task.path):
        training = Training(task.recipe, task.train, validation, where, share, task.generated)
        training.begin(task.path)
        epochs = share.sum(torch.tensor(training.epoch, device=where))
        if int(epochs) != training.epoch * task.processes:
            raise RunError(
                f"{task.path}: process {rank} finds {training.epoch} finished epochs there and "
                "others find others; give a folder of runs that every machine sees"
            )
        training.finish(task.progress if share.leads else "none")


def _warn_of_statistics(task: Task) -> None:
    """Say where processes do not do together what one does."""
    with torch.device("meta"):
        model = build_model(task.recipe, len(task.train.classes), task.train.channels)
    if task.kind == "cpu" and any(isinstance(module, _BatchNorm) for module in model.modules()):
        print(
            f"{task.recipe.title}: on CPUs each of the {task.processes} processes takes batch "
            "norm's statistics of its own share of a batch, so the result is not that of one",
            file=sys.stderr,
        )


def _with_torch(task: Task) -> None:
    """Start the processes on this machine."""
    devices = torch.cuda.device_count() if task.kind == "cuda" else task.processes
    if task.backend == "nccl" and devices < task.processes:
        raise RunError(
            f"{task.processes} processes need an accelerator each, and this machine has {devices}; "
            f"give processes={devices}, or device='cpu'"
        )
    context = torch.multiprocessing.get_context(START)
    # The first step of an optimiser imports torch._dynamo, for as long as torch itself takes.
    context.set_forkserver_preload([__name__, "torch._dynamo"])
    failures: SimpleQueue = context.SimpleQueue()
    with TemporaryDirectory() as folder:
        started = torch.multiprocessing.start_processes(
            _started,
            (task, f"file://{folder}/meeting", failures),
            task.processes,
            join=False,
            start_method=START,
        )
        try:
            while not started.join():
                pass
        except KeyboardInterrupt:
            for process in started.processes:  # Ctrl-C in a terminal has reached them too
                process.join(10)
                process.terminate()
            raise
        except torch.multiprocessing.ProcessRaisedException:
            # Those that waited for the one that failed have lost their connection: no news.
            if failures.empty():
                raise
            raise failures.get() from None
        except torch.multiprocessing.ProcessExitedException as died:
            how = died.signal_name or f"status {died.exit_code}"
            raise RunError(
                f"{task.path}: process {died.error_index} of {task.processes} died ({how}), as it "
                "does when memory runs out; finished epochs are kept: the same command goes on "
                "from there"
            ) from None


def _started(rank: int, task: Task, meeting: str, failures: SimpleQueue) -> None:
    device = task.kind
    if device == "cuda":
        device = f"cuda:{rank % torch.cuda.device_count()}"
    distributed.init_process_group(
        task.backend, init_method=meeting, rank=rank, world_size=task.processes
    )
    try:
        train_share(task, rank, device)
    except MienError as error:
        failures.put(error)
        raise
    finally:
        distributed.destroy_process_group()


def _with_ray(task: Task) -> None:
    """Have Ray Train start the processes, wherever its cluster has room for them."""
    ray = import_ray()
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # or a relative path would not be found
    on_cuda = task.kind == "cuda"
    with TemporaryDirectory(prefix=".ray-", dir=task.path) as folder:  # every machine must see it
        trainer = TorchTrainer(
            _in_ray,
            train_loop_config={"task": ray.put(task)},
            torch_config=TorchConfig(backend=task.backend),
            scaling_config=ScalingConfig(
                num_workers=task.processes,
                use_gpu=on_cuda,
                resources_per_worker={"CPU": task.threads, "GPU": int(on_cuda)},
            ),
            run_config=RunConfig(storage_path=folder),
        )
        try:
            with _ctrl_c_restored():
                trainer.fit()
        except TrainingFailedError as failed:
            for failure in getattr(failed, "worker_failures", {}).values():
                if isinstance(failure, MienError):
                    raise failure from None
            raise RunError(
                f"{task.path}: Ray Train stopped ({str(failed).strip()}); finished epochs are "
                "kept: the same command goes on from there"
            ) from failed


@contextmanager
def _ctrl_c_restored() -> Iterator[None]:
    """Ray Train's handler of Ctrl-C exits with 0, and stays when the training has ended."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


def _in_ray(config: dict[str, Any]) -> None:
    import ray
    from ray.train import get_context
    from ray.train.torch import get_device

    train_share(ray.get(config["task"]), get_context().get_world_rank(), str(get_device()))


LAUNCHERS: dict[str, Callable[[Task], None]] = {"torch": _with_torch, "ray": _with_ray}
"""Ways of starting the processes of a training."""
