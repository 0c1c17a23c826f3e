"""Validation: rules that look at every example of an ingestion, each with a severity.

Rules are plug-ins; what they find is kept with the commit and shown in its report. Memory is
bounded however much data there is.
"""

from kubeloop.datasets.validation import contents, labels, texts  # each registers its rules
from kubeloop.datasets.validation.base import RULES, Rule, RuleContext
from kubeloop.datasets.validation.validation import Validation

__all__ = ["RULES", "Rule", "RuleContext", "Validation", "contents", "labels", "texts"]
