"""Children to verified ONNX files."""
