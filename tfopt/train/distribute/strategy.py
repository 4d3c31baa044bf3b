"""Where training runs: a flag's word -> `tf.distribute.Strategy`, and what follows.

In a script of one's own:

    with tfopt.strategy("auto") as s:
        model = tfopt.model.load("minilm", num_labels=2)
    tfopt.train.fit(model, batches, settings=tfopt.train.Settings(
        learning_rate=s.learning_rate(1e-4)))
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from typing import Any

from absl import logging

from tfopt.backend import configure_coordination, tf
from tfopt.train import precision
from tfopt.train.distribute import cluster as clusters
from tfopt.train.distribute import sharding, workers

NAMES = ("auto", "one_device", "mirrored", "multi_worker", "tpu", "parameter_server")
RATE_RULES = ("none", "linear", "sqrt")
# Set where there is a TPU: by Colab, by a TPU machine, by Google's own launchers.
_TPU_VARIABLES = ("TPU_NAME", "COLAB_TPU_ADDR", "KUBE_GOOGLE_CLOUD_TPU_ENDPOINTS",
                  "TPU_ACCELERATOR_TYPE", "TPU_WORKER_ID")

# Asked for later, it might be within another's scope, and be that one.
_DEFAULT = tf.distribute.get_strategy()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placement:
    """A strategy, and what a script sets by it; a context manager of its scope.

    Attributes:
        name: one of `NAMES`, without "auto".
        strategy: TensorFlow's.
        why: why this one, in words.
        per_replica: whether batch sizes are those of a replica.
        rate_rule: how the learning rate follows a batch that grew: "none", "linear"
            (Goyal et al. 2017, arXiv:1706.02677) or "sqrt" (Hoffer et al. 2017,
            arXiv:1705.08741).
    """

    name: str
    strategy: tf.distribute.Strategy
    why: str
    per_replica: bool = False
    rate_rule: str = "none"

    def __post_init__(self):
        """Checks the rule.

        Raises:
            ValueError: it is unknown.
        """
        if self.rate_rule not in RATE_RULES:
            raise ValueError(f"`rate_rule` must be one of {RATE_RULES}. Received: "
                             f"rate_rule={self.rate_rule!r}")

    @property
    def replicas(self) -> int:
        """Copies of the model that train together."""
        return self.strategy.num_replicas_in_sync

    @property
    def mixed_precision(self) -> str:
        """The policy that is fastest here, for `train.Settings` or Keras."""
        return precision.best()

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes."""
        return workers.is_chief(self.strategy)

    def batch_size(self, given: int) -> int:
        """Examples of a step, over all replicas.

        Raises:
            ValueError: the replicas do not divide them.
        """
        if self.per_replica:
            return given * self.replicas
        sharding.check_divides(given, self.replicas)
        return given

    def learning_rate(self, given: float) -> float:
        """The rate for the batch of all replicas, where the one given is for one's."""
        grown = self.replicas if self.per_replica else 1
        return given * {"none": 1, "linear": grown, "sqrt": math.sqrt(grown)}[
            self.rate_rule]

    def __enter__(self) -> Placement:
        """Enters the scope; build models in it."""
        scope = self.strategy.scope()
        scope.__enter__()
        _scopes.append(scope)
        return self

    def __exit__(self, *error) -> None:
        """Leaves it."""
        _scopes.pop().__exit__(*error)


_scopes: list[Any] = []


def strategy(name: str = "auto", *, tpu: str | None = None, gpus: int | None = None,
             per_replica: bool = False, rate_rule: str = "none",
             wait_s: float = 300.0) -> Placement:
    """Chooses where to train; do it before TensorFlow computes anything.

    It logs in one line what was chosen, and why.

    Args:
        name: "one_device", the first accelerator or the CPU; "mirrored", every GPU of
            this machine, or where there is none every logical CPU; "multi_worker" and
            "parameter_server", the processes that TF_CONFIG names; "tpu"; "auto", what
            TF_CONFIG, a TPU and the GPUs that are here suggest, in this order.
        tpu: of "tpu": a Cloud TPU's name or address; "local" for one of this machine,
            as Colab has it; None for what the environment says.
        gpus: of "mirrored" and "auto", how many; None for all.
        per_replica: whether batch sizes are those of a replica.
        rate_rule: one of `RATE_RULES`.
        wait_s: seconds for other workers, or a TPU, to answer.

    Returns:
        The placement; the same strategy at each call.

    Raises:
        ValueError: the name is unknown, what it needs is not here, TF_CONFIG is wrong,
            or somebody does not answer.
    """
    if name not in NAMES:
        raise ValueError(f"A strategy must be one of {NAMES}. Received: {name!r}")
    chosen, why = _choose(name, tpu)
    made = _make(chosen, tpu, gpus, wait_s)
    if chosen == "auto":
        chosen, why = (("one_device", f"{why}, and there are not several GPUs")
                       if made.num_replicas_in_sync == 1 else
                       ("mirrored", f"{why}, and there are several GPUs"))
    _say(chosen, made, why)
    return Placement(name=chosen, strategy=made, why=why, per_replica=per_replica,
                     rate_rule=rate_rule)


