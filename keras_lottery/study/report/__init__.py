"""A run as one page of HTML, or several side by side, and their figures as files."""

from keras_lottery.study.report.compare import compare_runs
from keras_lottery.study.report.write import write_report

__all__ = ["compare_runs", "write_report"]
