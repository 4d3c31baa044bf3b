"""The tables of a `.tflite` and its operations, as far as LiteRT reads them.

After `schema.fbs` of LiteRT; `tests/export/test_verify.py` holds them against the
reader that is generated from it. "-" is a field that is out of use.
"""

from __future__ import annotations

_TABLES = """
Model: version:I operator_codes:[OperatorCode] subgraphs:[SubGraph] description:string
  buffers:[Buffer] metadata_buffer:[i] metadata:[Metadata] signature_defs:[SignatureDef]
  external_buffer_groups:[ExternalBufferGroup] external_buffers:[ExternalBuffer]
OperatorCode: deprecated_builtin_code:b custom_code:string version:i builtin_code:i
SubGraph: tensors:[Tensor] inputs:[i] outputs:[i] operators:[Operator] name:string
  debug_metadata_index:i
Buffer: data:[B] offset:Q size:Q
Metadata: name:string buffer:I
SignatureDef: inputs:[TensorMap] outputs:[TensorMap] signature_key:string -
  subgraph_index:I
TensorMap: name:string tensor_index:I
ExternalBufferGroup: name:string
ExternalBuffer: id:I group:I offset:Q length:Q packing:string
Tensor: shape:[i] type:b buffer:I name:string quantization:QuantizationParameters
  is_variable:? sparsity:SparsityParameters shape_signature:[i] has_rank:?
  variant_tensors:[VariantSubType] external_buffer:I
VariantSubType: shape:[i] type:b has_rank:?
QuantizationParameters: min:[f] max:[f] scale:[f] zero_point:[q] details_type:B
  details:union quantized_dimension:i
CustomQuantization: custom:[B]
BlockwiseQuantization: scales:i zero_points:i block_size:i block_shape:[i]
MultiAxisQuantization: scales:i zero_points:i block_size:i quantized_dimensions:[i]
SparsityParameters: traversal_order:[i] block_map:[i] dim_metadata:[DimensionMetadata]
DimensionMetadata: format:b dense_size:i array_segments_type:B array_segments:union
  array_indices_type:B array_indices:union
Int32Vector: values:[i]
Uint16Vector: values:[H]
Uint8Vector: values:[B]
Operator: opcode_index:I inputs:[i] outputs:[i] builtin_options_type:B
  builtin_options:union custom_options:[B] custom_options_format:b
  mutating_variable_inputs:[?] intermediates:[i] large_custom_options_offset:Q
  large_custom_options_size:Q builtin_options_2_type:B builtin_options_2:union
  debug_metadata_index:i
Conv2DOptions: padding:b stride_w:i stride_h:i fused_activation_function:b
  dilation_w_factor:i dilation_h_factor:i quantized_bias_type:b
DepthwiseConv2DOptions: padding:b stride_w:i stride_h:i depth_multiplier:i
  fused_activation_function:b dilation_w_factor:i dilation_h_factor:i
TransposeConvOptions: padding:b stride_w:i stride_h:i fused_activation_function:b
  quantized_bias_type:b
Pool2DOptions: padding:b stride_w:i stride_h:i filter_width:i filter_height:i
  fused_activation_function:b
FullyConnectedOptions: fused_activation_function:b weights_format:b keep_num_dims:?
  asymmetric_quantize_inputs:? quantized_bias_type:b quant_spec:[B]
UnidirectionalSequenceLSTMOptions: fused_activation_function:b cell_clip:f proj_clip:f
  time_major:? asymmetric_quantize_inputs:? diagonal_recurrent_tensors:?
BatchMatMulOptions: adj_x:? adj_y:? asymmetric_quantize_inputs:?
SoftmaxOptions: beta:f
ConcatenationOptions: axis:i fused_activation_function:b
AddOptions: fused_activation_function:b pot_scale_int16:?
SubOptions: fused_activation_function:b pot_scale_int16:?
MulOptions: fused_activation_function:b
DivOptions: fused_activation_function:b
L2NormOptions: fused_activation_function:b
ReshapeOptions: new_shape:[i]
GatherOptions: axis:i batch_dims:i
ReducerOptions: keep_dims:?
SqueezeOptions: squeeze_dims:[i]
SplitOptions: num_splits:i
SplitVOptions: num_splits:i
StridedSliceOptions: begin_mask:i end_mask:i ellipsis_mask:i new_axis_mask:i
  shrink_axis_mask:i offset:?
CastOptions: in_data_type:b out_data_type:b
ArgMaxOptions: output_type:b
ArgMinOptions: output_type:b
ShapeOptions: out_type:b
FakeQuantOptions: min:f max:f num_bits:i narrow_range:?
PackOptions: values_count:i axis:i
UnpackOptions: num:i axis:i
OneHotOptions: axis:i
LeakyReluOptions: alpha:f
MirrorPadOptions: mode:b
ReverseSequenceOptions: seq_dim:i batch_dim:i
CumsumOptions: exclusive:? reverse:?
GeluOptions: approximate:?
IfOptions: then_subgraph_index:i else_subgraph_index:i
WhileOptions: cond_subgraph_index:i body_subgraph_index:i
"""

