"""ONNX models to graphs; see frontend/README.md."""

from edgec.frontend.onnx.importer import read_onnx

__all__ = ["read_onnx"]
