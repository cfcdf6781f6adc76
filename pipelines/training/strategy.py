"""Which devices of which machines train together, and how a stream reaches them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from pipelines.config import TrainConfig
from pipelines.errors import BadInput


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

    To be called before anything else asks TensorFlow for its devices.

    Raises:
        BadInput: TF_CONFIG gives this process another role than a worker's.
    """
    resolver = _resolver(config)
    jobs = resolver.cluster_spec().as_dict()
    workers = [
        (job, index) for job in ("chief", "worker") for index in range(len(jobs.get(job, ())))
    ]
    if len(workers) > 1:
        task = (resolver.task_type, resolver.task_id)
        if task not in workers:
            raise BadInput(f"TF_CONFIG makes this process {task[0]!r}; a chief or a worker trains")
        strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver)
        return Distribution(strategy, workers.index(task), len(workers))
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(devices) == 1:
        return Distribution(tf.distribute.get_strategy())
    return Distribution(tf.distribute.MirroredStrategy([device.name for device in devices]))


def _resolver(config: TrainConfig) -> Any:
    resolvers = tf.distribute.cluster_resolver
    if not config.worker_addresses:
        return resolvers.TFConfigClusterResolver()
    return resolvers.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": config.worker_addresses}),
        task_type="worker",
        task_id=config.worker_index,
        rpc_layer="grpc",
    )
