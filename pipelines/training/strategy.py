"""Which devices of which machines train together, and how a stream reaches them."""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from pipelines.config import TrainConfig, require_addresses
from pipelines.errors import BadInput

TF_CONFIG_EXAMPLE = (
    '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, "task": {"type": "worker", "index": 0}}'
)


@dataclass(frozen=True)
class Distribution:
    """The devices that train together.

    Args:
        strategy: replicates the network over them.
        worker: which of the processes this one is, from 0.
        num_workers: processes, each with as many devices.
    """

    strategy: tf.distribute.Strategy
    worker: int = 0
    num_workers: int = 1

    @property
    def chief(self) -> bool:
        """Whether this process writes what all have trained."""
        return self.worker == 0

    @property
    def replicas(self) -> int:
        """Copies of the network, over all workers."""
        return self.strategy.num_replicas_in_sync

    def spread(
        self, stream: Callable[..., tf.data.Dataset], worker_batch_size: int
    ) -> tf.distribute.DistributedDataset:
        """Each worker's own stream, its batches cut up for the worker's devices.

        Args:
            stream: takes `worker` and `num_workers` and gives batches of `worker_batch_size`.
            worker_batch_size: a multiple of the worker's devices.
        """
        devices = self.replicas // self.num_workers

        def of_worker(_: tf.distribute.InputContext) -> tf.data.Dataset:
            batches = stream(worker=self.worker, num_workers=self.num_workers)
            if devices == 1:
                return batches
            return batches.rebatch(worker_batch_size // devices, drop_remainder=True)

        return self.strategy.distribute_datasets_from_function(of_worker)

    def same_everywhere(self, numbers: list[int]) -> bool:
        """Whether all workers give the same numbers; all are to ask."""

        def gathered() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            return context.all_gather(tf.constant([numbers]), axis=0)

        if self.num_workers == 1:
            return True
        of_replicas = self.strategy.run(tf.function(gathered))
        rows = self.strategy.experimental_local_results(of_replicas)[0].numpy()
        return bool((rows == numbers).all())


def choose_distribution(config: TrainConfig) -> Distribution:
    """All machines that the config or TF_CONFIG names; else all devices of this one.

    To be called before anything else asks TensorFlow for its devices. Returns once all workers are
    there; until then, TensorFlow lets SIGTERM have no effect.

    Raises:
        BadInput: TF_CONFIG cannot be read, or gives this process another role than a worker's.
    """
    jobs, task = _cluster(config)
    workers = [
        (job, index) for job in ("chief", "worker") for index in range(len(jobs.get(job, ())))
    ]
    if jobs and task not in workers:
        raise BadInput(
            f"TF_CONFIG makes this process {task[0]!r} number {task[1]}; "
            "a chief or a worker of its cluster trains"
        )
    if len(workers) > 1:
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(jobs), task_type=task[0], task_id=task[1], rpc_layer="grpc"
        )
        others = [jobs[job][index] for job, index in workers if (job, index) != task]
        print(f"waiting for {len(others)} worker(s): {', '.join(others)}", file=sys.stderr)
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
        # TensorFlow has taken SIGTERM for itself, and only notes it.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
        return Distribution(strategy, workers.index(task), len(workers))
    return Distribution(local_strategy())


def local_strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine; where it has none, its processor."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _cluster(config: TrainConfig) -> tuple[dict[str, list[str]], tuple[str, int]]:
    """The addresses of each job's processes, and the job and number of this one."""
    if config.worker_addresses:
        return {"worker": config.worker_addresses}, ("worker", config.worker_index)
    given = os.environ.get("TF_CONFIG", "{}")
    try:
        told = json.loads(given)
        # Some engines set TF_CONFIG for a single machine too, without a cluster.
        if not told.get("cluster"):
            return {}, ("worker", 0)
        jobs, task = told["cluster"], told["task"]
        require_addresses("the cluster", [one for job in jobs.values() for one in job])
        return jobs, (task["type"], int(task["index"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"TF_CONFIG is {given!r} ({type(error).__name__}: {error}); "
            f"unset it, or write {TF_CONFIG_EXAMPLE}"
        ) from error
