"""What a saved model may be made of: names that Keras may look up in its configuration.

Nothing here runs code of a file's choice, or reads or writes a file: no `Lambda`, no
layer that looks words up in a file or holds a SavedModel, no TensorFlow function but
those of `TF_FUNCTIONS`, which compute.
"""

from __future__ import annotations

_LAYERS = """
InputLayer Dense EinsumDense Embedding Activation Masking Permute Reshape Flatten
RepeatVector ActivityRegularization Dropout SpatialDropout1D SpatialDropout2D
GaussianNoise GaussianDropout AlphaDropout Add Subtract Multiply Average Maximum Minimum
Concatenate Dot LayerNormalization BatchNormalization UnitNormalization
GroupNormalization ReLU LeakyReLU PReLU ELU ThresholdedReLU Softmax Rescaling Conv1D
Conv2D SeparableConv1D SeparableConv2D DepthwiseConv1D DepthwiseConv2D Conv1DTranspose
Conv2DTranspose MaxPooling1D MaxPooling2D AveragePooling1D AveragePooling2D
GlobalMaxPooling1D GlobalMaxPooling2D GlobalAveragePooling1D GlobalAveragePooling2D
UpSampling1D UpSampling2D ZeroPadding1D ZeroPadding2D Cropping1D Cropping2D LSTM GRU
SimpleRNN LSTMCell GRUCell SimpleRNNCell RNN StackedRNNCells Bidirectional
TimeDistributed MultiHeadAttention Attention AdditiveAttention
"""
_INITIALIZERS = """
Zeros Ones Constant RandomNormal RandomUniform TruncatedNormal VarianceScaling
Orthogonal Identity GlorotUniform GlorotNormal HeUniform HeNormal LecunUniform
LecunNormal
"""
_ACTIVATIONS = """
elu exponential gelu hard_sigmoid linear mish relu selu sigmoid softmax softplus
softsign swish tanh
"""
_FUNCTIONAL = "tf_keras.src.engine.functional"
_TFMOT = "tensorflow_model_optimization.python.core."
# Of a configuration without them, as Keras wrote it once, only the class is looked at.
CLASSES: dict[str, frozenset[str]] = {
    module: frozenset(names.split()) for module, names in {
        "keras": "Sequential",
        _FUNCTIONAL: "Functional",
        "keras.layers": _LAYERS,
        "keras.initializers": _INITIALIZERS,
        "keras.regularizers": "L1 L2 L1L2",
        "keras.constraints": "MaxNorm NonNeg UnitNorm MinMaxNorm RadialConstraint",
        "keras.mixed_precision": "Policy",
        "keras.optimizers": "Adam AdamW SGD RMSprop Adagrad Nadam Adamax",
        "keras.losses": "BinaryCrossentropy CategoricalCrossentropy Huber "
                        "SparseCategoricalCrossentropy MeanSquaredError",
        _TFMOT + "sparsity.keras.pruning_wrapper": "PruneLowMagnitude",
        _TFMOT + "quantization.keras.quantize_wrapper": "QuantizeWrapperV2",
        _TFMOT + "sparsity.keras.pruning_schedule": "ConstantSparsity PolynomialDecay",
    }.items()}
NESTED = frozenset({"Functional", "Sequential"})
FUNCTIONS = frozenset(_ACTIVATIONS.split())
FUNCTION_MODULES = frozenset({None, "builtins", "keras.activations"})
# Modules of tfopt that have classes of saved models; what they register is known.
OUR_MODULES = ("tfopt.model.layers", "tfopt.model.attention",
               "tfopt.model.relative", "tfopt.model.inference_layers",
               "tfopt.model.quantized_layers",
               "tfopt.xla", "tfopt.sparse.layer", "tfopt.compress.pruning.masked_layer",
               "tfopt.compress.pruning.schedules", "tfopt.compress.qat.configs")
# Those that had another name in the first edition, whose files open still.
MOVED = {"tfopt.model.quantized": "tfopt.model.quantized_layers",
         "tfopt.compress.wrapper": "tfopt.compress.pruning.masked_layer",
         "tfopt.compress.quantization": "tfopt.compress.qat.configs"}
# Layers that Keras makes of arithmetic on its tensors, such as x[:, 0] and x + y.
OPERATION_LAYERS = {"TFOpLambda", "SlicingOpLambda"}
OPERATION_MODULE = "tf_keras.src.layers.core.tf_op_layer"
TF_FUNCTIONS = frozenset("""
__operators__.add __operators__.getitem math.add math.subtract math.multiply math.divide
math.truediv math.negative math.pow math.square math.sqrt math.rsqrt math.exp math.log
math.abs math.maximum math.minimum math.tanh math.sigmoid math.reduce_mean
math.reduce_sum math.reduce_max math.reduce_min math.not_equal math.equal math.greater
math.less math.logical_not math.logical_and math.logical_or nn.relu nn.gelu nn.softmax
nn.silu nn.l2_normalize linalg.matmul cast concat expand_dims squeeze reshape transpose
stack where identity clip_by_value
""".split())
# Of numbers within a configuration.
NUMBERS = frozenset({"float16", "bfloat16", "float32", "float64", "int8", "int16",
                     "int32", "int64", "uint8", "bool"})
