"""Export: Model -> bytes (`tflite`), and the LiteRT runner (`interpreter`)."""
