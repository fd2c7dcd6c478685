"""Deep Compression: shared weights, and files of entropy-coded models.

Reference:
    Han, Mao & Dally 2015, "Deep Compression".
"""

from keras_lottery.compress.file import load_compressed, save_compressed
from keras_lottery.compress.report import CompressionReport

__all__ = [
    "CompressionReport",
    "load_compressed",
    "save_compressed",
]
