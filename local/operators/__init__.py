"""Operators: one level-triggered reconciler a kind, run by `controller.Controller`."""
