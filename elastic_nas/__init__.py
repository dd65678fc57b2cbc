"""Train one supernet; get the best child within a latency budget as a verified ONNX file."""
