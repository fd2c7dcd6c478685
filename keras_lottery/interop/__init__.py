"""Models of other libraries, carried over."""

from keras_lottery.interop import tfmot

__all__ = ["tfmot"]