# Name, code, options (a "-" where it has none), inputs, outputs: a number; "2-3", of
# which the last may be -1, for none; "1/2", of which none may; "1-" for any from 1.
# What a text model may compute; the rest of LiteRT's need not be reached from a file.
_OPERATIONS = """
ADD 0 Add 2 1; SUB 41 Sub 2 1; MUL 18 Mul 2 1; DIV 42 Div 2 1; POW 78 Pow 2 1
MAXIMUM 55 MaximumMinimum 2 1; MINIMUM 57 MaximumMinimum 2 1; FLOOR_DIV 90 FloorDiv 2 1
FLOOR_MOD 95 FloorMod 2 1; SQUARED_DIFFERENCE 99 SquaredDifference 2 1; PRELU 54 - 2 1
LESS 58 Less 2 1; LESS_EQUAL 63 LessEqual 2 1; GREATER 61 Greater 2 1
GREATER_EQUAL 62 GreaterEqual 2 1; EQUAL 71 Equal 2 1; NOT_EQUAL 72 NotEqual 2 1
LOGICAL_OR 84 LogicalOr 2 1; LOGICAL_AND 86 LogicalAnd 2 1
LOGICAL_NOT 87 LogicalNot 1 1
SELECT 64 Select 3 1; SELECT_V2 123 SelectV2 3 1
FLOOR 8 - 1 1; CEIL 104 - 1 1; ROUND 116 - 1 1; ABS 101 Abs 1 1; NEG 59 Neg 1 1
SIGN 158 Sign 1 1; EXP 47 Exp 1 1; LOG 73 - 1 1; SQRT 75 - 1 1; RSQRT 76 - 1 1
SQUARE 92 Square 1 1; SIN 66 - 1 1; COS 108 Cos 1 1; TANH 28 - 1 1; LOGISTIC 14 - 1 1
RELU 19 - 1 1; RELU_N1_TO_1 20 - 1 1; RELU6 21 - 1 1; RELU_0_TO_1 152 - 1 1
ELU 111 - 1 1; GELU 150 Gelu 1 1; HARD_SWISH 117 HardSwish 1 1
LEAKY_RELU 98 LeakyRelu 1 1; SOFTMAX 25 Softmax 1 1; LOG_SOFTMAX 50 LogSoftmax 1 1
L2_NORMALIZATION 11 L2Norm 1 1; CAST 53 Cast 1 1; QUANTIZE 114 Quantize 1 1
DEQUANTIZE 6 Dequantize 1 1; FAKE_QUANT 80 FakeQuant 1 1; DENSIFY 124 Densify 1 1
ZEROS_LIKE 93 ZerosLike 1 1; SHAPE 77 Shape 1 1; RANK 110 Rank 1 1
FULLY_CONNECTED 9 FullyConnected 2-3 1; BATCH_MATMUL 126 BatchMatMul 2 1
CONV_2D 3 Conv2D 2-3 1; DEPTHWISE_CONV_2D 4 DepthwiseConv2D 2-3 1
TRANSPOSE_CONV 67 TransposeConv 3-4 1; AVERAGE_POOL_2D 1 Pool2D 1 1
MAX_POOL_2D 17 Pool2D 1 1; L2_POOL_2D 12 Pool2D 1 1
UNIDIRECTIONAL_SEQUENCE_LSTM 44 UnidirectionalSequenceLSTM 1-24 1
EMBEDDING_LOOKUP 7 - 2 1; GATHER 36 Gather 2 1; GATHER_ND 107 GatherNd 2 1
ONE_HOT 85 OneHot 4 1; SCATTER_ND 122 ScatterNd 3 1
DYNAMIC_UPDATE_SLICE 151 DynamicUpdateSlice 3 1; WHERE 109 Where 1 1
RESHAPE 22 Reshape 1/2 1; TRANSPOSE 39 Transpose 2 1; SQUEEZE 43 Squeeze 1 1
EXPAND_DIMS 70 ExpandDims 2 1; BROADCAST_TO 130 BroadcastTo 2 1
BROADCAST_ARGS 145 - 2 1; FILL 94 Fill 2 1; RANGE 96 Range 3 1; TILE 69 Tile 2 1
SLICE 65 Slice 3 1; STRIDED_SLICE 45 StridedSlice 4 1; PAD 34 Pad 2 1
PADV2 60 PadV2 3 1; MIRROR_PAD 100 MirrorPad 2 1; REVERSE_V2 105 ReverseV2 2 1
REVERSE_SEQUENCE 112 ReverseSequence 2 1; SPACE_TO_BATCH_ND 38 SpaceToBatchND 3 1
BATCH_TO_SPACE_ND 37 BatchToSpaceND 3 1; CONCATENATION 2 Concatenation 1- 1
PACK 83 Pack 1- 1; UNPACK 88 Unpack 1 1-; SPLIT 49 Split 2 1-; SPLIT_V 102 SplitV 3 1-
ADD_N 106 AddN 1- 1; MEAN 40 Reducer 2 1; SUM 74 Reducer 2 1
REDUCE_PROD 81 Reducer 2 1; REDUCE_MAX 82 Reducer 2 1; REDUCE_MIN 89 Reducer 2 1
REDUCE_ANY 91 Reducer 2 1; REDUCE_ALL 140 Reducer 2 1; CUMSUM 128 Cumsum 2 1
ARG_MAX 56 ArgMax 2 1; ARG_MIN 79 ArgMin 2 1; TOPK_V2 48 TopKV2 2 2
IF 118 If 1- 1-; WHILE 119 While 1- 1-
"""

