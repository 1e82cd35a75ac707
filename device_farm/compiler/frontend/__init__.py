"""Networks of other frameworks -> the compiler's graph and its weights. Every error names layer, operator, way out."""

from device_farm.compiler.frontend.onnx_model import import_onnx
from device_farm.compiler.frontend.torch_module import import_module
from device_farm.compiler.frontend.walk import Imported

__all__ = ["Imported", "import_module", "import_onnx"]
