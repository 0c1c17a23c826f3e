"""Contract tests for plug points; may import anything, nothing imports it."""