# The members of each union by number, from 1.
_OPTIONS = """
Conv2D DepthwiseConv2D ConcatEmbeddings LSHProjection Pool2D SVDF RNN FullyConnected
Softmax Concatenation Add L2Norm LocalResponseNormalization LSTM ResizeBilinear Call
Reshape SkipGram SpaceToDepth EmbeddingLookupSparse Mul Pad Gather BatchToSpaceND
SpaceToBatchND Transpose Reducer Sub Div Squeeze SequenceRNN StridedSlice Exp TopKV2
Split LogSoftmax Cast Dequantize MaximumMinimum ArgMax Less Neg PadV2 Greater
GreaterEqual LessEqual Select Slice TransposeConv SparseToDense Tile ExpandDims Equal
NotEqual Shape Pow ArgMin FakeQuant Pack LogicalOr OneHot LogicalAnd LogicalNot Unpack
FloorDiv Square ZerosLike Fill BidirectionalSequenceLSTM BidirectionalSequenceRNN
UnidirectionalSequenceLSTM FloorMod Range ResizeNearestNeighbor LeakyRelu
SquaredDifference MirrorPad Abs SplitV Unique ReverseV2 AddN GatherNd Cos Where Rank
ReverseSequence MatrixDiag Quantize MatrixSetDiag HardSwish If While DepthToSpace
NonMaxSuppressionV4 NonMaxSuppressionV5 ScatterNd SelectV2 Densify SegmentSum
BatchMatMul Cumsum CallOnce BroadcastTo Rfft2d Conv3D Hashtable HashtableFind
HashtableImport HashtableSize VarHandle ReadVariable AssignVariable Random Bucketize
Gelu
DynamicUpdateSlice UnsortedSegmentProd UnsortedSegmentMax UnsortedSegmentMin
UnsortedSegmentSum ATan2 Sign Bitcast BitwiseXor RightShift
"""


MANY = 1 << 30  # inputs or outputs


def read_tables(text: str) -> dict[str, list[tuple[str, str]]]:
    """Tables written as `Table: field:type ...` -> their fields, as of `TABLES`."""
    tables: dict[str, list[tuple[str, str]]] = {}
    for word in text.split():
        if word.endswith(":"):
            fields = tables[word[:-1]] = []
        else:
            name, _, kind = word.partition(":")
            fields.append((name, kind))
    return tables


def _count(text: str) -> tuple[int, int, int]:
    """The least and the most of "2", "2-3", "1/2" or "1-"; from where -1 may stand."""
    low, dash, high = text.replace("/", "-").partition("-")
    most = int(high) if high else (MANY if dash else int(low))
    return int(low), most, int(low) if high and "-" in text else MANY


# Table -> its fields in order: name and type, which is a letter of `struct`, "string",
# another table, "union" (of the kind that the field before says), or one in brackets.
TABLES = read_tables(_TABLES)
# Field of a union -> the tables it may be, by number; others have no fields here.
_VECTORS = ["", "Int32Vector", "Uint16Vector", "Uint8Vector"]
UNIONS = {
    "builtin_options": ["", *(f"{name}Options" for name in _OPTIONS.split())],
    "details": ["", "CustomQuantization", "BlockwiseQuantization",
                "MultiAxisQuantization"],
    "array_segments": _VECTORS, "array_indices": _VECTORS}
# Code of an operation -> name, table of its options, least and most inputs and outputs.
OPERATIONS = {
    int(code): (name, "" if options == "-" else f"{options}Options",
                _count(inputs), _count(outputs))
    for name, code, options, inputs, outputs in (
        row.split() for row in _OPERATIONS.replace("\n", ";").split(";") if row)}
# Bits of a number, by the type of a tensor; a text model has no others.
BITS = {0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 9: 8, 10: 64, 12: 64, 15: 32,
        16: 16, 17: 4, 18: 16, 19: 2, 20: 4}
