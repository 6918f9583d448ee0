"""Recognizers: windows of speech to text, by torch or ONNX Runtime."""
