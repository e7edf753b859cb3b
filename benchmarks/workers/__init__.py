"""Processes that take training steps for benchmarks.train_step, each in one framework.

None but in_minidl imports minidl: the others run in interpreters that need not have it.
"""