def make(name: str = "auto", **options) -> tf.distribute.Strategy:
    """The `tf.distribute.Strategy` of `strategy`, of the same arguments."""
    return strategy(name, **options).strategy


def _choose(name: str, tpu: str | None) -> tuple[str, str]:
    if name != "auto":
        return name, "asked for"
    cluster = clusters.read()
    if cluster is not None and clusters.SERVERS in cluster.jobs:
        return "parameter_server", "TF_CONFIG names parameter servers"
    if cluster is not None and cluster.workers > 1:
        return "multi_worker", f"TF_CONFIG names {cluster.workers} workers"
    if tpu is not None:
        return "tpu", "a TPU is named"
    for variable in _TPU_VARIABLES:
        if os.environ.get(variable):
            return "tpu", f"{variable} is set"
    return "auto", "neither TF_CONFIG nor a TPU is set"


@functools.cache
def _make(name: str, tpu: str | None, gpus: int | None, wait_s: float
          ) -> tf.distribute.Strategy:
    # One of each a process: two over the same devices run into each other's
    # collectives, which are numbered from the same start.
    if name == "multi_worker":
        return _multi_worker(wait_s)
    if name == "parameter_server":
        return _parameter_server(wait_s)
    if name == "tpu":
        return _tpu(tpu, wait_s)
    found = tf.config.list_logical_devices("GPU")
    if gpus is not None and len(found) < gpus:
        raise ValueError(f"There must be as many GPUs as are asked for. Received: "
                         f"gpus={gpus}, {len(found)} found")
    devices = found[:gpus] or tf.config.list_logical_devices("CPU")
    if name == "mirrored" and len(devices) == 1 and gpus is None:
        raise ValueError(
            "The strategy 'mirrored' needs several GPUs, or several logical CPUs. "
            f"Received: {len(found)} GPUs, and one CPU")
    if name == "one_device" or len(devices) == 1 or (name == "auto" and not found):
        return _DEFAULT
    return _mirrored(tuple(device.name for device in devices))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(devices)


def _cluster(strategy_name: str) -> clusters.Cluster:
    cluster = clusters.read()
    if cluster is None:
        raise ValueError(f"The strategy {strategy_name!r} needs TF_CONFIG, which names "
                         "all processes and which of them this is. Received: no "
                         "TF_CONFIG")
    return cluster


def _multi_worker(wait_s: float) -> tf.distribute.Strategy:
    cluster = _cluster("multi_worker")
    if cluster.job not in clusters.WORKERS:
        raise ValueError("A task of the strategy 'multi_worker' must be of the jobs "
                         f"{clusters.WORKERS}. Received: {cluster.job!r}")
    clusters.meet(cluster, wait_s)
    configure_coordination({job: len(cluster.jobs[job]) for job in clusters.WORKERS
                            if job in cluster.jobs})
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ValueError(
            "The strategy 'multi_worker' must be made before TensorFlow computes "
            f"anything. Received: {error}") from error


def _parameter_server(wait_s: float) -> tf.distribute.Strategy:
    cluster = _cluster("parameter_server")
    if clusters.SERVERS not in cluster.jobs or "chief" not in cluster.jobs:
        raise ValueError("The strategy 'parameter_server' needs the jobs 'chief', "
                         f"'worker' and 'ps'. Received: {tuple(cluster.jobs)}")
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    if cluster.job != "chief":
        logging.info("Serving as %s %d at %s; the chief trains", cluster.job,
                     cluster.index, cluster.address)
        tf.distribute.Server(resolver.cluster_spec(), protocol="grpc",
                             job_name=cluster.job, task_index=cluster.index).join()
    for job in ("ps", "worker"):
        for address in cluster.jobs.get(job, ()):
            clusters.check_answers(address, wait_s, "Every parameter server and worker "
                                   f"must be started within {wait_s:g} s.")
    return tf.distribute.ParameterServerStrategy(
        resolver, tf.distribute.experimental.partitioners.MinSizePartitioner(
            max_shards=len(cluster.jobs[clusters.SERVERS])))


def _tpu(tpu: str | None, wait_s: float) -> tf.distribute.Strategy:
    rule = (f"The TPU {tpu or 'of the environment'!r} must answer: give a name, an "
            "address, or 'local'.")

    def resolve():
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu)
        return resolver, resolver.master()

    resolver, address = clusters.answer_of(resolve, wait_s, rule)
    if address:
        clusters.check_answers(address, wait_s, rule)
    try:
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise ValueError(f"{rule} Received: {' '.join(str(error).split())[:160]}"
                         ) from error
    return tf.distribute.TPUStrategy(resolver)


@functools.cache  # a line a strategy
def _say(name: str, made: tf.distribute.Strategy, why: str) -> None:
    processes = workers.count(made)
    replicas = made.num_replicas_in_sync
    kinds = [device.device_type for device in tf.config.list_physical_devices()]
    logging.info(
        "Strategy %s, since %s; %d %s%s; on this machine %s; best arithmetic: %s", name,
        why, replicas, "replica" if replicas == 1 else "replicas",
        f" in {processes} processes" if processes > 1 else "",
        ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)),
        precision.best())
