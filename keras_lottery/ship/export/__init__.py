"""From a ticket or a Keras model to a file that ships, with a report measured on it."""

from keras_lottery.ship.export.arm_padding import adapt_for_xnnpack
from keras_lottery.ship.export.errors import ExportError
from keras_lottery.ship.export.files import check_file
from keras_lottery.ship.export.keras_file import to_keras
from keras_lottery.ship.export.litert import to_litert
from keras_lottery.ship.export.micro import MicroReport, to_c_array
from keras_lottery.ship.export.other_runtimes import to_onnx, to_openvino
from keras_lottery.ship.export.report import ExportReport
from keras_lottery.ship.export.saved_model import to_saved_model
from keras_lottery.ship.export.sparse_on_arm import SparseReport, explain_sparse

__all__ = [
    "ExportError",
    "ExportReport",
    "MicroReport",
    "SparseReport",
    "adapt_for_xnnpack",
    "check_file",
    "explain_sparse",
    "to_c_array",
    "to_keras",
    "to_litert",
    "to_onnx",
    "to_openvino",
    "to_saved_model",
]
