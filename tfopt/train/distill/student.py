"""A student in training: a functional model whose step compares it with a teacher.

(inputs, targets) -> gradient of the losses of a `Distillation`. The teacher runs once a
batch, outside of the tape; neither it nor the matrix between the two widths is among
the student's weights.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from absl import logging

from tfopt import switches
from tfopt.backend import keras, tf
from tfopt.train import precision as precisions
from tfopt.train.distill import losses
from tfopt.train.steps_per_execution import MultiStepModel
from tfopt.types import INPUT_NAMES, is_labelled


class Taps(NamedTuple):
    """Where a student and its teacher are compared: symbolic tensors of a model.

    Attributes:
        hidden: of each layer <float>[B, T, D].
        projections: "query", "key" and "value" of the last layer that has attention
            <float>[B, T, H*K]; empty where none has.
        num_heads: H of that layer, or 0.
    """

    hidden: list
    projections: dict[str, Any]
    num_heads: int


class DistillationLoss:
    """What a teacher gives a student, and how far the student is from it.

    Args:
        goal: the objective of `Distillation.goal`: its settings, losses, teacher and
            taps.
        student: functional, to logits.
        precision: policy by which the teacher computes.

    Attributes:
        seen: the student, from its inputs to all that is compared.
        width: the Dense that takes the student's states to the teacher's width, or
            None.
        mean: the running loss; Keras would count the model's own as its weight.

    Raises:
        ValueError: the classes differ, or relation heads do not fit.
    """

    def __init__(self, goal, student: keras.Model, precision: str):
        self.settings = settings = goal.settings
        self._hard_loss, self._soft_loss = goal.hard_loss, goal.soft_loss
        self.target_rank = goal.target_rank
        self.width: keras.layers.Layer | None = None
        self.mean = keras.metrics.Mean(name="loss")
        self._teacher, self._classes = None, student.output_shape[-1]
        self.seen = keras.Model(student.input, {"logits": student.outputs[0]})
        if goal.teacher is None:
            return
        self._check_classes(goal.teacher.output_shape[-1])
        # A copy in the strategy's scope, so that each device has its own; it is never
        # part of the student.
        teacher = precisions.retype(goal.teacher, precision)
        own = theirs = None
        if settings.uses_layers:
            own, theirs = goal.taps(student), goal.taps(teacher)
            if settings.relations_weight:
                _check_relations(own, theirs)
                self._heads = _relation_heads(settings, own, theirs)
            if settings.hidden_weight:
                self._pair_layers(own.hidden, theirs.hidden)
        self.seen = self._compared(student, own)
        self._teacher = self._compared(teacher, theirs)

    def teacher_outputs(self, inputs, given) -> dict:
        """What the teacher computes.

        Args:
            inputs: of a batch.
            given: logits <float>[B, C] of the batch, maybe another teacher's; or None.

        Returns:
            "logits", "hidden" and "projections" of it, in float32.

        Raises:
            ValueError: there is neither a teacher nor its logits, or these are of other
                classes.
        """
        if given is not None:
            self._check_classes(given.shape[-1])
            if not self.settings.uses_layers:
                return {"logits": given}
        if self._teacher is None:
            raise ValueError(
                "A student needs a teacher, or batches that carry its logits "
                "(`Batches.with_teacher_logits`). Received: neither")
        if self.settings.uses_layers:
            found = _float32(self._teacher(inputs, training=False))
            return found if given is None else {**found, "logits": given}
        with switches.on(self._teacher, "first_alone"):
            return _float32(self._teacher(inputs, training=False))

    def loss(self, own, expected, inputs, targets):
        """The weighted sum of the losses.

        Args:
            own: what the student computes.
            expected: what the teacher computes.
            inputs: of the batch.
            targets: <int32>[B, ...] or <float32>[B, ...]; None where no example has
                one.

        Returns:
            <float>[B].

        Raises:
            ValueError: labels have a weight and there are none.
        """
        settings, total = self.settings, 0.0
        if settings.hard_weight:
            if targets is None:
                raise ValueError("Batches without labels need hard_weight=0. Received: "
                                 f"hard_weight={settings.hard_weight}")
            total += settings.hard_weight * self._hard_loss(own["logits"], targets)
        if settings.soft_weight:
            soft = self._soft_loss(
                own["logits"], expected["logits"], settings.temperature)
            # Of a model with an output a token, <float>[B, T].
            total += settings.soft_weight * (losses.token_mean(
                soft, _visible(inputs)) if soft.shape.rank == 2 else soft)
        if settings.uses_layers:
            visible = _visible(inputs)
        if settings.hidden_weight:
            total += settings.hidden_weight * self._hidden(own, expected, visible)
        if settings.relations_weight:
            total += settings.relations_weight * self._relations(own, expected, visible)
        return total

    def _check_classes(self, classes: int) -> None:
        if classes != self._classes:
            raise ValueError(
                "A teacher must have the classes of its student. Received: a teacher "
                f"of {classes} and a student of {self._classes} classes")

    def _compared(self, model, found: Taps | None) -> keras.Model:
        """A model of the same layers, to all that the settings compare."""
        outputs = {"logits": model.outputs[0]}
        if found is not None and self.settings.hidden_weight:
            outputs["hidden"] = found.hidden
        if found is not None and self.settings.relations_weight:
            outputs["projections"] = found.projections
        return keras.Model(model.input, outputs)

    def _pair_layers(self, own, theirs) -> None:
        """Pairs the layers, and makes the matrix between the widths."""
        self._paired = losses.evenly(len(own), len(theirs))
        width, teacher_width = own[0].shape[-1], theirs[0].shape[-1]
        if width != teacher_width:
            self.width = keras.layers.Dense(
                teacher_width, use_bias=False, dtype="float32", name="to_teacher_width",
                kernel_initializer=keras.initializers.GlorotUniform(seed=0))
            self.width.build([None, None, width])

    def _hidden(self, own, expected, visible):
        states = [state if self.width is None else self.width(state)
                  for state in own["hidden"]]
        teacher_states = [expected["hidden"][layer] for layer in self._paired]
        if self.settings.layers == "nearest":
            found = losses.nearest(states, teacher_states, visible)
        else:
            found = [losses.distance(*pair, visible)
                     for pair in zip(states, teacher_states, strict=True)]
        return tf.add_n(found) / len(found)

    def _relations(self, own, expected, visible):
        def relation(outputs, pair):
            first, second = (outputs["projections"][name] for name in pair)
            return losses.relation(first, second, self._heads, visible)

        pairs = self.settings.relations
        return tf.add_n([losses.relation_loss(
            relation(own, pair), relation(expected, pair), visible) for pair in pairs]
            ) / len(pairs)


class StudentModel(MultiStepModel):
    """A student that learns from a teacher when it is fitted; functional.

    Evaluation, saving and weights are those of the student alone.

    Args:
        model: the student; its layers are shared.
        loss: how it is compared with its teacher; of this very model.
    """

    def __init__(self, model: keras.Model, loss: DistillationLoss):
        super().__init__(model.input, model.outputs, name=model.name)
        # No Keras object of its own: what it holds is not tracked as the student's.
        self._distillation = loss
        # Tracked for checkpoints, from which a killed run goes on; no weight.
        self.beside = tf.train.Checkpoint(
            **({} if loss.width is None else {"width": loss.width}))

    @property
    def trained_variables(self) -> list[tf.Variable]:
        """What the optimizer moves."""
        width = self._distillation.width
        return self.trainable_variables + (
            [] if width is None else width.trainable_variables)

    @property
    def metrics(self):
        """The running loss, and the metrics of `compile`."""
        return [self._distillation.mean,
                *(metric for metric in super().metrics if metric.name != "loss")]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        """The compiled loss, by which evaluation judges the student alone."""
        loss = super().compute_loss(x, y, y_pred, sample_weight)
        # Of a replica's shard, divided by the replicas, which are summed.
        self._distillation.mean.update_state(
            loss * self.distribute_strategy.num_replicas_in_sync, tf.shape(y_pred)[0])
        return loss

    def train_step(self, data):
        """One step.

        Args:
            data: inputs; or (inputs, targets <int>[B, ...] or <float>[B, ...]), below
                0 or NaN for examples without one; or (inputs, (targets, the teacher's
                logits <float>[B, C])).

        Returns:
            The running loss and, where there are targets, the metrics.
        """
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(data)
        targets, given = labels if isinstance(labels, tuple | list) else (labels, None)
        if targets is not None:
            if not self._distillation.target_rank:
                targets = tf.reshape(targets, [-1])
            if targets.dtype.is_integer:  # int64 on GPUs (`sharding`)
                targets = tf.cast(targets, tf.int32)
        expected = self._distillation.teacher_outputs(inputs, given)
        with tf.GradientTape() as tape:
            own = _float32(self._distillation.seen(inputs, training=True))
            values = self._distillation.loss(own, expected, inputs, targets)
            if weights is not None:
                values *= weights
            # Losses of the layers themselves, such as of a regularizer.
            loss = tf.add_n([tf.reduce_mean(values), *self.losses])
            # The optimizer sums over replicas.
            loss /= self.distribute_strategy.num_replicas_in_sync
        self.optimizer.minimize(loss, self.trained_variables, tape=tape)
        self._distillation.mean.update_state(values)
        if targets is None or targets.shape.rank <= self._distillation.target_rank:
            return self.get_metrics_result()  # batches without any target
        # An example counts if a number of its target is there; metrics pass over the
        # others of these.
        known = tf.reduce_any(is_labelled(targets), axis=list(
            range(1, targets.shape.rank)), keepdims=True)
        labelled = tf.cast(tf.reshape(known, [-1]), tf.float32)
        return self.compute_metrics(
            inputs, tf.where(known, targets, tf.zeros_like(targets)), own["logits"],
            labelled if weights is None else labelled * weights)


def _visible(inputs):
    """Which tokens are no padding, <float>[B, T]."""
    return tf.cast(inputs[INPUT_NAMES[1]], tf.float32)


def _check_relations(own: Taps, theirs: Taps) -> None:
    for whose, found in (("student", own), ("teacher", theirs)):
        if not found.projections:
            raise ValueError("Relations between tokens need a layer with attention in "
                             f"both models. Received: a {whose} that has none")


def _relation_heads(settings, own: Taps, theirs: Taps) -> int:
    widths = {x.shape[-1] for taps in (own, theirs) for x in taps.projections.values()}
    heads = settings.relation_heads
    if heads is None:
        heads = next(n for n in range(theirs.num_heads, 0, -1)
                     if not any(width % n for width in widths))
        logging.info("Relations are compared in %d heads", heads)
    if any(width % heads for width in widths):
        raise ValueError("`relation_heads` must divide the widths of both models' "
                         f"queries, keys and values, {sorted(widths)}. Received: "
                         f"relation_heads={heads}")
    return heads


def _float32(outputs):
    return tf.nest.map_structure(lambda x: tf.cast(x, tf.float32), outputs)
