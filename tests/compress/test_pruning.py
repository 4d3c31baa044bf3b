"""What all pruning passes share: allocation, patterns, layers, refusals, resuming."""

from __future__ import annotations

import numpy as np
import pytest

import tfopt
from tfopt import compress
from tfopt import model as models
from tfopt.backend import keras, tf, tfmot
from tfopt.compress import Context, Recipe
from tfopt.compress.passes.magnitude import Magnitude
from tfopt.compress.passes.movement import Movement
from tfopt.compress.pruning.base import Pruning
from tfopt.compress.pruning.masked_layer import Pruned, wrappers_of
from tfopt.train import Settings

PRUNERS = {name: kind for name, kind in compress.all_passes().items()
           if issubclass(kind, Pruning)}
CONFIG = models.EncoderConfig.uniform(
    hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, vocab_size=103,
    max_positions=64)
HEAD = models.Head(outputs=3)


@pytest.fixture
def bert():
    return models.build(CONFIG, HEAD, seed=1)


@pytest.fixture
def short_bert():
    """One layer: compiled sooner."""
    return models.build(CONFIG.replace(num_heads=CONFIG.num_heads[:1],
                                       intermediate_sizes=[32]), HEAD, seed=1)


def sparsities(model) -> dict[str, float]:
    """Share of zeros in each kernel and embedding table."""
    return {layer.name: float(np.mean(layer.get_weights()[0] == 0))
            for layer in model.layers
            if isinstance(layer, keras.layers.Dense | keras.layers.Embedding)}


def encoder(found: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if name.startswith("layer_")}


def prune(model, **fields):
    return Magnitude(**{"final_sparsity": 0.5, **fields}).prune_at_once(model)


def test_uniform_is_exact_in_every_layer(bert):
    found = sparsities(prune(bert, final_sparsity=0.7))
    for name, value in found.items():
        size = bert.get_layer(name).get_weights()[0].size
        expected = round(0.7 * size) / size if name.startswith("layer_") else 0
        assert value == expected


@pytest.mark.parametrize("allocation", ["global", "erdos_renyi_kernel"])
def test_other_allocations_are_exact_over_all(bert, allocation):
    for scale, layer in enumerate(["layer_0_query", "layer_1_ffn_output"]):
        bert.get_layer(layer).kernel.assign(bert.get_layer(layer).kernel * (3 + scale))
    found = encoder(sparsities(prune(bert, allocation=allocation)))
    sizes = {name: bert.get_layer(name).kernel.shape.num_elements() for name in found}
    overall = sum(found[n] * sizes[n] for n in found) / sum(sizes.values())
    assert overall == pytest.approx(0.5, abs=1e-3)
    assert max(found.values()) - min(found.values()) > 0.1
    if allocation == "global":  # large weights are kept, wherever they are
        assert min(found, key=found.get) == "layer_1_ffn_output"
    else:  # large kernels bear more
        assert found["layer_0_intermediate"] > found["layer_0_query"]


def test_layers_have_shares_of_their_own(bert):
    found = sparsities(prune(bert, sparsities={"query|key": 0.25, "layer_1": 0},
                             leave=("ffn_output",)))
    assert encoder(found) == {
        f"layer_{i}_{role}": share if i == 0 or role in ("query", "key") else 0
        for i in range(2) for role, share in {
            "query": 0.25, "key": 0.25, "value": 0.5, "attention_output": 0.5,
            "intermediate": 0.5, "ffn_output": 0}.items()}


def test_only_names_any_layer_with_a_kernel(bert):
    found = sparsities(prune(bert, only=("token_embedding", "pooler")))
    assert {name for name, value in found.items() if value} == {
        "token_embedding", "pooler"}
    assert found["pooler"] == 0.5


@pytest.mark.parametrize("pattern", ["4x1", "1x4", "8x8", "2:4", "4:8", "rows",
                                     "columns"])
def test_patterns_in_a_bert(bert, pattern):
    pruned = prune(bert, pattern=pattern)
    assert set(encoder(sparsities(pruned)).values()) == {0.5}
    kernel = pruned.get_layer("layer_0_query").get_weights()[0]
    if pattern == "2:4":
        groups = (kernel.T.reshape(-1, 4) != 0).sum(axis=1)
        assert set(groups) == {2}
    if pattern == "rows":
        assert set(np.mean(kernel == 0, axis=1)) == {0.0, 1.0}
    if pattern == "columns":
        assert set(np.mean(kernel == 0, axis=0)) == {0.0, 1.0}


