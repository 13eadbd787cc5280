"""ONNX Runtime: molecules in, named values with units out. Knows no torch."""
