"""A run as one page of HTML, and its figures as files."""

from keras_lottery.study.report.write import write_report

__all__ = ["write_report"]