@pytest.mark.parametrize("name,settings", [
    *((name, {"mixed_precision": "mixed_bfloat16"}) for name in PRUNERS),
    ("magnitude", {"jit_compile": True}), ("taylor", {"jit_compile": True}),
    ("movement", {"clip_norm": None})])
def test_settings_of_training(name, settings, short_bert, tiny_batches):
    pruning = PRUNERS[name](final_sparsity=0.5, begin_step=1, end_step=4, frequency=2)
    outcome, = compress.run(short_bert, Recipe(passes=(pruning,)), Context(
        train=tiny_batches, settings=Settings(epochs=1, **settings)))
    assert set(encoder(sparsities(outcome.model)).values()) == {0.5}
    assert all(layer.dtype == "float32" for layer in outcome.model.weights)


@pytest.mark.parametrize("name", PRUNERS)
def test_a_run_resumed_within_the_ramp_ends_with_the_same_bits(
        name, short_bert, tiny_batches, tmp_path):
    pruning = PRUNERS[name](final_sparsity=0.6, begin_step=1, end_step=9, frequency=3)

    class Killed(Exception):
        pass

    class Kill(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 8:
                raise Killed

    def fit(state_dir, *callbacks):
        wrapped = pruning.wrap(short_bert)
        tfopt.train.fit(wrapped, tiny_batches, None, Settings(epochs=2),
                        callbacks=[*pruning.callbacks(), *callbacks],
                        state_dir=state_dir)
        return pruning.strip(wrapped)

    whole = fit(tmp_path / "whole")
    with pytest.raises(Killed):
        fit(tmp_path / "killed", Kill())
    resumed = fit(tmp_path / "killed")
    for ours, theirs in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert set(encoder(sparsities(whole)).values()) <= {154 / 256, 307 / 512}


def test_tfmot_takes_our_wrappers_for_its_own(bert):
    pruning = Magnitude(final_sparsity=0.5, end_step=1)
    wrapped = pruning.wrap(bert)
    assert len(wrappers_of(wrapped)) == 12
    stripped = tfmot.sparsity.keras.strip_pruning(wrapped)
    assert not any(isinstance(layer, Pruned) for layer in stripped.layers)
    assert models.config_of(stripped) == models.config_of(bert)


def test_a_wrapped_model_saves_and_loads(bert, tmp_path):
    pruning = Movement(final_sparsity=0.5, begin_step=1, end_step=1)
    wrapped = pruning.wrap(bert)
    for wrapper in wrappers_of(wrapped).values():
        wrapper.mask.assign(tf.ones_like(wrapper.mask) * 0.0)
    wrapped.save(tmp_path / "wrapped.keras")
    loaded = keras.models.load_model(tmp_path / "wrapped.keras")
    assert {type(w.scores()) for w in wrappers_of(loaded).values()} == {np.ndarray}
    assert set(encoder(sparsities(pruning.strip(loaded))).values()) == {1.0}


def test_embedding_and_conv_of_another_model():
    entry = keras.Input([8], dtype=tf.int32)
    x = keras.layers.Embedding(20, 8, name="words")(entry)
    x = keras.layers.Conv1D(4, 3, name="conv")(x)
    x = keras.layers.Dense(2, name="head")(keras.layers.GlobalMaxPool1D()(x))
    model = keras.Model(entry, x)
    pruning = Movement(final_sparsity=0.5, begin_step=1, end_step=2, frequency=1,
                       only=("words", "conv"))
    wrapped = pruning.wrap(model)
    wrapped.compile("adam", keras.losses.SparseCategoricalCrossentropy(True))
    wrapped.fit(np.arange(32).reshape(4, 8) % 20, np.array([0, 1, 0, 1]), epochs=3,
                verbose=0, callbacks=pruning.callbacks())
    small = pruning.strip(wrapped)
    for name, share in (("words", 0.5), ("conv", 0.5), ("head", 0)):
        assert np.mean(small.get_layer(name).get_weights()[0] == 0) == share


@pytest.mark.parametrize("fields,received", [
    ({"final_sparsity": None}, "final_sparsity=None"),
    ({"pattern": "2:4", "final_sparsity": 0.7}, "final_sparsity=0.7"),
    ({"pattern": "4:2", "final_sparsity": None}, "pattern='4:2'"),
    ({"pattern": "2:4", "allocation": "global"}, "allocation='global'"),
    ({"pattern": "2:4", "sparsities": {"query": 0.1}}, "sparsities={'query': 0.1}"),
    ({"allocation": "global", "sparsities": {"query": 0.1}}, "allocation='global'"),
    ({"schedule": "cosine"}, "schedule='cosine'"),
])
def test_fields_that_contradict_each_other_are_refused(fields, received):
    with pytest.raises(ValueError) as error:
        Magnitude(**{"final_sparsity": 0.5, **fields})
    assert str(error.value).endswith(f"Received: {received}")


@pytest.mark.parametrize("fields,message", [
    ({"only": ("qwery",)}, "Received: 'qwery', of layers"),
    ({"leave": ("qwery",)}, "Received: 'qwery', of layers"),
    ({"sparsities": {"qwery": 0.1}}, "Received: 'qwery', of layers"),
    ({"leave": (".",)}, "Received: layers"),
    ({"pattern": "64x64"}, r"layer 'layer_0_query' with a kernel of shape \(16, 16\)"),
])
def test_a_model_that_it_does_not_fit_is_refused(fields, message, bert):
    with pytest.raises(ValueError, match=message):
        prune(bert, **fields)


def test_a_layer_used_twice_is_refused():
    entry = keras.Input([4])
    twice = keras.layers.Dense(4, name="twice")
    model = keras.Model(entry, twice(twice(entry)))
    with pytest.raises(ValueError, match="Received: layer 'twice'"):
        prune(model)


@pytest.fixture
def half_precision():
    """A model under mixed_float16, its loss scaled as Keras wants it."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    yield keras.Sequential([keras.Input([4]), keras.layers.Dense(8, name="hidden"),
                            keras.layers.Dense(2, dtype="float32", name="head")])
    keras.mixed_precision.set_global_policy("float32")


def test_mixed_float16_prunes_by_magnitude(half_precision):
    pruning = Magnitude(final_sparsity=0.5, end_step=2, frequency=1)
    wrapped = pruning.wrap(half_precision)
    wrapped.compile(keras.mixed_precision.LossScaleOptimizer(
        keras.optimizers.Adam(0.01)), "mse")
    losses = wrapped.fit(np.eye(4), np.ones([4, 2]), epochs=20, verbose=0,
                         callbacks=pruning.callbacks()).history["loss"]
    assert losses[-1] < losses[0]
    small = pruning.strip(wrapped)
    assert [np.mean(small.get_layer(name).get_weights()[0] == 0)
            for name in ("hidden", "head")] == [0.5, 0.5]


def test_mixed_float16_is_refused_where_gradients_are_gathered(half_precision):
    pruning = Movement(final_sparsity=0.5, begin_step=1, end_step=2)
    with pytest.raises(ValueError, match="mixed_bfloat16. Received: layer 'hidden' of "
                                         "mixed_float16$"):
        pruning.wrap(half_precision)


def test_a_gathered_score_cannot_prune_before_it_is_gathered(bert):
    with pytest.raises(ValueError, match="'movement'.*Received: begin_step=0$"):
        Movement(final_sparsity=0.5).prune_at_once(bert)


class TestCompressModel:
    def test_without_data_it_prunes_at_once(self, bert):
        small = tfopt.compress_model(bert, 0.5)
        assert set(encoder(sparsities(small)).values()) == {0.5}
        assert set(encoder(sparsities(bert)).values()) == {0.0}
        bias = small.get_layer("layer_0_query").get_weights()[1]
        np.testing.assert_array_equal(bias, bert.get_layer("layer_0_query")
                                      .get_weights()[1])

    def test_a_pattern_knows_its_sparsity(self, bert):
        small = tfopt.compress_model(bert, pattern="1:4")
        assert set(encoder(sparsities(small)).values()) == {0.75}

    @pytest.mark.parametrize("as_dataset", [False, True])
    def test_with_data_it_trains(self, bert, tiny_batches, as_dataset):
        train = tiny_batches
        if as_dataset:
            train = tiny_batches.dataset().apply(
                tf.data.experimental.assert_cardinality(tiny_batches.steps_per_epoch))
        small = tfopt.compress_model(bert, 0.8, train=train, dev=train,
                                     score="movement", begin_step=1,
                                     settings=Settings(epochs=2))
        for name, value in encoder(sparsities(small)).items():
            assert value == pytest.approx(0.8, abs=2e-3), name
        assert np.any(small.get_layer("pooler").get_weights()[0]
                      != bert.get_layer("pooler").get_weights()[0])

    def test_mistakes_are_told(self, bert, tiny_batches):
        with pytest.raises(ValueError, match="Received: score='truncate'$"):
            tfopt.compress_model(bert, 0.5, score="truncate")
        with pytest.raises(ValueError, match="Received: final_sparsity=1.5$"):
            tfopt.compress_model(bert, 1.5)
        endless = tiny_batches.dataset().repeat()
        with pytest.raises(ValueError, match="Received: cardinality -1$"):
            tfopt.compress_model(bert, 0.5, train=endless)
