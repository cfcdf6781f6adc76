"""Measuring a classifier: every image counted once, whatever the batch or the devices."""
