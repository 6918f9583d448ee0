"""Recognizers: convert windows of speech to text with torch or ONNX Runtime."""
